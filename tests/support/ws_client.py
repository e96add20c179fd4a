"""A browser's side of HTTP and WebSocket, by hand, so that tests can also misbehave on it."""

from __future__ import annotations

import base64
import os
import struct
from typing import Any, Final

from autobahn.websocket.xormasker import create_xor_masker
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TIMEOUT: Final = 10.0


class Refused(Exception):
    """The server answered the handshake with HTTP ``status``."""

    def __init__(self, status: int, head: str, body: bytes) -> None:
        super().__init__(head.split("\r\n")[0])
        self.status = status
        self.head = head
        self.body = body


def frame(
    opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x01\x02\x03\x04"
) -> bytes:
    """A client's frame; ``mask=None`` leaves it unmasked, which a client may not do."""

    size = len(payload)
    short, more = (
        (size, b"")
        if size < 126
        else (126, struct.pack(">H", size))
        if size < 65536
        else (127, struct.pack(">Q", size))
    )
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short]) + more
    if mask is None:
        return head + payload
    return head + mask + (create_xor_masker(mask, size).process(payload) if payload else b"")


class RawClient(Protocol):
    """Any bytes. ``data`` is what came in; ``lost`` fires when the connection is gone."""

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.data = bytearray()
        self.is_lost = False
        self.lost: Deferred[None] = Deferred()
        self._waiting: list[tuple[Any, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self._look()
        for _, waiter in self._waiting:
            waiter.errback(reason)
        self._waiting.clear()
        self.lost.callback(None)

    def _look(self) -> None:
        for entry in tuple(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)

    async def until(self, condition: Any, limit: float = TIMEOUT) -> None:
        """Until ``condition()`` is true; looked at whenever something came in."""

        if condition():
            return
        waiter: Deferred[None] = Deferred()
        self._waiting.append((condition, waiter))
        waiter.addTimeout(limit, self._reactor)
        await waiter

    async def gone(self, limit: float = TIMEOUT) -> None:
        await self.until(lambda: self.is_lost, limit)

    async def hang_up(self) -> None:
        if not self.is_lost:
            self.transport.abortConnection()
            await self.gone()


class WsClient(RawClient):
    """A WebSocket. Answers pings and closes, unless told not to (``polite = False``).

    :ivar data: the payload of all binary messages, in a row.
    :ivar closed: (code, reason) of the server's close frame, or None.
    :ivar pings: how many came in.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._wire = bytearray()
        self._upgraded = False
        self.head = ""
        self.polite = True
        self.frames = 0
        self.pings = 0
        self.closed: tuple[int, str] | None = None

    def dataReceived(self, data: bytes) -> None:
        self._wire += data
        if not self._upgraded:
            end = self._wire.find(b"\r\n\r\n")
            if end < 0 or not self._wire.startswith(b"HTTP/1.1 101"):
                self._look()
                return
            self.head = self._wire[: end + 4].decode()
            del self._wire[: end + 4]
            self._upgraded = True
        while self._one_frame():
            pass
        self._look()

    def _one_frame(self) -> bool:
        wire = self._wire
        if len(wire) < 2:
            return False
        size, at = wire[1] & 127, 2
        if size == 126:
            size, at = int.from_bytes(wire[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(wire[2:10], "big"), 10
        if len(wire) < at + size:
            return False
        opcode, payload = wire[0] & 15, bytes(wire[at : at + size])
        assert wire[0] & 0xF0 == 0x80, "the server fragments, or sets reserved bits"
        assert wire[1] & 0x80 == 0, "the server masks"
        del wire[: at + size]
        self.frames += 1
        self._frame(opcode, payload)
        return True

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == BINARY:
            self.data += payload
        elif opcode == PING:
            self.pings += 1
            if self.polite:
                self.send(PONG, payload)
        elif opcode == CLOSE:
            self.closed = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
            if self.polite:
                self.send(CLOSE, payload[:2])

    def send(self, opcode: int, payload: bytes) -> None:
        self.transport.write(frame(opcode, payload))

    def say(self, data: bytes) -> None:
        """One binary message."""

        self.send(BINARY, data)

    async def hears(self, count: int, limit: float = TIMEOUT) -> bytes:
        """The next ``count`` bytes of the binary messages."""

        await self.until(lambda: len(self.data) >= count, limit)
        heard = bytes(self.data[:count])
        del self.data[:count]
        return heard

    async def is_closed(self, limit: float = TIMEOUT) -> tuple[int, str]:
        """What the close frame said, once the connection is gone too."""

        await self.gone(limit)
        assert self.closed is not None, "the connection ended without a close frame"
        return self.closed

    def pause(self) -> None:
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()


def _endpoint(reactor: Any, host: str, port: int, tls: Any) -> Any:
    plain = HostnameEndpoint(reactor, host, port)
    return plain if tls is None else wrapClientTLS(tls, plain)


async def connect_raw(reactor: Any, port: int, host: str = "127.0.0.1", tls: Any = None) -> RawClient:
    """:param tls: the options of a TLS client."""

    client: RawClient
    client = await _endpoint(reactor, host, port, tls).connect(Factory.forProtocol(lambda: RawClient(reactor)))
    return client


async def open_socket(
    reactor: Any,
    port: int,
    offered: str,
    host: str = "127.0.0.1",
    authority: str = "",
    path: str = "/vnc",
    tls: Any = None,
    early: bytes = b"",
    **headers: str,
) -> WsClient:
    """Upgrade to a WebSocket. Raises :class:`Refused`.

    :param early: what goes out with the request, before it was answered.
    """

    client: WsClient
    client = await _endpoint(reactor, host, port, tls).connect(Factory.forProtocol(lambda: WsClient(reactor)))
    lines = {
        "Host": authority or f"{host}:{port}",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol": offered,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items() if value), "", ""]
    client.transport.write("\r\n".join(head).encode() + early)

    def is_answered() -> bool:
        head, end, body = bytes(client._wire).partition(b"\r\n\r\n")
        sized = [
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        ]
        return client._upgraded or (bool(end) and len(body) >= (sized or [0])[0])

    await client.until(is_answered)
    if not client._upgraded:
        answer, _, body = bytes(client._wire).partition(b"\r\n\r\n")
        await client.hang_up()
        raise Refused(int(answer.split()[1]), answer.decode(), body)
    return client


async def ask(
    reactor: Any,
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    host: str = "127.0.0.1",
    tls: Any = None,
    **headers: str,
) -> tuple[int, str, bytes]:
    """One HTTP request on a connection of its own: (status, head, body)."""

    client = await connect_raw(reactor, port, host, tls)
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {authority}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    client.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
    await client.gone(30.0)
    head, _, answer = bytes(client.data).partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), answer
