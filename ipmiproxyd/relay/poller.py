"""An epoll of our own for the ends of relayed sessions, inside the reactor's.

Twisted spends about as long on each event (the log's context, a lookup, a turn of its loop) as a small message takes to
be relayed. Here the reactor sees one descriptor that is readable when any of our sockets has something to do, and they
are served in one turn of its loop for as long as there is something to do, but no longer than two milliseconds: then
timers and everybody else have their turn.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

BATCH: Final = 64
"""How many events are fetched at once."""
TURN: Final = 0.002
"""Seconds after which no more are fetched in this turn of the reactor's loop."""

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_GONE: Final = select.EPOLLHUP | select.EPOLLERR

log = Logger()


class Descriptor(Protocol):
    """What Twisted calls a reader and writer."""

    def fileno(self) -> int: ...

    def doRead(self) -> None: ...

    def doWrite(self) -> None: ...

    def connectionLost(self, reason: Failure) -> None: ...


@implementer(IReadDescriptor)
class Poller:
    """Offers what :class:`~ipmiproxyd.relay.socket_end.SocketEnd` needs of a reactor. It is in the reactor while
    anybody reads or writes."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.callLater: Callable[..., Any] = reactor.callLater
        self._epoll: select.epoll | None = None
        self._watched: dict[int, tuple[Descriptor, int]] = {}

    # --- for the ends ------------------------------------------------------------------------------------------------

    def addReader(self, end: Descriptor) -> None:
        self._change(end, _IN, 0)

    def removeReader(self, end: Descriptor) -> None:
        self._change(end, 0, _IN)

    def addWriter(self, end: Descriptor) -> None:
        self._change(end, _OUT, 0)

    def removeWriter(self, end: Descriptor) -> None:
        self._change(end, 0, _OUT)

    def _change(self, end: Descriptor, more: int, less: int) -> None:
        number = end.fileno()
        before = self._watched[number][1] if number in self._watched else 0
        mask = (before | more) & ~less
        if mask == before:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        if not mask:
            # Not watched for nothing: the kernel would tell of its end again and again.
            del self._watched[number]
            self._epoll.unregister(number)
            if not self._watched:
                self._leave()
            return
        self._watched[number] = (end, mask)
        if before:
            self._epoll.modify(number, mask)
        else:
            self._epoll.register(number, mask)

    def _leave(self) -> None:
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            self._reactor.removeReader(self)
            epoll.close()

    # --- for the reactor ---------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "relay"

    def doRead(self) -> None:
        until = monotonic() + TURN
        while self._epoll is not None:
            events = self._epoll.poll(0, BATCH)
            for number, event in events:
                entry = self._watched.get(number)
                if entry is not None:
                    _serve(entry[0], event)
            if not events or monotonic() > until:
                return

    def connectionLost(self, _reason: Failure) -> None:
        """The reactor lets go of everybody, at its end."""


def _serve(end: Descriptor, event: int) -> None:
    try:
        if event & _IN:
            end.doRead()
        elif event & _GONE:
            end.connectionLost(Failure(CONNECTION_LOST))
            return
        if event & _OUT:
            end.doWrite()
    except Exception:
        failure = Failure()
        log.failure("a relayed connection failed", failure)
        end.connectionLost(failure)
