"""Where consoles are served: each on a relay port of its own, all of them on the gateway, or both. What a console's URL
names is there before the URL is told."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from ipmiproxyd.errors import BadValue, NoFreePort
from ipmiproxyd.interfaces import Grants, RelayedConsole, RelayPort, VncServer
from ipmiproxyd.relay.backend import Backend, connect
from ipmiproxyd.relay.channel import SOCKETS_PER_VIEWER, RelaySite, wind_up
from ipmiproxyd.relay.files import load_files
from ipmiproxyd.relay.gateway import MAX_OF_CLIENT, Gateway
from ipmiproxyd.relay.novnc import WEB, find_novnc
from ipmiproxyd.relay.poller import Poller
from ipmiproxyd.relay.ports import Binder, Listener, PortPool, SocketBinder, usable
from ipmiproxyd.relay.servertls import ServerTls
from ipmiproxyd.relay.site import ConsoleResource, SitePolicy
from ipmiproxyd.relay.sockets import Sockets
from ipmiproxyd.relay.upgrade import unmask_large, warn_if_slow
from ipmiproxyd.relay.viewers import Manners, Viewers

DIAL_TIME: Final = 15.0
"""Seconds to reach a console's VNC server and sign in there."""
CLOSE_TIME: Final = 3.0
"""Seconds that a closing port gives its browsers to hear why."""

log = Logger()


class WebRelayPort:
    """Implements :class:`~ipmiproxyd.interfaces.RelayPort`."""

    def __init__(
        self,
        host: WebRelayHost,
        console_id: str,
        number: int | None,
        listeners: Sequence[Listener],
        resource: ConsoleResource,
        viewers: Viewers,
        sockets: Sockets,
    ) -> None:
        self.console_id = console_id
        self.number = number
        self._host = host
        self._listeners = listeners
        self._resource = resource
        self._viewers = viewers
        self._sockets = sockets
        self._closing: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    def cut(self, grant_id: str) -> None:
        """See :meth:`ipmiproxyd.interfaces.RelayPort.cut`."""

        self._resource.cut(grant_id)
        self._viewers.cut(grant_id)

    def close(self, code: str, message: str) -> Deferred[None]:
        """See :meth:`ipmiproxyd.interfaces.RelayPort.close`. Takes about three seconds at most; afterwards no socket
        of this port is left. Cancelling the Deferred only stops waiting."""

        done: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(done)
        if self._closing is None:
            self._closing = Deferred.fromCoroutine(self._close(code, message))
            self._closing.addErrback(
                lambda failure: log.failure("closing the relay of {console} failed", failure, console=self.console_id)
            )
        self._closing.addCallback(self._tell_closed)
        return done

    async def _close(self, code: str, message: str) -> None:
        try:
            self._resource.close(code, message)
            self._viewers.close(code)
        finally:
            await wind_up(self._host.reactor, self._listeners, self._sockets, CLOSE_TIME)
            self._host.forget(self)

    def _tell_closed(self, _: None) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)


class WebRelayHost:
    """Implements :class:`~ipmiproxyd.interfaces.RelayHost`.

    :param reactor: listens, and is the clock of every time limit here.
    :param listen: numeric addresses; see :class:`~ipmiproxyd.relay.ports.PortPool`.
    :param ports: the relay's port numbers; none where the gateway alone serves.
    :param gateway: the gateway's address and port; an empty address for all of ``listen``. None for no gateway.
    :param public_host: the host in the consoles' URLs; empty for the machine's own name.
    :param public_url: what stands in the consoles' URLs in front of ``/c/ID/``, where a reverse proxy leads to the
        gateway; empty for the gateway's own address.
    :param certificate: the file of the TLS certificate; None for no TLS.
    :param key: the file of its key, if it is not in the certificate's.
    :param allowed_origins: origins (``scheme://host[:port]``) whose pages may use the consoles, beside our own.
    :param frame_ancestors: sources for the policy's ``frame-ancestors``: who may show the page in a frame.
    :param viewers: how many may be on one console.
    :param novnc: noVNC's folder; empty to search.
    :param port_rest: seconds for which a port given back is not used.
    :param ping: seconds between pings to a viewer.
    :param typing_pace: seconds from one typed character to the next.
    :param web: the folder of our own page.
    :raises BadValue: a setting is wrong.
    :raises ToolMissing: noVNC, or the page, is not there.
    """

    def __init__(
        self,
        reactor: Any,
        grants: Grants,
        *,
        listen: Sequence[str],
        ports: Sequence[int],
        gateway: tuple[str, int] | None = None,
        public_host: str = "",
        public_url: str = "",
        certificate: Path | None = None,
        key: Path | None = None,
        allowed_origins: Sequence[str] = (),
        frame_ancestors: Sequence[str] = ("'self'",),
        viewers: int = 16,
        novnc: str = "",
        port_rest: float = 60.0,
        ping: float = 20.0,
        typing_pace: float = 0.02,
        web: Path = WEB,
        binder: Binder | None = None,
    ) -> None:
        self.reactor = reactor
        self._grants = grants
        self._tls = None if certificate is None else ServerTls(reactor, certificate, key)
        self._public_host = _bracketed(public_host or socket.gethostname()).lower()
        self._public_url = public_url.rstrip("/")
        self._pages = [origin.rstrip("/").lower() for origin in allowed_origins]
        self._frame_ancestors = [_policy_source(source) for source in frame_ancestors] or ["'none'"]
        self._files = load_files(web, find_novnc(novnc))
        self._manners = Manners(
            reactor=Poller(reactor),
            clock=reactor,
            dial=self._dial,
            unmask_large=unmask_large,
            ping=ping,
            limit=viewers,
            typing_pace=typing_pace,
        )
        self._ports: set[WebRelayPort] = set()
        binder = binder or SocketBinder(reactor)
        self._pool = PortPool(reactor, binder, listen, ports, port_rest) if ports else None
        self._gateway = None if gateway is None else self._make_gateway(binder, listen, *gateway)
        if self._pool is None and self._gateway is None:
            raise BadValue(
                "The relay has neither ports nor a gateway.",
                hint="Set relay.ports or relay.gateway in the configuration.",
            )
        self._policy = SitePolicy(self._public_host, self._welcome_origins(), self._frame_ancestors)
        warn_if_slow()

    def _make_gateway(self, binder: Binder, listen: Sequence[str], address: str, port: int) -> Gateway:
        return Gateway(
            self.reactor,
            binder,
            [address] if address else usable(binder, listen),
            port,
            frame_ancestors=self._frame_ancestors,
            of_client=None if self._public_url else MAX_OF_CLIENT,
            tls=self._tls,
        )

    def open(self, console: RelayedConsole) -> WebRelayPort:
        """See :meth:`ipmiproxyd.interfaces.RelayHost.open`. With a gateway, a console may do without a port."""

        sockets = Sockets()
        viewers = Viewers(self._manners, console, sockets)
        resource = ConsoleResource(console, self._grants, self._files, viewers, self._policy, self.reactor)
        site = RelaySite(resource, self.reactor, sockets, SOCKETS_PER_VIEWER * self._manners.limit, self._tls)
        number, listeners = self._bind(site)
        if self._gateway is not None:
            self._gateway.consoles.add(console.id, resource, sockets)
        port = WebRelayPort(self, console.id, number, listeners, resource, viewers, sockets)
        self._ports.add(port)
        return port

    def url(self, port: RelayPort, token: str) -> str:
        """The console's address for a browser. The token is in the fragment, which no request carries."""

        if self._gateway is not None and isinstance(port, WebRelayPort):
            base = self._public_url or self._origin(self._gateway.port)
            return f"{base}/c/{port.console_id}/#t={token}"
        return f"{self._origin(port.number)}/#t={token}"

    def warnings(self) -> Sequence[str]:
        """See :meth:`ipmiproxyd.interfaces.RelayHost.warnings`."""

        told = []
        scheme = urlsplit(self._public_url).scheme or self._scheme
        pages = dict.fromkeys([*self._frame_ancestors, *self._pages])
        secure, plain = (", ".join(page for page in pages if page.startswith(f"{one}:")) for one in ("https", "http"))
        if scheme == "http" and secure:
            told.append(
                f"The consoles are served by http, but pages by https are to show them ({secure}): browsers refuse "
                "that. Set relay.certificate, or lead an https address of a reverse proxy to the gateway and name it "
                "in relay.public_url."
            )
        if scheme == "https" and plain:
            told.append(
                f"Pages by http are to show the consoles ({plain}): in their frames browsers do not let the console "
                "use the clipboard. Serve those pages by https."
            )
        if self._tls is not None:
            told += self._tls.warnings("" if self._public_url else self._public_host)
        return told

    def close(self, code: str, message: str) -> Deferred[None]:
        """Close everything that is still open, at the daemon's end."""

        return Deferred.fromCoroutine(self._close(code, message))

    async def _close(self, code: str, message: str) -> None:
        await gatherResults([port.close(code, message) for port in tuple(self._ports)], consumeErrors=True)
        if self._gateway is not None:
            await self._gateway.close(CLOSE_TIME)

    def forget(self, port: WebRelayPort) -> None:
        """``port`` is closed: its number begins to rest."""

        self._ports.discard(port)
        if self._gateway is not None:
            self._gateway.consoles.remove(port.console_id)
        if self._pool is not None and port.number is not None:
            self._pool.give_back(port.number)

    def _dial(self, server: VncServer) -> Deferred[Backend]:
        return connect(server, self.reactor, limit=DIAL_TIME)

    def _bind(self, site: RelaySite) -> tuple[int | None, Sequence[Listener]]:
        if self._pool is None:
            return None, ()
        try:
            return self._pool.bind(site)
        except NoFreePort:
            if self._gateway is None:
                raise
            return None, ()

    @property
    def _scheme(self) -> str:
        return "http" if self._tls is None else "https"

    def _origin(self, port: int | None) -> str:
        usual = {"http": 80, "https": 443}[self._scheme]
        return f"{self._scheme}://{self._public_host}" + ("" if port in (None, usual) else f":{port}")

    def _welcome_origins(self) -> frozenset[str]:
        """Whose pages may use the consoles. A proxy in front may hide from us under which address we were asked."""

        own = []
        if self._gateway is not None:
            own.append(self._origin(self._gateway.port))
        if self._public_url:
            parts = urlsplit(self._public_url)
            own.append(f"{parts.scheme}://{parts.netloc}".lower())
        return frozenset([*self._pages, *own])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _policy_source(source: str) -> str:
    if not source or not source.isascii() or any(sign in ' ;,"' or not sign.isprintable() for sign in source):
        raise BadValue(
            f"relay.frame_ancestors: {source!r} cannot stand in a Content-Security-Policy.",
            hint="Use 'self', 'none', or origins such as https://panel.example.org.",
        )
    return source
