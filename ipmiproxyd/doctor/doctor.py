"""A whole examination: its steps one after the other, each with a time limit of its own. Whatever becomes of one, the
others are made."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ipmiproxyd.agents import looking
from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.fleet import HostedAgent
from ipmiproxyd.agents.scripts import script_argv, script_input
from ipmiproxyd.agents.with_runner import tcp_endpoint
from ipmiproxyd.console.ids import console_of
from ipmiproxyd.console.timing import limited
from ipmiproxyd.doctor import machine, traces
from ipmiproxyd.doctor.bmc import BmcCheck, BmcRooms
from ipmiproxyd.doctor.trial import Trials
from ipmiproxyd.errors import AgentUnreachable, ProxyError, TimedOut, ToolMissing
from ipmiproxyd.interfaces import Progress
from ipmiproxyd.model import NO_BROWSER, Command, Console, Device
from ipmiproxyd.tools.java_console import JavaConsoles

LIMIT: Final = 60.0
"""Seconds for all of it, beside what giving a trial back may take."""
LOOK_LIMIT: Final = 8.0
"""Seconds for each look of looking.py."""
KNOCK_LIMIT: Final = 1.5
"""Seconds after which a firewall counts as one that drops what comes."""
CONNECT_LIMIT: Final = 40.0
"""Seconds for connecting, and for what is tried of sshd."""
AGAIN: Final = "Look again; if it stays so, see the agent's own log."
WHAT: Final = {"disks": "disk", "x_locks": "x-locks", "account": "key"}
"""What findings are called, where that is not the name of the look."""
_SCRATCH: Final = {"programs": "/tmp"}  # noqa: S108 - only its free room is looked at
LOCKS: Final = "/run/ipmiproxyd-displays"
VNC_BASE_PORT: Final = 5900

log = Logger()

Work = Callable[[], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True, slots=True)
class Step:
    """:ivar what: names the finding that tells of its failure.
    :ivar text: for whoever waits.
    :ivar limit: seconds.
    """

    what: str
    text: str
    limit: float
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorRooms:
    """What the doctor works with.

    :ivar programs: what consoles and power actions need on an agent with such a browser: what for → programs.
    :ivar displays: the numbers that displays may have; ``prefix``: what their Unix users' names begin with.
    :ivar consoles: those that there are just now.
    """

    trials: Trials
    bmc: BmcRooms
    javas: JavaConsoles
    programs: Callable[[str], Mapping[str, Sequence[str]]]
    displays: Sequence[int]
    prefix: str
    consoles: Callable[[], Sequence[Console]]
    reactor: Any


class Doctor:
    """Implements :class:`~ipmiproxyd.console.agent_desk.Examiner`."""

    def __init__(self, rooms: DoctorRooms) -> None:
        self._rooms = rooms

    async def examine(
        self, agent: HostedAgent, *, device: Device | None, trial: bool, progress: Progress
    ) -> Sequence[Finding]:
        examination = _Examination(self._rooms, agent, progress)
        return await examination.run(device, trial=trial)


class _Examination:
    """One, of one agent."""

    def __init__(self, rooms: DoctorRooms, agent: HostedAgent, progress: Progress) -> None:
        self._rooms = rooms
        self._agent = agent
        self._progress = progress
        self._clock = rooms.reactor
        self._begun = rooms.reactor.seconds()

    async def run(self, device: Device | None, *, trial: bool) -> Sequence[Finding]:
        """Raises what stands in the way of all."""

        self._tell("agent", "Connecting, and trying what sshd allows" if self._agent.kind == "ssh" else "Beginning")
        late = AgentUnreachable(f"The agent {self._agent.name} did not answer within {CONNECT_LIMIT:g} s.")
        found = list(await limited(self._agent.check(), CONNECT_LIMIT, self._clock, late))
        for step in self._steps():
            found += await self._made(step)
        if trial:
            found += await self._trials()
        if device is not None:
            check = BmcCheck(self._rooms.bmc, self._agent, device)
            for step in _bmc_steps(check):
                found += await self._made(step)
        return found

    def _tell(self, stage: str, text: str) -> None:
        self._progress({"stage": stage, "text": text, "ms": round(1000 * (self._clock.seconds() - self._begun))})

    async def _made(self, step: Step) -> Sequence[Finding]:
        """What a step has found, or why it came to nothing."""

        self._tell(step.what, step.text)
        limit = min(step.limit, self._begun + LIMIT - self._clock.seconds())
        if limit <= 0:
            return [Finding(step.what, "warning", f"Not looked at: {LIMIT:g} s were not enough for all.", AGAIN)]
        try:
            return await limited(step.work(), limit, self._clock, TimedOut(f"It took longer than {limit:.0f} s."))
        except ProxyError as error:
            return [Finding(step.what, "fault", error.message, error.hint or AGAIN)]
        except CancelledError:
            raise
        except Exception:
            log.failure("agent {agent}: the step {step} of a check", None, agent=self._agent.name, step=step.what)
            return [Finding(step.what, "fault", "It was not looked at: an internal error.", "See the daemon's log.")]

    def _steps(self) -> Sequence[Step]:
        return (
            Step("around", "Looking around there", 2 * LOOK_LIMIT, self._around),
            Step("java", "Looking for Javas", 15.0, self._java),
        )

    # --- looking around -----------------------------------------------------------------------------------------------

    async def _around(self) -> Sequence[Finding]:
        rooms = self._rooms
        before = self._clock.seconds()
        browser = self._agent.browser
        wanted = rooms.programs(browser)
        looks = await self._looked(wanted)
        after = self._clock.seconds()
        strangers = await self._strangers()
        knock = await self._knock(looks["firewall"])
        packages = looks["packages"].get("found", {})
        told: Mapping[str, Callable[[Any], list[Finding]]] = {
            "system": machine.system,
            "programs": lambda found: machine.programs(wanted, found, packages),
            "namespaces": machine.namespaces,
            "memory": machine.memory,
            "disks": machine.disks,
            "clock": lambda found: machine.clock(found, before, after),
            "fonts": lambda found: machine.fonts(found, packages),
            "users": lambda found: traces.users(found, rooms.displays),
            "x_locks": traces.x_locks,
            "firewall": lambda found: traces.firewall(found, knock=knock, is_direct=self._agent.is_direct),
            "account": traces.account,
        }
        findings = [one for name, words in told.items() for one in _worded(name, looks[name], words)]
        left = _leftovers(self._agent.name, looks["jobs"], strangers, looks["processes"])
        return [*machine.browser(browser), *findings, *left]

    async def _looked(self, wanted: Mapping[str, Sequence[str]]) -> Mapping[str, Mapping[str, Any]]:
        agent, rooms = self._agent, self._rooms
        text = await deferToThread(Path(looking.__file__).read_text)
        facts = agent.facts
        own_users = bool(facts.get("own_users"))
        given = {
            "programs": [program for group in wanted.values() for program in group],
            "packages": sorted({*machine.PACKAGES.values(), machine.FONTS, agent.browser}),
            "folders": {"jobs": facts["jobs"], "cache": agent.cache, "home": agent.folder, **_SCRATCH},
            "jobs": facts["jobs"],
            "locks": LOCKS if own_users else "",
            "prefix": rooms.prefix,
            "displays": list(rooms.displays),
            "account": agent.kind == "ssh",
            "limit": LOOK_LIMIT,
        }
        command = Command(argv=script_argv(agent.python), stdin=script_input(text, given), timeout=1.5 * LOOK_LIMIT)
        outcome = await agent.run(command)
        try:
            found: Mapping[str, Mapping[str, Any]] = json.loads(outcome.stdout)
        except ValueError:
            words = f"Python does not work on the agent {agent.name}: {outcome.last_words}."
            raise AgentUnreachable(words, hint="Check python= of the agent.") from None
        return found

    async def _strangers(self) -> Mapping[str, Any]:
        """Jobs that run and belong to no console, neither before nor after they were asked for."""

        known = self._known()
        try:
            running = [job.id for job in await self._agent.jobs() if job.running]
        except ProxyError as error:
            return {"failed": error.message}
        known |= self._known()
        return {"found": [job for job in running if console_of(job) not in known]}

    def _known(self) -> set[str]:
        return {console.id for console in self._rooms.consoles()} | self._rooms.trials.jobs

    async def _knock(self, look: Mapping[str, Any]) -> traces.Knock:
        """What becomes of a connection from here to a VNC port, if nothing else tells of the rules for these. They drop
        what comes; a port at which nobody listens refuses it otherwise."""

        found, host = look.get("found"), self._agent.host
        if not found or found["force"] or not found["file"] or not host or self._agent.is_direct:
            return ""
        endpoint = tcp_endpoint(self._clock, host, VNC_BASE_PORT + self._rooms.displays[-1])
        return "silent" if await _is_silent(endpoint, self._clock) else "answered"

    # --- Javas and trials ---------------------------------------------------------------------------------------------

    async def _java(self) -> Sequence[Finding]:
        javas, agent = self._rooms.javas, self._agent
        installed = await javas.installed(agent)
        try:
            java, words = await javas.choice(agent, installed)
        except ToolMissing as error:
            return [Finding("java", "fault", f"{error.message} Java consoles do not work.", error.hint or "")]
        there = f"There are {', '.join(one.label for one in installed)}; consoles run with {java.name}."
        if words and await javas.used(agent):  # what nobody has chosen is missed by nobody
            return [Finding("java", "warning", there, words)]
        return [Finding("java", "ok", there)]

    async def _trials(self) -> Sequence[Finding]:
        trials, agent = self._rooms.trials, self._agent

        async def of_display() -> Sequence[Finding]:
            return await trials.of_display(agent)

        async def of_browser() -> Sequence[Finding]:
            return [await trials.of_browser(agent)]

        display = await self._made(Step("trial-display", "Starting a display and a small program", 33.0, of_display))
        if agent.browser == NO_BROWSER:
            return display
        if any(one.level == "ok" for one in display):
            browser = await self._made(Step("trial-browser", "Starting the browser with a page", 35.0, of_browser))
            return [*display, *browser]
        level = display[0].level
        return [*display, Finding("trial-browser", level, "Not tried, as there was no display.", "See trial-display.")]


async def _is_silent(endpoint: IStreamClientEndpoint, clock: IReactorTime) -> bool:
    """Whether what is sent there is not even refused."""

    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    knocking: Deferred[Any] = endpoint.connect(factory)
    try:
        protocol = await knocking.addTimeout(KNOCK_LIMIT, clock, onTimeoutCancel=lambda *_: None)
    except ConnectionRefusedError:
        return False
    except ConnectingCancelledError:
        raise CancelledError from None
    except (ConnectError, DNSLookupError):
        return True
    if protocol is not None:
        protocol.transport.loseConnection()
    return protocol is None


def _bmc_steps(check: BmcCheck) -> Sequence[Step]:
    return (
        Step("bmc-ports", "Trying the BMC's ports", 15.0, check.ports),
        Step("bmc-panel", "Looking at the panel's TLS and certificate", 15.0, check.panel),
        Step("bmc-vendor", "Recognising the panel", 20.0, check.vendor),
        Step("bmc-console-ports", "Trying the ports of its consoles", 15.0, check.console_ports),
        Step("bmc-ipmi", "Asking the BMC by IPMI", 20.0, check.ipmi),
    )


def _worded(name: str, look: Mapping[str, Any], words: Callable[[Any], list[Finding]]) -> list[Finding]:
    if "found" in look:
        return words(look["found"])
    return [Finding(WHAT.get(name, name), "warning", f"Not known: {look['failed']}.", AGAIN)]


def _leftovers(agent: str, *looks: Mapping[str, Any]) -> list[Finding]:
    failed = [look["failed"].rstrip(".") for look in looks if "failed" in look]
    if failed:
        return [Finding("leftovers", "warning", f"Not known: {'; '.join(failed)}.", AGAIN)]
    lost, strangers, processes = (look["found"] for look in looks)
    return traces.leftovers(agent, lost, strangers, processes)
