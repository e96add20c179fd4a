"""What a browser says in the relay's tests, and things that make it wait."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

KEY_PRESS = b"\x04\x01\x00\x00" + struct.pack(">I", 0x61)
KEY_RELEASE = b"\x04\x00\x00\x00" + struct.pack(">I", 0x61)
UPDATE_REQUEST = struct.pack(">BBHHHH", 3, 0, 0, 0, 16, 16)
MIB = 1 << 20


def cut_text(text: bytes) -> bytes:
    return struct.pack(">B3xi", 6, len(text)) + text


@implementer(IStreamClientEndpoint)
class LateEndpoint:
    """Connects when it is told to."""

    def __init__(self, endpoint: UNIXClientEndpoint) -> None:
        self._endpoint = endpoint
        self._go: Deferred[None] = Deferred()
        self.cancelled = False

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        def cancel(_: Any) -> None:
            self.cancelled = True

        self._go = Deferred(cancel)
        return self._go.addCallback(lambda _: self._endpoint.connect(factory))

    def go(self) -> None:
        self._go.callback(None)


class Pusher:
    """A producer that writes the same piece over and over."""

    def __init__(self, transport: Any, piece: bytes, times: int) -> None:
        self._transport = transport
        self._piece = piece
        self.left = times
        self.said = 0
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while self.left and not self._paused:
            self.left -= 1
            self.said += 1
            self._transport.write(self._piece)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self.left = 0
