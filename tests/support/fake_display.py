"""A display for the relay's tests that is no display: after an RFB handshake it says and hears bytes, as
fast or slow as it is told."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

VERSION = b"RFB 003.008\n"
INIT = struct.pack(">HH16sI", 800, 600, bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0)), 4) + b"fake"
"""Its ServerInit."""

_HELLO = (
    (VERSION, b"\x01\x01"),
    (b"\x01", bytes(4)),
    (b"\x01", INIT),  # shared, whatever the browser asked for
)
"""What it expects, and answers; after its own version."""


@implementer(IPushProducer)
class DisplayEnd(Protocol):
    """One viewer's connection, as the display has it.

    :ivar heard: what was said after the handshake; ``count`` its length.
    :ivar greeted: fires when the handshake is done.
    """

    transport: Any

    def __init__(self, display: FakeDisplay) -> None:
        self._display = display
        self.heard = bytearray()
        self.count = 0
        self.is_lost = False
        self.lost: Deferred[None] = Deferred()
        self.greeted: Deferred[None] = Deferred()
        self.greeted.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self._expected = list(_HELLO)
        self._early = b""
        self._to_say = 0
        self.said = 0
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def connectionMade(self) -> None:
        self._display.came(self)
        self.transport.write(VERSION)

    def _greet(self, data: bytes) -> bytes:
        self._early += data
        while self._expected and len(self._early) >= len(self._expected[0][0]):
            expected, answer = self._expected.pop(0)
            assert self._early.startswith(expected), self._early
            self._early = self._early[len(expected) :]
            self.transport.write(answer)
            if not self._expected:
                self.greeted.callback(None)
        rest, self._early = (b"", self._early) if self._expected else (self._early, b"")
        return rest

    def dataReceived(self, data: bytes) -> None:
        if self._expected:
            data = self._greet(data)
        self.count += len(data)
        if self._display.keeps:
            self.heard += data
        for entry in tuple(self._waiting):
            if self.count >= entry[0]:
                self._waiting.remove(entry)
                entry[1].callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self._to_say = 0
        if self._expected:
            self.greeted.cancel()
        self.lost.callback(None)

    async def hears(self, count: int, limit: float = 10.0) -> None:
        """Until it has heard ``count`` bytes in all."""

        if self.count < count:
            waiter: Deferred[None] = Deferred()
            self._waiting.append((count, waiter))
            waiter.addTimeout(limit, self._display.reactor)
            await waiter

    def say(self, data: bytes) -> None:
        self.transport.write(data)

    def flood(self, count: int) -> None:
        """Say ``count`` zero bytes, as fast as they are taken. ``said`` counts."""

        self._to_say = count
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while self._to_say and not self._paused:
            size = min(self._to_say, 1 << 16)
            self._to_say -= size
            self.said += size
            self.transport.write(bytes(size))

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._to_say = 0

    def drop(self) -> None:
        self._to_say = 0
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        if not self.is_lost:
            self.transport.abortConnection()

    def pause(self) -> None:
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()


class FakeDisplay(Factory):
    """Listens on a UNIX socket.

    :ivar ends: its connections, the newest last.
    :ivar keeps: whether they keep what they hear.
    """

    noisy = False

    def __init__(self, reactor: Any, folder: Path) -> None:
        self.reactor = reactor
        self.path = str(folder / "display")
        self.ends: list[DisplayEnd] = []
        self.keeps = True
        self._waiting: list[tuple[int, Deferred[DisplayEnd]]] = []
        self._port = reactor.listenUNIX(self.path, self)

    @property
    def endpoint(self) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(self.reactor, self.path)

    def buildProtocol(self, addr: IAddress | None) -> DisplayEnd:
        return DisplayEnd(self)

    def came(self, end: DisplayEnd) -> None:
        self.ends.append(end)
        waiting, self._waiting = self._waiting, []
        for index, waiter in waiting:
            if len(self.ends) > index:
                waiter.callback(self.ends[index])
            else:
                self._waiting.append((index, waiter))

    async def viewer(self, index: int = 0) -> DisplayEnd:
        """The connection of this index, once its handshake is done."""

        if len(self.ends) <= index:
            waiter: Deferred[DisplayEnd] = Deferred()
            self._waiting.append((index, waiter))
            waiter.addTimeout(10.0, self.reactor)
            await waiter
        end = self.ends[index]
        greeted: Deferred[None] = Deferred()
        end.greeted.chainDeferred(greeted)
        await greeted.addTimeout(10.0, self.reactor)
        return end

    async def stop(self) -> None:
        await self._port.stopListening()
        for end in self.ends:
            end.abort()
            if not end.is_lost:
                await end.lost
