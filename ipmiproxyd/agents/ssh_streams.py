"""Streams to sockets that an agent reaches: channels that look like any other Twisted transport, with flow control in
both directions."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from twisted.conch.ssh.common import NS
from twisted.conch.ssh.forwarding import packOpen_direct_tcpip
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITLSTransport,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.agents.ssh_channel import Channel, ChannelRefused
from ipmiproxyd.agents.ssh_link import Link
from ipmiproxyd.agents.with_runner import DIAL_LIMIT
from ipmiproxyd.model import TcpStream, UnixStream

TURN: Final = 128 << 10
"""Bytes of what was held back that are handed out at once; then it is the others' turn."""

SMALL: Final = 8 << 10
"""Bytes below which pieces that are held back are put together."""

PROHIBITED: Final = 1

ChannelAddress = UnixStream | TcpStream
"""Where a channel may lead."""

log = Logger()


@implementer(ITLSTransport, IConsumer, IPushProducer)
class Stream(Channel):
    """A channel as the transport of a Twisted protocol.

    While its producing is paused, what comes in is held back, and the far side's window is not given back: so it is at
    most one window. A streaming producer is paused while the far side's window, or the connection, is full.
    """

    def __init__(self, reactor: Any, address: ChannelAddress) -> None:
        super().__init__()
        self.name, self.open_data = _request(address)
        self.protocol: Any = None
        self._address = address
        self._reactor = reactor
        self._paused = False
        self._fresh: list[memoryview] = []
        self._inbox: deque[memoryview | bytearray] = deque()
        self._handing: IDelayedCall | None = None
        self._end: Exception | None = None  # what follows the inbox
        self._lost = False
        self._producer: Any = None
        self._producer_paused = False
        self._tls: Any = None

    # --- inwards ------------------------------------------------------------------------------------------------------

    def take(self, data: memoryview) -> None:
        if self._end is not None:
            return
        if not self._fresh:
            self.conn.takers.append(self)
        self._fresh.append(data)

    def hand_out(self) -> None:
        fresh, self._fresh = self._fresh, []
        if self._paused or self._inbox:
            for data in fresh:
                self._keep(data)
        elif fresh:
            self._hand_out(b"".join(fresh))

    def _keep(self, data: memoryview) -> None:
        """In as little memory as can be: small pieces become large ones."""

        if len(data) >= SMALL:
            self._inbox.append(data)
        elif self._inbox and isinstance(last := self._inbox[-1], bytearray) and len(last) < SMALL:
            last += data
        else:
            self._inbox.append(bytearray(data))

    def extReceived(self, dataType: int, data: bytes) -> None:  # noqa: N803, ARG002 - Conch's names
        self.consumed(len(data))

    def _hand_out(self, data: bytes) -> None:
        if self._lost:
            return
        try:
            self.protocol.dataReceived(data)
        except Exception:
            log.failure("the protocol on a stream of an agent failed")
            self.abortConnection()
        self.consumed(len(data))

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._continue()

    def stopProducing(self) -> None:
        self.loseConnection()

    def _continue(self) -> None:
        if (self._inbox or self._end) and self._handing is None and not self._lost:
            self._handing = self._reactor.callLater(0, self._empty_inbox)

    def _empty_inbox(self) -> None:
        self._handing = None
        if self._inbox and not self._paused:
            pieces, size = [], 0
            while self._inbox and size < TURN:
                pieces.append(self._inbox.popleft())
                size += len(pieces[-1])
            self._hand_out(b"".join(pieces))
        if self._paused:
            return
        if self._inbox:
            self._continue()
        elif self._end is not None:
            self._is_lost(self._end)

    # --- its end ------------------------------------------------------------------------------------------------------

    def eofReceived(self) -> None:
        self._ends(ConnectionDone())

    def gone(self) -> None:
        self.hand_out()
        if self.with_connection or self.dropped:
            self._is_lost(ConnectionLost())
        else:
            self._ends(ConnectionDone())

    def _ends(self, how: Exception) -> None:
        """No more will come. As with a socket, a paused reader hears of it when it has read the rest."""

        self._end = self._end or how
        self._continue()

    def abortConnection(self) -> None:
        self._inbox.clear()
        self._fresh.clear()
        self._paused = False
        self.close_now()
        self._ends(ConnectionAborted())

    def loseConnection(self) -> None:
        if self._tls is not None:
            self._tls.loseConnection()
        else:
            self.lose_beneath()

    def lose_beneath(self) -> None:
        super().loseConnection()

    def _is_lost(self, how: Exception) -> None:
        if self._lost:
            return
        self._lost = True
        if self._handing is not None and self._handing.active():
            self._handing.cancel()
        self._handing = None
        self._inbox.clear()
        self.close_now()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(how))

    # --- outwards -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
        else:
            self.write_beneath(data)

    def write_beneath(self, data: bytes) -> None:
        super().write(data)
        if self.clogged and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def drained(self) -> None:
        if self._ending != "close" and self._producer_paused and self._producer is not None:
            self._producer_paused = False
            self._producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._tls is not None:
            self._tls.registerProducer(producer, streaming)
        else:
            self.register_beneath(producer, streaming)

    def register_beneath(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} was never unregistered")
        if not streaming:
            raise TypeError("only a streaming producer can be registered here")
        if self._lost:
            producer.stopProducing()
            return
        self._producer, self._producer_paused = producer, False
        if self.clogged:
            self._producer_paused = True
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        if self._tls is not None:
            self._tls.unregisterProducer()
        else:
            self.unregister_beneath()

    def unregister_beneath(self) -> None:
        self._producer = None

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:  # noqa: N803 - the interface's name
        """Speak TLS from now on, as the client unless it is not ``normal``."""

        nobody: Any = None  # its protocols are not made by a factory
        factory = TLSMemoryBIOFactory(contextFactory, normal, nobody)
        tls: Any = factory.protocol(factory, self.protocol, False)
        self.protocol = tls
        tls.makeConnection(_Beneath(self))
        self._tls = tls

    def refused(self, refusal: ChannelRefused) -> str:
        """Why it was not opened, in words."""

        if refusal.code is None:
            return refusal.words
        if isinstance(self._address, UnixStream):  # sshd says no more
            return "the agent's sshd cannot open the socket, or may not (AllowStreamLocalForwarding)"
        if refusal.code == PROHIBITED:
            return "the agent's sshd allows no forwarding (AllowTcpForwarding)"
        return f"the agent's sshd says: {refusal.words}"

    # --- who is there -------------------------------------------------------------------------------------------------

    def getPeer(self) -> Any:
        return _peer(self._address)

    def getHost(self) -> Any:
        return UNIXAddress(None)

    # --- what a TCP connection can do besides; the SSH connection below has what it needs -----------------------------

    def loseWriteConnection(self) -> None:
        self.end_writing()

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def getTcpKeepAlive(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None: ...

    def logPrefix(self) -> str:
        return f"stream to {self._address}"


class _Beneath:
    """The stream itself, as the transport of the TLS on it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.write = stream.write_beneath
        self.loseConnection = stream.lose_beneath
        self.registerProducer = stream.register_beneath
        self.unregisterProducer = stream.unregister_beneath

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _request(address: ChannelAddress) -> tuple[bytes, bytes]:
    """The channel's type, and what stands in the request for it."""

    if isinstance(address, UnixStream):
        return b"direct-streamlocal@openssh.com", NS(address.path.encode()) + NS(b"") + struct.pack(">L", 0)
    return b"direct-tcpip", packOpen_direct_tcpip((address.host, address.port), ("127.0.0.1", 0))


def _peer(address: ChannelAddress) -> IAddress:
    if isinstance(address, UnixStream):
        return UNIXAddress(address.path)
    return IPv4Address("TCP", address.host, address.port)


@implementer(IStreamClientEndpoint)
class StreamEndpoint:
    """Connects to a stream as the agent sees it. Fails with ConnectError, or with AgentUnreachable."""

    def __init__(self, reactor: Any, link: Link, address: ChannelAddress, timeout: float = DIAL_LIMIT) -> None:
        self._reactor = reactor
        self._link = link
        self._address = address
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - the interface's name
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        return connecting.addTimeout(self._timeout, self._reactor, onTimeoutCancel=_too_slow)

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        connection = await self._link.connection()
        stream = Stream(self._reactor, self._address)
        try:
            await stream.open_on(connection, stream.open_data)
        except ChannelRefused as refusal:
            raise ConnectError(string=stream.refused(refusal)) from None
        protocol = factory.buildProtocol(stream.getPeer())
        if protocol is None:
            stream.close_now()
            raise ConnectError(string="nobody wants it")
        stream.protocol = protocol
        protocol.makeConnection(stream)
        return protocol


def _too_slow(result: Any, limit: float) -> Any:
    if isinstance(result, Failure):
        raise ConnectTimeout(string=f"there was no answer within {limit:g} s")
    return result
