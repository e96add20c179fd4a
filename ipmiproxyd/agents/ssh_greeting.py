"""The look at what is there on a new connection, before the agent is used over it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ipmiproxyd.agents import preparing, runner, watcher
from ipmiproxyd.agents.scripts import script_argv, script_input
from ipmiproxyd.agents.ssh_checks import INSTALL, install_command, prepared, sudo_words
from ipmiproxyd.agents.with_runner import as_line, place_of
from ipmiproxyd.errors import AgentOutdated, AgentUnreachable, ToolMissing
from ipmiproxyd.model import Outcome, RemoteAgent

JOBS: Final = "main"
"""The name of the folder of jobs, where there is no other one."""
PARTS: Final = (preparing, runner, watcher)
"""What is handed to each new connection."""

Run = Callable[[Sequence[str], bytes], Coroutine[Any, Any, Outcome]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the agent has shown.

    :ivar found: what preparing.py told, and: ``jobs``, the folder of jobs; ``place``, a name of where that is;
        ``as_root``, whether the runner is root; ``sudo``, why it cannot be by sudo.
    :ivar runner: the command that starts the runner.
    """

    found: Mapping[str, Any]
    runner: tuple[str, ...]

    @property
    def by_sudo(self) -> bool:
        return self.runner[:1] == ("sudo",)


NOTHING: Final = Seen({}, ())


class Greeting:
    """Looks at one agent.

    :param agent: how it is to be.
    :param home_files: put into the tools' home (relative path → text).
    :param texts: of PARTS, by their names.
    :param run: runs a program there (argv, standard input). Raises ToolMissing.
    """

    def __init__(
        self, agent: RemoteAgent, *, home_files: Mapping[str, str], texts: Mapping[str, str], run: Run
    ) -> None:
        self._agent = agent
        self._home_files = home_files
        self._texts = texts
        self._run = run

    async def look(self, *, isolated: bool) -> Seen:
        """Prepare what is to be there, and see what is; raises what makes it useless.

        :param isolated: displays had Unix users of their own.
        """

        agent = self._agent
        found = await self._prepare()
        as_root, sudo = found["root"], ""
        argv: tuple[str, ...] = (agent.python, "-I", "-S", found["runner"])
        if not as_root and agent.users != "never" and found["installed"]:
            by_sudo = ("sudo", "-n", "--", agent.python, "-I", "-S", agent.runner)
            sudo = await self._sudo_refuses(by_sudo)
            if not sudo:
                self._check_installed(found["installed"])
                as_root, argv = True, by_sudo
        if not as_root:
            self._check_not_wanted(sudo, isolated)
        jobs_name = agent.jobs_name or JOBS
        jobs = jobs_name if as_root else f"{found['folder']}/jobs/{jobs_name}"
        place = place_of(found["houses"], jobs, as_root=as_root)
        return Seen({**found, "jobs": jobs, "as_root": as_root, "sudo": sudo, "place": place}, argv)

    async def install(self) -> Outcome | None:
        """Put the daemon's runner where sudo starts it, as far as the account may; None where that is not needed."""

        found = await self._prepare()
        if found["root"] or self._agent.users == "never" or found["installed"] == self._digest:
            return None
        given = json.dumps({"path": self._agent.runner, "text": self._texts[runner.__name__]})
        return await self._run(("sudo", "-n", "--", self._agent.python, "-I", "-S", "-c", INSTALL), given.encode())

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self._texts[runner.__name__].encode()).hexdigest()

    async def _prepare(self) -> Mapping[str, Any]:
        given = {
            "folder": self._agent.folder,
            "files": self._home_files,
            "runner": self._texts[runner.__name__],
            "watcher": self._texts[watcher.__name__],
            "installed": self._agent.runner,
            "group": self._agent.group,
        }
        stdin = script_input(self._texts[preparing.__name__], given)
        return prepared(self._agent.name, await self._run(script_argv(self._agent.python), stdin))

    async def _sudo_refuses(self, argv: Sequence[str]) -> str:
        """Why the runner cannot be started as root, in sudo's words; empty if it can."""

        try:
            outcome = await self._run(argv, as_line({}))  # which the runner refuses
        except ToolMissing:
            return "sudo is not installed"
        words = outcome.stderr.decode("utf-8", "replace")
        return outcome.last_words if not outcome.stdout and words.startswith(("sudo:", "Sorry, ")) else ""

    def _check_installed(self, digest: str) -> None:
        if digest != self._digest:
            name = self._agent.name
            raise AgentOutdated(
                f"The runner on the agent {name} is another one than the daemon's.",
                hint=f"agent update name={name}; or as root there: {install_command(self._agent.runner)}",
            )

    def _check_not_wanted(self, sudo: str, isolated: bool) -> None:
        """The runner cannot be root. Raises if it was, or has to be."""

        agent = self._agent
        why = sudo_words(sudo) if sudo else f"there is no runner at {agent.runner}"
        hint = f"agent provision name={agent.name}"
        if agent.users == "always":
            words = f"Displays on the agent {agent.name} are to have users of their own (users=always), but {why}."
            raise AgentUnreachable(words, hint=hint)
        if agent.users == "auto" and isolated:
            raise AgentOutdated(
                f"Displays on the agent {agent.name} had users of their own until now, but {why}.",
                hint=f"agent update name={agent.name}, or {hint}; or let all of them run as the one user {agent.user}: "
                "users=never.",
            )
