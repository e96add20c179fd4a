"""The display numbers of one agent."""

from __future__ import annotations

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

    def take(self, console: str) -> int:
        """A display for ``console``. Raises NoFreeDisplay."""

        now = self._clock.seconds()
        for display in self._free:
            if self._foreign.get(display, now) <= now:
                self._foreign.pop(display, None)
                self._free.remove(display)
                self._taken[display] = console
                return display
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
