"""The open sockets of one console, or of one listener, so that none is left when it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.defer import Deferred, succeed


class Abortable(Protocol):
    def abortConnection(self) -> None: ...


class Sockets:
    """Transports, from their beginning to their end."""

    def __init__(self) -> None:
        self._open: dict[Abortable, None] = {}
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, transport: object) -> bool:
        return transport in self._open

    def __iter__(self) -> Iterator[Abortable]:
        """A copy: closing one while iterating is fine."""

        return iter(tuple(self._open))

    def add(self, transport: Abortable) -> None:
        self._open[transport] = None

    def discard(self, transport: Abortable) -> None:
        self._open.pop(transport, None)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)

    def abort(self) -> None:
        """Close all now, whatever is queued on them."""

        for transport in self:
            transport.abortConnection()

    def when_empty(self) -> Deferred[None]:
        if not self._open:
            return succeed(None)
        done: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(done)
        return done
