"""Clients that are not ours, on the relay, with a real Xvnc behind it: each sees its picture, and its keys arrive."""

from __future__ import annotations

import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image
from twisted.internet.threads import deferToThread
from websockets.sync.client import ClientConnection, connect

from tests.support.page_display import Running
from tests.support.relay_case import until
from tests.support.relay_tls import HOST, TlsCase
from tests.support.rfb_client import RfbClient
from tests.support.vnc_servers import RealServer
from tests.support.ws_bridge import BridgeCase

SET_PIXEL_FORMAT: Final = struct.pack(">B3xBBBBHHHBBB3x", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
CURSOR: Final = -239
QEMU_KEY: Final = b"\xff\x00\x00\x01"
RESIZE: Final = b"\xfb\x00\x01\xe0\x01\x68\x01\x00"  # to 480 × 360
SET_ENCODINGS: Final = struct.pack(">BxH2i", 2, 2, 0, CURSOR)


class ClientCase(BridgeCase):
    """``self.server`` shows a pattern and, at (50, 60), the window of ``self.xev``, which tells its events."""

    async def show(self) -> None:
        self.server = await self.servers.xvnc(size="400x300")
        await self.paint("#d01040")
        self.xev = self.servers.start(
            ["stdbuf", "-oL", "xev", "-geometry", "100x80+50+60"], {"DISPLAY": f":{self.server.number}"}
        )
        await self.xev.says("Expose event")
        self.serve_real(self.server.vnc())

    async def paint(self, colour: str) -> None:
        await self.servers.run(self.server, "xsetroot", "-mod", "7", "5", "-fg", "#3080d0", "-bg", colour)

    async def photo(self, server: RealServer) -> Image.Image:
        """What a display shows, without its pointer."""

        file = self.servers.folder / f"photo-{server.number}.ppm"
        await self.servers.run(server, "import", "-window", "root", "-depth", "8", str(file))
        return Image.open(file).convert("RGB")

    async def same(self, display: RealServer, width: int, height: int) -> None:
        """Until the server's screen has this size, and all of it is seen in the middle of a display."""

        for _ in range(50):
            shown = await self.photo(self.server)
            seen = await self.photo(display)
            x, y = (seen.width - width) // 2, (seen.height - height) // 2
            if shown.size == (width, height) and shown.tobytes() == seen.crop((x, y, x + width, y + height)).tobytes():
                return
        raise AssertionError(f"it shows another picture than the server's of {shown.size}")

    def assert_colourful(self, picture: Image.Image) -> None:
        colours = picture.getcolors()
        assert colours is not None
        self.assertGreater(len(colours), 3)


class VncViewerTests(ClientCase):
    async def test_tigervnc(self) -> None:
        """It has the display resized, and uses fences, continuous updates and QEMU's key events."""

        await self.show()
        display = await self.servers.xvnc(size="480x360")
        viewer = self.view(display)
        await self.same(display, 480, 360)
        await self.paint("#10d040")
        await self.same(display, 480, 360)

        user = await RfbClient.connect(display.vnc().endpoint)
        user.point(80, 90)
        await self.xev.says(r"MotionNotify.*root:\(80,90\)")
        user.type("kQ")
        await self.xev.says(r"KeyPress.*keysym 0x6b, k\).*KeyPress.*keysym 0x51, Q\)")
        user.click(81, 91)
        await self.xev.says(r"ButtonPress.*root:\(81,91\).*ButtonRelease.*root:\(81,91\)")
        user.close()
        (passage,) = self.bridge.passages
        for sign in (QEMU_KEY, RESIZE, b"\xf8\0\0\0", b"\x96\x01"):
            self.assertIn(sign, passage.said)

        await viewer.stop()
        self.assertEqual((await self.told(0))[0], 1000)
        await self.nothing_left()

    async def test_tigervnc_that_may_only_watch(self) -> None:
        """The server never hears what it asks for beyond the picture; it watches all the same."""

        await self.show()
        first = await self.looks()  # has control
        display = await self.servers.xvnc(size="480x360")
        self.bridge.grant = {"control": False}
        self.view(display)
        await self.same(display, 400, 300)
        user = await RfbClient.connect(display.vnc().endpoint)
        user.point(120, 120)
        user.type("k")
        await until(lambda: {True} == {sign in self.bridge.passages[1].said for sign in (QEMU_KEY, RESIZE)})
        user.close()
        await self.paint("#10d040")
        await self.same(display, 400, 300)
        first.point(70, 80)
        first.type("z")
        await self.xev.says(r"KeyPress.*keysym 0x7a, z\)")
        self.assertNotIn("keysym 0x6b", self.xev.output)
        self.assertNotIn("root:(80,90)", self.xev.output)
        first.close()

    def view(self, display: RealServer) -> Running:
        return self.servers.start(
            [
                *("xtigervncviewer", "-FullScreen", "-MenuKey=", "-SecurityTypes=None"),
                *("-ReconnectOnError=0", "-AlertOnFatalError=0", f"127.0.0.1::{self.bridge.port}"),
            ],
            {"DISPLAY": f":{display.number}"},
        )


class VncDoToolTests(ClientCase):
    async def test_vncdotool(self) -> None:
        await self.show()
        file = self.servers.folder / "captured.png"
        program = ("-c", "from vncdotool.command import vncdo; vncdo()", "--nocursor")
        script = ("move", "80", "90", "type", "kq", "click", "1", "capture", str(file))
        child = self.servers.start([sys.executable, *program, "-s", f"127.0.0.1::{self.bridge.port}", *script])
        await child.ended
        self.assertTrue(file.exists(), child.output)
        seen = Image.open(file).convert("RGB")
        self.assert_colourful(seen)
        self.assertEqual(seen.tobytes(), (await self.photo(self.server)).tobytes())
        await self.xev.says(r"MotionNotify.*root:\(80,90\).*KeyPress.*keysym 0x6b, k\).*KeyPress.*keysym 0x71, q\)")
        await self.xev.says(r"ButtonPress.*root:\(80,90\).*ButtonRelease")
        self.assertEqual((await self.told(0))[0], 1000)
        await self.nothing_left()


class Generic:
    """A VNC client on PyPI's websockets, as a program on threads has it: everything here blocks.

    :ivar pongs: answers to the pings that it sent between the fragments of a message.
    """

    def __init__(self, port: int, key: str, trust: Path | None = None) -> None:
        context = ssl.create_default_context(cafile=trust) if trust is not None else None
        self._socket: ClientConnection = connect(
            f"{'ws' if trust is None else 'wss'}://127.0.0.1:{port}/vnc",
            ssl=context,
            server_hostname=None if trust is None else HOST,
            subprotocols=["binary", f"key.{key}"],  # type: ignore[list-item]
            open_timeout=10,
            close_timeout=10,
        )
        self.subprotocol = self._socket.subprotocol
        self._heard = b""
        self.pongs: list[threading.Event] = []

    def greet(self) -> None:
        self._expect(b"RFB 003.008\n")
        self._socket.send(b"RFB 003.008\n")
        self._expect(b"\x01\x01")
        self._socket.send(b"\x01")
        self._expect(bytes(4))
        self._socket.send(b"\x00")  # not shared: the relay shares all the same
        self._width, self._height, length = struct.unpack(">HH16xI", self._hear(24))
        self._hear(length)

    def look(self) -> Image.Image:
        """Ask for the whole screen, in one message of many fragments with pings between."""

        request = struct.pack(">BB4H", 3, 0, 0, 0, self._width, self._height)
        self._socket.send(self._in_pieces(SET_PIXEL_FORMAT + SET_ENCODINGS + request))
        picture = Image.new("RGB", (self._width, self._height))
        missing = self._width * self._height
        while missing > 0:
            for x, y, width, height, kind in self._update():
                if kind == CURSOR:
                    self._hear(4 * width * height + (width + 7) // 8 * height)
                    continue
                pixels = Image.frombytes("RGB", (width, height), self._hear(4 * width * height), "raw", "BGRX")
                picture.paste(pixels, (x, y))
                missing -= width * height
        return picture

    def _update(self) -> Iterator[tuple[int, ...]]:
        kind, count = struct.unpack(">BxH", self._hear(4))
        assert kind == 0, "only framebuffer updates are expected here"
        for _ in range(count):
            yield struct.unpack(">HHHHi", self._hear(12))

    def _in_pieces(self, message: bytes) -> Iterator[bytes]:
        sizes = (1, 2, 3, 0, 5, 8, 13, 21, 34)
        for size in sizes:
            piece, message = message[:size], message[size:]
            yield piece
            self.pongs.append(self._socket.ping())
        assert not message

    def type(self, text: str) -> None:
        for letter in text:
            for down in (1, 0):
                self._socket.send(struct.pack(">BBxxI", 4, down, ord(letter)))

    def point(self, x: int, y: int, buttons: int = 0) -> None:
        self._socket.send(struct.pack(">BBHH", 5, buttons, x, y))

    def close(self) -> tuple[int | None, str | None]:
        """What the relay's close frame says."""

        self._socket.close(1000, "Thank you")
        return self._socket.close_code, self._socket.close_reason

    def _expect(self, data: bytes) -> None:
        heard = self._hear(len(data))
        assert heard == data, heard

    def _hear(self, size: int) -> bytes:
        while len(self._heard) < size:
            message = self._socket.recv(timeout=10)
            assert isinstance(message, bytes)
            self._heard += message
        heard, self._heard = self._heard[:size], self._heard[size:]
        return heard


def use(client: Generic) -> tuple[Image.Image, tuple[int | None, str | None]]:
    """A short life: look, type, click, leave."""

    client.greet()
    picture = client.look()
    assert all(pong.wait(10) for pong in client.pongs)
    client.point(80, 90)
    client.type("kq")
    for buttons in (1, 0):
        client.point(80, 90, buttons)
    return picture, client.close()


class GenericTests(ClientCase):
    trust: Path | None = None

    async def test_websockets(self) -> None:
        await self.show()
        client = await deferToThread(Generic, self.number, self.key(), self.trust)
        self.assertEqual(client.subprotocol, "binary")
        picture, closed = await deferToThread(use, client)
        self.assertEqual(closed, (1000, ""))
        self.assert_colourful(picture)
        self.assertEqual(picture.tobytes(), (await self.photo(self.server)).tobytes())
        await self.xev.says(r"KeyPress.*keysym 0x6b, k\).*KeyPress.*keysym 0x71, q\)")
        await self.xev.says(r"ButtonPress.*root:\(80,90\).*ButtonRelease")
        await self.nothing_left()


class TlsGenericTests(GenericTests, TlsCase):
    async def show(self) -> None:
        await super().show()
        self.trust = self.made.certificate
