"""Whoever takes a connection over gets every byte that is on its way."""

from __future__ import annotations

import contextlib
import gc
import random
import ssl
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ipmiproxyd.relay.connection import RelayConnection
from ipmiproxyd.relay.ports import RelayListener
from ipmiproxyd.relay.servertls import ServerTls
from ipmiproxyd.relay.sockets import Sockets
from ipmiproxyd.relay.takeover import take_socket
from ipmiproxyd.relay.tls import TlsConnection
from tests.support.ports import free_ports
from tests.support.relay_case import reactor, until
from tests.support.relay_talk import MIB
from tests.support.relay_tls import Made
from tests.support.scratch import scratch
from tests.support.ws_client import connect_raw


class Speaker(Protocol):
    """Tells what it heard, and whether it was told the end."""

    transport: Any

    def __init__(self) -> None:
        self.heard = bytearray()
        self.is_lost = False
        self.on_data: Any = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self.on_data()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True


class TakeOverTests(TestCase):
    timeout = 60
    speaker: Speaker

    def listen(self, tls: ServerTls | None = None) -> None:
        factory: Any = Factory()
        factory.sockets = self.sockets = Sockets()
        factory.tls = tls
        factory.buildProtocol = lambda _: self.speaker
        self.speaker = Speaker()
        (self.port,) = free_ports(1)
        listener = RelayListener(self.port, factory, 5, "127.0.0.1", reactor)
        listener.startListening()
        self.addCleanup(listener.stopListening)

    async def test_what_was_not_sent_yet(self) -> None:
        self.listen()
        client = await connect_raw(reactor, self.port)
        client.transport.pauseProducing()
        await until(lambda: len(self.sockets))
        connection: RelayConnection = self.speaker.transport
        noise = random.Random(1).randbytes(12 * MIB)
        for at in range(0, len(noise), MIB):
            connection.write(noise[at : at + MIB])
        await until(lambda: connection.offset or len(connection.dataBuffer) < len(noise))
        connection.write(b"the end")
        taken, unsent = take_socket(connection)
        self.assertGreater(len(unsent), 0)
        self.assertTrue(unsent.endswith(b"the end"))
        self.assertNotIn(connection, [*reactor.getReaders(), *reactor.getWriters()])
        self.assertEqual(list(self.sockets), [connection])
        connection.stand_in()
        self.assertEqual(list(self.sockets), [])
        for _ in range(2):  # too late, all of it
            connection.write(b"nothing")
            connection.abortConnection()
            connection.loseConnection()
            connection.connectionLost(Failure(ConnectionError()))
            self.assertIsNone(connection.doWrite())
            connection.stand_in(self.sockets)
        self.assertEqual(list(self.sockets), [])
        client.transport.resumeProducing()
        taken.setblocking(True)
        await deferToThread(taken.sendall, unsent)
        taken.close()
        await client.gone()
        self.assertEqual(bytes(client.data), noise + b"the end")
        self.assertFalse(self.speaker.is_lost)

    async def test_nothing_of_it_remains(self) -> None:
        self.listen()
        client = await connect_raw(reactor, self.port)
        await until(lambda: len(self.sockets))
        gone = Deferred[None]()

        def take() -> None:
            speaker, self.speaker = self.speaker, Speaker()
            connection, speaker.transport = speaker.transport, None
            connection.write(b"x")
            take_socket(connection)[0].close()
            connection.stand_in()
            self.watched = weakref.ref(connection)
            gone.callback(None)

        self.speaker.on_data = take
        gc.disable()
        self.addCleanup(gc.enable)
        client.transport.write(b"take")
        await gone
        await client.gone()
        await until(lambda: self.watched() is None)

    async def test_tls_with_bytes_on_their_way(self) -> None:
        """The client says more in one breath than is read before its connection changes hands."""

        made = Made(scratch(self))
        self.listen(ServerTls(reactor, made.certificate, made.key))
        client = await connect_raw(reactor, self.port, tls=made.trust())
        noise = random.Random(2).randbytes(60_000)
        taken: list[Any] = []

        def take() -> None:
            connection: TlsConnection = self.speaker.transport
            connection.write(b"last words of HTTP")
            taken.extend((connection.detach(), *take_socket(connection)))
            connection.stand_in()
            self.assertRaises(RuntimeError, connection.detach)

        self.speaker.on_data = take
        client.transport.write(b"take")
        for at in range(0, len(noise), 7_000):
            client.transport.write(noise[at : at + 7_000])
        await until(lambda: taken)
        state, sock, unsent = taken
        heard = bytes(self.speaker.heard)
        while len(heard) < len(b"take" + noise):
            with contextlib.suppress(ssl.SSLWantReadError):
                heard += state.tls.read(1 << 16)
                continue
            with contextlib.suppress(BlockingIOError):
                state.incoming.write(sock.recv(1 << 16))
        self.assertEqual(heard, b"take" + noise)
        state.tls.write(b", first of another")
        sock.send(unsent + state.outgoing.read())
        await client.until(lambda: client.data == b"last words of HTTP, first of another")
        sock.close()
        await client.gone()

    async def test_tls_that_is_held_up(self) -> None:
        """What was decrypted, or only read, while nobody wanted to hear it."""

        made = Made(scratch(self))
        self.listen(ServerTls(reactor, made.certificate, made.key))
        client = await connect_raw(reactor, self.port, tls=made.trust())
        noise = random.Random(3).randbytes(200_000)
        calls: list[int] = []

        def hold() -> None:
            calls.append(len(self.speaker.heard))
            self.speaker.transport.pauseProducing()
            reactor.callLater(0.001, self.speaker.transport.resumeProducing)

        self.speaker.on_data = hold
        client.transport.write(noise)
        await until(lambda: len(self.speaker.heard) == len(noise))
        self.assertEqual(bytes(self.speaker.heard), noise)
        self.assertGreater(len(calls), 3)
        client.transport.loseConnection()
        await until(lambda: self.speaker.is_lost)

    async def test_tls_ends_in_order(self) -> None:
        made = Made(scratch(self))
        self.listen(ServerTls(reactor, made.certificate, made.key))
        client = await connect_raw(reactor, self.port, tls=made.trust())
        noise = random.Random(4).randbytes(3 * MIB)

        def answer() -> None:
            self.speaker.transport.writeSequence([noise[:MIB], noise[MIB:]])
            self.speaker.transport.loseConnection()

        self.speaker.on_data = answer
        client.transport.write(b"go")
        await client.gone()
        self.assertEqual(bytes(client.data), noise)
        await until(lambda: self.speaker.is_lost)
        self.assertEqual(len(self.sockets), 0)
