"""The agent that is the daemon's own machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ipmiproxyd.agents import runner, watcher
from ipmiproxyd.agents.children import Child, is_missing, run_child, start_child
from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.preparing import group_number, house, loose
from ipmiproxyd.agents.socketfile import SocketFileEndpoint
from ipmiproxyd.agents.ssh_checks import loose_finding
from ipmiproxyd.agents.with_runner import (
    DIAL_LIMIT,
    LOOPBACK,
    RUNNER_LIMIT,
    AgentWithRunner,
    as_line,
    place_of,
    tcp_endpoint,
)
from ipmiproxyd.errors import AgentUnreachable
from ipmiproxyd.model import CHROMIUM, Command, DirectStream, Outcome, StreamAddress, UnixStream, Users

BESIDE: Final = "This agent is the daemon's own machine: browsers and Java of the consoles run beside the daemon."
APART: Final = "A separate host for consoles is safer: agent provision makes one (see docs/agents.md)."

log = Logger()


class LocalAgent(AgentWithRunner):
    """Implements :class:`~ipmiproxyd.interfaces.Agent` with children of this process, and jobs by the runner.

    :param jobs_dir: the runner's folder, where it is not root.
    :param jobs_name: the name of it, where it is.
    :param tool_home: HOME of the tools; ``home_files`` are put there at the start (relative path → text).
    :param python: what runs the runner; it has to be under /usr or /opt, where a job's sandbox sees it.
    :param group: the Unix group that reaches the displays' sockets; empty for the daemon's own.
    :param runner_file: the runner, where another copy is to be used.
    :param lease: seconds that a job goes on without a sign of life from here.
    :param watcher_file: the watcher, likewise.
    :param cache_dir: where the files for jobs' libraries are kept, by their SHA-256, where the runner is not root and
        has a folder for them; beside the tools' home if None.
    """

    kind = "local"
    browser = CHROMIUM
    users_setting = "[agent] users of the configuration file"

    def __init__(
        self,
        name: str,
        *,
        jobs_dir: Path,
        jobs_name: str,
        tool_home: Path,
        home_files: Mapping[str, str],
        python: str,
        users: Users,
        user_prefix: str,
        group: str,
        lease: float,
        reactor: Any,
        runner_file: Path = Path(runner.__file__),
        watcher_file: Path = Path(watcher.__file__),
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__(name, users=users, user_prefix=user_prefix, lease=lease, reactor=reactor)
        self._jobs_dir = jobs_dir
        self._jobs_name = jobs_name
        self._as_root = os.geteuid() == 0
        self._tool_home = tool_home
        self._home_files = home_files
        self._cache_dir = cache_dir or tool_home.with_name(f"{tool_home.name}-cache")
        self.python = python
        self._runner: tuple[str, ...] = (python, "-I", "-S", str(runner_file))
        self._watcher = (python, "-I", "-S", str(watcher_file))
        self._group = _group_number(group)
        self.place = ""
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(tool_home)}

    @property
    def cache(self) -> str:
        return self._facts.get("cache") or str(self._cache_dir)

    @property
    def folder(self) -> str:
        return str(self._tool_home)

    @property
    def host(self) -> str:
        return ""

    # --- start and end ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Prepare the tools' home, and find out as whom jobs run. Raises AgentUnreachable, ToolMissing."""

        await deferToThread(self._prepare)
        if not self._as_root and self._users != "never" and await self._sudo_works():
            self._runner, self._as_root = ("sudo", "-n", "--", *self._runner), True
        self._facts = self.greeted(*await self.events_of("hello"))
        self.place = place_of(self._houses, self._facts["jobs"], as_root=self._as_root)
        log.info("agent {agent}: displays run as {whom}", agent=self.name, whom=self.describe()["displays_run_as"])

    def _prepare(self) -> None:
        for path, text in self._home_files.items():
            target = self._tool_home / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        self.load_texts()
        self._jobs_dir.parent.mkdir(parents=True, exist_ok=True)
        self._houses = (house(str(self._jobs_dir.parent)), house("/run"))
        self._cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def _sudo_works(self) -> bool:
        document = as_line({"verb": "hello", **self.members(self._jobs_name, self._group)})
        child = start_child(self._reactor, ("sudo", "-n", "--", *self._runner), self._env, stdin=document)
        return (await run_child(child, RUNNER_LIMIT)).ok

    async def close(self) -> None:
        """End the watch. Jobs go on."""

        await self.end_watch()

    async def check(self) -> Sequence[Finding]:
        by_sudo = self._runner[0] == "sudo"
        place = await deferToThread(loose, self._runner[-1]) if by_sudo else {}
        return [Finding("host", "warning", BESIDE, APART), self._runner_finding(place)]

    def _runner_finding(self, place: Mapping[str, Any]) -> Finding:
        if place:
            return loose_finding(place, self._runner[-1])
        if self._facts["own_users"]:
            return Finding("runner", "ok", "Each display has a Unix user of its own.")
        words = f"All displays run as the one user {self._facts['user']}"
        if self._users == "never":
            return Finding("runner", "ok", f"{words}, as is set (agent.users = \"never\").")
        advice = "Let sudo start the runner as root: see etc/sudoers.d/ipmiproxyd."
        return Finding("runner", "warning", f"{words}: a console could look into the others.", advice)

    async def repair(self) -> Finding | None:
        """Its runner is the daemon's own file."""

        return None

    # --- programs -----------------------------------------------------------------------------------------------------

    async def run(self, command: Command) -> Outcome:
        child = start_child(self._reactor, command.argv, self._env, stdin=command.stdin, limit=command.output_limit)
        outcome = await run_child(child, command.timeout)
        if is_missing(outcome):
            raise self.missing(command.argv[0])
        return outcome

    def start_runner(self, document: Callable[[], Mapping[str, Any]], *, on_line: Callable[[bytes], None]) -> Child:
        return start_child(self._reactor, self._runner, self._env, stdin=as_line(document()), on_line=on_line)

    def start_watcher(
        self, document: Callable[[], Mapping[str, Any]], *, keep_open: bool, on_line: Callable[[bytes], None]
    ) -> Child:
        stdin = as_line(document())
        return start_child(self._reactor, self._watcher, self._env, stdin=stdin, keep_open=keep_open, on_line=on_line)

    def common(self) -> Mapping[str, Any]:
        return self.members(self._jobs_name if self._as_root else str(self._jobs_dir), self._group)

    # --- streams ------------------------------------------------------------------------------------------------------

    def dial(self, address: StreamAddress) -> IStreamClientEndpoint:
        if isinstance(address, UnixStream):
            return SocketFileEndpoint(self._reactor, address.path, DIAL_LIMIT)
        if isinstance(address, DirectStream):
            return tcp_endpoint(self._reactor, LOOPBACK, address.port)
        return tcp_endpoint(self._reactor, address.host, address.port)


def _group_number(group: str) -> int:
    try:
        return group_number(group)
    except LookupError:
        raise AgentUnreachable(f"agent.group: there is no group {group!r} on this machine.") from None
