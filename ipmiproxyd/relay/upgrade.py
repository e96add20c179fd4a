"""From an HTTP request to a WebSocket (RFC 6455, section 4.2).

Twisted has parsed the request already; what is left of the handshake is a handful of header fields and one hash. Then
the connection is taken out of HTTP, and nothing of HTTP is left of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import socket
from typing import Any, Final

from autobahn import websocket as autobahn_websocket
from autobahn.websocket.xormasker import create_xor_masker
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET, Request

from ipmiproxyd.errors import BadRequest, ProxyError
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Grant
from ipmiproxyd.relay.backend import DEAD_AFTER_MS
from ipmiproxyd.relay.channel import SERVER, peer_of
from ipmiproxyd.relay.connection import RelayConnection
from ipmiproxyd.relay.takeover import browser_end
from ipmiproxyd.relay.viewers import Viewers

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

log = Logger()


class UpgradeRequired(ProxyError):
    """The request is no WebSocket handshake, and only one is answered here."""

    code = "bad-request"
    http_status = 426


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
    :raises BadRequest: it is no handshake of a WebSocket; UpgradeRequired if it does not even want to be one.
    :raises LimitReached: too many viewers come and go.
    """

    accept = _accept(request)
    viewers.check_room()
    channel: Any = request.channel
    transport: Any = channel.transport
    peer = peer_of(request)
    channel.setTimeout(None)
    unread = channel.clearLineBuffer()  # of somebody who did not wait for the answer
    channel.transport = None  # HTTP is over: nothing that still happens to its objects reaches the connection
    transport.unregisterProducer()
    transport.write(_answer(accept, b"binary" in _listed(request, b"Sec-WebSocket-Protocol")))
    transport.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
    viewers.welcome(grant, peer, server, lambda viewer: browser_end(viewer, viewers.reactor, transport, unread))
    if isinstance(transport, RelayConnection):
        transport.stand_in()  # the viewer stands there now
    return NOT_DONE_YET


def _listed(request: Request, name: bytes) -> list[bytes]:
    """The words of a header that is a list, however many times it is there."""

    values = request.requestHeaders.getRawHeaders(name, [])
    return [word.strip() for value in values for word in value.split(b",")]


def _one(request: Request, name: bytes) -> bytes:
    values = request.requestHeaders.getRawHeaders(name, [])
    return values[0].strip() if len(values) == 1 else b""


def _accept(request: Request) -> bytes:
    """Sec-WebSocket-Accept for a handshake that is one."""

    upgrades = [word.lower() for word in _listed(request, b"Upgrade")]
    if not any(upgrades):
        raise UpgradeRequired("Here is a WebSocket, and nothing else.")
    if b"websocket" not in upgrades:
        raise BadRequest("Only WebSocket is spoken here.")
    if b"upgrade" not in [word.lower() for word in _listed(request, b"Connection")]:
        raise BadRequest("The request asks for an upgrade, but its Connection header does not.")
    if request.clientproto != b"HTTP/1.1":
        raise BadRequest("A WebSocket begins in HTTP/1.1.")
    if _one(request, b"Sec-WebSocket-Version") != b"13":
        raise BadRequest("Only version 13 of WebSocket is spoken here.")
    key = _one(request, b"Sec-WebSocket-Key")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        is_key = False
    if not is_key:
        raise BadRequest("The request's Sec-WebSocket-Key is none.")
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _answer(accept: bytes, binary: bool) -> bytes:
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Server: " + SERVER,
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept,
    ]
    if binary:
        lines.append(b"Sec-WebSocket-Protocol: binary")
    return b"\r\n".join([*lines, b"", b""])
