"""From an HTTP request to a WebSocket: Autobahn does the handshake, and is let go right after it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

import txaio.tx
from autobahn import websocket as autobahn_websocket
from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.xormasker import create_xor_masker
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.web.http import RESPONSES
from twisted.web.server import Request

from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Grant
from ipmiproxyd.relay.channel import SERVER
from ipmiproxyd.relay.connection import RelayConnection
from ipmiproxyd.relay.takeover import browser_end
from ipmiproxyd.relay.viewers import Viewers

DEAD_AFTER_MS: Final = 45_000
"""A browser that acknowledges no byte for so long is dead, however long the kernel would try again."""

_PRIVATE: Final = (b"Origin", b"Cookie", b"Authorization", b"Sec-WebSocket-Protocol")

log = Logger()


def warn_if_slow() -> None:
    """Say so if Autobahn runs without its compiled masker: it is fifty times slower then."""

    if not autobahn_websocket.USES_NVX:
        log.warn("autobahn runs without NVX, its compiled part: large clipboard texts will be slow; install its wheel")


def unmask_large(data: bytes, key: bytes) -> bytes:
    """See :data:`ipmiproxyd.wire.websocket.Unmask`."""

    unmasked: bytes = create_xor_masker(key, len(data)).process(data)
    return unmasked


def upgrade(request: Request, viewers: Viewers, grant: Grant, server: VncServer) -> int:
    """Make a viewer of the connection on which ``request``, already admitted, came in.

    :returns: NOT_DONE_YET, for ``render``.
    """

    offered = b",".join(request.requestHeaders.getRawHeaders(b"Sec-WebSocket-Protocol", []))
    for name in _PRIVATE:  # done with, and nothing that a log or a traceback of Autobahn should show
        request.requestHeaders.removeHeader(name)
    if b"binary" in [name.strip() for name in offered.split(b",")]:
        request.requestHeaders.setRawHeaders(b"Sec-WebSocket-Protocol", [b"binary"])
    headers = [(name, values[0]) for name, values in request.responseHeaders.getAllRawHeaders()]
    peer = str(getattr(request.getClientAddress(), "host", "somebody"))

    def opened(transport: Any, unread: bytes) -> None:
        handle = transport.getHandle()
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
        viewers.welcome(
            grant, peer, server, lambda viewer: browser_end(viewer, viewers.reactor, transport, unread)
        )
        if isinstance(transport, RelayConnection):
            transport.stand_in()  # the viewer stands there now

    taken: int = WebSocketResource(_Introduction(Handshake(opened, headers))).render(request)
    return taken


class Handshake(WebSocketServerProtocol):  # type: ignore[misc]
    """Lives until the WebSocket is open; then ``opened`` is given the transport and what came in already."""

    # Autobahn's own log would tell the handshake and every frame.
    log = txaio.tx.make_logger(level="error")  # type: ignore[no-untyped-call]

    def __init__(self, opened: Callable[[Any, bytes], None], headers: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self._opened = opened
        self._headers = headers

    def connectionMade(self) -> None:
        # The HTTP channel that had the connection is still registered as its producer.
        self.transport.unregisterProducer()
        super().connectionMade()

    def onConnect(self, request: Any) -> str | None:
        return "binary" if "binary" in request.protocols else None

    def onOpen(self) -> None:
        unread: bytes = self.data  # type: ignore[has-type]
        self.data = b""
        self._opened(self.transport, unread)

    def sendHttpErrorResponse(self, code: int, _reason: str, extra: Any = None) -> None:
        """Autobahn's refusal of a malformed handshake, in the form of this port's other answers."""

        lines = [b"HTTP/1.1 %d %s" % (code, RESPONSES.get(code, b"Refused"))]
        lines += [b"%s: %s" % header for header in self._headers]
        lines += [f"{name}: {value}".encode() for name, value in extra or ()]
        lines += [b"Content-Length: 0", b"Connection: close", b"", b""]
        self.sendData(b"\r\n".join(lines))


class _Factory(WebSocketServerFactory):  # type: ignore[misc]
    """Autobahn's settings."""

    def __init__(self) -> None:
        super().__init__(server=SERVER.decode())
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            openHandshakeTimeout=0,  # it is answered at once
            # The Origin has been checked before, against more than Autobahn knows.
            allowNullOrigin=True,
        )


_FACTORY: Final = _Factory()
# Else Autobahn copies them to each protocol, and writes what it did for a log that nobody reads.
for _name in WebSocketServerProtocol.CONFIG_ATTRS:
    _option = getattr(_FACTORY, _name)
    setattr(Handshake, _name, staticmethod(_option) if callable(_option) else _option)
Handshake.CONFIG_ATTRS = ()


class _Introduction:
    """What WebSocketResource takes for a factory: it hands out the one protocol of one request."""

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake

    def buildProtocol(self, _addr: IAddress | None) -> Handshake:
        self._handshake.factory = _FACTORY
        return self._handshake
