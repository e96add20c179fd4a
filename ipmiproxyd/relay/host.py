"""Where consoles are served: each on a relay port of its own, all of them on the gateway, or both. What a console's URL
names is there before the URL is told."""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from ipmiproxyd.errors import BadValue, NoFreePort
from ipmiproxyd.interfaces import Grants, RelayedConsole, RelayPort, VncServer
from ipmiproxyd.model import CertificateFiles
from ipmiproxyd.relay.backend import Backend, connect
from ipmiproxyd.relay.certificates import Certificates, hosts
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
    """Implements :class:`~ipmiproxyd.interfaces.RelayPort`.

    :ivar tls: what its connections are made with; None for no TLS.
    :ivar certificate: of its own; None for the relay's.
    """

    def __init__(
        self,
        host: WebRelayHost,
        console_id: str,
        number: int | None,
        listeners: Sequence[Listener],
        resource: ConsoleResource,
        viewers: Viewers,
        sockets: Sockets,
        tls: ServerTls | None,
        certificate: CertificateFiles | None,
    ) -> None:
        self.console_id = console_id
        self.number = number
        self.tls = tls
        self.certificate = certificate
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
        self._certificates = Certificates(reactor, self._tls)
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
            tls=None if self._tls is None else self._certificates,
        )

    async def judge(self, certificate: CertificateFiles | None, others: Collection[CertificateFiles]) -> None:
        """See :meth:`ipmiproxyd.interfaces.RelayHost.judge`."""

        if certificate is None:
            self._judge_own()
            return
        tls = await self._certificates.load(certificate)
        self._judge(certificate, tls)
        if self._gateway is not None:
            await self._certificates.tell_apart(certificate, tls, others)

    async def prepare(self, certificate: CertificateFiles | None) -> None:
        """See :meth:`ipmiproxyd.interfaces.RelayHost.prepare`."""

        if certificate is None:
            self._judge_own()
        else:
            self._judge(certificate, await self._certificates.prepare(certificate))

    def _judge_own(self) -> None:
        if self._scheme(None) == "http":
            raise BadValue(
                "encrypt: no certificate is named, and the relay has none of its own.",
                hint="Name the file of one in certificate=, or set relay.certificate in the configuration.",
            )

    def _judge(self, certificate: CertificateFiles, tls: ServerTls) -> None:
        if self._gateway is None:
            return
        if self._public_url:
            raise BadValue(
                f"certificate: browsers see the one of {self._public_url} (relay.public_url), and no other.",
                hint="Leave certificate= out: encryption is the affair of that reverse proxy.",
            )
        self._certificates.judge(certificate, tls)

    def open(
        self, console: RelayedConsole, certificate: CertificateFiles | None = None, *, encrypt: bool = False
    ) -> WebRelayPort:
        """See :meth:`ipmiproxyd.interfaces.RelayHost.open`. With a gateway, a console may do without a port, and does
        where that would have no TLS though it is to be encrypted: then a reverse proxy sees to that."""

        tls = self._tls if certificate is None else self._certificates.take(certificate)
        try:
            port = self._open(console, tls, certificate, own_port=tls is not None or not encrypt)
        except BaseException:
            if certificate is not None:
                self._certificates.give_back(certificate)
            raise
        self._ports.add(port)
        return port

    def _open(
        self,
        console: RelayedConsole,
        tls: ServerTls | None,
        certificate: CertificateFiles | None,
        *,
        own_port: bool,
    ) -> WebRelayPort:
        sockets = Sockets()
        viewers = Viewers(self._manners, console, sockets)
        resource = ConsoleResource(console, self._grants, self._files, viewers, self._policy, self.reactor)
        site = RelaySite(resource, self.reactor, sockets, SOCKETS_PER_VIEWER * self._manners.limit, tls)
        number, listeners = self._bind(site) if own_port else (None, ())
        if self._gateway is not None:
            self._gateway.consoles.add(console.id, resource, sockets)
        return WebRelayPort(self, console.id, number, listeners, resource, viewers, sockets, tls, certificate)

    def url(self, port: RelayPort, token: str) -> str:
        """The console's address for a browser. The token is in the fragment, which no request carries."""

        if not isinstance(port, WebRelayPort):
            raise TypeError("It is not one of this relay's.")
        if self._gateway is None:
            return f"{self._origin(port.number, port)}/#t={token}"
        base = self._public_url or self._origin(self._gateway.port, port)
        return f"{base}/c/{port.console_id}/#t={token}"

    def warnings(self, port: RelayPort | None = None) -> Sequence[str]:
        """See :meth:`ipmiproxyd.interfaces.RelayHost.warnings`."""

        told = []
        of = port if isinstance(port, WebRelayPort) else None
        scheme = self._scheme(of)
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
        tls = self._tls if of is None else of.tls
        if tls is not None:
            told += tls.warnings("" if self._public_url else self._host_of(of))
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

        if port in self._ports and port.certificate is not None:
            self._certificates.give_back(port.certificate)
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

    def _scheme(self, port: WebRelayPort | None) -> str:
        """Of a console's URL; without one, of all that have no certificate of their own."""

        if self._public_url and self._gateway is not None:
            return urlsplit(self._public_url).scheme
        return "http" if (self._tls if port is None else port.tls) is None else "https"

    def _host_of(self, port: WebRelayPort | None) -> str:
        """The host in a console's URL. At the gateway it is what has its certificate chosen."""

        if port is None or port.certificate is None or port.tls is None or self._gateway is None:
            return self._public_host
        names = hosts(port.tls)
        return self._public_host if self._public_host in names or not names else names[0]

    def _origin(self, number: int | None, port: WebRelayPort | None = None) -> str:
        scheme = "http" if (self._tls if port is None else port.tls) is None else "https"
        usual = {"http": 80, "https": 443}[scheme]
        return f"{scheme}://{self._host_of(port)}" + ("" if number in (None, usual) else f":{number}")

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
