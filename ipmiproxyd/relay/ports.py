"""The pool of relay ports. Binding decides which port is free, nothing else: there is no gap for a race."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any, Final, Protocol

from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import Logger

from ipmiproxyd.errors import BadValue, InternalError, NoFreePort
from ipmiproxyd.relay.connection import RelayConnection
from ipmiproxyd.relay.tls import TlsConnection

_BACKLOG: Final = 64
_TAKEN: Final = frozenset({errno.EADDRINUSE, errno.EACCES})
_LACKING: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})

log = Logger()


class Listener(Protocol):
    """One listening socket."""

    def stopListening(self) -> Any: ...


class Binder(Protocol):
    """Where listening sockets come from."""

    def probe(self, address: str) -> None:
        """Raises OSError if this machine cannot listen on ``address`` at all."""

    def listen(self, port: int, factory: IProtocolFactory, address: str) -> Listener:
        """Raises OSError."""


class RelayListener(Port):
    """A TCP port for IPv4, or for IPv6 alone, so that 0.0.0.0 and :: can hold the same number side by side.

    Its factory is a :class:`~ipmiproxyd.relay.channel.RelaySite`, which says whether its connections have TLS.
    """

    def __init__(self, port: int, factory: Any, backlog: int, interface: str, reactor: Any) -> None:
        super().__init__(port, factory, backlog, interface, reactor)
        self.transport = RelayConnection if factory.tls is None else TlsConnection

    def createInternetSocket(self) -> socket.socket:
        created: socket.socket = super().createInternetSocket()  # type: ignore[no-untyped-call]
        if self.addressFamily == socket.AF_INET6:
            created.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return created


class SocketBinder:
    """Real sockets."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def probe(self, address: str) -> None:
        family = socket.AF_INET6 if isIPv6Address(address) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((address, 0))

    def listen(self, port: int, factory: IProtocolFactory, address: str) -> Listener:
        listener = RelayListener(port, factory, _BACKLOG, address, self._reactor)
        try:
            listener.startListening()
        except CannotListenError as error:
            raise error.socketError from error
        return listener


def usable(binder: Binder, addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses that this machine can listen on; those it lacks are left out with a warning.

    :raises BadValue: it can listen on none.
    """

    found = tuple(address for address in addresses if _is_usable(binder, address))
    if not found:
        raise BadValue(
            f"The relay cannot listen on any of its addresses ({', '.join(addresses) or 'none given'}).",
            hint="Correct relay.listen in the configuration; 0.0.0.0 and :: stand for every address.",
        )
    return found


def _is_usable(binder: Binder, address: str) -> bool:
    try:
        binder.probe(address)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        log.warn(
            "relay: {address} is left out, this machine cannot listen on it: {error}", address=address, error=error
        )
        return False
    return True


class PortPool:
    """Relay ports, each bound on every address at once.

    A port that another program holds on any of the addresses is passed over. A port given back rests for
    ``port_rest`` seconds, so that an old tab never meets another's console; of the rested ones the longest unused
    comes first.

    :param addresses: numeric IPv4 and IPv6 addresses. One that this machine lacks is left out with a warning.
    :raises BadValue: none of the addresses can be listened on.
    """

    def __init__(
        self, clock: IReactorTime, binder: Binder, addresses: Sequence[str], ports: Sequence[int], port_rest: float
    ) -> None:
        self._clock = clock
        self._binder = binder
        self._port_rest = port_rest
        # In the order of use: the number, and the time at which it may be used (again).
        self._free: list[tuple[int, float]] = [(port, clock.seconds()) for port in ports]
        self._used: set[int] = set()
        self.addresses = usable(binder, addresses)

    def bind(self, factory: IProtocolFactory) -> tuple[int, list[Listener]]:
        """Listen with ``factory`` on a port of the pool. Raises NoFreePort, or InternalError if it is not
        the port that hinders (no file descriptors left, …)."""

        now = self._clock.seconds()
        resting = held = 0
        for place, (port, rested) in enumerate(self._free):
            if rested > now:
                resting += 1
                continue
            listeners = self._bind_everywhere(port, factory)
            if listeners:
                del self._free[place]
                self._used.add(port)
                return port, listeners
            held += 1
        raise NoFreePort(
            f"No relay port is free: {len(self._used)} in use, {resting} resting, {held} held by other programs.",
            hint="Close a console, wait a minute, or widen relay.ports in the configuration.",
        )

    def give_back(self, port: int) -> None:
        """``port`` is not listened on any more: let it rest."""

        if port in self._used:
            self._used.remove(port)
            self._free.append((port, self._clock.seconds() + self._port_rest))

    def _bind_everywhere(self, port: int, factory: IProtocolFactory) -> list[Listener]:
        listeners: list[Listener] = []
        for address in self.addresses:
            try:
                listeners.append(self._binder.listen(port, factory, address))
            except OSError as error:
                for listener in listeners:
                    listener.stopListening()
                if error.errno not in _TAKEN:
                    raise InternalError(
                        f"The relay cannot listen on {address}, port {port}: {error.strerror}.",
                        hint="The daemon's log and its limit of open files (LimitNOFILE) tell more.",
                    ) from error
                log.debug("port {port} on {address} passed over: {error}", port=port, address=address, error=error)
                return []
        return listeners
