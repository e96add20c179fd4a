"""A TCP socket with TLS on it as an end."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any, Final

from ipmiproxyd.relay.ends import BUFFER, UP_READ, VIEW, Owner
from ipmiproxyd.relay.socket_end import SocketEnd
from ipmiproxyd.wire.websocket import HEAD

_RECORD: Final = 16 << 10
"""The most plaintext that one TLS record holds."""
_CIPHER: Final = memoryview(bytearray(UP_READ))
"""Small: a BIO keeps for good the room of the most that was ever in it."""


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
                records.append(self._outgoing.read())  # each by itself: a BIO never gives room back
        except ssl.SSLError:
            self._reactor.callLater(0, self.abort)
            return True
        return self._push(records[0]) if len(records) == 1 else self._push_all(records)

    def _push_all(self, records: list[bytes]) -> bool:
        """As :meth:`_push`; not joined: so large a piece of memory would be a new one from the kernel each time."""

        sock = self._socket
        if sock is None or self.is_clogged:
            return self._push(b"".join(records))
        try:
            sent = sock.sendmsg(records)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._reactor.callLater(0, self.abort)
            return True
        if sent == sum(map(len, records)):
            return True
        self._tail = memoryview(b"".join(records))[sent:]
        self._reactor.addWriter(self)
        return False

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
