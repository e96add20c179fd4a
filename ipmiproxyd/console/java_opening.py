"""Opening a console of type ``java``: the vendor's own Java program, fetched from the BMC's panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.logger import Logger

from ipmiproxyd.console.opening import Serve, Workshop, at_panel, start_job
from ipmiproxyd.console.reach import reach_of
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.console.web_sessions import KIND as WEB_SESSION
from ipmiproxyd.console.web_sessions import WebSessions
from ipmiproxyd.errors import BmcUnsupported, JobFailed
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Reach
from ipmiproxyd.tools.java import JavaProgram
from ipmiproxyd.tools.java_console import JavaConsoles
from ipmiproxyd.tools.java_profiles import Java, cause, next_java
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.talk import WebSession
from ipmiproxyd.wire.jnlp import Jnlp, parse
from ipmiproxyd.wire.jnlp_ports import named_ports

log = Logger()


class JavaOpening:
    """The stages: recognise the panel, sign in, take the description of the console, fetch its files, run it."""

    def __init__(
        self,
        workshop: Workshop,
        serve: Serve,
        desk: VendorDesk,
        web: WebSessions,
        javas: JavaConsoles,
        program: JavaProgram,
    ) -> None:
        self._shop = workshop
        self._serve = serve
        self._desk = desk
        self._web = web
        self._javas = javas
        self._program = program

    async def __call__(self, session: ConsoleSession) -> None:
        async with at_panel(session, self._shop, self._serve) as addresses:
            await self._open(session, addresses)

    async def _open(self, session: ConsoleSession, addresses: Mapping[str, str]) -> None:
        agent = self._shop.agents[session.request.agent]
        device = session.request.device
        family = (await self._desk.family(agent, device)).family
        if "java" not in family.consoles:
            kinds = "html5 or panel" if "html5" in family.consoles else "panel"
            raise BmcUnsupported(f"{family.label} has no Java console.", hint=f"Use type={kinds}.")
        installed = await self._javas.installed(agent)
        web = await self._web.sign_in(session, agent, family)
        session.stage("jnlp", "Asking the panel for its Java console")
        raw = await self._shop.panels.talk(agent, device, lambda site: family.jnlp(site, web))
        jnlp = parse(raw, base=device.web_url, allowed=(device.address,))
        if family.signs_out == "after-jnlp" and not await session.ledger.give_back(WEB_SESSION):
            session.has.slot_since = None
        reach = reach_of(device, addresses, (*family.java_ports, *named_ports(jnlp)))
        await self._run(session, agent, family, web, jnlp, installed, reach)

    async def _run(
        self, session: ConsoleSession, agent: Agent, family: Family, web: WebSession, jnlp: Jnlp,
        installed: Sequence[Java], reach: tuple[Reach, ...],
    ) -> None:  # fmt: skip
        java = await self._java(session, agent, family, jnlp, installed)
        tried = [java]
        while True:
            session.has.java = java.home  # before it runs: nobody may remove it now
            session.stage("files", "Fetching the console's program")
            device = session.request.device
            kit = await self._javas.kit(agent, device, web, jnlp, java, installed)
            program, files = self._program.programs(jnlp, java=java.home, major=java.major, jars=kit.jars)
            window = ("java", f"Starting the console with Java {java.major}")
            try:
                await start_job(
                    session, self._shop, (program,), files, window=window, reach=reach, library=kit.library,
                    java=java.home,
                )  # fmt: skip
            except JobFailed as error:
                why = cause(error.message)
                other = None if why is None else next_java(why, tried, installed)
                if why is None:
                    raise
                if other is None:
                    raise JobFailed(f"{why.words} {error.message}", hint=why.hint or None) from None
                words = f"With {java.label} the console has not started: {why.words} {other.label} was tried next."
                log.info("console {console}: {words}", console=session.id, words=words)
                session.has.warnings.append(words)
                await session.ledger.give_back("job")
                await session.ledger.give_back("display")
                java = other
                tried.append(java)
            else:
                if len(tried) > 1:
                    await self._javas.remember(family.key, jnlp, tried[:-1], java)
                return

    async def _java(
        self, session: ConsoleSession, agent: Agent, family: Family, jnlp: Jnlp, installed: Sequence[Java]
    ) -> Java:
        """The Java that was chosen, or the one that had to take its place for this program before."""

        own = session.request.device.java
        java, words = await self._javas.choice(agent, installed, device=own, liked=family.java)
        if words:
            session.has.warnings.append(words)
        other = await self._javas.instead(family.key, jnlp, java, installed)
        if other is None:
            return java
        if own:
            words = f"This console's program has not run with {java.label}, but with {other.label}, which is used."
            session.has.warnings.append(words)
        return other
