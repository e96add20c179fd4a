"""The ends of a relayed session: what carries its bytes, on either side. No WebSocket and no RFB in here.

An end reads into one buffer that all of them share, at ``HEAD``: so the header of a WebSocket frame finds room in front
of the data, and nothing is copied. It reads once per event, a limited number of bytes, and then it is the others' turn:
who moves much does not keep those waiting who move little.

Kinds of ends: sockets (``socket_end.py``), sockets with TLS (``tls_end.py``), and any Twisted transport, here.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.wire.websocket import HEAD

READ: Final = 256 << 10
UP_READ: Final = 4 << 10
"""The most that is read at once of a browser. What it says is looked at message by message: that takes 1 ms."""
BUFFER: Final = bytearray(HEAD + READ)
VIEW: Final = memoryview(BUFFER)


class Owner(Protocol):
    """Who owns an end, and hears of it."""

    def received(self, end: Any, start: int, stop: int) -> None:
        """``BUFFER[start:stop]`` came in, with at least HEAD bytes of room in front. It is gone on return."""

    def drained(self, end: Any) -> None:
        """All that was kept back is out."""

    def lost(self, end: Any) -> None:
        """The other side has closed, or is gone. Called once, never from within a call to the end."""


class End(Protocol):
    """One side of a session."""

    @property
    def is_clogged(self) -> bool:
        """Some of what was sent is kept back, because the other side does not take it."""

    def start(self) -> None:
        """Begin to hand out what comes in (and what had come before)."""

    def send(self, data: bytes | memoryview) -> bool:
        """Takes all. False: a tail is kept; stop sending until ``drained``."""

    def pause(self) -> None:
        """Read no more; the kernel's window pushes back."""

    def resume(self) -> None: ...

    def finish(self) -> None:
        """Send what is kept back, then say that no more will come. The other side's closing is still awaited."""

    def abort(self) -> None:
        """Close now. ``lost`` follows."""


def hand_out(owner: Owner, end: Any, data: bytes) -> None:
    """Let the owner have what was read before."""

    for at in range(0, len(data), READ):
        piece = data[at : at + READ]
        BUFFER[HEAD : HEAD + len(piece)] = piece
        owner.received(end, HEAD, HEAD + len(piece))


@implementer(IPushProducer)
class TransportEnd(TwistedProtocol):
    """Any Twisted transport: a TLS connection to a VNC server, an SSH channel, a transport in a test. It has to be
    paused, and whoever makes this end sees to it that it becomes the transport's protocol."""

    transport: Any

    def __init__(self, owner: Owner, reactor: Any, transport: Any, unread: bytes = b"") -> None:
        self._owner = owner
        self._reactor = reactor
        self._unread = unread
        self._started = False
        self._paused = True
        self._lost = False
        self.is_clogged = False
        self.transport = transport
        transport.registerProducer(self, True)

    def start(self) -> None:
        self._started = True
        self._paused = False
        unread, self._unread = self._unread, b""
        hand_out(self._owner, self, unread)
        if not self._paused:
            self.resume()

    def dataReceived(self, data: bytes) -> None:
        if self._started:
            hand_out(self._owner, self, data)
        else:
            self._unread += data

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        if not self._lost:
            self._lost = True
            self._reactor.callLater(0, self._owner.lost, self)

    def send(self, data: bytes | memoryview) -> bool:
        if not self._lost:
            self.transport.write(bytes(data))
        return not self.is_clogged

    def pause(self) -> None:
        self._paused = True
        if not self._lost:
            self.transport.pauseProducing()

    def resume(self) -> None:
        self._paused = False
        if not self._lost:
            self.transport.resumeProducing()

    def finish(self) -> None:
        if not self._lost:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        if not self._lost:
            self.transport.abortConnection()
            self.connectionLost(Failure(CONNECTION_DONE))

    # --- what the transport tells about its buffer -------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self.is_clogged = True

    def resumeProducing(self) -> None:
        if self.is_clogged:
            self.is_clogged = False
            self._owner.drained(self)

    def stopProducing(self) -> None:
        """``connectionLost`` tells."""
