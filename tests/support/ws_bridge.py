"""Ordinary VNC clients on the relay: a TCP port in front of its WebSocket; and real servers behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.interfaces import VncServer
from tests.support.relay_case import RelayCase, open_sockets, reactor, until
from tests.support.rfb_client import RfbClient
from tests.support.vnc_servers import VncServers


class Passage(Protocol):
    """One client's connection, and the WebSocket that was opened for it.

    :ivar said: all that the client said.
    :ivar closed: code and reason of the relay's close frame, None and what Autobahn says if there was none; None while
        it is open.
    """

    transport: Any

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._relay: Any = None
        self._lost = False
        self.said = bytearray()
        self.closed: tuple[int | None, str] | None = None
        self.over: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._bridge.passages.append(self)
        self.transport.setTcpNoDelay(True)
        self.transport.pauseProducing()
        self._bridge.dial(self)

    def opened(self, relay: Any) -> None:
        self._relay = relay
        if self._lost:
            relay.sendClose(1000)
            return
        relay.transport.registerProducer(_Tap(self.transport), True)
        self.transport.registerProducer(_Tap(relay.transport), True)
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.said += data
        if self._relay.state == self._relay.STATE_OPEN:
            self._relay.sendMessage(data, isBinary=True)

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        self._lost = True
        if self._relay is not None and self.closed is None:
            self._relay.transport.unregisterProducer()
            self._relay.sendClose(1000)
        self._check()

    def relay_said(self, data: bytes) -> None:
        self.transport.write(data)

    def relay_closed(self, code: int | None, reason: str | None) -> None:
        self.closed = code, reason or ""
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._check()

    def _check(self) -> None:
        if self._lost and self.closed is not None and not self.over.called:
            self.over.callback(None)


@implementer(IPushProducer)
class _Tap:
    """A transport as another one's producer. It is not closed because that one is."""

    def __init__(self, transport: Any) -> None:
        self.pauseProducing: Callable[[], None] = transport.pauseProducing
        self.resumeProducing: Callable[[], None] = transport.resumeProducing

    def stopProducing(self) -> None: ...


class _Relay(WebSocketClientProtocol):  # type: ignore[misc]
    """The relay, as Autobahn's client has it."""

    def __init__(self, passage: Passage) -> None:
        super().__init__()
        self._passage = passage

    def onOpen(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._passage.opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        assert isBinary
        self._passage.relay_said(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self._passage.relay_closed(code if wasClean else None, reason)


class Bridge(Factory):
    """Listens on ``port`` of 127.0.0.1 and opens a WebSocket for each client.

    :param relay_port: where the relay listens.
    :param key: makes the key that a WebSocket is opened with, of a grant.
    :ivar grant: what the next clients' grants are to say.
    :ivar passages: the clients' connections, the newest last; none is ever taken off.
    """

    noisy = False

    def __init__(self, reactor: Any, relay_port: int, key: Callable[..., str]) -> None:
        self._reactor = reactor
        self._relay_port = relay_port
        self._key = key
        self.grant: dict[str, Any] = {}
        self.passages: list[Passage] = []
        self._listener = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = self._listener.getHost().port

    @property
    def endpoint(self) -> TCP4ClientEndpoint:
        return TCP4ClientEndpoint(self._reactor, "127.0.0.1", self.port)

    def buildProtocol(self, _addr: object) -> Passage:
        return Passage(self)

    def dial(self, passage: Passage) -> None:
        factory: Any = WebSocketClientFactory(
            f"ws://127.0.0.1:{self._relay_port}/vnc",
            protocols=["binary", f"key.{self._key(**self.grant)}"],
            reactor=self._reactor,
        )
        factory.noisy = False
        # Autobahn's timers are batched by the second and would outlive a test.
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0)
        factory.protocol = lambda: _Relay(passage)
        dialled = TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._relay_port).connect(factory)
        dialled.addErrback(lambda _: passage.relay_closed(None, "the relay does not listen"))

    async def stop(self) -> None:
        await self._listener.stopListening()
        for passage in self.passages:
            if not passage.over.called:
                passage.transport.abortConnection()
                await passage.over


class BridgeCase(RelayCase):
    """Real VNC servers behind the relay, and ordinary clients in front of it.

    ``self.bridge`` is there once a server is served.
    """

    def setUp(self) -> None:
        super().setUp()
        self.servers = VncServers(self)

    def serve_real(self, server: VncServer) -> None:
        """Serve the console with this server as its screen; from now on sockets are counted."""

        self.console.server = server
        self.serve()
        self.bridge = bridge = Bridge(reactor, self.number, self.key)
        self.addCleanup(lambda: Deferred.fromCoroutine(bridge.stop()))
        self._sockets = open_sockets()

    async def looks(self) -> RfbClient:
        """One more client, which has a key of its own."""

        return await RfbClient.connect(self.bridge.endpoint)

    async def told(self, index: int) -> tuple[int | None, str]:
        """What the relay tells the client of this index at the end, or instead of a welcome."""

        await until(lambda: len(self.bridge.passages) > index)
        passage = self.bridge.passages[index]
        await until(lambda: passage.over.called)
        assert passage.closed is not None
        return passage.closed

    async def nothing_left(self) -> None:
        """No viewer and no socket, since nobody is there any more."""

        await until(lambda: self.console.snapshot().viewers == ())
        await until(lambda: open_sockets() == self._sockets)
