"""The agents that there are just now: they come and go while the daemon runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.logger import Logger

from ipmiproxyd.agents.children import shielded
from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Job, RemoteAgent

log = Logger()


class HostedAgent(Agent, Protocol):
    """An agent as the daemon looks after it. ``kind`` is "local" or "ssh"."""

    @property
    def kind(self) -> str: ...

    @property
    def place(self) -> str:
        """A name of the place where its jobs are kept, the same for every agent that keeps them there; empty as long
        as it is not known."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the runner told of itself: ``user``, ``own_users``, ``jobs``, ``cache``; empty until it has."""

    @property
    def folder(self) -> str:
        """What is ours there. Raises AgentUnreachable where that is not known."""

    @property
    def host(self) -> str:
        """Its address for the daemon; empty for the daemon's own machine."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def describe(self) -> Mapping[str, Any]: ...

    async def check(self) -> Sequence[Finding]:
        """Raises what stands in the way of all."""

    async def repair(self) -> Finding | None:
        """Put there what is missing, as far as that may be done; None where nothing is missing. Raises likewise."""


class RemoteHosted(HostedAgent, Protocol):
    """One on another machine.

    :ivar isolated: its displays had Unix users of their own, and shall not do without them by themselves.
    :ivar when_isolated: is called when they have them for the first time.
    :ivar neighbour: place → the name of another agent that is there, or empty. With one no connection is kept: each
        would end the other's jobs.
    """

    isolated: bool
    when_isolated: Callable[[], None]
    neighbour: Callable[[str], str]

    async def look_again(self) -> Finding:
        """Take what is there now into use, at once: over the connection that there is, or by a new one. Returns what is
        to be said of the runner. Raises what stands in the way."""

    async def change(self, agent: RemoteAgent) -> None:
        """Be as it is told now, at once. Streams and programs are lost, unless only the browser is another; jobs go
        on."""


Welcome = Callable[[Agent], Coroutine[Any, Any, None]]


class Fleet(Mapping[str, HostedAgent]):
    """The agents by name. Whoever asks for one uses :func:`~ipmiproxyd.interfaces.agent_named`.

    :ivar leaving: the names of those on which nothing new is begun: they leave once their consoles are closed.
    """

    def __init__(self) -> None:
        self.leaving: set[str] = set()
        self._agents: dict[str, HostedAgent] = {}
        self._ended: Callable[[Job], None] | None = None
        self._welcome: Welcome | None = None

    def __getitem__(self, name: str) -> HostedAgent:
        return self._agents[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._agents))

    def __len__(self) -> int:
        return len(self._agents)

    def put(self, agent: HostedAgent) -> None:
        """Have one more, which is not started."""

        self._agents[agent.name] = agent
        if hasattr(agent, "connected"):
            agent.connected = lambda: self._greet(agent)
        if hasattr(agent, "neighbour"):
            agent.neighbour = lambda place: self.at(place, but=agent.name)

    def at(self, place: str, *, but: str = "") -> str:
        """The name of the agent whose jobs are kept at a place, other than one; empty if there is none."""

        return next((one.name for one in self.values() if one.place == place and one.name != but), "")

    async def start(self, ended: Callable[[Job], None]) -> None:
        """Start those that there are. Raises what a local agent raises.

        :param ended: is told of the jobs that end by themselves, on all agents.
        """

        self._ended = ended
        starting = [Deferred.fromCoroutine(self._start(agent)) for agent in self.values()]
        try:
            await gatherResults(starting, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()

    async def _start(self, agent: HostedAgent) -> None:
        await agent.start()
        if self._ended is not None and self._agents.get(agent.name) is agent:
            agent.watch(self._ended)

    def welcome(self, welcome: Welcome) -> None:
        """What is to be done from now on with each agent that is connected (again)."""

        self._welcome = welcome

    def _greet(self, agent: HostedAgent) -> None:
        if self._welcome is not None and self._agents.get(agent.name) is agent:
            done = Deferred.fromCoroutine(self._welcome(agent))
            done.addErrback(lambda failure: log.failure("agent {agent}", failure, agent=agent.name))

    async def join(self, agent: HostedAgent) -> None:
        """Have one more while the daemon runs; waits a moment for it. Cancelling only stops the waiting."""

        self.put(agent)
        await shielded(Deferred.fromCoroutine(self._start(agent)))

    async def leave(self, name: str) -> None:
        """Have one no more, from the moment of this call. Its jobs go on."""

        self.leaving.discard(name)
        await shielded(Deferred.fromCoroutine(self._agents.pop(name).close()))

    async def close(self) -> None:
        """The daemon ends."""

        await gatherResults([Deferred.fromCoroutine(self._close(agent)) for agent in self.values()])

    async def _close(self, agent: HostedAgent) -> None:
        try:
            await agent.close()
        except Exception:
            log.failure("agent {agent}: it was not closed", agent=agent.name)
