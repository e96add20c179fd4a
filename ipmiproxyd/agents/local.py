"""The agent that is the daemon's own machine."""

from __future__ import annotations

import grp
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ipmiproxyd.agents import inside, runner
from ipmiproxyd.agents.children import Child, is_missing, run_child, start_child
from ipmiproxyd.agents.socketfile import SocketFileEndpoint
from ipmiproxyd.errors import (
    AgentUnreachable,
    Cancelled,
    InternalError,
    JobFailed,
    NoFreeDisplay,
    ProxyError,
    TimedOut,
    ToolMissing,
)
from ipmiproxyd.model import Command, Job, JobSpec, JobStage, Outcome, StreamAddress, TcpStream, UnixStream

DIAL_LIMIT: Final = 10.0
RUNNER_LIMIT: Final = 30.0
"""Seconds that the runner's short verbs may take."""
START_MARGIN: Final = 10.0
"""Seconds beyond a job's own start limit until the runner itself counts as stuck."""
BACK_OFF: Final = (0.5, 30.0)
"""Seconds until a watch that ended is begun again: the first time, and at most."""
SILENCE: Final = 100.0
"""Seconds without a line from the watch, which has something to say every 30, until it is begun again."""

_ERRORS: Final[Mapping[str, type[ProxyError]]] = {
    error.code: error
    for error in (AgentUnreachable, Cancelled, InternalError, JobFailed, NoFreeDisplay, TimedOut, ToolMissing)
}

log = Logger()


class LocalAgent:
    """Implements :class:`~ipmiproxyd.interfaces.Agent` with children of this process, and jobs by the runner.

    :param jobs_dir: the runner's folder.
    :param tool_home: HOME of the tools; ``home_files`` are put there at the start (relative path → text).
    :param python: what runs the runner; it has to be under /usr or /opt, where a job's sandbox sees it.
    :param users: whether displays run as Unix users of their own: "auto" where root or sudo allow it.
    :param group: the Unix group that reaches the displays' sockets; empty for the daemon's own.
    :param runner_file: the runner, where another copy is to be used.
    :param lease: seconds that a job goes on without a sign of life from here.
    :param cache_dir: where the files for jobs' libraries are kept, by their SHA-256; beside the tools' home if None.
    """

    def __init__(
        self,
        name: str,
        *,
        jobs_dir: Path,
        tool_home: Path,
        home_files: Mapping[str, str],
        python: str,
        users: Literal["auto", "always", "never"],
        user_prefix: str,
        group: str,
        lease: float,
        reactor: Any,
        runner_file: Path = Path(runner.__file__),
        cache_dir: Path | None = None,
    ) -> None:
        self.name = name
        self._jobs_dir = jobs_dir
        self._tool_home = tool_home
        self._home_files = home_files
        self.cache_dir = cache_dir or tool_home.with_name(f"{tool_home.name}-cache")
        self._runner: tuple[str, ...] = (python, "-I", "-S", str(runner_file))
        self._inside = Path(inside.__file__)
        self._inside_text = ""
        self._users = users
        self._owner = {"users": users, "prefix": user_prefix, "group": _gid(group)}
        self._lease = lease
        self._reactor = reactor
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(tool_home)}
        self._facts: Mapping[str, Any] = {}
        self._ended: Callable[[Job], None] | None = None
        self._watch: Child | None = None
        self._restart: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        self._back_off = BACK_OFF[0]
        self._closed = False

    @property
    def cache(self) -> str:
        return str(self.cache_dir)

    # --- start and end ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Prepare the tools' home, and find out as whom jobs run. Raises AgentUnreachable, ToolMissing."""

        await deferToThread(self._prepare)
        if os.geteuid() != 0 and self._users != "never" and await self._sudo_works():
            self._runner = ("sudo", "-n", "--", *self._runner)
        events = await self._call("hello")
        self._facts = events[-1]
        log.info("agent {agent}: displays run as {whom}", agent=self.name, whom=self.describe()["displays_run_as"])

    def _prepare(self) -> None:
        for path, text in self._home_files.items():
            target = self._tool_home / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        self._inside_text = self._inside.read_text()
        self._jobs_dir.parent.mkdir(parents=True, exist_ok=True)
        self.cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def _sudo_works(self) -> bool:
        document = self._document("hello")
        child = start_child(self._reactor, ("sudo", "-n", "--", *self._runner), self._env, stdin=document)
        return (await run_child(child, RUNNER_LIMIT)).ok

    def describe(self) -> Mapping[str, Any]:
        """What ``daemon status`` tells of it."""

        if self._facts.get("own_users"):
            return {"displays_run_as": f"{self._owner['prefix']}<display>", "isolation": "users"}
        return {"displays_run_as": self._facts.get("user", ""), "isolation": "none"}

    async def close(self) -> None:
        """End the watch. Jobs go on."""

        self._closed = True
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._watch is not None:
            self._watch.close_stdin()
            await run_child(self._watch, 2.0)

    # --- short programs -----------------------------------------------------------------------------------------------

    async def run(self, command: Command) -> Outcome:
        child = start_child(
            self._reactor, command.argv, self._env, stdin=command.stdin, limit=command.output_limit
        )
        outcome = await run_child(child, command.timeout)
        if is_missing(outcome):
            raise ToolMissing(
                f"{command.argv[0]} is not installed on the agent {self.name}.",
                hint="Install it there, or name the right program in the configuration.",
            )
        return outcome

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        def heard(event: Mapping[str, Any]) -> None:
            if event["event"] == "stage":
                on_stage(JobStage(event["name"], event["ms"]))

        document = {
            "id": spec.id,
            "display": spec.display,
            "vnc": spec.vnc,
            "programs": [
                {
                    "name": program.name,
                    "argv": list(program.argv),
                    "ready": program.ready.value,
                    "env": [f"{name}={value}" for name, value in program.env.items()],
                    "stdin": program.stdin.reveal() if program.stdin else "",
                    "door": "door" if program.door else "",
                }
                for program in spec.programs
            ],
            "files": [
                {"place": file.place, "name": file.name, "text": file.text, "encoding": file.encoding}
                for file in spec.files
            ],
            "library": [{"sha256": file.sha256, "name": file.name} for file in spec.library],
            "cache": str(self.cache_dir),
            "java": spec.java,
            "lease": spec.lease,
            "start_timeout": spec.start_timeout,
            "inside": self._inside_text,
        }
        events = await self._call("start", heard, limit=spec.start_timeout + START_MARGIN, job=document)
        return _job(events[-1]["job"])

    async def jobs(self) -> list[Job]:
        return [_job(job) for job in (await self._call("list"))[-1]["jobs"]]

    async def stop(self, job_id: str) -> None:
        await self._call("stop", id=job_id)

    async def sweep(self) -> list[str]:
        removed: list[str] = (await self._call("sweep"))[-1]["removed"]
        return removed

    async def _call(
        self,
        verb: str,
        heard: Callable[[Mapping[str, Any]], None] = lambda _: None,
        *,
        limit: float = RUNNER_LIMIT,
        **members: Any,
    ) -> list[Mapping[str, Any]]:
        """Let the runner do something; its events, of which the last is no failure."""

        events: list[Mapping[str, Any]] = []

        def on_line(line: bytes) -> None:
            event = json.loads(line)
            events.append(event)
            heard(event)

        child = start_child(
            self._reactor, self._runner, self._env, stdin=self._document(verb, **members), on_line=on_line
        )
        outcome = await run_child(child, limit)
        if events and events[-1]["event"] == "failed":
            raise _error(events[-1])
        if not events or not outcome.ok:
            said = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
            raise AgentUnreachable(
                f"The runner on the agent {self.name} does not work: {said[-1] if said else 'it said nothing'}.",
                hint="Check agent.python, and that sudo allows the runner.",
            )
        return events

    def _document(self, verb: str, **members: Any) -> bytes:
        document = {"verb": verb, "jobs": str(self._jobs_dir), "owner": self._owner, **members}
        return json.dumps(document).encode() + b"\n"

    # --- watching -----------------------------------------------------------------------------------------------------

    def watch(self, ended: Callable[[Job], None]) -> None:
        self._ended = ended
        self._begin_watch()

    def _begin_watch(self) -> None:
        self._restart = None
        document = self._document("watch", lease=self._lease)
        try:
            self._watch = start_child(
                self._reactor, self._runner, self._env, stdin=document, keep_open=True, on_line=self._watch_line
            )
        except ToolMissing as error:
            log.error("agent {agent}: {error}", agent=self.name, error=error.message)
            self._watch_again()
        else:
            self._silence = self._reactor.callLater(SILENCE, self._watch.end)
            self._watch.ended.addCallback(self._watch_ended)

    def _watch_line(self, line: bytes) -> None:
        if self._silence is not None and self._silence.active():
            self._silence.reset(SILENCE)
        event = json.loads(line)
        if event["event"] == "alive":
            self._back_off = BACK_OFF[0]
        elif event["event"] == "ended" and self._ended is not None:
            self._ended(_job(event["job"]))

    def _watch_ended(self, outcome: Outcome) -> Outcome:
        self._watch = None
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        if not self._closed:
            log.warn("agent {agent}: the watch ended ({status})", agent=self.name, status=outcome.status)
            self._watch_again()
        return outcome

    def _watch_again(self) -> None:
        self._restart = self._reactor.callLater(self._back_off, self._begin_watch)
        self._back_off = min(2 * self._back_off, BACK_OFF[1])

    # --- streams ------------------------------------------------------------------------------------------------------

    def dial(self, address: StreamAddress) -> IStreamClientEndpoint:
        if isinstance(address, UnixStream):
            return SocketFileEndpoint(self._reactor, address.path, DIAL_LIMIT)
        kind: Any = HostnameEndpoint
        if isIPAddress(address.host):  # nothing to look up, which costs more than the connection
            kind = TCP4ClientEndpoint
        elif isIPv6Address(address.host):
            kind = TCP6ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(self._reactor, address.host, address.port, timeout=DIAL_LIMIT)
        return endpoint


def _gid(group: str) -> int:
    if not group:
        return os.getegid()
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise AgentUnreachable(f"agent.group: there is no group {group!r} on this machine.") from None


def _job(told: Mapping[str, Any]) -> Job:
    vnc = told["vnc"]
    return Job(
        id=told["id"],
        display=told["display"],
        running=told["running"],
        vnc=UnixStream(vnc["unix"]) if "unix" in vnc else TcpStream(*vnc["tcp"]),
        user=told["user"],
        reason=told["reason"],
        door=UnixStream(told["door"]) if told.get("door") else None,  # none in what an older runner tells
    )


def _error(event: Mapping[str, Any]) -> ProxyError:
    message = event["message"]
    return _ERRORS.get(event["code"], InternalError)(message if message.endswith(".") else f"{message}.")
