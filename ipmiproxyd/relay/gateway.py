"""The gateway: one port for every console, each below ``/c/CONSOLE_ID/``.

    GET /            a line that says what this is
    GET /c/ID        a redirect to /c/ID/
    …   /c/ID/…      what the console's own relay port answers to /…; 404 once the console is closed

A connection belongs to the gateway. While it serves a request for a console it belongs to that console as well, and to
the console alone as soon as it is a WebSocket: those are few, and their browsers have shown a key. So the bounds here
are for strangers.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from ipmiproxyd.errors import BadValue, NotFound
from ipmiproxyd.relay.channel import RelaySite, host_of, refusal, security_headers, wind_up
from ipmiproxyd.relay.connection import RelayConnection
from ipmiproxyd.relay.ports import Binder, Listener
from ipmiproxyd.relay.servertls import TlsContexts
from ipmiproxyd.relay.sockets import Abortable, Sockets

MAX_SOCKETS: Final = 4096
MAX_OF_CLIENT: Final = 128
"""An office behind one address has several browsers with up to six connections each."""
MANY: Final = 4
"""Requests of one client that may be put off for long. A browser has six connections to one place: with as many
consoles in its tabs, all of them would wait for news, and nothing else that a page asks for would arrive."""
BRIEF: Final = 2.0
"""Seconds for which the others may be put off."""

_PLACE: Final = re.compile(rb"/c/([A-Za-z0-9_-]{1,64})(/.*)?", re.DOTALL)
_GREETING: Final = b"ipmiproxyd: the consoles of this data centre's servers. Open one from your panel.\n"
_CLOSED_PAGE: Final = (
    b'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
    b'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Console closed</title>\n'
    b"<h1>This console is closed</h1>\n<p>To open it again, go back to where you came from.</p>\n"
)
_HTML: Final = b"text/html; charset=utf-8"
_PLAIN: Final = b"text/plain; charset=utf-8"

log = Logger()


class Crowd(Sockets):
    """Sockets, counted by the client that they come from: an IPv4 address, or a /64 of IPv6."""

    def __init__(self) -> None:
        super().__init__()
        self._clients: Counter[str] = Counter()

    def of(self, host: str) -> int:
        """How many are open from where ``host`` is."""

        return self._clients[_client(host)]

    def add(self, transport: Abortable) -> None:
        if transport not in self:
            self._clients[_client_of(transport)] += 1
        super().add(transport)

    def discard(self, transport: Abortable) -> None:
        if transport in self:
            client = _client_of(transport)
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
        super().discard(transport)


def _client_of(transport: Any) -> str:
    return _client(transport.getPeer().host)


def _client(host: str) -> str:
    if ":" not in host:
        return host
    network = ipaddress.IPv6Network((host.partition("%")[0], 64), strict=False)
    return str(network)


class GatewaySite(RelaySite):
    """:param of_client: how many connections one client may have; None for no such bound."""

    sockets: Crowd

    def __init__(
        self, resource: IResource, clock: IReactorTime, of_client: int | None, tls: TlsContexts | None = None
    ) -> None:
        super().__init__(resource, clock, Crowd(), MAX_SOCKETS, tls)
        self._of_client = of_client

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = getattr(addr, "host", "")
        if self._of_client is not None and self.sockets.of(host) >= self._of_client:
            return None
        return super().buildProtocol(addr)


class GatewayResource(Resource):
    """Hands each request on to the console that it is for.

    :ivar crowd: where a connection stands that serves no console.
    """

    isLeaf = True
    crowd: Sockets

    def __init__(self, frame_ancestors: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._frame_ancestors = frame_ancestors
        self._consoles: dict[bytes, tuple[Resource, Sockets]] = {}
        self._asking: Counter[str] = Counter()

    def add(self, console_id: str, resource: Resource, sockets: Sockets) -> None:
        self._consoles[console_id.encode()] = (resource, sockets)

    def remove(self, console_id: str) -> None:
        self._consoles.pop(console_id.encode(), None)

    def render(self, request: Request) -> bytes | int:
        for name, value in security_headers(host_of(request), self._frame_ancestors):
            request.setHeader(name, value)
        if request.path == b"/":
            return self._page(request, http.OK, _PLAIN, _GREETING)
        match = _PLACE.fullmatch(request.path)
        if match is None:
            return self._missing(request, NotFound("There is nothing here."))
        console_id, path = match.groups()
        if console_id not in self._consoles:
            return self._closed(request, path)
        if path is None:
            return self._redirect(request, console_id)
        return self._pass_on(request, path, *self._consoles[console_id])

    def _pass_on(self, request: Any, path: bytes, resource: Resource, sockets: Sockets) -> bytes | int:
        connection: Any = request.transport
        request.path = path
        if not isinstance(connection, RelayConnection):
            return resource.render(request)  # type: ignore[no-any-return]
        channel = request.channel
        client = _client_of(connection)
        self._asking[client] += 1
        if self._asking[client] > MANY:
            request.patience = BRIEF
        connection.stand_in(self.crowd, sockets)
        connection.request = request
        request.notifyFinish().addBoth(lambda _: self._served(connection, request, client))
        answer: bytes | int = resource.render(request)
        if getattr(connection, "protocol", None) is not channel:  # it has become a WebSocket
            connection.request = None
            connection.stand_in(sockets)
            request.notifications.clear()
            self._answered(client)
        return answer

    def _served(self, connection: RelayConnection, request: Request, client: str) -> None:
        self._answered(client)
        if connection.request is request:
            connection.request = None
            connection.stand_in(self.crowd)

    def _answered(self, client: str) -> None:
        self._asking[client] -= 1
        if not self._asking[client]:
            del self._asking[client]

    # --- answers of the gateway itself -------------------------------------------------------------------------------

    def _redirect(self, request: Request, console_id: bytes) -> bytes:
        request.setHeader(b"Location", b"%s/" % console_id)  # relative, so that a proxy in front may have a prefix
        return self._page(request, http.PERMANENT_REDIRECT, _PLAIN, b"The address ends with a slash.\n")

    def _closed(self, request: Request, path: bytes | None) -> bytes:
        if path in (None, b"/"):
            return self._page(request, http.NOT_FOUND, _HTML, _CLOSED_PAGE)
        return self._missing(
            request, NotFound("This console is closed.", hint="To open it again, go back to where you came from.")
        )

    def _page(self, request: Request, status: int, kind: bytes, body: bytes) -> bytes:
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"Allow", b"GET, HEAD")
            status, kind, body = http.NOT_ALLOWED, _PLAIN, b"This is not how to ask for it.\n"
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", kind)
        return self._sized(request, body)

    def _missing(self, request: Request, error: NotFound) -> bytes:
        return self._sized(request, refusal(request, error))

    def _sized(self, request: Request, body: bytes) -> bytes:
        request.setHeader(b"Content-Length", b"%d" % len(body))
        return b"" if request.method == b"HEAD" else body


class Gateway:
    """The gateway's listeners.

    :param of_client: how many connections one client may have; None where all of them come from one reverse proxy.
    :raises BadValue: it cannot listen there.

    :ivar consoles: those that it serves.
    """

    def __init__(
        self,
        reactor: Any,
        binder: Binder,
        addresses: Sequence[str],
        port: int,
        *,
        frame_ancestors: Sequence[str],
        of_client: int | None = MAX_OF_CLIENT,
        tls: TlsContexts | None = None,
    ) -> None:
        self._reactor = reactor
        self.port = port
        self.consoles = GatewayResource(frame_ancestors)
        self._site = GatewaySite(self.consoles, reactor, of_client, tls)
        self.consoles.crowd = self._site.sockets
        self._listeners: list[Listener] = []
        try:
            for address in addresses:
                self._listeners.append(binder.listen(port, self._site, address))
        except OSError as error:
            for listener in self._listeners:
                listener.stopListening()
            raise BadValue(
                f"relay.gateway: cannot listen on port {port}: {error.strerror}.",
                hint="Another program may have it; ports below 1024 need CAP_NET_BIND_SERVICE.",
            ) from error

    def close(self, limit: float) -> Deferred[None]:
        """Stop to listen; what still is answered has ``limit`` seconds."""

        listeners, self._listeners = self._listeners, []
        return Deferred.fromCoroutine(wind_up(self._reactor, listeners, self._site.sockets, limit))
