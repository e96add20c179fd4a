"""Screenshots of real VNC servers, and of some that are not so real."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcUnsupported, TimedOut
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.relay.backend import connect
from ipmiproxyd.relay.screenshot import LIMIT, capture
from tests.support.vnc_servers import Authority, VncServers, reactor

TEAL = (0x12, 0x84, 0x7F)
TRUE_COLOUR = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
HELLO = b"RFB 003.008\n\x01\x01\x00\x00\x00\x00"


async def picture(server: VncServer, **settings: Any) -> Image.Image:
    return Image.open(io.BytesIO(await capture(server, reactor, **settings))).convert("RGB")


class RealTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.servers = VncServers(self)

    async def test_xvnc(self) -> None:
        server = await self.servers.xvnc(size="1024x768")
        viewer = await connect(server.vnc(), reactor)
        self.addCleanup(viewer.close)
        for colour in (TEAL, (200, 0, 1)):
            await self.servers.paint(server, colour)
            with capturedLogs() as events:
                seen = await picture(server.vnc())
            self.assertEqual(seen.size, (1024, 768))
            self.assertEqual(seen.getcolors(), [(1024 * 768, colour)])
            self.assertEqual([event for event in events if event["log_level"] > LogLevel.debug], [])
        self.assertFalse(viewer.transport.disconnected)

    async def test_behind_a_password_and_tls(self) -> None:
        certificate = Authority(self.servers.folder).issue("bmc.example")
        server = await self.servers.xvnc("X509Vnc", password="secret", certificate=certificate)
        await self.servers.paint(server, TEAL)
        seen = await picture(server.vnc("secret", certificate.fingerprint))
        self.assertEqual(seen.getcolors(), [(320 * 240, TEAL)])
        wrong = Deferred.fromCoroutine(capture(server.vnc("wrong", certificate.fingerprint), reactor))
        await self.assertFailure(wrong, BmcAuth)

    async def test_other_depths(self) -> None:
        server = await self.servers.xvnc("None", "-depth", "16", size="64x64")
        await self.servers.paint(server, (0xFF, 0, 0))
        self.assertEqual((await picture(server.vnc())).getpixel((5, 5)), (0xFF, 0, 0))

    async def test_x11vnc(self) -> None:
        server = await self.servers.x11vnc()
        await self.servers.paint(server, TEAL)
        points, colour = max((await picture(server.vnc())).getcolors() or [(0, None)])
        self.assertEqual(colour, TEAL)
        self.assertGreater(points, 320 * 240 - 200)  # it draws the pointer

    async def test_qemu(self) -> None:
        """The screen of a machine without power says so in white on black."""

        seen = await picture((await self.servers.qemu()).vnc())
        self.assertGreaterEqual(seen.width, 640)
        colours = {colour for _, colour in seen.getcolors() or []}
        self.assertIn((0, 0, 0), colours)
        self.assertGreater(len(colours), 1)


class Pretender(Protocol):
    """A server that says its lines, and then for each update request the next of ``answers``."""

    def __init__(self, factory: Pretenders) -> None:
        self.mine = factory
        self.heard = b""

    def connectionMade(self) -> None:
        self.mine.connected += 1
        self.transport.write(HELLO + self.mine.init)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if b"\x03\x00\x00\x00\x00\x00" in self.heard:
            self.heard = b""
            if not self.mine.asked.called:
                self.mine.asked.callback(None)
            answers = self.mine.answers
            self.transport.write(answers.pop(0) if len(answers) > 1 else answers[0])  # type: ignore[union-attr]

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        self.mine.connected -= 1
        self.mine.gone.callback(None)


class Pretenders(Factory):
    def __init__(self, init: bytes, answers: list[bytes]) -> None:
        self.init, self.answers, self.connected = init, answers, 0
        self.asked: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def buildProtocol(self, _addr: object) -> Pretender:
        return Pretender(self)


def screen(width: int, height: int) -> bytes:
    return struct.pack(">HH", width, height) + TRUE_COLOUR + struct.pack(">I", 4) + b"test"


def update(*rectangles: tuple[int, int, int, int, tuple[int, int, int]]) -> bytes:
    parts = [struct.pack(">BxH", 0, len(rectangles))]
    for x, y, width, height, (red, green, blue) in rectangles:
        parts.append(struct.pack(">HHHHi", x, y, width, height, 0) + bytes((blue, green, red, 0)) * (width * height))
    return b"".join(parts)


class PretenderTests(TestCase):
    timeout = 30

    def serve(self, init: bytes, *answers: bytes) -> VncServer:
        self.factory = Pretenders(init, list(answers))
        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: self.factory.gone)
        return VncServer(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))

    async def test_a_screen_in_pieces(self) -> None:
        red, blue = (255, 0, 0), (0, 0, 255)
        server = self.serve(screen(4, 2), update((2, 0, 2, 2, red)) + b"\x02" + update((0, 0, 2, 2, blue)))
        seen = await picture(server)
        self.assertEqual([seen.getpixel((x, 1)) for x in range(4)], [blue, blue, red, red])

    async def test_until_it_stands_still(self) -> None:
        shades = [update((0, 0, 4, 4, (shade, shade, shade))) for shade in (1, 2, 3, 3)]
        seen = await picture(self.serve(screen(4, 4), *shades))
        self.assertEqual(seen.getpixel((0, 0)), (3, 3, 3))
        self.assertEqual(self.factory.answers, shades[-1:])

    async def test_or_until_the_time_is_over(self) -> None:
        shades = [update((0, 0, 4, 4, (shade, shade, shade))) for shade in range(200)]
        seen = await picture(self.serve(screen(4, 4), *shades), settle=0.5)
        self.assertNotIn(seen.getpixel((0, 0)), [(0, 0, 0), (199, 199, 199)])

    async def test_a_new_size(self) -> None:
        resize = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 8, 8, -223)
        seen = await picture(self.serve(screen(4, 4), resize, update((0, 0, 8, 8, TEAL))))
        self.assertEqual((seen.size, seen.getcolors()), ((8, 8), [(64, TEAL)]))

    async def refused(self, server: VncServer, kind: type[Exception]) -> str:
        error = await self.assertFailure(Deferred.fromCoroutine(capture(server, reactor)), kind)
        await self.factory.gone
        self.assertEqual(self.factory.connected, 0)
        return str(error)

    async def test_too_large(self) -> None:
        await self.refused(self.serve(screen(20000, 20000)), BmcUnsupported)
        resize = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 65535, 65535, -223)
        await self.refused(self.serve(screen(4, 4), resize), BmcUnsupported)
        far_out = update((65530, 65530, 1, 1, TEAL))
        await self.refused(self.serve(screen(4, 4), far_out), BmcUnsupported)

    async def test_nonsense(self) -> None:
        for nonsense in (b"\x77", struct.pack(">BxHHHHHi", 0, 1, 0, 0, 4, 4, 4711)):
            said = await self.refused(self.serve(screen(4, 4), nonsense), BmcError)
            self.assertIn("cannot be understood", said)

    async def test_what_would_fill_the_memory(self) -> None:
        """Encodings that nobody asked for are not decoded, and what is longer than any screen is not waited for."""

        packed = zlib.compress(bytes(1 << 20))
        bomb = struct.pack(">BxHHHHHiI", 0, 1, 0, 0, 4, 4, 16, len(packed)) + packed
        text = struct.pack(">B3xI", 3, 1 << 31)
        for flood in (bomb, text):
            said = await self.refused(self.serve(screen(4, 4), flood), BmcError)
            self.assertIn("cannot be understood", said)
        huge = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 60000, 60000, 0)
        await self.refused(self.serve(screen(4, 4), huge), BmcUnsupported)

    async def test_cancelled(self) -> None:
        taking = Deferred.fromCoroutine(capture(self.serve(screen(4, 4), b""), reactor))
        await self.factory.asked
        taking.cancel()
        await self.assertFailure(taking, CancelledError)
        await self.factory.gone

    async def test_it_never_comes(self) -> None:
        clock = Clock()
        taking = Deferred.fromCoroutine(capture(self.serve(screen(4, 4), b""), clock))
        await self.factory.asked
        clock.advance(LIMIT)
        await self.assertFailure(taking, TimedOut)
        await self.factory.gone
