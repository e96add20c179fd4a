"""Comes to a host as its administrator and lets the engine (``host/``) work there as root."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ipmiproxyd.agents import runner
from ipmiproxyd.agents.scripts import script_argv, script_input
from ipmiproxyd.agents.ssh_greeting import JOBS
from ipmiproxyd.agents.ssh_keys import public_keys
from ipmiproxyd.agents.ssh_link import Beat, SshPlace, hang_up, sign_in
from ipmiproxyd.errors import AgentUnreachable, KeyRefused, ProxyError, ToolMissing
from ipmiproxyd.interfaces import Progress
from ipmiproxyd.model import Administrator, RemoteAgent, Report, Verb, Wanted
from ipmiproxyd.provision import bootstrap
from ipmiproxyd.provision.administrator import LIMIT as LOOK_LIMIT
from ipmiproxyd.provision.administrator import Account
from ipmiproxyd.provision.engine import engine_argv, engine_input
from ipmiproxyd.provision.progress import AGAIN, Listener

LIMIT: Final = 3600.0
"""Seconds that the engine may work: half a gigabyte may come by a thin line."""
SUDOERS: Final = "ipmiproxyd-agent"
"""The name of the file with the rule for sudo."""

# Prints the accounts that a key lets in. Their files are theirs: they may be anything.
_KIN: Final = """
import os, pwd, stat

def main(given):
    for user in given["users"]:
        try:
            path = os.path.join(pwd.getpwnam(user).pw_dir, ".ssh/authorized_keys")
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except (KeyError, OSError):
            continue
        with open(fd, "rb") as file:
            text = file.read(1 << 20) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        if any(key.encode() in text.split() for key in given["keys"]):
            print(user)
"""

log = Logger()


class Provisioner:
    """Implements :class:`~ipmiproxyd.console.provision_desk.Provisioner`.

    :param user_prefix: what the names of displays' Unix users begin with.
    :param displays: the numbers that displays may have.
    :param java_dir: the folder on agents where Javas are installed.
    :param known_hosts: OpenSSH's files of known hosts.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        user_prefix: str,
        displays: Sequence[int],
        java_dir: str,
        known_hosts: Sequence[Path],
    ) -> None:
        self._reactor = reactor
        self._user_prefix = user_prefix
        self._displays = displays
        self._java_dir = java_dir
        self._known_hosts = tuple(known_hosts)

    @asynccontextmanager
    async def reach(self, agent: RemoteAgent, by: Administrator) -> AsyncIterator[Reached]:
        """A host with an administrator signed in, who is root or can become it. Raises KeyRefused, HostKeyChanged,
        HostKeyUnknown, AgentUnreachable, SudoRefused."""

        keys = await public_keys(self._reactor, agent.key, agent.passphrase)
        await self._check_key(by)
        place = self._place(agent, by)
        try:
            transport = await sign_in(self._reactor, agent.name, place)
        except KeyRefused as error:
            raise await self._advised(error, place) from None
        beat = Beat(self._reactor, transport, agent.name)
        beat.start()
        transport.lost.addBoth(beat.stop)
        try:
            account = Account(self._reactor, agent.name, by, transport.connection)
            await account.settle(agent.python)
            log.info("agent {agent}: {user} came to provision it", agent=agent.name, user=by.user)
            yield Reached(self._reactor, agent, account, self._document(agent, keys, account.caller))
        finally:
            await hang_up(transport)

    async def _check_key(self, by: Administrator) -> None:
        """What is wrong with it is said first, and not taken for the agent's own."""

        if by.key:
            try:
                await public_keys(self._reactor, by.key, by.passphrase)
            except KeyRefused as error:
                raise KeyRefused(error.message, hint="Check as_key= and as_passphrase=.") from error

    def _place(self, agent: RemoteAgent, by: Administrator) -> SshPlace:
        return SshPlace(
            host=agent.host,
            port=agent.port,
            user=by.user,
            key=by.key or agent.key,
            passphrase=by.passphrase if by.key else agent.passphrase,
            host_keys=agent.host_keys,
            known_hosts=self._known_hosts,
        )

    async def _advised(self, error: KeyRefused, place: SshPlace) -> KeyRefused:
        """With the very line that is missing there, if the key itself is good."""

        line, *_ = await public_keys(self._reactor, str(place.key), place.passphrase)
        keys = f"~{place.user}/.ssh/authorized_keys"
        hint = f"Put this into {keys} there: {line} (or name another key or account: as_key=, as=)"
        return KeyRefused(error.message, hint=hint)

    def _document(self, agent: RemoteAgent, keys: Sequence[str], caller: str) -> Mapping[str, Any]:
        return {
            "account": agent.user,
            "public_key": "\n".join(keys),
            "runner": {"path": agent.runner, "version": runner.VERSION},
            "python": agent.python,
            "users": agent.users,
            "prefix": self._user_prefix,
            "displays": list(self._displays),
            "transport": agent.transport,
            "browser": agent.browser,
            "daemon_address": caller,
            "folder": agent.folder,
            "java_dir": self._java_dir,
            "jobs_name": agent.jobs_name or JOBS,
            "sudoers": SUDOERS,
        }


class Reached:
    """Implements :class:`~ipmiproxyd.console.provision_desk.Reached`."""

    def __init__(self, reactor: Any, agent: RemoteAgent, account: Account, document: Mapping[str, Any]) -> None:
        self._reactor = reactor
        self._agent = agent
        self._account = account
        self._document = document
        self._tenants: Sequence[str] = ()

    async def work(
        self, verb: Verb, wanted: Wanted, *, dry_run: bool = False, force: bool = False, progress: Progress
    ) -> Report:
        """Let the engine do it. Raises Busy, SystemUnsupported, PackagesFailed, AgentUnreachable, TimedOut, …

        :param force: what still runs for displays ends, where the host is put back.
        """

        try:
            if not self._account.has_python:
                if verb == "unprovision" and not self._account.has_record:
                    return Report()
                if verb == "update" or self._agent.python != bootstrap.PYTHON:
                    raise self._no_python()
                if dry_run and verb == "unprovision":
                    return Report((bootstrap.WOULD_UNDO,))
                if dry_run:
                    return bootstrap.would(self._document, self._account.system)
                await self._bootstrap(wanted, progress)
            asked = {"verb": verb, "dry_run": dry_run, "force": force}
            return await self._engine({**asked, "repository": wanted.repository}, progress)
        except AgentUnreachable as error:
            raise AgentUnreachable(error.message, hint=error.hint or AGAIN) from None

    def _no_python(self) -> ToolMissing:
        words = f"{self._agent.python} is not there on the agent {self._agent.name}."
        return ToolMissing(words, hint="Install it there, or see python= of the agent.")

    async def _bootstrap(self, wanted: Wanted, progress: Progress) -> None:
        progress({"stage": "python", "text": "Installing Python"})
        outcome = await self._account.run(bootstrap.argv(wanted.repository), b"", bootstrap.LIMIT)
        bootstrap.judge(self._agent.name, outcome)

    async def _engine(self, asked: Mapping[str, Any], progress: Progress) -> Report:
        stdin = await deferToThread(engine_input, {**self._document, **asked})
        listener = Listener(self._agent.name, progress, self._reactor.seconds, dry_run=asked["dry_run"])
        outcome = await self._account.run(engine_argv(self._agent.python), stdin, LIMIT, listener.line)
        self._tenants = listener.tenants
        return listener.report(outcome)

    async def kin(self) -> Sequence[str]:
        others = [user for user in self._tenants if user != self._agent.user]
        if not others:
            return []
        keys = [line.split()[1] for line in self._document["public_key"].splitlines()]
        given = script_input(_KIN, {"users": others, "keys": keys})
        try:
            outcome = await self._account.run(script_argv(self._agent.python), given, LOOK_LIMIT)
        except ProxyError as error:
            log.warn("agent {agent}: {words}", agent=self._agent.name, words=error.message)
            return []
        return [user for user in outcome.stdout.decode("utf-8", "replace").split() if user in others]
