"""The stages of opening a console: straight-line code over the ledger.

Every ``ledger.record`` stands before the acquisition that it belongs to. Nothing is given back here: whatever
fails, or is cancelled, is the ledger's affair.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IReactorTime

from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.console.ids import job_id
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.console.timing import limited
from ipmiproxyd.errors import BmcUnreachable, JobFailed, NoFreeDisplay
from ipmiproxyd.interfaces import Agent, VncServer
from ipmiproxyd.model import Job, JobFile, JobSpec, JobStage, LibraryFile, Program, Reach
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.xvnc import Display
from ipmiproxyd.wire.device import vnc_address

Serve = Callable[[ConsoleSession], None]
Shown = Callable[[ConsoleSession], Awaitable[None]]
Check = Callable[[VncServer], Awaitable[None]]
"""Signs in to a VNC server and leaves again. Raises ProxyError for whatever keeps viewers from doing so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What the stages work with. ``lease`` and ``start_timeout`` in seconds."""

    agents: Mapping[str, Agent]
    displays: Mapping[str, DisplayPool]
    display: Display
    browser: PanelBrowser
    panels: PanelHttp
    lease: float
    start_timeout: float


class PanelOpening:
    """Opens a console of type ``panel``: the vendor's web panel in a locked-down browser.

    :param shown: is told once the browser is there.
    """

    def __init__(self, workshop: Workshop, serve: Serve, shown: Shown) -> None:
        self._shop = workshop
        self._serve = serve
        self._shown = shown

    async def __call__(self, session: ConsoleSession) -> None:
        await serve_page(session, self._serve)
        shop = self._shop
        device = session.request.device
        session.stage("panel", "Contacting the server's management panel")
        tls, pin = await shop.panels.trusted(shop.agents[session.request.agent], device)
        program, files = shop.browser.programs(device.web_url, pin, tls=tls)
        await start_job(session, shop, (program,), files, window=("browser", "Opening the panel in a browser"))
        await self._shown(session)


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
    """The console's page comes first: whoever waits can watch the other stages there."""

    session.stage("page", "Preparing the console's page")
    await session.ledger.record("relay-port", session.id)
    await session.ledger.record("grants", session.id)
    serve(session)


async def start_job(
    session: ConsoleSession,
    shop: Workshop,
    programs: tuple[Program, ...],
    files: tuple[JobFile, ...],
    *,
    window: tuple[str, str],
    library: tuple[LibraryFile, ...] = (),
    java: str = "",
    attempt: int = 1,
) -> None:
    """Start the display and ``programs`` on it. ``window``: name and words of the stage in which the last one shows
    its window. ``library`` and ``java``: see :class:`~ipmiproxyd.model.JobSpec`. ``attempt``: the console's job before
    this one has failed and was given back."""

    agent = shop.agents[session.request.agent]

    def on_stage(stage: JobStage) -> None:
        if stage.name == shop.display.NAME:
            session.stage(*window)

    session.stage("display", "Starting the display")
    spec = JobSpec(
        id=job_id(session.id, attempt),
        display=0,
        programs=programs,
        files=files,
        library=library,
        java=java,
        reach=_reach(session),
        vnc=shop.display.vnc,
        lease=shop.lease,
        start_timeout=shop.start_timeout,
    )
    job = await _launch(session, shop, spec, on_stage)
    session.has.screen = lambda: VncServer(agent.dial(job.vnc))


def _reach(session: ConsoleSession) -> tuple[Reach, ...]:
    host = urlsplit(session.request.device.web_url).hostname or ""
    return (Reach(address=host, ports=((1, 65535),)),) if isIPAddress(host) or isIPv6Address(host) else ()


async def _launch(
    session: ConsoleSession,
    shop: Workshop,
    job: JobSpec,
    on_stage: Callable[[JobStage], None],
) -> Job:
    """``job`` as it is to be but for its display."""

    agent = shop.agents[session.request.agent]
    pool = shop.displays[agent.name]
    while True:
        display = await _take_display(session, pool)
        # After the display, so that the display is given back only once the job has left it.
        await session.ledger.record("job", job.id, {"agent": agent.name})
        screen, screen_files = shop.display.programs(display, clipboard=session.request.clipboard)
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
