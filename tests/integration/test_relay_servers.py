"""Real VNC servers behind the relay, as a console of type vnc has them: a viewer sees their picture, or is told why
not."""

from __future__ import annotations

import contextlib

from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater

from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.relay.viewer import DISPLAY_LOST, LIMIT, REFUSED
from tests.support.relay_case import reactor
from tests.support.rfb_client import RfbClient, Screen
from tests.support.vnc_servers import Authority, RealServer
from tests.support.ws_bridge import BridgeCase

TEAL = (0x12, 0x84, 0x7F)


class PictureTests(BridgeCase):
    async def is_used(self, server: RealServer, vnc: VncServer) -> None:
        """A viewer sees the server's screen, which changes, and presses keys there."""

        xev = self.servers.start(["stdbuf", "-oL", "xev", "-geometry", "20x20+0+0"], {"DISPLAY": f":{server.number}"})
        await xev.says("Expose event")
        self.serve_real(vnc)
        client = await self.looks()
        for colour in (TEAL, (200, 0, 1)):
            await self.servers.paint(server, colour)
            await self.sees(client, colour)
        client.point(10, 10)
        client.type("kQ")
        await xev.says(r"KeyPress.*keysym 0x6b, k\).*KeyPress.*keysym 0x51, Q\)")
        client.close()
        await self.told(0)
        await self.nothing_left()

    async def sees(self, client: RfbClient, colour: tuple[int, int, int]) -> None:
        for _ in range(400):
            if (await client.look()).share(colour) > 0.9:
                return
            await deferLater(reactor, 0.02)  # x11vnc looks at its display now and then only
        raise AssertionError(f"it does not show {colour}")

    async def test_xvnc_without_a_password(self) -> None:
        server = await self.servers.xvnc()
        await self.is_used(server, server.vnc())

    async def test_xvnc_with_a_password(self) -> None:
        server = await self.servers.xvnc("VncAuth", password="secret")
        await self.is_used(server, server.vnc("secret"))

    async def test_xvnc_with_a_certificate(self) -> None:
        certificate = Authority(self.servers.folder).issue("idrac.example")
        server = await self.servers.xvnc("X509Vnc", password="secret", certificate=certificate)
        await self.is_used(server, server.vnc("secret", certificate.fingerprint))

    async def test_x11vnc(self) -> None:
        server = await self.servers.x11vnc("-speeds", "lan", password="secret")  # or it measures for five seconds
        await self.is_used(server, server.vnc("secret"))

    async def qemu_is_used(self, server: RealServer, vnc: VncServer) -> Screen:
        self.serve_real(vnc)
        client = await self.looks()
        screen = await client.look()
        client.type("k")
        await server.child.says("vnc_key_event_map .*")
        client.close()
        await self.told(0)
        await self.nothing_left()
        return screen

    async def test_qemu(self) -> None:
        server = await self.servers.qemu("-trace", "vnc_key_event_*", password="secret")
        seen = await self.qemu_is_used(server, server.vnc("secret"))
        self.assertGreater((seen.width, seen.height), (600, 400))

    async def test_qemu_with_a_certificate(self) -> None:
        certificate = Authority(self.servers.folder).issue("127.0.0.1")
        server = await self.servers.qemu("-trace", "vnc_key_event_*", certificate=certificate)
        await self.qemu_is_used(server, server.vnc("", certificate.fingerprint))


class RefusalTests(BridgeCase):
    async def the_second_is_told(self, vnc: VncServer, words: str) -> None:
        """That there is no place left; and the first one stays."""

        self.serve_real(vnc)
        first = await self.looks()
        picture = await first.look()
        await self.is_turned_away(LIMIT, words)
        self.assertTrue(picture.same(await first.look()))
        first.close()
        await self.told(0)
        await self.nothing_left()
        await (await self.looks()).look()  # the place is free again

    async def test_who_comes_pushes_another_out(self) -> None:
        """That one is not to come again by itself: it would push the other out in turn."""

        server = await self.servers.xvnc("None", "-NeverShared")
        self.serve_real(server.vnc())
        await (await self.looks()).look()
        second = await self.looks()
        await second.look()
        code, reason = await self.told(0)
        self.assertEqual(code, LIMIT, reason)
        await second.look()
        second.close()
        await self.told(1)
        await self.nothing_left()

    async def is_turned_away(self, code: int, words: str) -> None:
        index = len(self.bridge.passages)
        with contextlib.suppress(ConnectionDone):
            await (await self.looks()).look()
            self.fail("it shows its screen")
        found, reason = await self.told(index)
        self.assertEqual(found, code, reason)
        self.assertIn(words, reason)
        self.assertNotIn("secret", reason)

    async def test_xvnc_that_shares_with_nobody(self) -> None:
        server = await self.servers.xvnc("None", "-NeverShared", "-DisconnectClients=0")
        await self.the_second_is_told(server.vnc(), "already in use")

    async def test_x11vnc_that_shares_with_nobody(self) -> None:
        server = await self.servers.x11vnc("-nevershared", "-dontdisconnect", password="secret")
        await self.the_second_is_told(server.vnc("secret"), "no more viewers")

    async def test_qemu_with_one_place(self) -> None:
        server = await self.servers.qemu(options=",connections=1")
        await self.the_second_is_told(server.vnc(), "closed the connection after the sign-in")

    async def test_a_wrong_password(self) -> None:
        servers = (
            await self.servers.xvnc("VncAuth", password="secret"),
            await self.servers.x11vnc(password="secret"),
            await self.servers.qemu(password="secret"),
        )
        self.serve_real(servers[0].vnc())
        for server in servers:
            self.console.server = server.vnc("secret2")
            await self.is_turned_away(REFUSED, "refused the sign-in")
            self.console.server = server.vnc()
            await self.is_turned_away(REFUSED, "wants a password")
        await self.nothing_left()

    async def test_another_certificate(self) -> None:
        certificate = Authority(self.servers.folder).issue("idrac.example")
        server = await self.servers.xvnc("X509Vnc", password="secret", certificate=certificate)
        self.serve_real(server.vnc("secret", "00" * 32))
        await self.is_turned_away(REFUSED, "another certificate")
        self.console.server = server.vnc("secret1", certificate.fingerprint)
        await self.is_turned_away(REFUSED, "refused the sign-in")
        await self.nothing_left()

    async def test_a_server_that_dies(self) -> None:
        certificate = Authority(self.servers.folder).issue("idrac.example")
        plain = await self.servers.xvnc()
        secure = await self.servers.xvnc("X509None", certificate=certificate)
        self.serve_real(plain.vnc())
        for vnc in (plain.vnc(), plain.vnc(), secure.vnc("", certificate.fingerprint)):
            self.console.server = vnc
            await (await self.looks()).look()
        for server in (plain, secure):
            assert server.child.transport is not None
            server.child.transport.signalProcess("KILL")
        for index in range(3):
            self.assertEqual(await self.told(index), (DISPLAY_LOST, "The display went away"))
        await self.is_turned_away(DISPLAY_LOST, "cannot be reached")
        await self.nothing_left()
