"""The display numbers of each agent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime

from ipmiproxyd.errors import NoFreeDisplay

FOREIGN_REST: Final = 60.0
"""Seconds for which a display that somebody else holds is not tried again."""


class DisplayPool:
    """Hands out display numbers ``first``..``last``, the one that has rested longest first."""

    def __init__(self, first: int, last: int, clock: IReactorTime) -> None:
        self._clock = clock
        self._free = list(range(first, last + 1))
        self._taken: dict[int, str] = {}
        self._foreign: dict[int, float] = {}

    @property
    def size(self) -> int:
        return len(self._free) + len(self._taken)

    @property
    def in_use(self) -> int:
        return len(self._taken)

    def take(self, console: str, *, last: bool = True) -> int:
        """A display for ``console``. Raises NoFreeDisplay; without ``last`` also if no other one would be free then."""

        now = self._clock.seconds()
        free = [display for display in self._free if self._foreign.get(display, now) <= now]
        if len(free) > (0 if last else 1):
            display = free[0]
            self._foreign.pop(display, None)
            self._free.remove(display)
            self._taken[display] = console
            return display
        if free:
            raise NoFreeDisplay(
                "Only one display of this agent is free, and it is left for consoles.",
                hint="Close a console that is no longer needed, or widen displays.range.",
            )
        raise NoFreeDisplay(
            f"All {self.size} displays of this agent are in use.",
            hint="Close a console that is no longer needed, or widen displays.range.",
        )

    def give_back(self, display: int, console: str) -> None:
        """Idempotent: only the console that holds the display gives it back."""

        if self._taken.get(display) == console:
            del self._taken[display]
            self._free.append(display)

    def held_by_others(self, display: int) -> None:
        """Another program of the machine holds this display: leave it alone for a while."""

        self._foreign[display] = self._clock.seconds() + FOREIGN_REST


class DisplayPools(Mapping[str, DisplayPool]):
    """One for each of the agents that there are just now.

    :param agents: their names; they may change.
    """

    def __init__(self, agents: Collection[str], first: int, last: int, clock: IReactorTime) -> None:
        self._agents = agents
        self._range = (first, last)
        self._clock = clock
        self._pools: dict[str, DisplayPool] = {}

    def __getitem__(self, agent: str) -> DisplayPool:
        if agent not in self._agents:
            raise KeyError(agent)
        if agent not in self._pools:
            self._pools = {name: pool for name, pool in self._pools.items() if name in self._agents}
            self._pools[agent] = DisplayPool(*self._range, self._clock)
        return self._pools[agent]

    def __iter__(self) -> Iterator[str]:
        return iter(self._agents)

    def __len__(self) -> int:
        return len(self._agents)
