"""Relay ports: each console's own web site, bound before its URL is told."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.web.http import HTTPChannel

from ipmiproxyd.errors import BadValue
from ipmiproxyd.interfaces import Grants, RelayedConsole
from ipmiproxyd.relay.channel import RelaySite
from ipmiproxyd.relay.files import load_files
from ipmiproxyd.relay.novnc import WEB, find_novnc
from ipmiproxyd.relay.ports import Binder, Listener, PortPool, SocketBinder
from ipmiproxyd.relay.site import ConsoleResource, SitePolicy
from ipmiproxyd.relay.sockets import Sockets
from ipmiproxyd.relay.websocket import ViewerFactory, Viewers, warn_if_slow

CLOSE_TIME: Final = 3.0
"""Seconds that a closing port gives its browsers to hear why."""

log = Logger()


class WebRelayPort:
    """Implements :class:`~ipmiproxyd.interfaces.RelayPort`."""

    def __init__(
        self,
        host: WebRelayHost,
        number: int,
        listeners: Sequence[Listener],
        resource: ConsoleResource,
        viewers: Viewers,
        sockets: Sockets,
    ) -> None:
        self.number = number
        self._host = host
        self._listeners = listeners
        self._resource = resource
        self._viewers = viewers
        self._sockets = sockets
        self._closing: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    def close(self, code: str, message: str) -> Deferred[None]:
        """See :meth:`ipmiproxyd.interfaces.RelayPort.close`. Takes about three seconds at most; afterwards no socket
        of this port is left. Cancelling the Deferred only stops waiting."""

        done: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(done)
        if self._closing is None:
            self._closing = Deferred.fromCoroutine(self._close(code, message))
            self._closing.addErrback(
                lambda failure: log.failure("closing relay port {port} failed", failure, port=self.number)
            )
        self._closing.addCallback(self._tell_closed)
        return done

    async def _close(self, code: str, message: str) -> None:
        try:
            self._resource.close(code, message)
            self._viewers.close(code)
        finally:
            stopped = DeferredList([maybeDeferred(one.stopListening) for one in self._listeners], consumeErrors=True)
            for transport in self._sockets:
                channel = getattr(transport, "protocol", None)
                if isinstance(channel, HTTPChannel):
                    channel.loseConnection()
            abort = self._host.reactor.callLater(CLOSE_TIME, self._sockets.abort)
            await self._sockets.when_empty()
            if abort.active():
                abort.cancel()
            await stopped
            self._host.forget(self)

    def _tell_closed(self, _: None) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)


class WebRelayHost:
    """Implements :class:`~ipmiproxyd.interfaces.RelayHost`.

    :param reactor: listens, and is the clock of every time limit here.
    :param listen: numeric addresses; see :class:`~ipmiproxyd.relay.ports.PortPool`.
    :param ports: the relay's port numbers.
    :param public_host: the host in the consoles' URLs; empty for the machine's own name.
    :param allowed_origins: origins (``scheme://host[:port]``) whose pages may use the consoles, beside our own.
    :param frame_ancestors: sources for the policy's ``frame-ancestors``: who may show the page in a frame.
    :param novnc: noVNC's folder; empty to search.
    :param port_rest: seconds for which a port given back is not used.
    :param ping: seconds between pings to a viewer.
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
        public_host: str = "",
        allowed_origins: Sequence[str] = (),
        frame_ancestors: Sequence[str] = ("'self'",),
        novnc: str = "",
        port_rest: float = 60.0,
        ping: float = 20.0,
        web: Path = WEB,
        binder: Binder | None = None,
    ) -> None:
        self.reactor = reactor
        self._grants = grants
        self._public_host = _bracketed(public_host or socket.gethostname())
        self._policy = SitePolicy(
            self._public_host.lower(),
            frozenset(origin.rstrip("/").lower() for origin in allowed_origins),
            [_policy_source(source) for source in frame_ancestors] or ["'none'"],
        )
        self._files = load_files(web, find_novnc(novnc))
        self._viewer_factory = ViewerFactory(reactor, ping)
        self._pool = PortPool(reactor, binder or SocketBinder(reactor), listen, ports, port_rest)
        self._ports: set[WebRelayPort] = set()
        warn_if_slow()

    def open(self, console: RelayedConsole) -> WebRelayPort:
        """Bind a port from the pool and serve the console on it. Raises NoFreePort."""

        sockets = Sockets()
        viewers = Viewers(self._viewer_factory, console, sockets)
        resource = ConsoleResource(console, self._grants, self._files, viewers, self._policy, self.reactor)
        number, listeners = self._pool.bind(RelaySite(resource, self.reactor, sockets))
        port = WebRelayPort(self, number, listeners, resource, viewers, sockets)
        self._ports.add(port)
        return port

    def url(self, port: int, token: str) -> str:
        """The console's address for a browser. The token is in the fragment, which no request carries."""

        return f"http://{self._public_host}:{port}/#t={token}"

    def close(self, code: str, message: str) -> Deferred[None]:
        """Close every port that is still open, at the daemon's end."""

        closing = gatherResults([port.close(code, message) for port in tuple(self._ports)], consumeErrors=True)
        return closing.addCallback(lambda _: None)

    def forget(self, port: WebRelayPort) -> None:
        """``port`` is closed: its number begins to rest."""

        self._ports.discard(port)
        self._pool.give_back(port.number)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _policy_source(source: str) -> str:
    if not source or not source.isascii() or any(sign in ' ;,"' or not sign.isprintable() for sign in source):
        raise BadValue(
            f"relay.frame_ancestors: {source!r} cannot stand in a Content-Security-Policy.",
            hint="Use 'self', 'none', or origins such as https://panel.example.org.",
        )
    return source
