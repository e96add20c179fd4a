"""A piece of network between a browser and the daemon, which a test can break."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from twisted.internet import reactor as global_reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.protocols.portforward import ProxyFactory, ProxyServer
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.world import port_of

reactor: Any = global_reactor


class _Way(ProxyServer):
    """One connection, and its way on."""

    network: Network
    transport: Any
    peer: Any

    def connectionMade(self) -> None:
        super().connectionMade()
        self.network.ways.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self in self.network.ways:
            self.network.ways.remove(self)
        if self not in self.network.dead:
            super().connectionLost(reason)

    def abort(self) -> None:
        for side in (self, self.peer):
            if side is not None and side.transport is not None:
                side.transport.abortConnection()


class Network(ProxyFactory):
    """Passes TCP connections on to a port of this machine, until the test says otherwise."""

    noisy = False

    def __init__(self, test: TestCase, url: str) -> None:
        """:param url: of what lies behind it; see :meth:`url`."""

        self._parts = urlsplit(url)
        super().__init__("127.0.0.1", port_of(url))
        self.ways: list[_Way] = []
        self.dead: list[_Way] = []
        self._listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        test.addCleanup(self._stop)

    @property
    def url(self) -> str:
        """The same page, by way of this network."""

        return self._parts._replace(netloc=f"127.0.0.1:{self._listening.getHost().port}").geturl()

    def cut(self) -> None:
        """All connections are reset, on both sides. New ones may come."""

        for way in tuple(self.ways):
            way.abort()

    def swallow(self) -> None:
        """Nothing passes any more on the connections that are there, not even their end. New ones may come after
        :meth:`recover`."""

        for way in self.ways:
            self.dead.append(way)
            for side in (way, way.peer):
                side.transport.unregisterProducer()  # or it would hear of the other side's end
                side.transport.stopReading()

    def recover(self) -> None:
        """As after a change of network: the browser is told that its old connections are dead, the daemon is not."""

        for way in self.dead:
            way.transport.abortConnection()

    def buildProtocol(self, addr: IAddress | None) -> _Way:
        way = _Way()
        way.factory, way.network = self, self
        return way

    async def _stop(self) -> None:
        await self._listening.stopListening()
        for way in {*self.ways, *self.dead}:
            way.abort()
