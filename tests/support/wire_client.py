"""A bare client of the control protocol: it knows lines and nothing of ipmiproxyd's own code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure


@dataclass
class Reply:
    """One answer: ``code`` is "" for OK."""

    code: str
    body: dict[str, Any]
    progress: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.code


class WireClient(LineOnlyReceiver):
    """Ask for a connection with :meth:`connect`; then :meth:`ask` as often as you like, also without waiting."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self) -> None:
        self.greeting: Deferred[str] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.progress: list[dict[str, Any]] = []
        self._heard: list[Deferred[None]] = []
        self._waiting: list[tuple[Reply, Deferred[Reply]]] = []
        self._greeted = False

    @classmethod
    async def connect(cls, path: str) -> WireClient:
        client: WireClient = await connectProtocol(UNIXClientEndpoint(reactor, path), cls())
        await client.greeting
        return client

    def ask(self, line: str, timeout: float = 60.0) -> Deferred[Reply]:
        answer: Deferred[Reply] = Deferred()
        self._waiting.append((Reply("", {}), answer))
        assert self.transport is not None
        self.transport.write(line.encode() + b"\n")
        # A cancelled answer still has its place in the row: its reply is read and dropped.
        return answer.addTimeout(timeout, IReactorTime(reactor))

    async def something(self, timeout: float = 20.0) -> None:
        """Wait for the next progress line; ``progress`` has all that came."""

        heard: Deferred[None] = Deferred()
        self._heard.append(heard)
        await heard.addTimeout(timeout, IReactorTime(reactor))

    async def must(self, line: str, timeout: float = 60.0) -> dict[str, Any]:
        """The body of an OK; anything else fails the test."""

        reply = await self.ask(line, timeout)
        if not reply.ok:
            raise AssertionError(f"{line.split()[:2]} was refused: {reply.code} {reply.body}")
        return reply.body

    def lineReceived(self, line: bytes) -> None:
        text = line.decode("ascii")
        if not self._greeted:
            self._greeted = True
            self.greeting.callback(text)
            return
        word, _, rest = text.partition(" ")
        reply, answer = self._waiting[0]
        if word == "..":
            reply.progress.append(json.loads(rest))
            self.progress.append(reply.progress[-1])
            heard, self._heard = self._heard, []
            for deferred in heard:
                deferred.callback(None)
            return
        if word == "ERR":
            reply.code, _, rest = rest.partition(" ")
        elif word != "OK":
            raise AssertionError(f"not a reply: {text!r}")
        reply.body = json.loads(rest)
        del self._waiting[0]
        if not answer.called:
            answer.callback(reply)

    def connectionLost(self, reason: Failure = Failure(ConnectionClosed())) -> None:  # noqa: B008
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            if not answer.called:
                answer.errback(reason)
        self.lost.callback(None)

    async def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
        await self.lost

    def hang_up(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]
