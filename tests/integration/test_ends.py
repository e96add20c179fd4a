"""Every kind of end, by one suite; and sockets that are taken away from Twisted."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from ipmiproxyd.relay.ends import READ, TransportEnd
from ipmiproxyd.relay.pipes import Pipe
from ipmiproxyd.relay.socket_end import SocketEnd
from ipmiproxyd.relay.takeover import take_socket
from ipmiproxyd.relay.tls_end import TlsEnd
from tests.support.end_owner import Owner
from tests.support.end_peer import DOWN, UP, Bell, Peer, descriptors, reactor, resident, tcp_pair, unix_pair
from tests.support.end_suite import MB, EndSuite
from tests.support.leftovers import until_none
from tests.support.relay_tls import Made
from tests.support.scratch import scratch

Mood = Callable[[socket.socket], Any] | None
Tls = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]
"""It, what comes in, and what goes out."""


class SocketCase(EndSuite):
    pair = staticmethod(tcp_pair)

    async def make(
        self, owner: Owner, *, small: bool = False, mood: Mood = None, unread: int = 0, unsent: int = 0,
        seed: int = 1, largest: int = 70_000,
    ) -> tuple[Any, Peer]:  # fmt: skip
        ours, theirs = self.pair(small)
        peer = Peer(self.bell, theirs, seed=seed, largest=largest)
        end = SocketEnd(
            owner, reactor, mood(ours) if mood else ours, peer.encrypted(unread), DOWN.take(0, unsent)
        )  # fmt: skip
        return end, peer


class TcpTests(SocketCase, TestCase):
    pass


class UnixTests(SocketCase, TestCase):
    pair = staticmethod(unix_pair)


class SplicedTcpTests(TcpTests):
    """Where much flows, the kernel hands it on."""

    by_kernel = True

    async def test_it_is_the_kernel(self) -> None:
        passed = []
        fill = Pipe.fill

        def counted(pipe: Pipe, number: int) -> int:
            passed.append(fill(pipe, number))
            return passed[-1]

        self.patch(Pipe, "fill", counted)
        _, peer, other = await self.spliced()
        await self.both_ways(peer, other, 16 * MB)
        self.assertGreater(sum(passed), 8 * MB)


class SplicedUnixTests(UnixTests):
    by_kernel = True


class TlsTests(EndSuite, TestCase):
    bulk = 10 * MB
    ends_with = "close_notify"
    version = ssl.TLSVersion.TLSv1_3

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        made = Made(scratch(self))
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(made.certificate, made.key)
        self.client = ssl.create_default_context(cafile=made.certificate)
        self.client.check_hostname = False
        self.client.maximum_version = self.version
        return super().setUp()

    async def make(
        self, owner: Owner, *, small: bool = False, mood: Mood = None, unread: int = 0, unsent: int = 0,
        seed: int = 1, largest: int = 70_000,
    ) -> tuple[Any, Peer]:  # fmt: skip
        (tls, incoming, outgoing), theirs_of_it = self.introduced()
        ours, theirs = tcp_pair(small)
        peer = Peer(self.bell, theirs, theirs_of_it, seed=seed, largest=largest)
        # Half of what is unread was decrypted already, a record may lie half read in the TLS, the rest in the BIO.
        incoming.write(peer.encrypted(unread))
        plain = b""
        while len(plain) < unread // 2:
            plain += tls.read(9000)
        # The same with what is unsent.
        tls.write(DOWN.take(0, unsent // 2))
        waiting = outgoing.read()
        if unsent:
            tls.write(DOWN.take(unsent // 2, unsent - unsent // 2))
        sock = mood(ours) if mood else ours
        return TlsEnd(owner, reactor, sock, tls, incoming, outgoing, plain, waiting), peer

    def introduced(self) -> tuple[Tls, Tls]:
        """The server's side and the client's, their handshake done in memory."""

        incoming, outgoing, their_incoming, their_outgoing = (ssl.MemoryBIO() for _ in range(4))
        tls = self.server.wrap_bio(incoming, outgoing, server_side=True)
        their_tls = self.client.wrap_bio(their_incoming, their_outgoing)
        for _ in range(3):
            for side, says, hears in ((their_tls, their_outgoing, incoming), (tls, outgoing, their_incoming)):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                hears.write(says.read())
        return (tls, incoming, outgoing), (their_tls, their_incoming, their_outgoing)

    async def test_burst_leaves_no_room_behind(self) -> None:
        """OpenSSL's buffers grow with what is in them, and never shrink."""

        sessions = 60
        introduced = [self.introduced()[0] for _ in range(sessions)]
        before = resident()
        for tls in introduced:
            ours, theirs = tcp_pair()
            end = TlsEnd(self.owner, reactor, ours, *tls)
            end.start()
            left = READ
            is_taken = end.send(DOWN.at(0, READ))
            while left > 0:
                left -= len(await self.read(theirs))
            self.assertTrue(is_taken or not end.is_clogged)
            end.pause()
            self.ends.append(end)
            theirs.close()
        self.assertLess((resident() - before) / sessions, 100_000)

    async def read(self, sock: socket.socket) -> bytes:
        while True:
            try:
                return sock.recv(1 << 16)
            except BlockingIOError:
                await self.wait(0)

    async def test_close_notify_of_the_far_side(self) -> None:
        """It may still read, but we have nothing to say to somebody who does not listen to the answers."""

        end, peer = await self.talking()
        peer.say_goodbye()
        await self.until_lost(end)

    async def test_broken_record(self) -> None:
        for garbage in (bytes(100), b"\x17\x03\x03\x00\x20" + bytes(32), b"GET / HTTP/1.1\r\n\r\n"):
            self.owner = Owner(self.bell)
            end, peer = await self.talking()
            peer._socket.sendall(garbage)
            await self.until_lost(end)
            self.assertEqual(self.owner.got, 1000)


class Tls12Tests(TlsTests):
    bulk = 4 * MB
    version = ssl.TLSVersion.TLSv1_2


@implementer(IHandshakeListener)
class Passing(Protocol):
    """Passes everything on to an end, once there is one."""

    transport: Any

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.secure: Deferred[None] = Deferred()
        self.end: TransportEnd | None = None

    def connectionMade(self) -> None:
        self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        self.transport.pauseProducing()
        self.secure.callback(None)

    def dataReceived(self, data: bytes) -> None:
        assert self.end is not None, "a paused transport delivers nothing"
        self.end.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.end is not None:
            self.end.connectionLost(reason)


async def adopt(sock: Any, mood: Mood) -> Passing:
    """The socket as a Twisted transport, paused."""

    passing = Passing()
    factory: Any = Factory.forProtocol(lambda: passing)
    factory.noisy = False
    reactor.adoptStreamConnection(sock.fileno(), sock.family, factory)
    sock.close()
    await passing.ready
    passing.transport.pauseProducing()
    if mood is not None:
        passing.transport.socket = mood(passing.transport.socket)
    return passing


class TransportTests(EndSuite, TestCase):
    bulk = 12 * MB
    hears_on = False  # Twisted closes both directions

    async def make(
        self, owner: Owner, *, small: bool = False, mood: Mood = None, unread: int = 0, unsent: int = 0,
        seed: int = 1, largest: int = 70_000,
    ) -> tuple[Any, Peer]:  # fmt: skip
        ours, theirs = tcp_pair(small)
        peer = Peer(self.bell, theirs, seed=seed, largest=largest)
        passing = await adopt(ours, mood)
        passing.transport.write(DOWN.take(0, unsent))
        passing.end = TransportEnd(owner, reactor, passing.transport, peer.encrypted(unread))
        return passing.end, peer


class TlsTransportTests(EndSuite, TestCase):
    """TLS by Twisted, as on the way to a VNC server with VeNCrypt."""

    bulk = 6 * MB
    ends_with = "close_notify"
    hears_on = False

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        made = Made(scratch(self))
        self.options = PrivateCertificate.loadPEM(made.both().read_bytes()).options()
        self.client = ssl.create_default_context(cafile=made.certificate)
        self.client.check_hostname = False
        return super().setUp()

    async def make(
        self, owner: Owner, *, small: bool = False, mood: Mood = None, unread: int = 0, unsent: int = 0,
        seed: int = 1, largest: int = 70_000,
    ) -> tuple[Any, Peer]:  # fmt: skip
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.client.wrap_bio(incoming, outgoing)
        ours, theirs = tcp_pair(small)
        peer = Peer(self.bell, theirs, (tls, incoming, outgoing), seed=seed, largest=largest)
        passing = await adopt(ours, None)
        passing.transport.startTLS(self.options)
        peer.begin_tls()
        passing.transport.resumeProducing()
        await passing.secure
        if mood is not None:
            passing.transport.socket = mood(passing.transport.socket)
        passing.transport.write(DOWN.take(0, unsent))
        passing.end = TransportEnd(owner, reactor, passing.transport, UP.take(0, unread))
        peer.sent = unread
        return passing.end, peer


class TakeSocketTests(TestCase):
    """From live transports of Twisted, with bytes still in their buffers."""

    timeout = 30

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        return deferLater(reactor, 0, lambda: None)  # the reactor has all its descriptors then

    async def test_server_and_client(self) -> None:
        for side in ("server", "client"):
            await self.take(side, 0)
            await self.take(side, 10)
            await self.take(side, 5 * MB)

    async def connected(self) -> tuple[Talker, Talker]:
        talkers: list[Talker] = []

        def build(_address: object) -> Talker:
            talkers.append(Talker())
            return talkers[-1]

        factory: Any = Factory.forProtocol(Talker)
        factory.noisy = False
        factory.buildProtocol = build
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        connected = await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(factory)
        client, server = sorted(talkers, key=lambda talker: talker is not connected)
        await server.ready
        return server, client

    async def take(self, side: str, unsent: int) -> None:
        before = descriptors()
        bell = Bell()
        server, client = await self.connected()
        ours, theirs = (server, client) if side == "server" else (client, server)
        other, nothing = take_socket(theirs.transport)
        self.assertEqual(nothing, b"")
        peer = Peer(bell, other)
        transport = ours.transport
        transport.write(DOWN.take(0, unsent // 2))
        transport.doWrite()  # of this some is in the kernel, and some not
        transport.write(DOWN.take(unsent // 2, unsent - unsent // 2))

        sock, tail = take_socket(transport)
        self.assertGreaterEqual(unsent, len(tail))
        self.assertEqual(len(tail) > 3 * MB, unsent == 5 * MB)
        self.assertEqual(tail, DOWN.take(unsent - len(tail), len(tail)))
        for gone in (transport, theirs.transport):
            self.assertNotIn(gone, reactor.getReaders() + reactor.getWriters())
        owner = Owner(bell)
        end = SocketEnd(owner, reactor, sock, b"", tail)
        end.start()
        peer.send_until(2 * MB)
        await bell.until(lambda: (peer.got, owner.got) == (unsent, 2 * MB), "everything")
        end.send(DOWN.at(unsent, 1000))
        await bell.until(lambda: peer.got == unsent + 1000, "what came later")
        end.finish()
        await bell.until(lambda: owner.gone, "the end")
        self.assertEqual(peer.ended, "eof")
        self.assertEqual((server.lost, client.lost), (0, 0), "Twisted knows nothing of it")
        await until_none(lambda: max(0, descriptors() - before - 1))  # the port listens

    async def test_in_the_turn_in_which_it_could_also_write(self) -> None:
        """The reactor has seen that the socket can be read and written, and calls for both."""

        bell = Bell()
        server, client = await self.connected()
        other, _ = take_socket(client.transport)
        peer = Peer(bell, other)
        owner = Owner(bell)
        ends = []

        def take(data: bytes) -> None:
            sock, unsent = take_socket(server.transport)
            ends.append(SocketEnd(owner, reactor, sock, data, unsent))
            ends[0].start()

        server.heard = take
        server.transport.pauseProducing()
        peer.send_until(1000)
        await bell.until(lambda: peer.sent == 1000)
        server.transport.resumeProducing()
        server.transport.write(DOWN.take(0, 300_000))  # both are due in the reactor's next turn
        await bell.until(lambda: (peer.got, owner.got) == (300_000, 1000), "everything")
        peer.close()
        await bell.until(lambda: owner.gone, "the end")
        self.assertEqual(server.lost, 0)


class Talker(Protocol):
    transport: Any

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.lost = 0
        self.heard: Callable[[bytes], None] = lambda _: None

    def connectionMade(self) -> None:
        self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.heard(data)

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        self.lost += 1
