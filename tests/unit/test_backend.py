"""Signing in at a VNC server: the connection's life, in memory."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost, DNSLookupError, getConnectError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ipmiproxyd.errors import (
    AgentUnreachable,
    BmcAuth,
    BmcError,
    BmcUnreachable,
    BmcUnsupported,
    ProxyError,
    TimedOut,
)
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Secret
from ipmiproxyd.relay.backend import Backend, connect

V38 = b"RFB 003.008\n"
INIT = struct.pack(">HH16sI", 640, 480, bytes(16), 4) + b"name"
GREETED = V38 + b"\x01\x01" + bytes(4) + INIT


class Wire(StringTransport):
    """One connection of :class:`Lines`."""

    def __init__(self) -> None:
        super().__init__()
        self.client: Any = None

    def says(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.client.dataReceived(chunk)

    def heard(self) -> bytes:
        said: bytes = self.value()
        self.clear()
        return said

    def ends(self, reason: Exception | None = None) -> None:
        self.disconnected = True
        self.client.connectionLost(connectionDone if reason is None else Failure(reason))

    def abortConnection(self) -> None:
        super().abortConnection()
        self.ends(ConnectionLost())

    @property
    def paused(self) -> bool:
        return bool(self.producerState == "paused")


@implementer(IStreamClientEndpoint)
class Lines:
    """An endpoint: each connection waits for :meth:`answer`."""

    def __init__(self) -> None:
        self.calls: list[tuple[IProtocolFactory, Deferred[Any]]] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self.calls.append((protocolFactory, Deferred()))
        return self.calls[-1][1]

    def answer(self) -> Wire:
        factory, connecting = self.calls.pop(0)
        wire = Wire()
        wire.client = factory.buildProtocol(None)  # type: ignore[arg-type]
        wire.client.makeConnection(wire)
        connecting.callback(wire.client)
        return wire

    def refuse(self, error: Exception) -> None:
        self.calls.pop(0)[1].errback(error)


class Receiver:
    def __init__(self) -> None:
        self.heard: list[bytes | str] = []

    def dataReceived(self, data: bytes, /) -> None:
        self.heard.append(data)

    def connectionLost(self, _reason: Failure, /) -> None:
        self.heard.append("lost")


class BackendTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lines = Lines()

    def start(self, password: str = "", host: str = "", fingerprint: str = "") -> Deferred[Backend]:
        server = VncServer(self.lines, host, Secret(password), fingerprint)
        return connect(server, self.clock, limit=15)

    def failure(self, deferred: Deferred[Backend], kind: type[Exception]) -> Any:
        error = self.failureResultOf(deferred, kind).value
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return error

    def signed_in(self) -> tuple[Backend, Wire]:
        done = self.start()
        wire = self.lines.answer()
        wire.says(GREETED)
        return self.successResultOf(done), wire

    def test_signed_in(self) -> None:
        done = self.start()
        wire = self.lines.answer()
        wire.says(V38, b"\x01\x01")
        self.assertNoResult(done)
        self.assertFalse(wire.paused)
        wire.says(bytes(4) + INIT + b"and ")
        backend = self.successResultOf(done)
        self.assertEqual(wire.heard(), V38 + b"\x01\x01")
        self.assertTrue(wire.paused)
        wire.says(b"more")  # it was read before the pause
        self.assertEqual((backend.init, backend.unread, backend.encrypted), (INIT, b"and more", False))
        self.assertIs(backend.transport, wire)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_taken(self) -> None:
        backend, wire = self.signed_in()
        receiver = Receiver()
        wire.says(b"one", b"two")
        backend.take(receiver)
        self.assertTrue(wire.paused)
        wire.says(b"three")
        wire.ends()
        self.assertEqual(receiver.heard, [b"onetwo", b"three", "lost"])

    def test_taken_too_late(self) -> None:
        backend, wire = self.signed_in()
        wire.says(b"last words")
        wire.ends()
        receiver = Receiver()
        backend.take(receiver)
        self.assertEqual(receiver.heard, [b"last words", "lost"])
        backend, wire = self.signed_in()
        wire.ends()
        self.assertRaises(BmcUnreachable, backend.detach)
        backend.close()

    def test_detached(self) -> None:
        backend, wire = self.signed_in()
        wire.says(b"unread")
        self.assertEqual(backend.detach(), (wire, b"unread"))
        wire.says(b"for somebody else")
        wire.ends()
        self.assertEqual(backend.unread, b"unread")

    def test_closed(self) -> None:
        backend, wire = self.signed_in()
        backend.close()
        self.assertTrue(wire.disconnected)
        backend.close()

    def test_it_cannot_be_reached(self) -> None:
        for error, words in (
            (getConnectError((111, "Connection refused")), "reached: Connection refused."),
            (DNSLookupError("no results for hostname lookup: bmc.example"), "bmc.example."),
            (PermissionError(13, "Permission denied"), "Permission denied."),
        ):
            done = self.start()
            self.lines.refuse(error)
            self.assertIn(words, self.failure(done, BmcUnreachable).message)
        done = self.start()
        self.lines.refuse(AgentUnreachable("The agent is away."))
        self.failure(done, AgentUnreachable)

    def test_it_ends(self) -> None:
        for said, kind in ((b"", BmcUnreachable), (V38, BmcError)):
            done = self.start()
            wire = self.lines.answer()
            wire.says(said)
            wire.ends()
            self.failure(done, kind)

    def test_refused(self) -> None:
        for said, kind in ((b"SSH-2.0", BmcError), (V38 + b"\x01\x02", BmcAuth), (V38 + b"\x01\x13", BmcUnsupported)):
            done = self.start()
            wire = self.lines.answer()
            wire.says(said)
            self.failure(done, kind)
            self.assertTrue(wire.disconnected)
            wire.says(b"more")

    def test_too_slow(self) -> None:
        done = self.start()
        self.clock.advance(15)
        self.assertIn("did not answer", self.failure(done, TimedOut).message)
        for said, words in ((b"RFB", "did not greet"), (V38, "did not finish")):
            done = self.start()
            self.lines.calls = self.lines.calls[-1:]
            wire = self.lines.answer()
            self.clock.advance(10)
            wire.says(said)
            self.clock.advance(5)
            self.assertIn(words, self.failure(done, TimedOut).message)
            self.assertTrue(wire.disconnected)

    def test_cancelled(self) -> None:
        done = self.start()
        done.cancel()
        self.failure(done, CancelledError)
        self.assertTrue(self.lines.calls.pop()[1].called)
        done = self.start()
        wire = self.lines.answer()
        wire.says(V38)
        done.cancel()
        self.failure(done, CancelledError)
        self.assertTrue(wire.disconnected)

    def test_once_more_without_encryption(self) -> None:
        done = self.start("secret", "bmc.example")
        first = self.lines.answer()
        first.says(V38, b"\x02\x13\x02", b"\x00\x02", b"\x00", b"\x01\x00\x00\x01\x02")
        self.assertTrue(first.disconnected)
        second = self.lines.answer()
        second.says(V38, b"\x02\x13\x02", bytes(16), bytes(4) + INIT)
        self.assertEqual(second.heard()[12:13], b"\x02")
        self.assertEqual(self.successResultOf(done).init, INIT)
        self.assertEqual(self.lines.calls, [])

    def test_no_encryption_where_no_network_lies_between(self) -> None:
        done = self.start("secret")
        wire = self.lines.answer()
        wire.says(V38, b"\x02\x13\x02", bytes(16), bytes(4) + INIT)
        self.assertEqual(wire.heard()[12:13], b"\x02")
        self.successResultOf(done)

    def test_a_way_that_knows_no_tls(self) -> None:
        done = self.start("", "bmc.example", "00" * 32)
        wire = self.lines.answer()
        wire.says(V38, b"\x01\x13", b"\x00\x02", b"\x00", b"\x01\x00\x00\x01\x04", b"\x01")
        self.failure(done, BmcUnsupported)
        self.assertTrue(wire.disconnected)

    def test_no_secret_in_words(self) -> None:
        done = self.start("hush")
        self.lines.answer().says(V38, b"\x01\x02", bytes(16), b"\x00\x00\x00\x01\x00\x00\x00\x02no")
        error: ProxyError = self.failure(done, BmcAuth)
        self.assertNotIn("hush", f"{error!r} {error.message} {error.hint}")
