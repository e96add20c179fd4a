"""HTTP on a relay port: twisted.web with bounds on everything that a stranger can make it hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from ipmiproxyd.relay.sockets import Sockets

SERVER: Final = b"ipmiproxyd"
MAX_BODY: Final = 4096
MAX_SOCKETS: Final = 128
"""Per relay port, displays included; a browser needs up to eight."""
REQUEST_TIME: Final = 30.0
"""Seconds in which a request has to arrive whole, and for which an idle connection is kept."""

_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def host_of(request: Request) -> bytes:
    """The request's own authority ``host[:port]`` in lower case; empty if the Host header is missing or odd."""

    values = request.requestHeaders.getRawHeaders(b"Host") or [b""]
    return values[0].lower() if len(values) == 1 and _AUTHORITY.fullmatch(values[0]) else b""


def security_headers(host: bytes, frame_ancestors: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """What every answer carries. ``host`` is the authority under which the page was asked for, or empty."""

    sockets = b" ws://%s wss://%s" % (host, host) if host else b""  # older browsers: 'self' does not cover WebSockets
    policy = (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'%s; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors %s"
    )
    return [
        (b"Server", SERVER),
        (b"Content-Security-Policy", policy % (sockets, " ".join(frame_ancestors).encode())),
        (b"Referrer-Policy", b"no-referrer"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Cache-Control", b"no-store"),
    ]


class RelayRequest(Request):
    """A request whose body is kept in memory and has at most 4 KiB; a longer one is refused as soon as it is seen."""

    def __init__(self, channel: HTTPChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)  # type: ignore[no-untyped-call]
        self._body = BytesIO()
        self._too_long = False

    def gotLength(self, length: int | None) -> None:
        self.content = self._body
        if length is not None and length > MAX_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        if self._too_long:
            return
        if self._body.tell() + len(data) > MAX_BODY:
            self._refuse()
        else:
            self._body.write(data)

    def process(self) -> None:
        if not self._too_long:
            super().process()  # type: ignore[no-untyped-call]

    def _refuse(self) -> None:
        self._too_long = True
        channel: Any = self.channel
        channel.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        channel.loseConnection()


class RelayChannel(HTTPChannel):
    """A connection that is closed if a request has not arrived whole in time, however it trickles."""

    def resetTimeout(self) -> None:
        """Data alone wins no time."""


class RelaySite(Site):
    """The site of one relay port: no access log, no timer while nobody is there, no more than 128 sockets.

    :ivar sockets: those that are open.
    """

    protocol: Any = RelayChannel
    noisy = False

    def __init__(self, resource: IResource, clock: IReactorTime, sockets: Sockets) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, RelayRequest, parsePOSTFormSubmission=False, reactor=clock, timeout=REQUEST_TIME
        )
        self.sockets = sockets

    def startFactory(self) -> None:
        """Nothing to open."""

    def stopFactory(self) -> None:
        """Nothing to close."""

    def log(self, request: Any) -> None:
        """No access log: the paths say nothing, and who came is logged where it matters."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return None if len(self.sockets) >= MAX_SOCKETS else super().buildProtocol(addr)  # type: ignore[no-untyped-call]
