"""``ssh -L`` made of our own streams (``python -m benchmarks.ssh.forward``).

Stdin is ``{"host": …, "port": …, "user": …, "key": …, "host_key": …, "path": …}``; stdout the port that is forwarded to
the UNIX socket. Ends with its stdin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure

from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_link import Link, SshPlace
from ipmiproxyd.agents.ssh_streams import StreamEndpoint
from ipmiproxyd.model import UnixStream

reactor: Any = global_reactor


class Side(Protocol):
    """Hands everything to the other side, as fast as that takes it."""

    transport: Any

    def __init__(self, other: Side | None = None) -> None:
        self.other = other

    def connectionMade(self) -> None:
        if self.other is not None:
            self.other.other = self
            self.transport.registerProducer(self.other.transport, True)
            self.other.transport.registerProducer(self.transport, True)
            self.other.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.unregisterProducer()
            self.other.transport.loseConnection()


class Visitor(Side):
    """Came by TCP."""

    def __init__(self, endpoint: StreamEndpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.pauseProducing()
        dialling = self._endpoint.connect(Factory.forProtocol(lambda: Side(self)))
        dialling.addErrback(lambda _: self.transport.abortConnection())


class Visitors(Factory):
    noisy = False

    def __init__(self, endpoint: StreamEndpoint) -> None:
        self._endpoint = endpoint

    def buildProtocol(self, _addr: IAddress | None) -> Visitor:
        return Visitor(self._endpoint)


class UntilStdinEnds(Protocol):
    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


async def _nothing(_: Connection) -> None: ...


async def forward(given: dict[str, Any]) -> None:
    place = SshPlace(
        host=given["host"],
        port=given["port"],
        user=given["user"],
        key=Path(given["key"]),
        host_keys=(given["host_key"],),
    )
    link = Link("bench", place, reactor, _nothing)
    link.start()
    await link.connection()
    endpoint = StreamEndpoint(reactor, link, UnixStream(given["path"]))
    port = reactor.listenTCP(0, Visitors(endpoint), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    stdin = UntilStdinEnds()
    StandardIO(stdin)
    await stdin.ended


def main() -> None:
    given = json.loads(sys.stdin.readline())
    react(lambda _: Deferred.fromCoroutine(forward(given)))


if __name__ == "__main__":
    main()
