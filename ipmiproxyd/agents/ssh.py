"""An agent that is another machine, reached by SSH."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ipmiproxyd.agents import preparing, runner, watcher
from ipmiproxyd.agents.children import run_child
from ipmiproxyd.agents.direct import DirectEndpoint, direct_finding
from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.scripts import script_argv, script_input
from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_checks import (
    INSTALL,
    connection_finding,
    forwarding_findings,
    install_command,
    prepared,
    runner_finding,
    sessions_finding,
)
from ipmiproxyd.agents.ssh_exec import SESSIONS, RemoteProgram, open_exec, orphans_line
from ipmiproxyd.agents.ssh_link import Link, SshPlace, hang_up, sign_in
from ipmiproxyd.agents.ssh_streams import StreamEndpoint
from ipmiproxyd.agents.ssh_transport import Transport as SshTransport
from ipmiproxyd.agents.with_runner import RUNNER_LIMIT, AgentWithRunner, Users, as_line, place_of
from ipmiproxyd.errors import AgentOutdated, AgentUnreachable, Exists, ProxyError, ToolMissing
from ipmiproxyd.model import Command, DirectStream, Job, JobSpec, JobStage, Outcome, StreamAddress, Transport

INSTALLED: Final = "/usr/local/lib/ipmiproxyd/runner.py"
"""Where the runner is on an agent whose user may run it as root, by sudo."""
JOBS: Final = "main"
"""The name of the folder of jobs, where there is no other one."""
START_WAIT: Final = 5.0
"""Seconds for which the daemon's start waits for an agent."""

log = Logger()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look at the agent has shown.

    :ivar found: what preparing.py told, and more.
    :ivar facts: what the runner told of itself.
    :ivar runner: the command that starts it.
    """

    found: Mapping[str, Any]
    facts: Mapping[str, Any]
    runner: tuple[str, ...]


class SshAgent(AgentWithRunner):
    """Implements :class:`~ipmiproxyd.interfaces.Agent` over one SSH connection.

    :param folder: what is ours on the agent: the tools' home, the cache, and the runner where it is not installed;
        ``.ipmiproxyd`` in the home of the account if empty.
    :param jobs_name: the name of the runner's folder of jobs, JOBS if empty: below its own one where it is root, else
        below ``jobs`` in ``folder``.
    :param home_files: put into the tools' home (relative path → text).
    :param python: what runs the runner; under /usr or /opt.
    :param installed: the runner that sudo lets the account run as root, where it does.
    :param group: the Unix group that reaches the displays' sockets; empty for the account's own.
    :param transport: how displays are reached.
    :param displays: the numbers that displays may have.
    :param lease: seconds that a job goes on without a sign of life from here.
    :ivar connected: is called when a connection has come to be.
    :ivar isolated, when_isolated, neighbour, place: see :class:`~ipmiproxyd.agents.fleet.RemoteHosted`.
    """

    kind = "ssh"

    def __init__(
        self,
        name: str,
        place: SshPlace,
        *,
        folder: str = "",
        jobs_name: str = "",
        home_files: Mapping[str, str],
        python: str = "/usr/bin/python3",
        users: Users = "auto",
        user_prefix: str = "easydcim_vnc_",
        group: str = "",
        transport: Transport = "ssh",
        displays: Sequence[int] = range(1, 101),
        lease: float,
        reactor: Any,
        installed: str = INSTALLED,
    ) -> None:
        super().__init__(name, users=users, user_prefix=user_prefix, lease=lease, reactor=reactor)
        self._place = place
        self._folder = folder
        self._jobs_name = jobs_name or JOBS
        self._home_files = home_files
        self._python = python
        self._group = group
        self._transport = transport
        self._displays = displays
        self._installed = installed
        self._preparing_text = self._runner_text = self._watcher_text = ""
        self._runner: tuple[str, ...] = ()
        self._found: Mapping[str, Any] = {}
        self._outdated: AgentOutdated | None = None
        self._can_fix = True
        self.place = ""
        self.neighbour: Callable[[str], str] = lambda _: ""
        self.connected: Callable[[], None] = lambda: None
        self.isolated = False
        self.when_isolated: Callable[[], None] = lambda: None
        self._orphans: list[tuple[str, str]] = []
        self._program = partial(RemoteProgram, reactor, name, DeferredSemaphore(SESSIONS))
        self._link = Link(name, place, reactor, self._greet)

    @property
    def python(self) -> str:
        return self._python

    @property
    def cache(self) -> str:
        if not self._found:
            raise self._link.problem or AgentUnreachable(f"The agent {self.name} is not connected.")
        return self._facts["cache"] or f"{self._found['folder']}/cache"

    @property
    def advice(self) -> str:
        where = f" {' '.join(self._runner[3:])}" if self._runner[:1] == ("sudo",) else ""
        by_sudo = f", and that sudo lets {self._place.user} run{where}" if where else ""
        return f"Check python= of the agent {self.name} ({self._python}){by_sudo}: see agent check."

    @property
    def is_direct(self) -> bool:
        return self._transport == "direct"

    def outside(self) -> str:
        address: str = self._found["address"]
        if not address:
            raise AgentUnreachable(
                f"The sshd of the agent {self.name} does not tell at which address it was reached.",
                hint="Its displays need transport=ssh.",
            )
        return address

    # --- start and end ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect, and wait a moment until that has come to something. An agent that cannot be reached is no
        reason not to start: it is tried again and again."""

        await deferToThread(self._load)
        self._link.start()
        await self._settled()

    def _load(self) -> None:
        self._preparing_text = Path(preparing.__file__).read_text()
        self._runner_text = Path(runner.__file__).read_text()
        self._watcher_text = Path(watcher.__file__).read_text()
        self.load_texts()

    async def close(self) -> None:
        """End the watch and the connection. Jobs go on."""

        await self.end_watch()
        await self._link.close()

    async def change(
        self,
        place: SshPlace,
        *,
        folder: str,
        jobs_name: str,
        python: str,
        users: Users,
        group: str,
        installed: str,
        transport: Transport,
    ) -> None:
        """Be there from now on, with these settings (see above). Streams and programs are lost; jobs go on."""

        self._place, self._folder, self._jobs_name = place, folder, jobs_name
        self._python, self._users, self._group, self._installed = python, users, group, installed
        self._transport = transport
        if not self._running:
            self.place = ""
        self._link.move(place)
        await self._settled()

    async def _settled(self) -> None:
        """Wait a moment until a connection has come to something."""

        first = self._link.connection()
        first.addTimeout(START_WAIT, self._reactor).addBoth(lambda _: None)
        await first

    async def check(self) -> Sequence[Finding]:
        """What it looks like, once it is connected. Raises what stands in the way of all."""

        self._link.redial()
        runs = await self._runner_finding(await self._link.connection())
        connection = await self._link.connection()
        transport, found = self._link.transport, self._found
        come = [connection_finding(transport, self._place.user)] if transport is not None else []
        sessions = await sessions_finding(self._reactor, connection)
        program = partial(self._program, self._link.connection)
        forwarding = await forwarding_findings(self._reactor, self._python, found["folder"], program, self.dial)
        return [*come, sessions, *forwarding, *await self._direct_findings(), runs]

    async def _runner_finding(self, connection: Connection) -> Finding:
        """What is there now, which may be another runner, or another rule for sudo, than when the connection was made.
        It is taken into use, unless jobs would be lost sight of."""

        self._outdated = None
        try:
            seen = await self._look(connection)
        except ProxyError as error:
            if not self._link.is_up:
                raise
            return Finding("runner", "fault", error.message, error.hint or "")
        if seen.runner[0] == self._runner[0]:
            self._use(seen)
        elif self._running:
            words = f"Displays could have users of their own now, but consoles are open that run as {self._place.user}."
            if self._runner[0] == "sudo":
                words = "Displays cannot have users of their own any more, but consoles are open that have."
            return Finding("runner", "warning", words, "Close them, and let agent check look again.")
        else:
            self._link.move(self._place)
            await self._link.connection()
        return runner_finding(
            self._found,
            user=self._place.user,
            python=self._python,
            installed=self._installed,
            wanted=self._users != "never",
            can_fix=self._can_fix,
        )

    async def _direct_findings(self) -> list[Finding]:
        if not self.is_direct:
            return []
        program = partial(self._program, self._link.connection)
        return [
            await direct_finding(
                self._reactor, self._python, self.outside(), self._displays, program, self._dial_directly
            )
        ]

    async def repair(self) -> Finding | None:
        """Put the daemon's runner where sudo starts it, as far as the account may; None where that is not needed.
        Raises what stands in the way of all."""

        transport = await sign_in(self._reactor, self.name, self._place)
        try:
            found = await self._prepare(transport.connection)
            ours = hashlib.sha256(self._runner_text.encode()).hexdigest()
            if found["root"] or self._users == "never" or found["installed"] == ours:
                return None
            argv = ("sudo", "-n", "--", self._python, "-I", "-S", "-c", INSTALL)
            given = json.dumps({"path": self._installed, "text": self._runner_text}).encode()
            outcome = await self._do(transport.connection, argv, given)
        finally:
            await hang_up(transport)
        self._can_fix = outcome.ok
        if not outcome.ok:
            words = f"The runner cannot be installed there: {outcome.last_words}."
            return Finding("fix", "fault", words, f"As root there: {install_command(self._installed)}")
        if self._link.is_up:
            self._link.move(self._place)
        else:
            self._link.redial()
        await self._settled()
        return Finding("fix", "ok", f"The daemon's runner was copied to {self._installed}.")

    def describe(self) -> Mapping[str, Any]:
        place, problem, is_up = self._place, self._link.problem, self._link.is_up
        told = {
            "address": str(place),
            "user": place.user,
            "connected": is_up,
            "state": "connected" if is_up else "unreachable",
            "since": round(self._link.since, 3),
            "runner": self._runner_state(),
            **super().describe(),
        }
        if problem is not None:
            told |= {"code": problem.code, "problem": problem.message}
        return told

    def _runner_state(self) -> str:
        if self._outdated is not None or not self._found:
            return "outdated" if self._outdated is not None else ""
        return "installed" if self._found["as_root"] else "sent"

    # --- a new connection ---------------------------------------------------------------------------------------------

    async def _greet(self, connection: Connection) -> None:
        if self._orphans:
            orphans, self._orphans = self._orphans, []
            await open_exec(self._reactor, connection, orphans_line(orphans))
        self._outdated = None
        try:
            self._use(await self._look(connection))
        except Exists as error:
            raise AgentUnreachable(error.message, hint=error.hint) from None
        log.info("agent {agent}: displays run as {whom}", agent=self.name, whom=super().describe()["displays_run_as"])
        self._reactor.callLater(0, self._look_for_vanished)

    def _use(self, seen: _Seen) -> None:
        self._found, self._facts, self._runner = seen.found, seen.facts, seen.runner
        self.place = seen.found["place"]
        if seen.runner[0] == "sudo" and not self.isolated:
            self.isolated = True
            self.when_isolated()

    async def try_out(self, transport: SshTransport) -> None:
        """Whether the agent would be of use over this connection. Raises what stands in the way; Exists where another
        agent has its jobs at the same place."""

        await deferToThread(self._load)
        await self._look(transport.connection)

    async def _look(self, connection: Connection) -> _Seen:
        """Prepare what is to be there, and see what is; raises what makes it useless."""

        found = await self._prepare(connection)
        as_root, sudo = found["root"], ""
        argv: tuple[str, ...] = (self._python, "-I", "-S", found["runner"])
        if not as_root and self._users != "never" and found["installed"]:
            by_sudo = ("sudo", "-n", "--", self._python, "-I", "-S", self._installed)
            sudo = await self._sudo_refuses(connection, by_sudo, found["installed"])
            if not sudo:
                as_root, argv = True, by_sudo
        if not as_root:
            self._check_not_wanted(sudo)
        jobs = self._jobs_name if as_root else f"{found['folder']}/jobs/{self._jobs_name}"
        place = place_of(found["houses"], jobs, as_root=as_root)
        self._check_alone(place)  # before the runner gives the folder to our group
        facts = await self._hello(connection, argv, self.members(jobs, found["group"]))
        self._check_alone(place)
        return _Seen({**found, "jobs": jobs, "as_root": as_root, "sudo": sudo, "place": place}, facts, argv)

    def _check_alone(self, place: str) -> None:
        if other := self.neighbour(place):
            raise Exists(
                f"The agent {self.name} is the same host, with the same folder of jobs, as the agent {other}.",
                hint=f"Use {other} (agent set changes it), or remove it first; or give one of them another jobs_name=.",
            )

    def _check_not_wanted(self, sudo: str) -> None:
        """The runner cannot be root. Raises if it was, or has to be."""

        why = f"sudo says {sudo!r}" if sudo else f"there is no runner at {self._installed}"
        hint = f"As root there: {install_command(self._installed)}, and the rule of docs/agents.md for sudo."
        if self._users == "always":
            words = f"Displays on the agent {self.name} are to have users of their own (users=always), but {why}."
            raise AgentUnreachable(words, hint=hint)
        if self._users == "auto" and self.isolated:
            self._outdated = AgentOutdated(
                f"Displays on the agent {self.name} had users of their own until now, but {why}.",
                hint=f"{hint} Or let all of them run as the one user {self._place.user}: users=never.",
            )
            raise self._outdated

    def _check_installed(self, digest: str) -> None:
        if digest != hashlib.sha256(self._runner_text.encode()).hexdigest():
            fix = f"agent check name={self.name} fix=yes, if the account has sudo; or as root there: "
            self._outdated = AgentOutdated(
                f"The runner on the agent {self.name} is another one than the daemon's.",
                hint=f"{fix if self._can_fix else 'As root there: '}{install_command(self._installed)}",
            )
            raise self._outdated

    async def _prepare(self, connection: Connection) -> Mapping[str, Any]:
        given = {
            "folder": self._folder,
            "files": self._home_files,
            "runner": self._runner_text,
            "watcher": self._watcher_text,
            "installed": self._installed,
            "group": self._group,
        }
        stdin = script_input(self._preparing_text, given)
        return prepared(self.name, await self._do(connection, script_argv(self._python), stdin))

    async def _sudo_refuses(self, connection: Connection, argv: Sequence[str], digest: str) -> str:
        """Why the runner cannot be started as root, in sudo's words; empty if it can. Raises AgentOutdated."""

        try:
            outcome = await self._do(connection, argv, as_line({}))  # which the runner refuses
        except ToolMissing:
            return "sudo is not installed"
        words = outcome.stderr.decode("utf-8", "replace")
        if outcome.stdout or not words.startswith(("sudo:", "Sorry, ")):
            self._check_installed(digest)
            return ""
        return outcome.last_words

    async def _hello(self, connection: Connection, argv: Sequence[str], common: Mapping[str, Any]) -> Mapping[str, Any]:
        outcome = await self._do(connection, argv, as_line({"verb": "hello", **common}))
        return self.greeted(_events(outcome), outcome)

    async def _do(self, connection: Connection, argv: Sequence[str], stdin: bytes) -> Outcome:
        """Run a program on a connection that is not in use yet."""

        program = self._program(lambda: succeed(connection), lambda: argv, stdin=lambda: stdin)
        outcome = await run_child(program, RUNNER_LIMIT)
        if program.missing:
            raise self.missing(argv[0])
        return outcome

    def _look_for_vanished(self) -> None:
        self.connected()
        looking = Deferred.fromCoroutine(self.tell_of_vanished())
        looking.addErrback(lambda failure: failure.trap(ProxyError))

    # --- programs -----------------------------------------------------------------------------------------------------

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        if self._outdated is not None:  # agent check has found it out
            raise self._outdated.again()
        return await super().launch(spec, on_stage)

    async def run(self, command: Command) -> Outcome:
        program = self._program(
            self._link.connection,
            lambda: command.argv,
            stdin=lambda: command.stdin,
            home=self._tool_home,
            limit=command.output_limit,
            orphaned=self._is_orphaned,
        )
        outcome = await run_child(program, command.timeout)
        if outcome.timed_out and not program.has_begun:
            raise AgentUnreachable(f"The agent {self.name} did not start {command.argv[0]} in time.")
        if program.missing:
            raise self.missing(command.argv[0])
        return outcome

    def start_runner(
        self, document: Callable[[], Mapping[str, Any]], *, on_line: Callable[[bytes], None]
    ) -> RemoteProgram:
        return self._program(
            self._link.connection,
            lambda: self._runner,
            stdin=lambda: as_line(document()),
            home=self._tool_home,
            on_line=on_line,
            as_root=lambda: self._runner[0] == "sudo",
        )

    def start_watcher(
        self, document: Callable[[], Mapping[str, Any]], *, keep_open: bool, on_line: Callable[[bytes], None]
    ) -> RemoteProgram:
        return self._program(
            lambda: self._link.connection(patient=keep_open),
            lambda: (self._python, "-I", "-S", self._found["watcher"]),
            stdin=lambda: as_line(document()),
            home=self._tool_home,
            keep_open=keep_open,
            on_line=on_line,
        )

    def common(self) -> Mapping[str, Any]:
        return self.members(self._found["jobs"], self._found["group"])

    def _tool_home(self) -> str:
        return f"{self._found['folder']}/tools"

    def _is_orphaned(self, pid: str, mark: str) -> None:
        self._orphans.append((pid, mark))

    # --- streams ------------------------------------------------------------------------------------------------------

    def dial(self, address: StreamAddress) -> IStreamClientEndpoint:
        if isinstance(address, DirectStream):
            return self._dial_directly(address.port)
        return StreamEndpoint(self._reactor, self._link, address)

    def _dial_directly(self, port: int) -> IStreamClientEndpoint:
        return DirectEndpoint(self._reactor, self.name, self._place.host, port)


def _events(outcome: Outcome) -> list[Mapping[str, Any]]:
    """What a runner has told; nothing if it was no runner that spoke."""

    try:
        return [json.loads(line) for line in outcome.stdout.splitlines()]
    except ValueError:
        return []
