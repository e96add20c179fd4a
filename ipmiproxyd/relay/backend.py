"""Connecting to a console's VNC server and signing in there.

The conversation itself is wire/rfb_hello.py, TLS and its certificate are backend_tls.py; here are the connection and
the time limit. What comes out is a :class:`Backend` that stands still until the relay takes it over.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

from OpenSSL import SSL
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IAddress, IReactorTime, ITLSTransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from ipmiproxyd.errors import BmcUnreachable, BmcUnsupported, ProxyError, TimedOut
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.relay.backend_tls import CertificateCheck, tls_failed
from ipmiproxyd.wire.rfb_hello import Encryption, ServerHello, Step

LIMIT: Final = 15.0
"""Seconds for connecting and signing in, by default."""
DEAD_AFTER_MS: Final = 45_000
"""Whose kernel acknowledges nothing for so long is dead, however long ours would try again: a server across a network,
which is asked even if there is nothing to say, or a browser."""
_LIVENESS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS),
)


class Receiver(Protocol):
    """Who takes a :class:`Backend` over; any Twisted protocol is one."""

    def dataReceived(self, data: bytes, /) -> None: ...

    def connectionLost(self, reason: Failure, /) -> None: ...


class Backend:
    """A connection to a VNC server after the sign-in. Its transport is paused.

    Exactly one of :meth:`take`, :meth:`detach` and :meth:`close` is to be called, once.

    :ivar transport: of Twisted; TLS has been started on it if ``encrypted``.
    :ivar init: the server's ServerInit message, which the browser is to get.
    """

    def __init__(self, connection: _Connection, init: bytes) -> None:
        self._connection = connection
        self.transport: Any = connection.transport
        self.init = init
        self.encrypted = connection.encrypted

    @property
    def unread(self) -> bytes:
        """What the server has said beyond ServerInit, up to now."""

        return bytes(self._connection.unread)

    def take(self, receiver: Receiver) -> None:
        """``receiver`` gets at once what is unread, and whatever comes from now on, the connection's end included. The
        transport stays paused: resume it."""

        self._connection.pass_on(receiver)

    def detach(self) -> tuple[Any, bytes]:
        """The transport and what is unread, for somebody who takes the socket out of the transport. Nobody here
        listens any more. Not for an encrypted connection. Raises BmcUnreachable if it is lost already."""

        return self._connection.let_go()

    def close(self) -> None:
        """Close the connection, whatever is queued."""

        self._connection.close()


def connect(server: VncServer, clock: IReactorTime, *, limit: float = LIMIT) -> Deferred[Backend]:
    """Connect to ``server`` and sign in. Cancelling closes the connection.

    Fails with BmcUnreachable, TimedOut, BmcAuth, BmcUnsupported, BadCertificate, LimitReached or BmcError, and with
    what the endpoint itself says in the terms of ipmiproxyd.errors.
    """

    attempt = _Attempt(server, limit)
    return Deferred.fromCoroutine(attempt.run()).addTimeout(limit, clock, onTimeoutCancel=attempt.too_slow)


class _Attempt:
    """One sign-in; of two connections, where a server offers VeNCrypt without any certificate."""

    def __init__(self, server: VncServer, limit: float) -> None:
        self._server = server
        self._limit = limit
        self._connection: _Connection | None = None

    async def run(self) -> Backend:
        server = self._server
        encryption = Encryption.NEVER
        if server.fingerprint:
            encryption = Encryption.DEMANDED
        elif server.host:
            encryption = Encryption.PREFERRED
        backend = await self._connect(encryption) or await self._connect(Encryption.NEVER)
        if backend is None:
            raise BmcUnsupported("The VNC server offers no way to sign in that is known here.")
        return backend

    async def _connect(self, encryption: Encryption) -> Backend | None:
        server = self._server
        self._connection = None
        connection = _Connection(ServerHello(server.password, encryption), server.host, server.fingerprint)
        try:
            await server.endpoint.connect(_Factory(connection))
        except (ConnectError, DNSLookupError, OSError) as error:
            raise BmcUnreachable(
                f"The VNC server cannot be reached: {_reason(error)}.",
                hint="Check its address and port, and that it is enabled.",
            ) from error
        self._connection = connection
        if not await connection.when_signed_in:
            connection.close()
            await connection.when_lost  # a server with one place only has to see it free again
            return None
        return Backend(connection, connection.hello.init)

    def too_slow(self, result: Any, _limit: float) -> Any:
        """The time is over, and the attempt was cancelled. The time includes both connections."""

        if not isinstance(result, Failure):
            return result
        if self._connection is None:
            raise TimedOut(
                f"The VNC server did not answer within {self._limit:g} s.",
                hint="Check its address and port, and the network between.",
            )
        raise self._connection.hello.too_slow(self._limit)


def _reason(error: Exception) -> str:
    """What the operating system says, without Twisted's decoration."""

    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:  # below zero stand those of the resolver
        return os.strerror(number)
    return str(getattr(error, "strerror", None) or error).rstrip(".")


class _Factory(protocol.Factory):
    noisy = False

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def buildProtocol(self, _addr: IAddress | None) -> protocol.Protocol:
        return self._connection


class _Connection(protocol.Protocol):
    """The Twisted protocol on the connection: first of the sign-in, then of whoever takes over.

    What is said, and that it has ended, goes to ``_hear`` and ``_end``, which change with the owner.

    :ivar when_signed_in: True; False if the server is to be asked again without encryption.
    """

    transport: Any

    def __init__(self, hello: ServerHello, host: str, fingerprint: str) -> None:
        self.hello = hello
        self._host = host
        self._fingerprint = fingerprint
        self._check: CertificateCheck | None = None
        self._lost: Failure | None = None
        self._hear: Callable[[bytes], None] = self._talk
        self._end: Callable[[Failure], None] = self._broken_off
        self.unread = bytearray()
        self.when_signed_in: Deferred[bool] = Deferred(lambda _: self.close())
        self.when_lost: Deferred[None] = Deferred()

    @property
    def encrypted(self) -> bool:
        return self._check is not None

    # --- what Twisted calls -------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        if isinstance(self.transport, Connection):  # a stream over SSH has no socket of its own
            self.transport.setTcpNoDelay(True)
            handle = self.transport.getHandle()
            for option in () if handle.family == socket.AF_UNIX else _LIVENESS:
                handle.setsockopt(*option)

    def dataReceived(self, data: bytes) -> None:
        self._hear(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._lost = reason
        self._end(reason)
        self.when_lost.callback(None)

    # --- the sign-in --------------------------------------------------------------------------------------------------

    def _talk(self, data: bytes) -> None:
        if self._check is not None and not self._check.passed:
            return  # what comes out of a TLS that is not trusted is not read; its end follows
        try:
            say = self.hello.feed(data)
        except ProxyError as error:
            self._fail(error)
            return
        if say:
            self.transport.write(say)
        step = self.hello.step
        if step is Step.START_TLS:
            self._start_tls()
        elif step is Step.ANEW:
            self.when_signed_in.callback(False)
        elif step is Step.DONE:
            self.transport.pauseProducing()
            self.unread += self.hello.rest
            self._hear, self._end = self.unread.extend, _nobody
            self.when_signed_in.callback(True)

    def _start_tls(self) -> None:
        if not ITLSTransport.providedBy(self.transport):
            self._fail(BmcUnsupported("TLS is not possible on the way to the VNC server."))
            return
        self._check = CertificateCheck(self._host, self._fingerprint)
        self.transport.startTLS(self._check)
        self.hello.secured()

    def _broken_off(self, reason: Failure) -> None:
        error = reason.value
        if isinstance(error, SSL.Error):
            self._fail(tls_failed(error))
        elif isinstance(error, ProxyError):
            self._fail(error)
        elif self._check is not None and not self._check.passed:
            self._fail(tls_failed(error))
        else:
            self._fail(self.hello.hung_up())

    def _fail(self, error: Exception) -> None:
        self.close()
        self.when_signed_in.errback(error)

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._hear = self._end = _nobody
        if self._lost is None and self.transport is not None:
            self.transport.abortConnection()

    def pass_on(self, receiver: Receiver) -> None:
        self._hear, self._end = receiver.dataReceived, receiver.connectionLost
        unread, self.unread = bytes(self.unread), bytearray()
        if unread:
            receiver.dataReceived(unread)
        if self._lost is not None:
            receiver.connectionLost(self._lost)

    def let_go(self) -> tuple[Any, bytes]:
        if self._lost is not None:
            raise BmcUnreachable("The VNC server has closed the connection.")
        self._hear = self._end = _nobody
        return self.transport, bytes(self.unread)


def _nobody(_: object) -> None:
    """Nobody listens."""
