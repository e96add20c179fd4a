"""HTTP on the relay's ports: twisted.web with bounds on everything that a stranger can make it hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final

from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from ipmiproxyd.errors import ProxyError
from ipmiproxyd.relay.servertls import TlsContexts
from ipmiproxyd.relay.sockets import Sockets
from ipmiproxyd.relay.tls import TlsConnection

SERVER: Final = b"ipmiproxyd"
MAX_BODY: Final = 32 << 10
"""The longest text that is typed at once, in JSON, fits in."""
SOCKETS_PER_VIEWER: Final = 8
"""A browser needs up to seven, and its connection to the display is one more."""
MAX_SOCKETS: Final = 16 * SOCKETS_PER_VIEWER
REQUEST_TIME: Final = 30.0
"""Seconds in which a request has to arrive whole, and for which an idle connection is kept."""
LEAVE_TIME: Final = 45.0
"""Seconds for the last answer on a connection to go out."""

PATIENCE: Final = 20.0

_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def host_of(request: Request) -> bytes:
    """The request's own authority ``host[:port]`` in lower case; empty if the Host header is missing or odd."""

    values = request.requestHeaders.getRawHeaders(b"Host") or [b""]
    return values[0].lower() if len(values) == 1 and _AUTHORITY.fullmatch(values[0]) else b""


def peer_of(request: Request) -> str:
    """From where it comes, for the log."""

    return str(getattr(request.getClientAddress(), "host", "somebody"))


def json_body(request: Request, document: Mapping[str, Any]) -> bytes:
    request.setHeader(b"Content-Type", b"application/json")
    return json.dumps(document, separators=(",", ":")).encode()


def refusal(request: Request, error: ProxyError, status: int | None = None) -> bytes:
    """The body of a refusal, with the status of its error's class."""

    request.setResponseCode(status or error.http_status)
    return json_body(request, {"code": error.code, "message": error.message, "hint": error.hint or ""})


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
    """A request whose body is kept in memory and has at most 32 KiB; a longer one is refused as soon as it is seen.

    :ivar patience: seconds for which its answer may be put off.
    """

    patience = PATIENCE

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
    """A connection that is closed if a request has not arrived whole in time, however it trickles, and in the end
    whether its client takes what is sent or not. Who is too slow is not worth a line in the log."""

    abortTimeout: Any = LEAVE_TIME
    _abortingCall: Any = None

    def resetTimeout(self) -> None:
        """Data alone wins no time."""

    def timeoutConnection(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        if self._abortingCall is None:
            self._abortingCall = self.callLater(  # type: ignore[no-untyped-call]
                self.abortTimeout, self.forceAbortClient
            )
        super().loseConnection()  # type: ignore[no-untyped-call]

    def isSecure(self) -> bool:
        return isinstance(self.transport, TlsConnection)

    def forceAbortClient(self) -> None:
        self._abortingCall = None
        self.transport.abortConnection()  # type: ignore[union-attr]


class RelaySite(Site):
    """What is served on a listener: no access log, no timer while nobody is there, a bound on its sockets.

    :ivar sockets: those that are open.
    :ivar tls: of its connections, or None.
    """

    protocol: Any = RelayChannel
    noisy = False

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        sockets: Sockets,
        limit: int = MAX_SOCKETS,
        tls: TlsContexts | None = None,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, RelayRequest, parsePOSTFormSubmission=False, reactor=clock, timeout=REQUEST_TIME
        )
        self.sockets = sockets
        self.tls = tls
        self._limit = limit

    def startFactory(self) -> None:
        """Nothing to open."""

    def stopFactory(self) -> None:
        """Nothing to close."""

    def log(self, request: Any) -> None:
        """No access log: the paths say nothing, and who came is logged where it matters."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if len(self.sockets) >= self._limit:
            return None
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]


async def wind_up(clock: IReactorTime, listeners: Iterable[Any], sockets: Sockets, limit: float) -> None:
    """Stop to listen, and close every socket: those of HTTP as soon as their last answer is out, and after ``limit``
    seconds whatever is left."""

    stopped = DeferredList([maybeDeferred(one.stopListening) for one in listeners], consumeErrors=True)
    for transport in sockets:
        channel = getattr(transport, "protocol", None)
        if isinstance(channel, HTTPChannel):
            channel.loseConnection()
    abort = clock.callLater(limit, sockets.abort)
    await sockets.when_empty()
    if abort.active():
        abort.cancel()
    await stopped
