"""Whatever algorithms an sshd allows, with new keys all the while; and hosts, or somebody in between, that cheat."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents import ssh_packets
from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_exchange import PacketTransport
from ipmiproxyd.agents.ssh_link import Link
from ipmiproxyd.agents.ssh_packets import CIPHERS, MACS
from ipmiproxyd.agents.ssh_streams import StreamEndpoint
from ipmiproxyd.errors import AgentUnreachable
from ipmiproxyd.model import UnixStream
from tests.integration.test_ssh_agent import Talker
from tests.support import leftovers
from tests.support.scratch import scratch
from tests.support.sshd import Sshd

CLOCK = cast(Any, reactor)
BULK = 3 << 20
MORE_ROUNDS = 3

COMBINATIONS = (
    ("aes128-gcm@openssh.com", "hmac-sha1"),  # the MAC does not count
    ("aes256-gcm@openssh.com", "hmac-sha2-512"),
    ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes192-ctr", "hmac-sha2-512-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-256"),
    ("aes256-ctr", "hmac-sha2-512"),
    ("chacha20-poly1305@openssh.com", "umac-64@openssh.com"),
)


async def _nothing(_: Connection) -> None: ...


class LinkCase(TestCase):
    """An sshd, and connections to it."""

    timeout: ClassVar[float] = 60

    async def sshd(self, *more: str) -> Sshd:
        folder = scratch(self)
        folder.chmod(0o711)
        sshd = Sshd(folder, more=more)
        await sshd.start(self)
        return sshd

    def link(self, sshd: Sshd, **place: Any) -> Link:
        link = Link("far", sshd.place(**place), CLOCK, _nothing)
        link.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(link.close()))
        return link

    async def stream(self, link: Link) -> tuple[Talker, Talker]:
        far = Talker()
        folder = scratch(self)
        folder.chmod(0o711)
        address = UnixStream(str(folder / "s"))
        port = CLOCK.listenUNIX(address.path, Factory.forProtocol(lambda: far), mode=0o666)
        self.addCleanup(port.stopListening)
        near = cast(Talker, await StreamEndpoint(CLOCK, link, address).connect(Factory.forProtocol(Talker)))
        await far.made
        self.addCleanup(lambda: far.transport.abortConnection())
        return near, far

    async def is_used(self, link: Link) -> None:
        near, far = await self.stream(link)
        down, up = os.urandom(BULK), os.urandom(BULK)
        near.transport.write(up)
        far.transport.write(down)
        await near.until(BULK)
        await far.until(BULK)
        self.assertTrue(near.heard == down and far.heard == up)


class SshCipherTests(LinkCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.exchanges = 0
        original = PacketTransport.ssh_NEWKEYS

        def counted(transport: PacketTransport, packet: bytes) -> None:
            self.exchanges += 1
            original(transport, packet)

        self.patch(PacketTransport, "ssh_NEWKEYS", counted)

    async def works(self, *more: str) -> None:
        """Data goes through whole while keys are renewed. How often they are, is not exact: what is on its way when one
        side asks for new ones still comes under the old ones."""

        link = self.link(await self.sshd(*more))
        await self.is_used(link)
        for _ in range(MORE_ROUNDS):
            if self.exchanges > 3:
                return
            await self.is_used(link)
        self.fail(f"{self.exchanges} exchanges of keys in {MORE_ROUNDS + 1} rounds")

    async def test_each_that_is_offered(self) -> None:
        offered = {name for cipher, mac in COMBINATIONS for name in (cipher.encode(), mac.encode())}
        self.assertLessEqual({*CIPHERS, *MACS}, offered)
        for cipher, mac in COMBINATIONS:
            self.exchanges = 0
            await self.works(f"Ciphers {cipher}", f"MACs {mac}", "RekeyLimit 1M")

    async def test_keys_that_we_renew(self) -> None:
        self.patch(ssh_packets, "REKEY_BYTES", 1 << 20)
        await self.works()

    async def test_both_renew_them(self) -> None:
        self.patch(ssh_packets, "REKEY_BYTES", 1 << 20)
        await self.works("RekeyLimit 1M", "Ciphers aes128-ctr")


class Between(ProxyServer):
    """Passes all on, but what the host says by way of ``change``, while there is one."""

    change: ClassVar[Callable[[bytes], bytes] | None] = None

    class clientProtocolFactory(ProxyClientFactory):
        noisy = False

        class protocol(ProxyClient):
            def dataReceived(self, data: bytes) -> None:
                if Between.change is not None:
                    change, Between.change = Between.change, None
                    data = change(data)
                super().dataReceived(data)


class Cheats(ProxyFactory):
    protocol = Between
    noisy = False


def _ignore(data: bytes) -> bytes:
    """Slip in a message before any keys are there."""

    version, end, rest = data.partition(b"\n")
    return version + end + bytes((0, 0, 0, 12, 6, 2)) + bytes(10) + rest


class SshCheatTests(LinkCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.real = await self.sshd()
        port = CLOCK.listenTCP(0, Cheats("127.0.0.1", self.real.port), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        self.patch(Between, "change", None)

    async def words(self, change: Callable[[bytes], bytes]) -> str:
        """What is said when a connection that is up is tampered with."""

        link = self.link(self.real, port=self.port)
        near, far = await self.stream(link)
        Between.change = change
        far.transport.write(b"x" * 1000)
        await near.ended
        self.assertEqual(near.heard, b"")
        while link.problem is None:
            await leftovers.pause(0.005)
        return link.problem.message

    async def test_bit_that_is_another_one(self) -> None:
        for place in (4, 100, -1):
            flipped = lambda data, at=place: data[:at] + bytes((data[at] ^ 1,)) + data[at:][1:]  # noqa: E731
            self.assertIn("bad MAC", await self.words(flipped))

    async def test_absurd_length(self) -> None:
        self.assertIn("bad packet length", await self.words(lambda data: b"\x7f" + data[1:]))

    async def test_message_slipped_in_before_there_are_keys(self) -> None:
        Between.change = _ignore
        link = self.link(self.real, port=self.port)
        error = await self.assertFailure(link.connection(), AgentUnreachable)
        self.assertIn("does not come first", str(error))
