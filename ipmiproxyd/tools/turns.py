"""Turns: one at a time per key, a bounded number over all, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from twisted.internet.defer import DeferredLock, DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IReactorTime

from ipmiproxyd.errors import LimitReached, TimedOut

QUEUE_PER_KEY: Final = 16
QUEUE_OVER_ALL: Final = 256


class Turns:
    """Who may go next.

    :param places: how many may go at once over all keys.
    :param patience: the longest wait for a turn or a place, in seconds.
    :param queue: how many may wait for one key.
    """

    def __init__(
        self, clock: IReactorTime, *, places: int, patience: float, queue: int = QUEUE_PER_KEY
    ) -> None:
        self._clock = clock
        self._patience = patience
        self._queue = queue
        self._places = DeferredSemaphore(places)
        self._locks: dict[str, DeferredLock] = {}

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Be the only one with this key.

        :raises LimitReached: too many wait for it already.
        :raises TimedOut: the wait was longer than ``patience``.
        """

        lock = self._locks.setdefault(key, DeferredLock())
        if len(lock.waiting) >= self._queue:
            raise LimitReached(f"Too many requests wait for the BMC {key}.", hint="Try again when it has answered.")
        await self._wait(lock, f"Earlier requests to the BMC {key} have not ended")
        try:
            yield
        finally:
            lock.release()
            if not lock.locked:
                # With nobody left the lock is not needed any more; somebody new makes another.
                self._locks.pop(key, None)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Be one of the few that go at once over all keys. Raises as :meth:`turn` does."""

        if len(self._places.waiting) >= QUEUE_OVER_ALL:
            raise LimitReached("Too many requests to BMCs wait for their turn.", hint="Try again in a minute.")
        await self._wait(self._places, "Other requests to BMCs have not ended")
        try:
            yield
        finally:
            self._places.release()

    async def _wait(self, gate: DeferredLock | DeferredSemaphore, why: str) -> None:
        try:
            await gate.acquire().addTimeout(self._patience, self._clock)
        except TimeoutError:
            raise TimedOut(f"{why} after {self._patience:g} seconds.", hint="Try again in a minute.") from None
