"""Trial consoles: a display with a small program, and one with a browser, each seen by the way that viewers' screens
come by. What fails is told; nothing of a trial stays."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.fleet import HostedAgent
from ipmiproxyd.agents.sandbox import LIBRARY
from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.console.ids import new_id
from ipmiproxyd.console.timing import limited, uncut
from ipmiproxyd.doctor import trial_program
from ipmiproxyd.doctor.machine import NO_PROC, NO_WIDE_FENCE, WHOLE_PROC
from ipmiproxyd.errors import BmcError, BmcUnreachable, JobFailed, NoFreeDisplay, ProxyError
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import CHROMIUM, Job, JobFile, JobSpec, JobStage, Program, Reach, Ready
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.guard import Guard
from ipmiproxyd.tools.xvnc import Display

LEASE: Final = 90.0
"""Seconds after which a trial ends although nobody could end it."""
START_LIMIT: Final = 20.0
SIGHT_LIMIT: Final = 10.0
GIVE_BACK_LIMIT: Final = 15.0
ENDING: Final = (0.0, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the questions whether a job has ended whose screen is gone."""
PORT: Final = 61080
"""Of the page, inside the sandbox."""

_FILE: Final = "ipmiproxyd-trial.py"
_PREFIX: Final = "trial"
_NO_SANDBOX: Final = "--no-sandbox"

WIDE: Final = Reach(address="192.0.2.1", ports=((1, 65535),))
"""Makes a trial's fence that of a board that may need any port. Nobody has this address, and nobody connects to it."""
UNKNOWN: Final = "If other findings are not ok, see to these first; else go by what it said."

Shows = Callable[[VncServer, int, float], Awaitable[None]]
"""Returns once a display shows a colour (0xRRGGBB); raises ProxyError, at the latest after so many seconds."""

log = Logger()


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a trial fails, by a pattern for what the program said last."""

    pattern: str
    words: str
    advice: str


CAUSES: Final = (
    Cause(
        r"The browser runs without its sandbox",
        "The browser's sandbox is switched off: a panel that attacks it has the console's user at once.",
        "Find out what switches the sandbox off there, such as a file in /etc/chromium.d (grep -r sandbox "
        "/etc/chromium.d), and take it out. Never use --no-sandbox.",
    ),
    Cause(
        r"No usable sandbox|[Ff]ailed to move to new namespace|clone\(\) failed|setuid_sandbox|credentials\.cc",
        "Chromium has no sandbox: the kernel gives it no user namespaces inside a console's own.",
        "As root there: let user.max_user_namespaces be 10000 or so, and kernel.apparmor_restrict_unprivileged_userns "
        "be 0 where the host has it (/etc/sysctl.d/60-ipmiproxyd-agent.conf). Never use --no-sandbox.",
    ),
    Cause(r"Can't mount proc on", f"{NO_PROC}.", WHOLE_PROC),
    Cause(r"/proc/sys/net/\S+ \(the agent has it read-only", f"{NO_WIDE_FENCE}.", WHOLE_PROC),
    Cause(
        r"\bnft\b",
        f"{NO_WIDE_FENCE}.",
        "apt-get install --reinstall --no-install-recommends nftables. If that is there: the kernel lacks nf_tables.",
    ),
    Cause(
        r"network fence cannot be made|bwrap: .*(?:namespace|user ns|uid map|Operation not permitted)",
        "Consoles cannot be fenced in.",
        "See the finding namespaces. A console needs several: let user.max_user_namespaces be 10000 or so.",
    ),
    Cause(
        r"could not open default font|No fonts found|Fontconfig head is null|FontConfiguration\.\w+\(|"
        r"Fontconfig error: Cannot load default config|Could not find any font:",
        "The program found no font.",
        "apt-get install --reinstall --no-install-recommends fonts-dejavu-core",
    ),
    Cause(
        r"cannot open shared object file|error while loading shared libraries",
        "A library is missing.",
        "Install the program's package with all that it depends on: apt-get install --reinstall, apt-get -f install",
    ),
    Cause(
        r"exec: .*Permission denied|cannot be executed",
        "A program is there, but cannot be executed.",
        "As root there: see its mode (ls -l), and install its package again: apt-get install --reinstall.",
    ),
    Cause(
        r"ran out of its memory|[Oo]ut of memory",
        "The memory was not enough.",
        "A console takes up to 2 GiB: close some, or add memory.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRooms:
    """What trials are made with."""

    displays: Mapping[str, DisplayPool]
    display: Display
    browser: PanelBrowser
    chromium: str
    shows: Shows
    clock: IReactorTime


@dataclass(frozen=True, slots=True)
class _Seen:
    """Milliseconds from the beginning: of each program until it was ready, and until its colour was seen."""

    stages: tuple[JobStage, ...]
    seen: int

    def __str__(self) -> str:
        ready = ", ".join(f"{stage.name} after {stage.ms / 1000:.2f} s" for stage in self.stages)
        return f"{ready}; seen after {self.seen / 1000:.2f} s"


class Trials:
    """Opens trial consoles.

    :ivar jobs: those that there are just now; they belong to no console and are not to be ended for that.
    """

    def __init__(self, rooms: TrialRooms) -> None:
        self.jobs: set[str] = set()
        self._rooms = rooms
        self._text = Path(trial_program.__file__).read_text()

    async def of_display(self, agent: HostedAgent) -> Sequence[Finding]:
        """A display, and a small program that fills it with a colour, behind the widest fence; if there is none, behind
        the usual one."""

        colour = _colour()
        program = Program(name="program", argv=self._argv(agent, "window", f"{colour:06x}"), ready=Ready.WINDOW)
        tried = partial(self._tried, "trial-display", "A trial console works", agent, (program,), (), colour)
        wide = await tried(reach=(WIDE,))
        return [wide, await tried()] if wide.words.startswith(NO_WIDE_FENCE) else [wide]

    async def of_browser(self, agent: HostedAgent) -> Finding:
        """A display, and the browser with a page of one colour."""

        rooms, colour = self._rooms, _colour()
        if agent.browser == CHROMIUM and _NO_SANDBOX in rooms.chromium.split():
            words = "Chromium is started without its sandbox: a panel that attacks it has the console's user at once."
            return Finding("trial-browser", "fault", words, f"Take {_NO_SANDBOX} out of panel.chromium.")
        argv = self._argv(agent, "page", f"{colour:06x}", str(PORT))
        server = Program(name="page", argv=argv, ready=Ready.TOLD)
        browser, files = rooms.browser.programs(agent, f"http://127.0.0.1:{PORT}", None)
        works = "The browser works, in its sandbox"
        return await self._tried("trial-browser", works, agent, (server, browser), files, colour)

    def _argv(self, agent: HostedAgent, *words: str) -> tuple[str, ...]:
        return (agent.python, "-I", "-S", f"{LIBRARY}/{_FILE}", *words)

    async def _tried(
        self,
        what: str,
        works: str,
        agent: HostedAgent,
        programs: tuple[Program, ...],
        files: tuple[JobFile, ...],
        colour: int,
        reach: tuple[Reach, ...] = (),
    ) -> Finding:
        files = (*files, JobFile(place="library", name=_FILE, text=self._text))
        try:
            seen = await self._seen(agent, programs, files, reach, colour)
        except _NothingFree as error:
            return Finding(what, "warning", f"Nothing was tried: {error.message}", error.hint or "")
        except ProxyError as error:
            return failed(what, error)
        return Finding(what, "ok", f"{works}: {seen}.", ms=seen.seen)

    # --- one trial ----------------------------------------------------------------------------------------------------

    async def _seen(
        self,
        agent: HostedAgent,
        programs: tuple[Program, ...],
        files: tuple[JobFile, ...],
        reach: tuple[Reach, ...],
        colour: int,
    ) -> _Seen:
        trial, taken = f"{_PREFIX}{new_id(10)}", list[int]()
        stages: list[JobStage] = []
        self.jobs.add(trial)
        begun = self._rooms.clock.seconds()
        try:
            guard = Guard.make() if agent.is_direct else None
            job = JobSpec(
                id=trial,
                display=0,
                programs=programs,
                files=files,
                reach=reach,
                vnc="direct" if agent.is_direct else self._rooms.display.vnc,
                lease=LEASE,
                start_timeout=START_LIMIT,
            )
            started = await self._launch(agent, job, guard, taken, stages)
            await self._look(agent, started, guard, colour)
            return _Seen(tuple(stages), round(1000 * (self._rooms.clock.seconds() - begun)))
        finally:
            try:
                await uncut(self._give_back(agent, trial, taken))
            finally:
                self.jobs.discard(trial)

    async def _launch(
        self, agent: HostedAgent, job: JobSpec, guard: Guard | None, taken: list[int], stages: list[JobStage]
    ) -> Job:
        pool = self._rooms.displays[agent.name]
        while True:
            try:
                display = pool.take(job.id, last=pool.size == 1)  # a console may be wanted meanwhile
            except NoFreeDisplay as error:
                raise _NothingFree(error.message, hint=error.hint) from None
            taken.append(display)
            screen, more = self._rooms.display.programs(display, guard=guard)
            stages.clear()
            spec = replace(job, display=display, programs=screen + job.programs, files=more + job.files)
            try:
                return await agent.launch(spec, stages.append)
            except NoFreeDisplay:
                pool.give_back(taken.pop(), job.id)
                pool.held_by_others(display)

    async def _look(self, agent: HostedAgent, job: Job, guard: Guard | None, colour: int) -> None:
        server = VncServer(agent.dial(job.vnc))
        if guard is not None:
            server = replace(server, password=guard.password, fingerprint=guard.fingerprint)
        try:
            await self._rooms.shows(server, colour, SIGHT_LIMIT)
        except (BmcError, BmcUnreachable) as error:
            if reason := await self._reason(agent, job):
                raise JobFailed(reason) from error
            raise

    async def _reason(self, agent: HostedAgent, job: Job) -> str:
        """Why the job has ended, or is just about to; empty if it runs."""

        for pause in ENDING:
            await deferLater(self._rooms.clock, pause)
            for one in await agent.jobs():
                if one.id == job.id and not one.running:
                    return one.reason
        return ""

    async def _give_back(self, agent: HostedAgent, trial: str, taken: list[int]) -> None:
        try:
            await limited(agent.stop(trial), GIVE_BACK_LIMIT, self._rooms.clock)
        except ProxyError as error:
            words = "agent {agent}: the trial console {trial} ends by its lease: {error}"
            log.warn(words, agent=agent.name, trial=trial, error=error.message)
        pool = self._rooms.displays.get(agent.name)
        if pool is not None:
            for display in taken:
                pool.give_back(display, trial)


class _NothingFree(ProxyError):
    """There is no display for a trial."""


def failed(what: str, error: ProxyError) -> Finding:
    """What a trial's failure means."""

    for cause in CAUSES:
        if re.search(cause.pattern, error.message):
            return Finding(what, "fault", f"{cause.words} It said: {error.message}", cause.advice)
    return Finding(what, "fault", f"It does not work: {error.message}", error.hint or UNKNOWN)


def _colour() -> int:
    """One that no display has by itself."""

    return 0x202020 + sum(secrets.randbelow(0xC0) << shift for shift in (0, 8, 16))
