"""The stages of opening a console: straight-line code over the ledger.

Every ``ledger.record`` stands before the acquisition that it belongs to. Nothing is given back here: whatever
fails, or is cancelled, is the ledger's affair.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from twisted.internet.interfaces import IReactorTime

from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.console.ids import job_id
from ipmiproxyd.console.reach import reach_of
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.console.timing import limited
from ipmiproxyd.errors import BmcUnreachable, JobFailed, NoFreeDisplay
from ipmiproxyd.interfaces import Agent, VncServer
from ipmiproxyd.model import JOB_LOG, Job, JobFile, JobSpec, JobStage, LibraryFile, Program, Reach
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.guard import Guard
from ipmiproxyd.tools.names import Names, hosts_of
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.tools.xvnc import Display
from ipmiproxyd.vendors.ports import ALL, Port
from ipmiproxyd.wire.device import vnc_address

DEBUG_LOG: Final = 16 << 20
"""Bytes that the log of a console for debugging may have: hours of what Chromium says."""

Serve = Callable[[ConsoleSession], Awaitable[None]]
Shown = Callable[[ConsoleSession], Awaitable[None]]
Check = Callable[[VncServer], Awaitable[None]]
"""Signs in to a VNC server and leaves again. Raises ProxyError for whatever keeps viewers from doing so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What the stages work with. ``names``: those that ``panels`` holds to, too. ``check`` tries displays that are
    reached across a network. ``lease`` and ``start_timeout`` in seconds."""

    agents: Mapping[str, Agent]
    displays: Mapping[str, DisplayPool]
    display: Display
    browser: PanelBrowser
    panels: PanelHttp
    names: Names
    check: Check
    lease: float
    start_timeout: float


class PanelOpening:
    """Opens a console of type ``panel``: the vendor's web panel in a locked-down browser.

    Any panel will do. Where its family is known already, the browser reaches the ports that this one needs; otherwise
    all of the BMC's.

    :param shown: is told once the browser is there.
    """

    _log = JOB_LOG

    def __init__(self, workshop: Workshop, serve: Serve, desk: VendorDesk, shown: Shown) -> None:
        self._shop = workshop
        self._serve = serve
        self._desk = desk
        self._shown = shown

    async def __call__(self, session: ConsoleSession) -> None:
        shop = self._shop
        device, agent = session.request.device, shop.agents[session.request.agent]
        async with at_panel(session, shop, self._serve) as addresses:
            tls, pin = await shop.panels.trusted(agent, device)
            family = await self._desk.known(agent, device)
            ports = ALL if family is None else family.ports("panel")
            program, files = self._browser(agent, device.web_url, pin, ports, tls)
            reach = reach_of(device, addresses, ports)
            window = ("browser", "Opening the panel in a browser")
            await start_job(session, shop, (program,), files, window=window, reach=reach, log=self._log)
        await self._shown(session)

    def _browser(
        self, agent: Agent, url: str, pin: str | None, ports: Sequence[Port], tls: str
    ) -> tuple[Program, tuple[JobFile, ...]]:
        return self._shop.browser.programs(agent, url, pin, ports=ports, tls=tls)


class DebugOpening(PanelOpening):
    """Opens a console of type ``panel-debug``: the panel in an ordinary browser with its developer tools. What that
    says is in the job's log, which stays until the console closes, and has room for all of an ordinary session."""

    _log = DEBUG_LOG

    async def __call__(self, session: ConsoleSession) -> None:
        await super().__call__(session)
        kept = f"whole up to {DEBUG_LOG >> 20} MiB, of more the latest half of that"
        words = f"What the browser says is in {session.has.log} on the agent until the console closes: {kept}."
        session.has.warnings.append(words)

    def _browser(
        self, agent: Agent, url: str, pin: str | None, ports: Sequence[Port], tls: str
    ) -> tuple[Program, tuple[JobFile, ...]]:
        return self._shop.browser.debugging(agent, url, pin, ports, tls=tls)


class VncOpening:
    """Opens a console of type ``vnc``: the BMC's own VNC server, without a display or a job of ours.

    The server is tried once, so that a wrong password or a server that is away is told by the opening, and not by
    the page of the first who comes.

    :param limit: seconds that the trial may take.
    """

    def __init__(
        self, agents: Mapping[str, Agent], serve: Serve, check: Check, clock: IReactorTime, limit: float
    ) -> None:
        self._agents = agents
        self._serve = serve
        self._check = check
        self._clock = clock
        self._limit = limit

    async def __call__(self, session: ConsoleSession) -> None:
        await serve_page(session, self._serve)
        session.stage("screen", "Contacting the server's screen")
        device = session.request.device
        agent = self._agents[session.request.agent]
        address = vnc_address(device.vnc)

        def screen() -> VncServer:
            return VncServer(agent.dial(address), address.host, device.vnc_password, device.vnc_fingerprint)

        late = BmcUnreachable(
            f"The VNC server at {device.vnc} did not answer within {self._limit:g} seconds.",
            hint="Is the address right, and does a VNC server listen there?",
        )
        await limited(self._check(screen()), self._limit, self._clock, late)
        session.has.screen = screen


async def serve_page(session: ConsoleSession, serve: Serve) -> None:
    """The console's page comes first: whoever waits can watch the other stages there. One that it has already stays."""

    if session.has.port is not None:
        return
    session.stage("page", "Preparing the console's page")
    await session.ledger.record("relay-port", session.id)
    await session.ledger.record("grants", session.id)
    await serve(session)


@asynccontextmanager
async def at_panel(session: ConsoleSession, shop: Workshop, serve: Serve) -> AsyncIterator[Mapping[str, str]]:
    """The console's page is served and its panel's turn comes. Yields the addresses of the hosts that the console is
    about: they stay what they are while it opens."""

    await serve_page(session, serve)
    session.stage("panel", "Contacting the server's management panel")
    device = session.request.device
    async with shop.names.hold(shop.agents[session.request.agent], device) as addresses:
        for host in hosts_of(device):
            if host not in addresses:
                session.has.warnings.append(f"The console does not reach {host}: the agent knows no such name.")
        yield addresses


async def start_job(
    session: ConsoleSession,
    shop: Workshop,
    programs: tuple[Program, ...],
    files: tuple[JobFile, ...],
    *,
    window: tuple[str, str],
    reach: tuple[Reach, ...] = (),
    library: tuple[LibraryFile, ...] = (),
    java: str = "",
    log: int = JOB_LOG,
) -> None:
    """Start the display and ``programs`` on it. ``window``: name and words of the stage in which the last one shows
    its window. ``reach``, ``library``, ``java`` and ``log``: see :class:`~ipmiproxyd.model.JobSpec`. A job that the
    console had before was given back."""

    agent = shop.agents[session.request.agent]

    def on_stage(stage: JobStage) -> None:
        if stage.name == shop.display.NAME:
            session.stage(*window)

    session.stage("display", "Starting the display")
    session.has.jobs += 1
    spec = JobSpec(
        id=job_id(session.id, session.has.jobs),
        display=0,
        programs=programs,
        files=files,
        library=library,
        java=java,
        log=log,
        vnc="direct" if agent.is_direct else shop.display.vnc,
        reach=reach,
        lease=shop.lease,
        start_timeout=shop.start_timeout,
    )
    guard = Guard.make() if agent.is_direct else None
    job = await _launch(session, shop, spec, guard, on_stage)

    def screen() -> VncServer:
        if guard is None:
            return VncServer(agent.dial(job.vnc))
        return VncServer(agent.dial(job.vnc), password=guard.password, fingerprint=guard.fingerprint)

    if guard is not None:
        await shop.check(screen())
    session.has.screen = screen


async def _launch(
    session: ConsoleSession,
    shop: Workshop,
    job: JobSpec,
    guard: Guard | None,
    on_stage: Callable[[JobStage], None],
) -> Job:
    """``job`` as it is to be but for its display."""

    agent = shop.agents[session.request.agent]
    pool = shop.displays[agent.name]
    while True:
        display = await _take_display(session, pool)
        # After the display, so that the display is given back only once the job has left it.
        await session.ledger.record("job", job.id, {"agent": agent.name})
        screen, screen_files = shop.display.programs(display, clipboard=session.request.clipboard, guard=guard)
        spec = replace(
            job, display=display, programs=screen + job.programs, files=screen_files + job.files
        )
        try:
            started = await agent.launch(spec, on_stage)
        except NoFreeDisplay:
            # Another program of that host has it. The pool ends this loop when it has no other one to offer.
            pool.give_back(display, session.id)
            pool.held_by_others(display)
        else:
            if job.id in session.has.ended:  # in the meantime
                raise JobFailed(session.has.ended[job.id])
            session.has.job = job.id
            session.has.door = started.door
            session.has.log = started.log
            return started


async def _take_display(session: ConsoleSession, pool: DisplayPool) -> int:
    display = pool.take(session.id)
    try:
        await session.ledger.record("display", str(display), {"agent": session.request.agent})
    except BaseException:
        pool.give_back(display, session.id)
        raise
    session.has.display = display
    return display
