"""What operators ask of the agents, in the words of the control protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from ipmiproxyd.errors import NotFound
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Command

_LOOK: Final = 'for program in "$@"; do command -v "$program" >/dev/null || echo "$program"; done'


class CheckedAgent(Agent, Protocol):
    """An agent that can be looked at."""

    def describe(self) -> Mapping[str, Any]: ...

    async def check(self) -> Mapping[str, Any]:
        """As ``describe``, and ``problems``: in words, what will not work. Raises what stands in the way of all."""


class AgentDesk:
    """Implements :class:`~ipmiproxyd.interfaces.Agents`.

    :param programs: what consoles and power actions need on an agent: what for → programs.
    """

    def __init__(self, agents: Sequence[CheckedAgent], programs: Mapping[str, Sequence[str]]) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._programs = programs

    def listing(self) -> Sequence[Mapping[str, Any]]:
        return [{"name": name, **agent.describe()} for name, agent in self._agents.items()]

    async def check(self, name: str) -> Mapping[str, Any]:
        try:
            agent = self._agents[name]
        except KeyError:
            raise NotFound(f"There is no agent named {name!r}.") from None
        told = await agent.check()
        wanted = [program for programs in self._programs.values() for program in programs]
        missing = (await agent.run(Command(argv=("sh", "-c", _LOOK, "sh", *wanted)))).stdout.decode().splitlines()
        problems = [
            f"{program} is not installed: {what} will not work."
            for what, programs in self._programs.items()
            for program in programs
            if program in missing
        ]
        return {"name": name, **told, "problems": [*told["problems"], *problems]}
