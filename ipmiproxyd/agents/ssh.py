"""An agent that is another machine, reached by SSH."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ipmiproxyd.agents.children import run_child
from ipmiproxyd.agents.direct import DirectEndpoint, direct_finding
from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_checks import (
    connection_finding,
    forwarding_findings,
    install_command,
    runner_finding,
    sessions_finding,
)
from ipmiproxyd.agents.ssh_exec import SESSIONS, RemoteProgram, open_exec, orphans_line
from ipmiproxyd.agents.ssh_greeting import NOTHING, PARTS, Greeting, Seen
from ipmiproxyd.agents.ssh_link import Link, SshPlace, hang_up, sign_in
from ipmiproxyd.agents.ssh_streams import StreamEndpoint
from ipmiproxyd.agents.ssh_transport import Transport as SshTransport
from ipmiproxyd.agents.with_runner import RUNNER_LIMIT, AgentWithRunner, as_line
from ipmiproxyd.errors import AgentOutdated, AgentUnreachable, Exists, ProxyError
from ipmiproxyd.model import Command, DirectStream, Job, JobSpec, JobStage, Outcome, RemoteAgent, StreamAddress

START_WAIT: Final = 5.0
"""Seconds for which the daemon's start waits for an agent."""

log = Logger()


class SshAgent(AgentWithRunner):
    """Implements :class:`~ipmiproxyd.interfaces.Agent` over one SSH connection.

    :param agent: where it is, and how it is to be.
    :param known_hosts: OpenSSH's files of known hosts.
    :param home_files: put into the tools' home (relative path → text).
    :param displays: the numbers that displays may have.
    :param lease: seconds that a job goes on without a sign of life from here.
    :ivar connected: is called when a connection has come to be.
    :ivar isolated, when_isolated, neighbour, place: see :class:`~ipmiproxyd.agents.fleet.RemoteHosted`.
    """

    kind = "ssh"

    def __init__(
        self,
        agent: RemoteAgent,
        *,
        known_hosts: tuple[Path, ...],
        home_files: Mapping[str, str],
        user_prefix: str,
        displays: Sequence[int],
        lease: float,
        reactor: Any,
    ) -> None:
        super().__init__(agent.name, users=agent.users, user_prefix=user_prefix, lease=lease, reactor=reactor)
        self._agent = agent
        self._known_hosts = known_hosts
        self._place = SshPlace.of(agent, known_hosts)
        self._home_files = home_files
        self._displays = displays
        self._seen = NOTHING
        self._outdated: AgentOutdated | None = None
        self._can_fix = True
        self.place = ""
        self.neighbour: Callable[[str], str] = lambda _: ""
        self.connected: Callable[[], None] = lambda: None
        self.isolated = False
        self.when_isolated: Callable[[], None] = lambda: None
        self._orphans: list[tuple[str, str]] = []
        self._program = partial(RemoteProgram, reactor, agent.name, DeferredSemaphore(SESSIONS))
        self._link = Link(agent.name, self._place, reactor, self._greet)

    @property
    def python(self) -> str:
        return self._agent.python

    @property
    def browser(self) -> str:
        return self._agent.browser

    @property
    def cache(self) -> str:
        return self._facts.get("cache") or f"{self.folder}/cache"

    @property
    def folder(self) -> str:
        if self._seen is NOTHING:
            raise self._link.problem or AgentUnreachable(f"The agent {self.name} is not connected.")
        return str(self._seen.found["folder"])

    @property
    def host(self) -> str:
        return self._place.host

    @property
    def advice(self) -> str:
        where = f" {' '.join(self._seen.runner[3:])}" if self._seen.by_sudo else ""
        by_sudo = f", and that sudo lets {self._agent.user} run{where}" if where else ""
        return f"Check python= of the agent {self.name} ({self.python}){by_sudo}: see agent check."

    @property
    def is_direct(self) -> bool:
        return self._agent.transport == "direct"

    def outside(self) -> str:
        address: str = self._seen.found["address"]
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

        await deferToThread(self.load_texts, *PARTS)
        self._link.start()
        await self._settled()

    async def close(self) -> None:
        """End the watch and the connection. Jobs go on."""

        await self.end_watch()
        await self._link.close()

    async def change(self, agent: RemoteAgent) -> None:
        before, self._agent, self._users = self._agent, agent, agent.users
        if replace(before, browser=agent.browser, notes=agent.notes) == agent:
            return
        self._place = SshPlace.of(agent, self._known_hosts)
        if not self._running:
            self.place = ""
        self._link.move(self._place)
        await self._settled()

    async def _settled(self) -> None:
        """Wait a moment until a connection has come to something."""

        first = self._link.connection()
        first.addTimeout(START_WAIT, self._reactor).addBoth(lambda _: None)
        await first

    async def check(self) -> Sequence[Finding]:
        """What it looks like, once it is connected. Raises what stands in the way of all."""

        runs = await self.look_again()
        connection = await self._link.connection()
        transport = self._link.transport
        come = [connection_finding(transport, self._agent.user)] if transport is not None else []
        come += await self._signs_in_again()
        sessions = await sessions_finding(self._reactor, connection)
        program = partial(self._program, self._link.connection)
        folder = self._seen.found["folder"]
        forwarding = await forwarding_findings(self._reactor, self.python, folder, program, self.dial)
        if self.is_direct:
            outside, ports = self.outside(), self._displays
            forwarding += [
                await direct_finding(self._reactor, self.python, outside, ports, program, self._dial_directly)
            ]
        return [*come, sessions, *forwarding, runs]

    async def _signs_in_again(self) -> Sequence[Finding]:
        """Nothing, if the next connection will come about as well as the one that there is."""

        try:
            await hang_up(await sign_in(self._reactor, self.name, self._place))
        except ProxyError as error:
            words = f"We are connected, but the next connection will be refused: {error.message}"
            advice = f"agent provision name={self.name} lets the daemon's key in again. {error.hint or ''}".rstrip()
            return [Finding("key", "fault", words, advice)]
        return []

    async def look_again(self) -> Finding:
        return await self._runner_finding(await self._link.dialled_now())

    async def _runner_finding(self, connection: Connection) -> Finding:
        """What is there now, which may be another runner, or another rule for sudo, than when the connection was made.
        It is taken into use, unless jobs would be lost sight of."""

        self._outdated = None
        try:
            seen, facts = await self._look(connection)
        except ProxyError as error:
            if not self._link.is_up:
                raise
            advice = error.hint or f"See the other findings. agent provision name={self.name} puts right what is ours."
            return Finding("runner", "fault", error.message, advice)
        if seen.by_sudo == self._seen.by_sudo:
            self._use(seen, facts)
        elif self._running:
            words = f"Displays could have users of their own now, but consoles are open that run as {self._agent.user}."
            if self._seen.by_sudo:
                words = "Displays cannot have users of their own any more, but consoles are open that have."
            return Finding("runner", "warning", words, "Close them, and let agent check look again.")
        else:
            self._link.move(self._place)
            await self._link.connection()
        return runner_finding(self._seen.found, self._agent, can_fix=self._can_fix)

    async def repair(self) -> Finding | None:
        """Put the daemon's runner where sudo starts it, as far as the account may; None where that is not needed.
        Raises what stands in the way of all."""

        transport = await sign_in(self._reactor, self.name, self._place)
        try:
            outcome = await self._greeting(transport.connection).install()
        finally:
            await hang_up(transport)
        if outcome is None:
            return None
        self._can_fix = outcome.ok
        if not outcome.ok:
            words = f"The runner cannot be installed there: {outcome.last_words}."
            if "password is required" in outcome.last_words:
                words = f"The account {self._agent.user} may not install the runner: sudo lets it start that, at most."
            advice = f"agent update name={self.name}; or as root there: {install_command(self._agent.runner)}"
            return Finding("fix", "fault", words, advice)
        await self.look_again()
        return Finding("fix", "ok", f"The daemon's runner was copied to {self._agent.runner}.")

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
        if self._outdated is not None:
            return "outdated"
        if self._seen is NOTHING:
            return ""
        return "installed" if self._seen.found["as_root"] else "sent"

    # --- a new connection ---------------------------------------------------------------------------------------------

    async def _greet(self, connection: Connection) -> None:
        if self._orphans:
            orphans, self._orphans = self._orphans, []
            await open_exec(self._reactor, connection, orphans_line(orphans))
        self._outdated = None
        try:
            self._use(*await self._look(connection))
        except Exists as error:
            raise AgentUnreachable(error.message, hint=error.hint) from None
        log.info("agent {agent}: displays run as {whom}", agent=self.name, whom=super().describe()["displays_run_as"])
        self._reactor.callLater(0, self._look_for_vanished)

    def _use(self, seen: Seen, facts: Mapping[str, Any]) -> None:
        self._seen, self._facts = seen, facts
        self.place = seen.found["place"]
        if seen.by_sudo and not self.isolated:
            self.isolated = True
            self.when_isolated()

    async def try_out(self, transport: SshTransport) -> None:
        """Whether the agent would be of use over this connection. Raises what stands in the way; Exists where another
        agent has its jobs at the same place."""

        await deferToThread(self.load_texts, *PARTS)
        await self._look(transport.connection)

    async def _look(self, connection: Connection) -> tuple[Seen, Mapping[str, Any]]:
        """Prepare what is to be there, see what is, and what the runner tells of itself; raises what makes it
        useless."""

        try:
            seen = await self._greeting(connection).look(isolated=self.isolated)
        except AgentOutdated as error:
            self._outdated = error
            raise
        self._check_alone(seen)  # before the runner gives the folder to our group
        hello = {"verb": "hello", **self.members(seen.found["jobs"], seen.found["group"])}
        outcome = await self._do(connection, seen.runner, as_line(hello))
        facts = self.greeted(_events(outcome), outcome)
        self._check_alone(seen)
        return seen, facts

    def _greeting(self, connection: Connection) -> Greeting:
        run = partial(self._do, connection)
        return Greeting(self._agent, home_files=self._home_files, texts=self._texts, run=run)

    def _check_alone(self, seen: Seen) -> None:
        if other := self.neighbour(seen.found["place"]):
            raise Exists(
                f"The agent {self.name} is the same host, with the same folder of jobs, as the agent {other}.",
                hint=f"Use {other} (agent set changes it), or remove it first; or give one of them another jobs_name=.",
            )

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
            lambda: self._seen.runner,
            stdin=lambda: as_line(document()),
            home=self._tool_home,
            on_line=on_line,
            as_root=lambda: self._seen.by_sudo,
        )

    def start_watcher(
        self, document: Callable[[], Mapping[str, Any]], *, keep_open: bool, on_line: Callable[[bytes], None]
    ) -> RemoteProgram:
        return self._program(
            lambda: self._link.connection(patient=keep_open),
            lambda: (self.python, "-I", "-S", self._seen.found["watcher"]),
            stdin=lambda: as_line(document()),
            home=self._tool_home,
            keep_open=keep_open,
            on_line=on_line,
        )

    def common(self) -> Mapping[str, Any]:
        return self.members(self._seen.found["jobs"], self._seen.found["group"])

    def _tool_home(self) -> str:
        return f"{self._seen.found['folder']}/tools"

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
