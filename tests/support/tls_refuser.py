"""A server that has no cipher in common with anybody: it reads what it is offered, and says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

_FAILURE = bytes((0x15, 3, 1, 0, 2, 2, 40))
"""The alert handshake_failure."""
_VERSIONS = 43


@dataclass(frozen=True)
class Offer:
    """A ClientHello (RFC 8446 §4.1.2). ``oldest``: the oldest version of TLS that is offered, as it is sent; a client
    that names none but its newest tells nothing of older ones."""

    newest: int
    versions: tuple[int, ...]

    @property
    def oldest(self) -> int:
        return min(self.versions, default=0)


def read_hello(record: bytes) -> Offer:
    hello = record[5 + 4 :]
    at = 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2])
    at += 1 + hello[at]
    end = at + 2 + int.from_bytes(hello[at : at + 2])
    at += 2
    versions: tuple[int, ...] = ()
    while at < end:
        kind, length = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
        body = hello[at + 4 : at + 4 + length]
        if kind == _VERSIONS:
            versions = tuple(int.from_bytes(body[place : place + 2]) for place in range(1, len(body), 2))
        at += 4 + length
    return Offer(int.from_bytes(hello[:2]), versions)


class _Refusal(Protocol):
    factory: Any
    heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if len(self.heard) >= 5 and len(self.heard) >= 5 + int.from_bytes(self.heard[3:5]):
            self.factory.offers.append(read_hello(self.heard))
            assert self.transport is not None
            self.transport.write(_FAILURE)
            self.transport.loseConnection()


class TlsRefuser(Factory):
    """:ivar offers: what it was offered, in order.
    :ivar place: host and port.
    """

    protocol: Any = _Refusal
    noisy = False

    def __init__(self, test: SynchronousTestCase, address: str = "127.0.0.1") -> None:
        self.offers: list[Offer] = []
        port = cast(Any, reactor).listenTCP(0, self, interface=address)
        self.place = f"{address}:{port.getHost().port}"
        test.addCleanup(port.stopListening)
