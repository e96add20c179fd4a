"""A VNC client for tests: looks at a display, points and types."""

from __future__ import annotations

import struct
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

_TRUE_COLOUR: Final = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
RETURN, ESCAPE, CONTROL, ALT = 0xFF0D, 0xFF1B, 0xFFE3, 0xFFE9
F4 = 0xFFC1


class Screen:
    """What was seen: rows of blue, green, red and an unused byte."""

    def __init__(self, width: int, height: int, pixels: bytes) -> None:
        self.width, self.height, self._pixels = width, height, pixels

    def colour(self, x: int, y: int) -> tuple[int, int, int]:
        """Red, green and blue of a point."""

        at = 4 * (y * self.width + x)
        blue, green, red = self._pixels[at : at + 3]
        return red, green, blue

    def share(self, colour: tuple[int, int, int]) -> float:
        """How much of the screen has a colour, 0 to 1; of a sample of its points."""

        red, green, blue = colour
        wanted = bytes((blue, green, red))
        samples = range(0, len(self._pixels), 4 * 89)
        return sum(self._pixels[at : at + 3] == wanted for at in samples) / len(samples)

    def same(self, other: Screen) -> bool:
        return self._pixels == other._pixels

    def ppm(self) -> bytes:
        body = bytearray(3 * self.width * self.height)
        body[0::3], body[1::3], body[2::3] = self._pixels[2::4], self._pixels[1::4], self._pixels[0::4]
        return b"P6 %d %d 255\n" % (self.width, self.height) + bytes(body)


class RfbClient(Protocol):
    """One shared connection without a password (RFB 3.8)."""

    def __init__(self) -> None:
        self.width = self.height = 0
        self._buffer = b""
        self._wanted: tuple[int, Deferred[bytes]] | None = None
        self._lost: Failure | None = None

    @classmethod
    async def connect(cls, endpoint: IStreamClientEndpoint) -> RfbClient:
        client = await endpoint.connect(Factory.forProtocol(cls))
        assert isinstance(client, cls)
        await client._greet()
        return client

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        self._serve()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = reason
        if self._wanted is not None:
            (_, waiting), self._wanted = self._wanted, None
            waiting.errback(reason)

    def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    async def look(self) -> Screen:
        """The whole screen as it is now."""

        self._send(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        pixels = bytearray(4 * self.width * self.height)
        while (await self._read(1))[0] != 0:
            raise AssertionError("only framebuffer updates are expected here")
        (rectangles,) = struct.unpack(">xH", await self._read(3))
        for _ in range(rectangles):
            x, y, width, height, _encoding = struct.unpack(">HHHHi", await self._read(12))
            for row in range(height):
                at = 4 * ((y + row) * self.width + x)
                pixels[at : at + 4 * width] = await self._read(4 * width)
        return Screen(self.width, self.height, bytes(pixels))

    def point(self, x: int, y: int, buttons: int = 0) -> None:
        self._send(struct.pack(">BBHH", 5, buttons, x, y))

    def click(self, x: int, y: int) -> None:
        for buttons in (0, 1, 0):
            self.point(x, y, buttons)

    def press(self, *keys: int) -> None:
        """Press keys together, the first first, and let go of them."""

        for down, order in ((1, keys), (0, keys[::-1])):
            for key in order:
                self._send(struct.pack(">BBxxI", 4, down, key))

    def type(self, text: str) -> None:
        for letter in text:
            self.press(ord(letter))

    async def _greet(self) -> None:
        await self._read(12)
        self._send(b"RFB 003.008\n")
        (count,) = await self._read(1)
        assert 1 in await self._read(count), "the display wants a password"
        self._send(b"\x01")
        assert await self._read(4) == bytes(4)
        self._send(b"\x01")
        self.width, self.height, name = struct.unpack(">HH16xI", await self._read(24))
        await self._read(name)
        self._send(b"\x00\0\0\0" + _TRUE_COLOUR)
        self._send(struct.pack(">BxHi", 2, 1, 0))

    def _send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _read(self, size: int) -> Deferred[bytes]:
        waiting: Deferred[bytes] = Deferred()
        if self._lost is not None:
            waiting.errback(self._lost)
        else:
            self._wanted = (size, waiting)
            self._serve()
        return waiting

    def _serve(self) -> None:
        if self._wanted is not None and len(self._buffer) >= self._wanted[0]:
            (size, waiting), self._wanted = self._wanted, None
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            waiting.callback(data)
