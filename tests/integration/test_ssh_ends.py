"""Streams of an agent over SSH, as ends of relayed sessions and as the way to VNC servers."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import Any, ClassVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import StreamAddress, TcpStream, UnixStream
from ipmiproxyd.relay.backend import connect
from ipmiproxyd.relay.ends import TransportEnd
from tests.integration.test_vnc_servers import Hears
from tests.support.end_owner import Owner
from tests.support.end_peer import DOWN, UP, Peer
from tests.support.end_suite import MB, EndSuite
from tests.support.ssh_case import SshCase
from tests.support.vnc_servers import Authority, VncServers

CLOCK = cast(IReactorTime, reactor)


class Passing(Protocol):
    """Is the stream's protocol, and lets the end have all."""

    transport: Any
    end: TransportEnd | None = None

    def connectionMade(self) -> None:
        self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        assert self.end is not None
        self.end.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.end is not None:
            self.end.connectionLost(reason)


class SshEndTests(EndSuite, SshCase):
    bulk = 12 * MB
    hears_on = False
    timeout: ClassVar[int] = 60  # type: ignore[misc]

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        making = Deferred.fromCoroutine(SshCase.setUp(self))
        making.addCallback(lambda _: EndSuite.setUp(self))
        return making

    async def make(
        self, owner: Owner, *, small: bool = False, mood: Any = None, unread: int = 0, unsent: int = 0,
        seed: int = 1, largest: int = 70_000,
    ) -> tuple[Any, Peer]:  # fmt: skip
        """``mood`` is for sockets; here it is sshd's."""

        with socket.socket() as listener:
            if small:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            address = TcpStream("127.0.0.1", listener.getsockname()[1])
            passing = cast(Passing, await self.agent.dial(address).connect(Factory.forProtocol(Passing)))
            theirs, _ = listener.accept()
        peer = Peer(self.bell, theirs, seed=seed, largest=largest)
        passing.transport.write(DOWN.take(0, unsent))
        passing.end = TransportEnd(owner, reactor, passing.transport, UP.take(0, unread))
        peer.sent = unread
        return passing.end, peer


class SshVncTests(SshCase):
    """Signing in at VNC servers that only the agent reaches."""

    def through_agent(self, address: StreamAddress, server: VncServer) -> VncServer:
        return dataclasses.replace(server, endpoint=self.agent.dial(address))

    async def is_used(self, server: VncServer) -> None:
        backend = await connect(server, CLOCK)
        self.addCleanup(backend.close)
        receiver = Hears()
        backend.take(receiver)
        backend.transport.resumeProducing()
        backend.transport.write(bytes.fromhex("0200000100000000 03000000000000100010"))
        self.assertEqual((await receiver.hears(16))[0], 0)
        backend.close()
        await deferLater(CLOCK, 0)

    async def test_port_with_tls(self) -> None:
        servers = VncServers(self)
        servers.folder.chmod(0o755)
        certificate = Authority(servers.folder).issue("127.0.0.1")
        real = await servers.xvnc("X509Vnc", password="secret12", certificate=certificate)
        server = real.vnc("secret12", certificate.fingerprint)
        await self.is_used(self.through_agent(TcpStream("127.0.0.1", real.port), server))

    async def test_socket(self) -> None:
        servers = VncServers(self)
        servers.folder.chmod(0o755)
        real = await servers.xvnc(unix=True)
        Path(real.socket).chmod(0o666)
        await self.is_used(self.through_agent(UnixStream(real.socket), real.vnc()))
