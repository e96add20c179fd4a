"""The ends of a relayed session: what carries its bytes, on either side. No WebSocket and no RFB in here.

An end reads into one buffer that all of them share, at ``HEAD``: so the header of a WebSocket frame finds room in front
of the data, and nothing is copied. It reads once per event, a limited number of bytes, and then it is the others' turn:
who moves much does not keep those waiting who move little.

A :class:`SocketEnd` takes its socket away from the Twisted transport that it was connected or accepted by; it remains a
reader and writer of the same reactor. What of a transport's buffers was still unsent becomes the end's tail.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IPushProducer, IReadWriteDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.wire.websocket import HEAD

READ: Final = 256 << 10
UP_READ: Final = 16 << 10
"""The most that is read at once of a browser. What it says is looked at message by message: that takes 3 ms."""
BUFFER: Final = bytearray(HEAD + READ)
VIEW: Final = memoryview(BUFFER)
_ROOMS: Final = {most: VIEW[HEAD : HEAD + most] for most in (READ, UP_READ)}
_RECORD: Final = 16 << 10
"""The most plaintext that one TLS record holds."""
_CIPHER: Final = memoryview(bytearray(UP_READ))
"""Small: a BIO keeps for good the room of the most that was ever in it."""


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


def _hand_out(owner: Owner, end: Any, data: bytes) -> None:
    for at in range(0, len(data), READ):
        piece = data[at : at + READ]
        BUFFER[HEAD : HEAD + len(piece)] = piece
        owner.received(end, HEAD, HEAD + len(piece))


@implementer(IReadWriteDescriptor)
class SocketEnd:
    """A connected TCP or UNIX socket.

    :param unread: bytes that were read from it already.
    :param unsent: bytes that were to be written to it before anything else.
    :param most: bytes to be read at once.
    """

    __slots__ = ("_finishing", "_number", "_owner", "_reactor", "_room", "_socket", "_tail", "_unread")

    def __init__(
        self,
        owner: Owner,
        reactor: Any,
        sock: socket.socket,
        unread: bytes = b"",
        unsent: bytes = b"",
        most: int = READ,
    ) -> None:
        self._owner = owner
        self._reactor = reactor
        self._socket: socket.socket | None = sock
        self._number = sock.fileno()
        self._unread = unread
        self._room = _ROOMS[most]
        self._tail: memoryview | None = None
        self._finishing = False
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if unsent:
            self._push(memoryview(unsent))

    # --- what its owner does -----------------------------------------------------------------------------------------

    @property
    def is_clogged(self) -> bool:
        return self._tail is not None

    def start(self) -> None:
        self.resume()  # first: what was unread may make its owner pause
        unread, self._unread = self._unread, b""
        _hand_out(self._owner, self, unread)

    def send(self, data: bytes | memoryview) -> bool:
        return self._push(data)

    def _push(self, data: bytes | memoryview) -> bool:
        if self._tail is not None:
            self._tail = memoryview(bytes(self._tail) + bytes(data))
            return False
        if self._socket is None or self._finishing:
            return True
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._reactor.callLater(0, self.abort)
            return True
        if sent == len(data):
            return True
        self._tail = memoryview(bytes(data[sent:]))
        self._reactor.addWriter(self)
        return False

    def pause(self) -> None:
        if self._socket is not None:
            self._reactor.removeReader(self)

    def resume(self) -> None:
        if self._socket is not None:
            self._reactor.addReader(self)

    def finish(self) -> None:
        self._finishing = True
        if self._tail is None:
            self._shut()

    def abort(self) -> None:
        self._close()

    def _shut(self) -> None:
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._reactor.callLater(0, self.abort)

    def _close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is None:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        sock.close()
        self._number = -1
        self._tail = None
        self._reactor.callLater(0, self._owner.lost, self)

    # --- what the reactor does ---------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "relay"

    def doRead(self) -> None:
        if self._socket is None:
            return
        try:
            size = self._socket.recv_into(self._room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if size:
            self._owner.received(self, HEAD, HEAD + size)
        else:
            self._close()

    def doWrite(self) -> None:
        if self._socket is None or self._tail is None:
            return
        try:
            sent = self._socket.send(self._tail)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close()
            return
        self._tail = self._tail[sent:]
        if not self._tail:
            self._tail = None
            self._reactor.removeWriter(self)
            if self._finishing:
                self._shut()
            else:
                self._owner.drained(self)

    def connectionLost(self, _reason: Failure) -> None:
        """The kernel says that it is gone: the reactor calls this in place of doRead or doWrite."""

        self._close()


class TlsEnd(SocketEnd):
    """A TCP socket with TLS on it, by the standard library's OpenSSL on two memory BIOs.

    :param tls: its handshake is done; ``incoming`` and ``outgoing`` are its BIOs.
    """

    __slots__ = ("_incoming", "_is_pouring", "_outgoing", "_tls", "_wants_to_finish")

    def __init__(
        self,
        owner: Owner,
        reactor: Any,
        sock: socket.socket,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        unread: bytes = b"",
        unsent: bytes = b"",
    ) -> None:
        super().__init__(owner, reactor, sock, unread, unsent)
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_pouring = False
        self._wants_to_finish = False

    def start(self) -> None:
        super().start()
        self._pour()  # what is in the BIO already raises no event

    def send(self, data: bytes | memoryview) -> bool:
        if self._socket is None or self._finishing:
            return True
        plain = memoryview(data)
        records = []
        try:
            for at in range(0, len(plain), _RECORD):
                self._tls.write(plain[at : at + _RECORD])
                records.append(self._outgoing.read())  # each by itself: see _CIPHER
        except ssl.SSLError:
            self._reactor.callLater(0, self.abort)
            return True
        return self._push(records[0] if len(records) == 1 else b"".join(records))

    def finish(self) -> None:
        if self._is_pouring:  # OpenSSL ends a TLS whose farewell is said while data waits to be read
            self._wants_to_finish = True
            return
        if self._socket is not None and not self._finishing:
            self._say_goodbye()
        super().finish()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it wants to read the other side's, which we do not wait for
            self._tls.unwrap()  # writes close_notify
        self._push(self._outgoing.read())

    def doRead(self) -> None:
        if self._socket is None:
            return
        try:
            size = self._socket.recv_into(_CIPHER)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if size:
            self._incoming.write(_CIPHER[:size])
            self._pour()
        else:
            self._close()

    def _pour(self) -> None:
        """Hand out all that can be decrypted: not more than was read at once."""

        self._is_pouring = True
        ended = False
        while self._socket is not None and not ended:
            stop = HEAD
            try:
                while stop + _RECORD <= len(BUFFER):
                    size: Any = self._tls.read(_RECORD, VIEW[stop:])
                    if not size:
                        raise ssl.SSLZeroReturnError
                    stop += size
            except ssl.SSLWantReadError:
                ended = True
            except ssl.SSLError:  # a broken record, or close_notify
                ended = True
                self._reactor.callLater(0, self.abort)
            if stop > HEAD:
                self._owner.received(self, HEAD, stop)
        self._is_pouring = False
        if self._outgoing.pending:  # key updates
            self._push(self._outgoing.read())
        if self._wants_to_finish:
            self._wants_to_finish = False
            self.finish()


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
        _hand_out(self._owner, self, unread)
        if not self._paused:
            self.resume()

    def dataReceived(self, data: bytes) -> None:
        if self._started:
            _hand_out(self._owner, self, data)
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
