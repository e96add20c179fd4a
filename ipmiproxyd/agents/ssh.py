"""An agent that is another machine, reached by SSH."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.internet.defer import TimeoutError as ListenTimeout
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ipmiproxyd.agents import preparing, runner, watcher
from ipmiproxyd.agents.children import run_child
from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_exec import SESSIONS, RemoteProgram, open_exec, orphans_line
from ipmiproxyd.agents.ssh_link import Link, SshPlace
from ipmiproxyd.agents.ssh_streams import StreamEndpoint
from ipmiproxyd.agents.with_runner import RUNNER_LIMIT, AgentWithRunner, Users, as_line
from ipmiproxyd.errors import AgentOutdated, AgentUnreachable, ProxyError, ToolMissing
from ipmiproxyd.model import Command, Outcome, StreamAddress, UnixStream

INSTALLED: Final = "/usr/local/lib/ipmiproxyd/runner.py"
"""Where the runner is on an agent whose user may run it as root, by sudo."""
JOBS: Final = "main"
"""The name of the folder of jobs, where there is no other one."""
OLDEST_PYTHON: Final = (3, 11)
START_WAIT: Final = 5.0
"""Seconds for which the daemon's start waits for an agent."""

_LOAD: Final = (
    "import json, sys; given = json.load(sys.stdin); names = {'__name__': 'preparing'};"
    " exec(compile(given.pop('program'), 'preparing.py', 'exec'), names); names['main'](given)"
)

_LISTEN: Final = """
import os, socket, sys
if os.path.lexists(sys.argv[1]):
    os.unlink(sys.argv[1])
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print("listening", flush=True)
    listener.settimeout(10)
    try:
        listener.accept()
    except OSError:
        pass
os.unlink(sys.argv[1])
"""

log = Logger()


class SshAgent(AgentWithRunner):
    """Implements :class:`~ipmiproxyd.interfaces.Agent` over one SSH connection.

    :param folder: what is ours on the agent: the tools' home, the cache, and the runner where it is not installed;
        ``.ipmiproxyd`` in the home of the account if empty.
    :param jobs_dir: the name of the runner's folder of jobs, JOBS if empty: below its own one where it is root, or else
        below ``jobs`` in ``folder``.
    :param home_files: put into the tools' home (relative path → text).
    :param python: what runs the runner; under /usr or /opt.
    :param installed: the runner that sudo lets the account run as root, where it does.
    :param group: the Unix group that reaches the displays' sockets; empty for the account's own.
    :param lease: seconds that a job goes on without a sign of life from here.
    """

    def __init__(
        self,
        name: str,
        place: SshPlace,
        *,
        folder: str = "",
        jobs_dir: str = "",
        home_files: Mapping[str, str],
        python: str = "/usr/bin/python3",
        users: Users = "auto",
        user_prefix: str = "easydcim_vnc_",
        group: str = "",
        lease: float,
        reactor: Any,
        installed: str = INSTALLED,
    ) -> None:
        super().__init__(name, users=users, user_prefix=user_prefix, lease=lease, reactor=reactor)
        self._place = place
        self._folder = folder
        self._jobs_dir = jobs_dir or JOBS
        self._home_files = home_files
        self._python = python
        self._group = group
        self._installed = installed
        self._preparing_text = self._runner_text = self._watcher_text = ""
        self._runner: tuple[str, ...] = ()
        self._found: Mapping[str, Any] = {}
        self._orphans: list[tuple[str, str]] = []
        self._program = partial(RemoteProgram, reactor, name, DeferredSemaphore(SESSIONS))
        self._link = Link(name, place, reactor, self._greet)

    @property
    def cache(self) -> str:
        if not self._found:
            raise self._link.problem or AgentUnreachable(f"The agent {self.name} is not connected.")
        return self._facts["cache"] or f"{self._found['folder']}/cache"

    # --- start and end ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect, and wait a moment until that has come to something. An agent that cannot be reached is no
        reason not to start: it is tried again and again."""

        await deferToThread(self._load)
        self._link.start()
        first = self._link.connection()
        first.addTimeout(START_WAIT, self._reactor).addBoth(lambda _: None)
        await first

    def _load(self) -> None:
        self._preparing_text = Path(preparing.__file__).read_text()
        self._runner_text = Path(runner.__file__).read_text()
        self._watcher_text = Path(watcher.__file__).read_text()
        self.load_texts()

    async def close(self) -> None:
        """End the watch and the connection. Jobs go on."""

        await self.end_watch()
        await self._link.close()

    async def check(self) -> Mapping[str, Any]:
        """What it looks like, once it is connected, and what will not work. Raises what stands in the way of all."""

        await self._link.connection()
        problem = await self._stream_problem()
        return {**self.describe(), "problems": [problem] if problem else []}

    async def _stream_problem(self) -> str:
        """Why the displays' sockets cannot be reached, in words; found out with a socket that is made for it."""

        listening: Deferred[bytes] = Deferred()
        path = f"{self._found['folder']}/check"
        program = self._program(
            self._link.connection,
            lambda: (self._python, "-I", "-S", "-c", _LISTEN, path),
            stdin=bytes,
            on_line=listening.callback,
        )

        def over(_: Any) -> None:
            if not listening.called:
                listening.errback(ListenTimeout("no socket could be made there"))

        ended: Deferred[Any] = Deferred.fromCoroutine(run_child(program, RUNNER_LIMIT))
        ended.addErrback(lambda failure: failure.trap(ProxyError, CancelledError))
        ended.addCallback(over)
        try:
            await listening.addTimeout(RUNNER_LIMIT, self._reactor)
            protocol: Any = await self.dial(UnixStream(path)).connect(Factory.forProtocol(Protocol))
            protocol.transport.loseConnection()
        except (ConnectError, ListenTimeout) as error:
            return f"Displays cannot be reached: {getattr(error, 'strerror', None) or error}."
        finally:
            ended.cancel()
            await ended
        return ""

    def describe(self) -> Mapping[str, Any]:
        place, problem = self._place, self._link.problem
        told = {"address": str(place), "user": place.user, "connected": self._link.is_up, **super().describe()}
        if problem is not None:
            told |= {"code": problem.code, "problem": problem.message}
        return told

    # --- a new connection ---------------------------------------------------------------------------------------------

    async def _greet(self, connection: Connection) -> None:
        if self._orphans:
            orphans, self._orphans = self._orphans, []
            await open_exec(self._reactor, connection, orphans_line(orphans))
        found = await self._prepare(connection)
        runner_argv: tuple[str, ...] = (self._python, "-I", "-S", found["runner"])
        jobs = self._jobs_dir if found["root"] else f"{found['folder']}/jobs/{self._jobs_dir}"
        if not found["root"] and self._users != "never" and found["installed"]:
            as_root = ("sudo", "-n", "--", self._python, "-I", "-S", self._installed)
            if await self._sudo_works(connection, as_root, found, self._jobs_dir):
                if found["installed"] != hashlib.sha256(self._runner_text.encode()).hexdigest():
                    raise AgentOutdated(
                        f"The runner on the agent {self.name} is another one than the daemon's.",
                        hint=f"Copy the daemon's ipmiproxyd/agents/runner.py to {self._installed} there, as root.",
                    )
                runner_argv, jobs = as_root, self._jobs_dir
        self._facts = await self._hello(connection, runner_argv, self.members(jobs, found["group"]))
        self._found, self._runner = {**found, "jobs": jobs}, runner_argv
        log.info("agent {agent}: displays run as {whom}", agent=self.name, whom=super().describe()["displays_run_as"])
        self._reactor.callLater(0, self._look_for_vanished)

    async def _prepare(self, connection: Connection) -> Mapping[str, Any]:
        given = {
            "program": self._preparing_text,
            "folder": self._folder,
            "files": self._home_files,
            "runner": self._runner_text,
            "watcher": self._watcher_text,
            "installed": self._installed,
            "group": self._group,
        }
        outcome = await self._do(connection, (self._python, "-I", "-S", "-c", _LOAD), json.dumps(given).encode())
        try:
            found: Mapping[str, Any] = json.loads(outcome.stdout)
        except ValueError:
            raise AgentUnreachable(f"Python does not work on the agent {self.name}: {outcome.last_words}.") from None
        if "failed" in found:
            raise AgentUnreachable(f"The agent {self.name} cannot be prepared: {found['failed']}.")
        if tuple(found["python"]) < OLDEST_PYTHON:
            version = ".".join(map(str, found["python"]))
            raise AgentUnreachable(f"The agent {self.name} has Python {version} only; 3.11 or later is needed.")
        return found

    async def _sudo_works(
        self, connection: Connection, argv: Sequence[str], found: Mapping[str, Any], jobs: str
    ) -> bool:
        document = {"verb": "hello", **self.members(jobs, found["group"])}
        try:
            return (await self._do(connection, argv, as_line(document))).ok
        except ToolMissing:
            return False

    async def _hello(self, connection: Connection, argv: Sequence[str], common: Mapping[str, Any]) -> Mapping[str, Any]:
        outcome = await self._do(connection, argv, as_line({"verb": "hello", **common}))
        try:
            events = [json.loads(line) for line in outcome.stdout.splitlines()]
        except ValueError:
            events = []
        return self.greeted(events, outcome)

    async def _do(self, connection: Connection, argv: Sequence[str], stdin: bytes) -> Outcome:
        """Run a program on a connection that is not in use yet."""

        program = self._program(lambda: succeed(connection), lambda: argv, stdin=lambda: stdin)
        outcome = await run_child(program, RUNNER_LIMIT)
        if program.missing:
            raise self.missing(argv[0])
        return outcome

    def _look_for_vanished(self) -> None:
        looking = Deferred.fromCoroutine(self.tell_of_vanished())
        looking.addErrback(lambda failure: failure.trap(ProxyError))

    # --- programs -----------------------------------------------------------------------------------------------------

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
        return StreamEndpoint(self._reactor, self._link, address)
