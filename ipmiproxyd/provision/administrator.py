"""The administrator's account on a host: how it becomes root there, and how programs run as root by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from twisted.internet.defer import DeferredSemaphore, succeed

from ipmiproxyd.agents.children import run_child
from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_exec import SESSIONS, RemoteProgram
from ipmiproxyd.errors import AgentUnreachable, SudoRefused, ToolMissing
from ipmiproxyd.model import Administrator, Outcome

LIMIT: Final = 30.0
"""Seconds for what is only looked at; sudo lets wait for a while after a wrong password."""

_LOOK: Final = """
printf 'uid %s\\n' "$(id -u)"
printf 'from %s\\n' "${SSH_CONNECTION%% *}"
command -v sudo >/dev/null 2>&1 && echo 'sudo yes'
[ -e /var/lib/ipmiproxyd-agent ] && echo 'record yes'
case $1 in
    /usr/bin/* | python3)  # the system's, whose installation may have been broken off
        states=$(dpkg-query -W -f '${db:Status-Status} ' 'python3*' 'libpython3*' 2>/dev/null) ;;
    *) states= ;;
esac
case $states in
    *half* | *unpacked*) ;;
    *) "$1" -I -S -c "$2" </dev/null >/dev/null 2>&1 && echo 'python yes' ;;
esac
echo
cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release
:
"""
_IMPORTS: Final = "import ctypes, json, shutil, subprocess"
"""What a python3 alone, without its library, cannot."""
_WITHOUT: Final = ("sudo", "-k", "-n", "--")
_BY_PASSWORD: Final = ("sudo", "-k", "-S", "-p", "", "--")
"""What was signed in for is forgotten (-k): so each call is asked for the password, or none is."""
_NO_RIGHTS: Final = ("not in the sudoers", "not allowed", "may not run", "unknown user")
_WRONG: Final = ("incorrect password", "no password was provided", "try again")


@dataclass(frozen=True, slots=True)
class Root:
    """How to become root: a command in front of others, and what it wants to read first."""

    argv: tuple[str, ...] = ()
    stdin: bytes = field(default=b"", repr=False)


class Account:
    """The administrator's account, signed in.

    :param name: the agent's.
    :ivar caller: the address from which the host sees us come; "" if it does not tell.
    :ivar has_python: the agent's Python is there, and whole.
    :ivar has_record: something may have been changed there by us.
    :ivar system: what its /etc/os-release says.
    """

    def __init__(self, reactor: Any, name: str, by: Administrator, connection: Connection) -> None:
        self.caller = ""
        self.has_python = False
        self.has_record = False
        self.system = ""
        self._name = name
        self._by = by
        self._root = Root()
        sessions = DeferredSemaphore(SESSIONS)
        self._program = partial(RemoteProgram, reactor, name, sessions, lambda: succeed(connection))

    async def settle(self, python: str) -> None:
        """Look what is there, and find out how to become root. Raises SudoRefused, AgentUnreachable."""

        outcome = await self._run(("sh", "-c", _LOOK, "sh", python, _IMPORTS))
        if not outcome.ok:
            raise AgentUnreachable(f"A shell does not work on the agent {self._name}: {outcome.last_words}.")
        said, _, self.system = outcome.stdout.decode("utf-8", "replace").partition("\n\n")
        pairs = [line.partition(" ") for line in said.splitlines()]
        found = {name: value for name, _, value in pairs}
        self.caller = found.get("from", "").partition("%")[0]
        self.has_python = "python" in found
        self.has_record = "record" in found
        if found.get("uid") != "0":
            tried = (python, "-I", "-S", "-c", _IMPORTS) if self.has_python else ("sh", "-c", ":")
            self._root = await self._by_sudo(found, tried)

    async def _by_sudo(self, found: Mapping[str, str], tried: Sequence[str]) -> Root:
        """:param tried: a command such as will be run as root."""

        user = self._by.user
        if "sudo" not in found:
            raise SudoRefused(
                f"{user} is not root on the agent {self._name}, and there is no sudo.",
                hint="Come as root (as=root, with its key), or install sudo there.",
            )
        free = await self._run((*_WITHOUT, *tried))
        if free.ok:
            return Root(_WITHOUT)
        password = self._by.sudo_password.reveal()
        if not password or _says(free, _NO_RIGHTS):
            raise self._refused(free)
        stdin = password.encode() + b"\n"
        asked = await self._run((*_BY_PASSWORD, *tried), stdin)
        if asked.ok:
            return Root(_BY_PASSWORD, stdin)
        raise self._refused(asked)

    def _refused(self, outcome: Outcome) -> SudoRefused:
        user, name = self._by.user, self._name
        if _says(outcome, _NO_RIGHTS):
            return SudoRefused(
                f"sudo does not let {user} do all on the agent {name}.",
                hint=f"Give it the right there (usermod -aG sudo {user}), or come as another: as=",
            )
        if _says(outcome, _WRONG):
            return SudoRefused(
                f"sudo on the agent {name} does not accept the password of {user}.", hint="Check sudo_password=."
            )
        if _says(outcome, ("password is required",)):
            return SudoRefused(
                f"sudo on the agent {name} wants the password of {user}.",
                hint="Give it with sudo_password=, or let sudo ask for none there (NOPASSWD).",
            )
        return SudoRefused(
            f"sudo does not work for {user} on the agent {name}: {outcome.last_words}.",
            hint="Put that right there, or come as root: as=root.",
        )

    async def _run(self, argv: Sequence[str], stdin: bytes = b"") -> Outcome:
        """A short program, as the account itself."""

        return await run_child(self._program(lambda: argv, stdin=lambda: stdin), LIMIT)

    async def run(
        self, argv: Sequence[str], stdin: bytes, limit: float, on_line: Callable[[bytes], None] | None = None
    ) -> Outcome:
        """A program, as root. Nobody breaks it off: if this is cancelled, it only is not listened to any more. Raises
        ToolMissing, AgentUnreachable."""

        command = (*self._root.argv, *argv)
        given = self._root.stdin + stdin
        program = self._program(lambda: command, stdin=lambda: given, on_line=on_line, as_root=lambda: True)
        outcome = await run_child(program, limit)
        if program.missing:
            raise ToolMissing(f"{command[0]} is not there on the agent {self._name}.", hint="Install it there.")
        return outcome


def _says(outcome: Outcome, words: Sequence[str]) -> bool:
    said = outcome.stderr.decode("utf-8", "replace").lower()
    return any(word in said for word in words)
