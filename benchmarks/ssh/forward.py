"""``ssh -L`` made of our own streams, and the relay's ends (``python -m benchmarks.ssh.forward``).

Stdin is ``{"host": …, "port": …, "user": …, "key": …, "host_key": …, "path": …}``; stdout the port that is forwarded to
the UNIX socket. Ends with its stdin.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_link import Link, SshPlace
from ipmiproxyd.agents.ssh_streams import StreamEndpoint
from ipmiproxyd.model import UnixStream
from ipmiproxyd.relay.ends import VIEW, TransportEnd
from ipmiproxyd.relay.socket_end import SocketEnd

reactor: Any = global_reactor


class Passing(Protocol):
    """Is a stream's protocol, and lets its end have all."""

    transport: Any
    end: TransportEnd

    def connectionMade(self) -> None:
        self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.end.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.end.connectionLost(reason)


class Pair:
    """A visitor and a stream. Owns both ends, as a session of the relay does."""

    def __init__(self, visitor: socket.socket, passing: Passing) -> None:
        near = SocketEnd(self, reactor, visitor)
        passing.end = far = TransportEnd(self, reactor, passing.transport)
        self._other: dict[Any, Any] = {near: far, far: near}
        for end in self._other:
            end.start()

    def received(self, end: Any, start: int, stop: int) -> None:
        if not self._other[end].send(VIEW[start:stop]):
            end.pause()

    def drained(self, end: Any) -> None:
        self._other[end].resume()

    def lost(self, end: Any) -> None:
        self._other[end].finish()


@implementer(IReadDescriptor)
class Listening:
    """Takes visitors by TCP; each gets a stream."""

    def __init__(self, endpoint: StreamEndpoint) -> None:
        self._endpoint = endpoint
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.fileno = self._socket.fileno
        reactor.addReader(self)

    def doRead(self) -> None:
        visitor, _ = self._socket.accept()
        visitor.setblocking(False)
        dialling: Deferred[Any] = self._endpoint.connect(Factory.forProtocol(Passing))
        dialling.addCallbacks(lambda passing: Pair(visitor, passing), lambda _: visitor.close())

    def connectionLost(self, _reason: Failure) -> None: ...

    def logPrefix(self) -> str:
        return "forward"


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
    print(Listening(endpoint).port, flush=True)
    stdin = UntilStdinEnds()
    StandardIO(stdin)
    await stdin.ended


def main() -> None:
    given = json.loads(sys.stdin.readline())
    react(lambda _: Deferred.fromCoroutine(forward(given)))


if __name__ == "__main__":
    main()
