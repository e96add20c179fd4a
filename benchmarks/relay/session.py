"""A viewer as the load generator needs it: through a WebSocket or as plain TCP, with or without TLS."""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.relay.frames import CLOSE, PING, PONG, FrameReader, client_frame

Take = Callable[[bytearray, int, int], None]

BUFFER: Final = bytearray(512 << 10)
_VIEW: Final = memoryview(BUFFER)
_TLS_READS: Final = 16
"""TLS gives one record of up to 16 KiB at a time."""

TIMEOUT: Final = 30.0


class Lost(Exception):
    """The relay closed the connection, or refused it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A relay, as its clients see it, and its process.

    :ivar protocols: the WebSocket's subprotocols; empty if the relay is a TCP proxy.
    :ivar pid: 0 if there is no relay at all.
    :ivar also: other processes that belong to it.
    :ivar beside: processes that take part and do not belong to it.
    """

    port: int
    pid: int
    protocols: str = ""
    path: str = "/"
    tls: bool = False
    also: Sequence[int] = ()
    beside: Sequence[int] = ()

    @property
    def pids(self) -> Sequence[int]:
        return (self.pid, *self.also)


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Session:
    """Opens, blocking, up to the end of the RFB handshake; from then on it does not block.

    :param take: is given the server's bytes after the handshake.
    """

    def __init__(self, target: Target, take: Take | None = None) -> None:
        self._early = bytearray()
        self._reader = FrameReader(self._keep, self._control) if target.protocols else None
        self._take: Take = self._keep
        self.sock = socket.create_connection(("127.0.0.1", target.port), TIMEOUT)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.tls:
                self.sock = _tls().wrap_socket(self.sock, server_hostname="127.0.0.1")
            if target.protocols:
                self._upgrade(target)
            self._greet()
        except BaseException:
            self.sock.close()
            raise
        self.sock.setblocking(False)
        if take is not None:
            self.divert(take)

    def fileno(self) -> int:
        return self.sock.fileno()

    def divert(self, take: Take) -> None:
        self._take = take
        if self._reader is not None:
            self._reader.divert(take)

    # --- opening -----------------------------------------------------------------------------------------------------

    def _upgrade(self, target: Target) -> None:
        scheme = "https" if target.tls else "http"
        lines = (
            f"GET {target.path} HTTP/1.1",
            f"Host: 127.0.0.1:{target.port}",
            f"Origin: {scheme}://127.0.0.1:{target.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            f"Sec-WebSocket-Protocol: {target.protocols}",
            "\r\n",
        )
        self.sock.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.sock.recv(4096)
            if not more:
                break
            head += more
        answer, _, rest = head.partition(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101"):
            raise Lost(f"the WebSocket was refused: {answer[:60]!r} {rest[:300]!r}")
        self._feed(bytearray(rest), len(rest))

    def _greet(self) -> None:
        version = self._hear(12)
        if version != b"RFB 003.008\n":
            raise Lost(f"the server says {version!r}")
        self.say(version)
        if 1 not in self._hear(self._hear(1)[0]):
            raise Lost("security type None is not offered")
        self.say(b"\x01")
        if self._hear(4) != bytes(4):
            raise Lost("signing in failed")
        self.say(b"\x01")
        self._hear(int.from_bytes(self._hear(24)[20:], "big"))

    def _hear(self, count: int) -> bytes:
        while len(self._early) < count:
            size = self.sock.recv_into(_VIEW)
            if not size:
                raise Lost("the relay closed the connection")
            self._feed(BUFFER, size)
        heard = bytes(self._early[:count])
        del self._early[:count]
        return heard

    def _keep(self, data: bytearray, start: int, end: int) -> None:
        self._early += data[start:end]

    # --- talking -----------------------------------------------------------------------------------------------------

    def encode(self, message: bytes) -> bytes:
        """As it goes over the wire."""

        return message if self._reader is None else client_frame(message)

    def say(self, message: bytes) -> None:
        self.send(self.encode(message))

    def send(self, encoded: bytes) -> None:
        """Something small, as :meth:`encode` made it."""

        if self.sock.send(encoded) < len(encoded):
            raise Lost("the relay takes nothing any more")

    def read(self) -> None:
        """Take what is there. Raises :class:`Lost`, and what the stream's checker raises."""

        for _ in range(_TLS_READS if isinstance(self.sock, ssl.SSLSocket) else 1):
            try:
                size = self.sock.recv_into(_VIEW)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not size:
                raise Lost("the relay closed the connection")
            self._feed(BUFFER, size)

    def _feed(self, data: bytearray, size: int) -> None:
        if self._reader is None:
            self._take(data, 0, size)
        else:
            self._reader.feed(data, 0, size)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.send(client_frame(payload, PONG))
        elif opcode == CLOSE:
            raise Lost(f"the relay closed: {int.from_bytes(payload[:2], 'big')} {payload[2:].decode()}")

    def close(self) -> None:
        """As a browser whose page is left."""

        with contextlib.suppress(OSError):
            if self._reader is not None:
                self.sock.send(client_frame((1001).to_bytes(2, "big"), CLOSE))
        self.sock.close()
