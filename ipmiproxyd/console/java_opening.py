"""Opening a console of type ``java``: the vendor's own Java program, fetched from the BMC's panel."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from ipmiproxyd.console.opening import Serve, Workshop, serve_page, start_job
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.console.web_sessions import KIND as WEB_SESSION
from ipmiproxyd.console.web_sessions import WebSessions
from ipmiproxyd.errors import BmcUnsupported, JobFailed
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.tools.java import JavaProgram
from ipmiproxyd.tools.java_console import JavaConsoles
from ipmiproxyd.tools.java_profiles import Java, cause, next_java
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.talk import WebSession
from ipmiproxyd.wire.jnlp import Jnlp, parse

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
        await serve_page(session, self._serve)
        agent = self._shop.agents[session.request.agent]
        device = session.request.device
        session.stage("panel", "Contacting the server's management panel")
        family = (await self._desk.family(agent, device)).family
        if "java" not in family.consoles:
            kinds = "html5 or panel" if "html5" in family.consoles else "panel"
            raise BmcUnsupported(f"{family.label} has no Java console.", hint=f"Use type={kinds}.")
        installed = await self._javas.installed(agent)
        session.stage("sign-in", "Signing in to the panel")
        web = await self._web.open(session.ledger, agent, device, family)
        session.stage("jnlp", "Asking the panel for its Java console")
        raw = await self._shop.panels.talk(agent, device, lambda site: family.jnlp(site, web))
        jnlp = parse(raw, base=device.web_url, allowed=(device.address,))
        if family.signs_out == "after-jnlp":
            await session.ledger.give_back(WEB_SESSION)
        await self._run(session, agent, family, web, jnlp, installed)

    async def _run(
        self, session: ConsoleSession, agent: Agent, family: Family, web: WebSession, jnlp: Jnlp,
        installed: Sequence[Java],
    ) -> None:  # fmt: skip
        java, words = await self._javas.choice(agent, installed, await self._wanted(session, family, jnlp))
        if words:
            session.has.warnings.append(words)
        tried = [java]
        while True:
            session.stage("files", "Fetching the console's program")
            device = session.request.device
            kit = await self._javas.kit(agent, device, web, jnlp, java, installed)
            program, files = self._program.programs(jnlp, java=java.home, major=java.major, jars=kit.jars)
            window = ("java", f"Starting the console with Java {java.major}")
            try:
                await start_job(
                    session, self._shop, (program,), files, window=window, library=kit.library, java=java.home
                )
            except JobFailed as error:
                why = cause(error.message)
                other = None if why is None else next_java(why, tried, installed)
                if why is None:
                    raise
                if other is None:
                    raise JobFailed(f"{why.words} {error.message}", hint=why.hint or None) from None
                words = f"{why.words} It is tried again with {other.label}."
                log.info("console {console}: {words}", console=session.id, words=words)
                await session.ledger.give_back("job")
                await session.ledger.give_back("display")
                java = other
                tried.append(java)
            else:
                session.has.java = java.home
                await self._javas.remember(family.key, jnlp, java)
                return

    async def _wanted(self, session: ConsoleSession, family: Family, jnlp: Jnlp) -> str:
        """The Java that the device is to have; else the one that has worked before."""

        return session.request.device.java or await self._javas.worked(family.key, jnlp)
