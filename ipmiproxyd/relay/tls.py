"""TLS on a browser's connection, by the standard library's OpenSSL between two memory BIOs.

Twisted's own TLS transport costs more than twice as much; see docs/performance.md.
"""

from __future__ import annotations

import contextlib
import enum
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd.relay.connection import RelayConnection

READ: Final = 64 << 10
_WORDS: Final = b"This port speaks https: ask for it with https:// in front.\n"
_USE_HTTPS: Final = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_WORDS), _WORDS)
)

log = Logger()


@dataclass(frozen=True, slots=True)
class TlsState:
    """A connection's TLS, its handshake done. What came in may still lie in ``incoming``, and decrypted in ``tls``."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


class _Stage(enum.Enum):
    HANDSHAKE = "handshake"
    OPEN = "open"
    LEAVING = "leaving"  # close_notify is written
    OVER = "over"  # the handshake failed, or the TLS is somebody else's


class TlsConnection(RelayConnection):
    """A :class:`RelayConnection` with TLS: its protocol sees the plain bytes only.

    It does not say that it is an ``ISSLTransport``: Autobahn believes that of Twisted's own only.

    Its factory's ``tls`` is a :class:`~ipmiproxyd.relay.servertls.TlsContexts`. The handshake has no time limit of its
    own: it is part of the time that HTTP gives a first request.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        factory: Any = self.server.factory
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        context: ssl.SSLContext = factory.tls.context()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._stage = _Stage.HANDSHAKE
        self._held = False

    def detach(self) -> TlsState:
        """Hand out the TLS, for whoever takes the socket next."""

        if self._stage is not _Stage.OPEN:
            raise RuntimeError(f"There is no TLS to hand out: {self._stage.value}.")
        self._stage = _Stage.OVER
        return TlsState(self._tls, self._incoming, self._outgoing)

    # --- from the browser --------------------------------------------------------------------------------------------

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(READ)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self._incoming.write(data)
        return self._proceed()

    def pauseProducing(self) -> None:
        self._held = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        self._held = False
        super().resumeProducing()  # type: ignore[no-untyped-call]
        if self._incoming.pending or self._tls.pending():  # of this the kernel will not tell again
            self.reactor.callLater(0, self._catch_up)  # type: ignore[attr-defined]

    def _catch_up(self) -> None:
        why = self._proceed() if self.connected else None
        if why is not None:
            self.connectionLost(Failure(why))

    def _proceed(self) -> Exception | None:
        """Understand what is there. Returns why the connection has to be closed at once, or None."""

        try:
            if self._stage is _Stage.HANDSHAKE:
                self._tls.do_handshake()
                self._stage = _Stage.OPEN
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._refuse(error)
        while self._stage is _Stage.OPEN and self.connected and not (self.disconnecting or self._held):
            try:
                data = self._tls.read(READ)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._tell(error)
                return CONNECTION_LOST
            if not data:
                return CONNECTION_DONE
            self.protocol.dataReceived(data)
        if self._stage is _Stage.OPEN:
            self._flush()  # session tickets, key updates
        return None

    def _refuse(self, error: ssl.SSLError) -> None:
        """The handshake failed: say so and close."""

        self._tell(error)
        self._stage = _Stage.OVER
        speaks_http = error.reason == "HTTP_REQUEST"
        super().write(_USE_HTTPS if speaks_http else self._outgoing.read())  # type: ignore[no-untyped-call]
        self.unregisterProducer()  # type: ignore[no-untyped-call]
        self.loseConnection()  # type: ignore[no-untyped-call]

    def _tell(self, error: ssl.SSLError) -> None:
        log.debug("TLS with {peer} failed: {reason}", peer=self.hostname, reason=error.reason or "unknown")

    # --- to the browser ----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Before the handshake nobody has something to say, and after the farewell it is too late."""

        if self._stage is not _Stage.OPEN or not self.connected:
            return
        left = memoryview(data)
        try:
            while left:
                left = left[self._tls.write(left) :]
        except ssl.SSLError as error:
            self._tell(error)
            self.abortConnection()  # type: ignore[no-untyped-call]
            return
        self._flush()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def _flush(self) -> None:
        super().write(self._outgoing.read())  # type: ignore[no-untyped-call]

    def _postLoseConnection(self) -> Any:
        """All that was written is out, and the connection is to be closed."""

        if self._stage is not _Stage.OPEN:
            return CONNECTION_DONE
        self._stage = _Stage.LEAVING
        with contextlib.suppress(ssl.SSLError):  # it wants to read the browser's, which is not waited for
            self._tls.unwrap()
        self._flush()
        return None if self._tempDataLen else CONNECTION_DONE
