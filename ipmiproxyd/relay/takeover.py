"""Taking a connection over from Twisted: its socket, and what is still in the transport's buffers."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.tcp import Connection

from ipmiproxyd.relay.backend import Backend
from ipmiproxyd.relay.ends import UP_READ, End, Owner, TransportEnd
from ipmiproxyd.relay.socket_end import SocketEnd
from ipmiproxyd.relay.tls import TlsConnection
from ipmiproxyd.relay.tls_end import TlsEnd


def take_socket(transport: Any) -> tuple[socket.socket, bytes]:
    """The socket of a TCP or UNIX transport without TLS, and what was still to be written to it.

    The transport is out of the reactor and knows neither its socket nor its protocol any more; it will not call
    ``connectionLost``.
    """

    transport.stopReading()
    transport.stopWriting()
    sock: socket.socket = transport.socket
    unsent = transport.dataBuffer[transport.offset :] + b"".join(transport._tempDataBuffer)
    transport.connected, transport.disconnected = 0, 1
    transport.producer = None
    transport.dataBuffer, transport._tempDataBuffer, transport._tempDataLen = b"", [], 0
    del transport.protocol, transport.socket, transport.fileno
    transport.doWrite = _nothing  # the reactor may still call it in this very turn
    return sock, unsent


def _nothing() -> None:
    """There is nothing to do any more."""


def browser_end(owner: Owner, reactor: Any, transport: Any, unread: bytes) -> End:
    """The fastest end for a browser's transport: its socket where nothing lies on it, or else the transport."""

    if isinstance(transport, TlsConnection):
        tls = transport.detach()
        sock, unsent = take_socket(transport)
        return TlsEnd(owner, reactor, sock, tls.tls, tls.incoming, tls.outgoing, unread, unsent)
    if _is_bare(transport):
        sock, unsent = take_socket(transport)
        return SocketEnd(owner, reactor, sock, unread, unsent, UP_READ)
    end = TransportEnd(owner, reactor, transport, unread)
    transport.protocol = end
    return end


def display_end(owner: Owner, reactor: Any, backend: Backend) -> End:
    """The same for a VNC server's. Raises BmcUnreachable if it is lost already."""

    transport = backend.transport
    if _is_bare(transport):
        _, unread = backend.detach()
        sock, unsent = take_socket(transport)
        return SocketEnd(owner, reactor, sock, unread, unsent)
    end = TransportEnd(owner, reactor, transport)
    backend.take(end)
    return end


def _is_bare(transport: Any) -> bool:
    return isinstance(transport, Connection) and not transport.TLS
