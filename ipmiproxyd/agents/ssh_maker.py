"""From what an operator tells of an agent to the agent itself, and the first look at its host."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from ipmiproxyd.agents.known_hosts import known_host
from ipmiproxyd.agents.ssh import SshAgent
from ipmiproxyd.agents.ssh_keys import identities
from ipmiproxyd.agents.ssh_link import SshPlace, check_revoked, hang_up, shown_host_keys, sign_in
from ipmiproxyd.agents.ssh_transport import host_key_problem
from ipmiproxyd.errors import MissingArgument
from ipmiproxyd.model import RemoteAgent


class SshMaker:
    """Makes agents.

    :param home_files: put into the tools' homes (relative path → text).
    :param user_prefix: what the names of displays' Unix users begin with.
    :param lease: seconds that a job goes on without a sign of life from here.
    :param displays: the numbers that displays may have.
    :param known_hosts: OpenSSH's files of known hosts.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        home_files: Mapping[str, str],
        user_prefix: str,
        lease: float,
        displays: Sequence[int],
        known_hosts: Sequence[Path],
    ) -> None:
        self._reactor = reactor
        self._home_files = home_files
        self._user_prefix = user_prefix
        self._lease = lease
        self._displays = displays
        self._known_hosts = tuple(known_hosts)

    def make(self, agent: RemoteAgent) -> SshAgent:
        return SshAgent(
            agent,
            known_hosts=self._known_hosts,
            home_files=self._home_files,
            user_prefix=self._user_prefix,
            lease=self._lease,
            displays=self._displays,
            reactor=self._reactor,
        )

    async def vouched(
        self,
        agent: RemoteAgent,
        *,
        check: bool,
        known_hosts: bool,
        neighbour: Callable[[str], str] = lambda _: "",
    ) -> RemoteAgent:
        """The agent with a host key that somebody vouches for, and, if ``check``, one that lets us in and is of use.

        :param known_hosts: the files of known hosts may vouch for it; what they call revoked is so anyway.

        :param neighbour: see :class:`~ipmiproxyd.agents.fleet.RemoteHosted`.

        Raises MissingArgument, HostKeyUnknown, HostKeyChanged, KeyRefused, AgentUnreachable, AgentOutdated,
        ToolMissing, and Exists where a neighbour is.
        """

        place = SshPlace.of(agent, self._known_hosts)
        if check:
            async with identities(self._reactor, str(place.key), place.passphrase):
                pass  # what is wrong with it is said first
        elif not agent.host_keys:
            raise MissingArgument(
                "host_key= is needed where nobody looks at the agent.",
                hint="Give host_key=SHA256:… (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub).",
            )
        agent = await self.trusted(agent, known_hosts=known_hosts)
        if check:
            await self._try_out(agent, neighbour)
        return agent

    async def trusted(self, agent: RemoteAgent, *, known_hosts: bool) -> RemoteAgent:
        """The agent with a host key that somebody vouches for. Nobody signs in. Raises HostKeyUnknown, HostKeyChanged,
        AgentUnreachable. ``known_hosts`` is as for :meth:`vouched`."""

        place = SshPlace.of(agent, self._known_hosts)
        known = await deferToThread(known_host, self._known_hosts, agent.host, agent.port)
        check_revoked(str(place), agent.host_keys, known.revoked)
        if agent.host_keys:
            return agent
        shown = await shown_host_keys(self._reactor, agent.name, place)
        check_revoked(str(place), shown.values(), known.revoked)
        trusted = known.trusted if known_hosts else frozenset[str]()
        return replace(agent, host_keys=_trusted(str(place), shown, trusted))

    async def _try_out(self, agent: RemoteAgent, neighbour: Callable[[str], str]) -> None:
        transport = await sign_in(self._reactor, agent.name, SshPlace.of(agent, self._known_hosts))
        try:
            made = self.make(agent)
            made.neighbour = neighbour
            await made.try_out(transport)
        finally:
            await hang_up(transport)


def _trusted(place: str, shown: Mapping[str, str], known: Collection[str]) -> tuple[str, ...]:
    trusted = tuple(key for key in shown.values() if key in known)
    if not trusted:
        raise host_key_problem(place, shown, known)
    return trusted
