"""What every agent does by the runner and the watcher, wherever it is: jobs, and the watch over them."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd.agents import box, fence, inside, runner
from ipmiproxyd.agents.children import Running, run_child
from ipmiproxyd.errors import (
    AgentFull,
    AgentOutdated,
    AgentUnreachable,
    Cancelled,
    InternalError,
    JobFailed,
    NoFreeDisplay,
    ProxyError,
    TimedOut,
    ToolMissing,
)
from ipmiproxyd.model import DirectStream, Job, JobSpec, JobStage, Outcome, StreamAddress, TcpStream, UnixStream, Users

DIAL_LIMIT: Final = 10.0
LOOPBACK: Final = "127.0.0.1"
RUNNER_LIMIT: Final = 30.0
"""Seconds that the runner's short verbs may take."""
START_MARGIN: Final = 10.0
"""Seconds beyond a job's own start limit until the runner itself counts as stuck."""
BACK_OFF: Final = (0.5, 30.0)
"""Seconds until a watch that ended is begun again: the first time, and at most."""
SWEEP_LIMIT: Final = 300.0
"""Seconds that it may take then: what does not end is waited for, one after the other."""
SWEEP_PATIENCE: Final = 60.0
"""Seconds that a sweep waits at most until no job is being launched."""
SILENCE: Final = 100.0
"""Seconds without a line from the watch, which has something to say every 30, until it is begun again."""

_ERRORS: Final[Mapping[str, type[ProxyError]]] = {
    error.code: error
    for error in (
        AgentFull,
        AgentOutdated,
        AgentUnreachable,
        Cancelled,
        InternalError,
        JobFailed,
        NoFreeDisplay,
        TimedOut,
        ToolMissing,
    )
}
_HINTS: Final[Mapping[str, str]] = {
    AgentFull.code: "Close other consoles there, or give the agent more memory.",
    AgentOutdated.code: "agent update brings the runner there to this daemon's version; on the daemon's own machine, "
    "restart the daemon if it was upgraded.",
}
_READ: Final = ("list", "wait")
"""Verbs of the watcher; the others are the runner's."""

log = Logger()


class AgentWithRunner(ABC):
    """The part of :class:`~ipmiproxyd.interfaces.Agent` that is the same for all agents. Subclasses start programs.

    :param users: whether displays run as Unix users of their own: "auto" where the runner may be root.
    :param user_prefix: what these users' names begin with.
    :param lease: seconds that a job goes on without a sign of life from here.
    """

    def __init__(self, name: str, *, users: Users, user_prefix: str, lease: float, reactor: Any) -> None:
        self.name = name
        self._reactor = reactor
        self._users = users
        self._user_prefix = user_prefix
        self._lease = lease
        self._facts: Mapping[str, Any] = {}
        self._texts: Mapping[str, str] = {}
        self._running: dict[str, Job] = {}
        self._launches = 0
        self._sweeps: list[Deferred[None]] = []  # each waits until nothing is being launched
        self._ended: Callable[[Job], None] | None = None
        self._watch: Running | None = None
        self._restart: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        self._back_off = BACK_OFF[0]
        self._closed = False

    # --- what subclasses do -------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def cache(self) -> str: ...

    @abstractmethod
    def start_runner(self, document: Callable[[], Mapping[str, Any]], *, on_line: Callable[[bytes], None]) -> Running:
        """Start the runner with a document, which is asked for when it is started."""

    @abstractmethod
    def start_watcher(
        self, document: Callable[[], Mapping[str, Any]], *, keep_open: bool, on_line: Callable[[bytes], None]
    ) -> Running:
        """Start the watcher, in the same way."""

    @abstractmethod
    def common(self) -> Mapping[str, Any]:
        """What is in each of the runner's documents: see :meth:`members`."""

    @property
    def advice(self) -> str:
        """What to do about a runner that does not work."""

        return "Check agent.python, and that sudo allows the runner."

    @property
    def users_setting(self) -> str:
        """What says whether displays have users of their own, for people."""

        return f"users= of the agent {self.name}"

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._facts

    @property
    def is_direct(self) -> bool:
        return False

    def outside(self) -> str:
        """The address at which jobs with ``vnc="direct"`` have their displays' ports."""

        return LOOPBACK

    # --- what they have in common -------------------------------------------------------------------------------------

    def load_texts(self, *more: ModuleType) -> None:
        """Read what travels to the agent with each job, and more. Blocks."""

        self._texts = {part.__name__: Path(str(part.__file__)).read_text() for part in (box, fence, inside, *more)}

    def members(self, jobs: str, group: int) -> Mapping[str, Any]:
        """What :meth:`common` gives, for a folder of jobs (its name for a runner that is root) and the group that
        reaches the displays."""

        return {"version": runner.VERSION, "jobs": jobs, "prefix": self._user_prefix, "group": group}

    def greeted(self, events: list[Mapping[str, Any]], outcome: Outcome) -> Mapping[str, Any]:
        """What the runner tells of itself; raises what makes it useless."""

        if events and events[-1].get("code") == "bad-request":
            raise AgentOutdated(
                f"The runner on the agent {self.name} is of another version than the daemon.",
                hint=_HINTS[AgentOutdated.code],
            )
        facts = self.judged(events, outcome)[-1]
        if self._users == "always" and not facts["own_users"]:
            raise AgentUnreachable(f"{self.users_setting} is always: Unix users for displays need root or sudo.")
        if self._users == "never" and facts["own_users"]:
            raise AgentUnreachable(
                f"{self.users_setting} is never, and a console never runs as root: displays need users of their own.",
                hint="Let it be auto, or let the runner start as another user than root.",
            )
        return facts

    def missing(self, program: str) -> ToolMissing:
        return ToolMissing(
            f"{program} is not installed on the agent {self.name}, or cannot be executed.",
            hint=f"agent check name={self.name} tells which. Or name the right program in the configuration.",
        )

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        def heard(event: Mapping[str, Any]) -> None:
            if event["event"] == "stage":
                on_stage(JobStage(event["name"], event["ms"]))

        def document() -> Mapping[str, Any]:
            listen = self.outside() if spec.vnc == "direct" else LOOPBACK if spec.vnc == "tcp" else ""
            return _job_document(spec, listen=listen, cache=self.cache, texts=self._texts)

        limit = spec.start_timeout + START_MARGIN
        self._launches += 1
        try:
            await self._call("start", members=document)
            events = await self._call("wait", heard, limit=limit, members=lambda: {"id": spec.id})
        finally:
            self._launches -= 1
            self._let_sweep()
        return self._remember(_job(events[-1]["job"]))

    async def jobs(self) -> list[Job]:
        return [self._remember(_job(job)) for job in (await self._call("list"))[-1]["jobs"]]

    async def stop(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        await self._call("stop", members=lambda: {"id": job_id})

    async def sweep(self) -> list[str]:
        # Of a job that has come to nothing, its launch has yet to read why.
        waiting: Deferred[None] = Deferred()
        self._sweeps.append(waiting)
        self._let_sweep()
        await waiting.addTimeout(SWEEP_PATIENCE, self._reactor, onTimeoutCancel=lambda *_: None)
        removed: list[str] = (await self._call("sweep", limit=SWEEP_LIMIT))[-1]["removed"]
        await self.tell_of_vanished("The console's programs have ended")  # swept before the watch has seen that
        return removed

    def _let_sweep(self) -> None:
        if not self._launches:
            waiting, self._sweeps = self._sweeps, []
            for sweep in waiting:
                sweep.callback(None)

    def describe(self) -> Mapping[str, Any]:
        """What ``daemon status`` tells of it."""

        if self._facts.get("own_users"):
            return {"displays_run_as": f"{self._user_prefix}<display>", "isolation": "users"}
        return {"displays_run_as": self._facts.get("user", ""), "isolation": "none"}

    async def _call(
        self,
        verb: str,
        heard: Callable[[Mapping[str, Any]], None] = lambda _: None,
        *,
        limit: float = RUNNER_LIMIT,
        members: Callable[[], Mapping[str, Any]] = dict,
    ) -> list[Mapping[str, Any]]:
        """Let the runner or the watcher do something; its events, of which the last is no failure."""

        return self.judged(*await self.events_of(verb, heard, limit=limit, members=members))

    async def events_of(
        self,
        verb: str,
        heard: Callable[[Mapping[str, Any]], None] = lambda _: None,
        *,
        limit: float = RUNNER_LIMIT,
        members: Callable[[], Mapping[str, Any]] = dict,
    ) -> tuple[list[Mapping[str, Any]], Outcome]:
        read = verb in _READ

        def document() -> Mapping[str, Any]:
            common = {"jobs": self._facts["jobs"]} if read else self.common()
            return {"verb": verb, **common, **members()}

        events: list[Mapping[str, Any]] = []

        def on_line(line: bytes) -> None:
            event = json.loads(line)
            events.append(event)
            heard(event)

        if read:
            program = self.start_watcher(document, keep_open=False, on_line=on_line)
        else:
            program = self.start_runner(document, on_line=on_line)
        return events, await run_child(program, limit)

    def judged(self, events: list[Mapping[str, Any]], outcome: Outcome) -> list[Mapping[str, Any]]:
        """The events, unless they tell of a failure or the runner did not work at all."""

        if events and events[-1]["event"] == "failed":
            raise _error(events[-1])
        if not events or not outcome.ok:
            raise AgentUnreachable(
                f"The runner on the agent {self.name} does not work: {outcome.last_words}.",
                hint=self.advice,
            )
        return events

    # --- watching -----------------------------------------------------------------------------------------------------

    def watch(self, ended: Callable[[Job], None]) -> None:
        self._ended = ended
        self._begin_watch()

    async def end_watch(self) -> None:
        """Jobs go on."""

        self._closed = True
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        watch = self._watch
        if watch is not None:
            watch.close_stdin()
            await run_child(watch, 2.0)

    def _begin_watch(self) -> None:
        self._restart = None

        def document() -> Mapping[str, Any]:
            return {"verb": "watch", "jobs": self._facts["jobs"], "lease": self._lease}

        try:
            self._watch = self.start_watcher(document, keep_open=True, on_line=self._watch_line)
        except ToolMissing as error:
            log.error("agent {agent}: {error}", agent=self.name, error=error.message)
            self._watch_again()
        else:
            self._silence = self._reactor.callLater(SILENCE, self._silent)
            self._watch.ended.addBoth(self._watch_ended)

    def _watch_line(self, line: bytes) -> None:
        if self._silence is not None and self._silence.active():
            self._silence.reset(SILENCE)
        event = json.loads(line)
        if event["event"] == "alive":
            self._back_off = BACK_OFF[0]
            if self._watch is not None:
                self._watch.write(b"\n")
        elif event["event"] == "ended":
            self._tell(_job(event["job"]))

    def _silent(self) -> None:
        watch = self._watch
        if watch is not None and watch.has_begun:
            watch.end()
        else:
            self._silence = self._reactor.callLater(SILENCE, self._silent)

    def _tell(self, job: Job) -> None:
        self._running.pop(job.id, None)
        if self._ended is not None:
            self._ended(job)

    def _watch_ended(self, outcome: Any) -> Any:
        self._watch = None
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        if not self._closed:
            how = outcome.value if isinstance(outcome, Failure) else outcome.status
            log.warn("agent {agent}: the watch ended ({how})", agent=self.name, how=how)
            self._watch_again()
        return None if isinstance(outcome, Failure) else outcome

    def _watch_again(self) -> None:
        self._restart = self._reactor.callLater(self._back_off, self._begin_watch)
        self._back_off = min(2 * self._back_off, BACK_OFF[1])

    # --- jobs that vanish ---------------------------------------------------------------------------------------------

    def _remember(self, job: Job) -> Job:
        if job.running:
            self._running[job.id] = job
        return job

    async def tell_of_vanished(
        self, reason: str = "The agent was started anew, and with it went the console's programs"
    ) -> None:
        """Tell of jobs that ran, and that the agent knows nothing of any more."""

        before = dict(self._running)
        if before:
            known = {job.id for job in await self.jobs()}
            for job_id, job in before.items():
                if job_id not in known and job_id in self._running:
                    self._tell(dataclasses.replace(job, running=False, reason=reason))


def place_of(houses: Sequence[str], jobs: str, *, as_root: bool) -> str:
    """A name of the place where an agent's jobs are kept, see :attr:`~ipmiproxyd.agents.fleet.HostedAgent.place`.

    :param houses: what is above the folder of jobs (see preparing.house): of a runner that is not root, and of one that
        is.
    """

    return f"{houses[as_root]} {jobs.rpartition('/')[2]}"


def tcp_endpoint(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    """Connects to a host by TCP."""

    kind: Any = HostnameEndpoint
    if isIPAddress(host):  # nothing to look up, which costs more than the connection
        kind = TCP4ClientEndpoint
    elif isIPv6Address(host):
        kind = TCP6ClientEndpoint
    endpoint: IStreamClientEndpoint = kind(reactor, host, port, timeout=DIAL_LIMIT)
    return endpoint


def as_line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _job_document(spec: JobSpec, *, listen: str, cache: str, texts: Mapping[str, str]) -> Mapping[str, Any]:
    given = {
        "display": spec.display,
        "listen": listen,
        "programs": [
            {
                "name": program.name,
                "argv": list(program.argv),
                "ready": program.ready.value,
                "env": [f"{name}={value}" for name, value in program.env.items()],
                "stdin": program.stdin.reveal() if program.stdin else "",
                "door": program.door,
            }
            for program in spec.programs
        ],
        "files": [
            {"place": file.place, "name": file.name, "text": file.text, "encoding": file.encoding}
            for file in spec.files
        ],
        "library": [{"sha256": file.sha256, "name": file.name} for file in spec.library],
        "cache": cache,
        "java": spec.java,
        "reach": [
            {"address": reach.address, "ports": list(reach.ports), "names": list(reach.names)} for reach in spec.reach
        ],
        "start_timeout": spec.start_timeout,
        "log": spec.log,
        "inside": texts[inside.__name__],
        "fence": texts[fence.__name__],
    }
    return {
        "id": spec.id,
        "display": spec.display,
        "vnc": spec.vnc,
        "door": "door" if any(program.door for program in spec.programs) else "",
        "lease": spec.lease,
        "memory": spec.memory,
        "least_free": spec.least_free,
        "box": texts[box.__name__],
        "given": json.dumps(given),
    }


def _job(told: Mapping[str, Any]) -> Job:
    return Job(
        id=told["id"],
        display=told["display"],
        running=told["running"],
        vnc=_stream(told["vnc"]),
        user=told["user"],
        reason=told["reason"],
        door=UnixStream(told["door"]) if told["door"] else None,
        log=told["log"],
    )


def _stream(told: Mapping[str, Any]) -> StreamAddress:
    if "direct" in told:
        return DirectStream(told["direct"])
    return UnixStream(told["unix"]) if "unix" in told else TcpStream(*told["tcp"])


def _error(event: Mapping[str, Any]) -> ProxyError:
    message = event["message"]
    kind = _ERRORS.get(event["code"], InternalError)
    hint = event.get("hint") or _HINTS.get(event["code"])
    return kind(message if message.endswith(".") else f"{message}.", hint=hint)
