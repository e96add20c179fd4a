"""A VNC client that looks at one small area of the screen: what it says, and what it makes of the answers (RFC 6143,
section 7). No I/O, no Twisted. It asks for raw pixels only, and is for servers of our own."""

from __future__ import annotations

import struct
from typing import Final

SIDE: Final = 16
"""Pixels of the area, in either direction. It is not in the middle of the screen, where the pointer is drawn first."""
MAX_UPDATE: Final = 1 << 26
"""Bytes of one rectangle, or of one cut text."""

_PIXEL: Final = 4
_FORMAT: Final = struct.pack(">B3xBBBBHHHBBB3x", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_ENCODINGS: Final = struct.pack(">BxHi", 2, 1, 0)
_HEADS: Final = {0: 4, 1: 6, 2: 1, 3: 8}
"""The servers' messages: how many bytes tell how long the rest is."""
_RECTANGLE: Final = 12


class AreaError(Exception):
    """The server says what it was not asked for."""


class Area:
    """Fed with what a server says after the sign-in.

    :param init: its ServerInit message.
    :ivar greeting: what to say first; afterwards what :meth:`feed` returns.
    """

    def __init__(self, init: bytes) -> None:
        width, height = struct.unpack_from(">HH", init)
        self._width, self._height = min(SIDE, width), min(SIDE, height)
        self._x, self._y = (width - self._width) // 4, (height - self._height) // 4
        self._pixels = bytearray(_PIXEL * self._width * self._height)
        self._heard = bytearray()
        self._left = 0  # rectangles of the update that is coming
        self._whole = False
        self.greeting = _FORMAT + _ENCODINGS + self._ask(incremental=False)

    @property
    def colour(self) -> int | None:
        """The one colour that all of it has, as 0xRRGGBB; None for several, or if it was not seen yet."""

        first = bytes(self._pixels[: _PIXEL - 1])
        same = all(self._pixels[at : at + _PIXEL - 1] == first for at in range(0, len(self._pixels), _PIXEL))
        return int.from_bytes(first, "little") if self._whole and same else None

    def feed(self, data: bytes) -> bytes:
        """Returns what to say to that. Raises AreaError."""

        self._heard += data
        say = b""
        while (size := self._next()) and len(self._heard) >= size:
            message, self._heard = bytes(self._heard[:size]), self._heard[size:]
            if self._left:
                self._paint(message)
                self._left -= 1
            elif message[0] == 0:
                self._left = struct.unpack_from(">H", message, 2)[0]
            else:
                continue
            if not self._left:
                self._whole = True
                say += self._ask(incremental=True)
        return say

    def _ask(self, *, incremental: bool) -> bytes:
        return struct.pack(">BBHHHH", 3, incremental, self._x, self._y, self._width, self._height)

    def _next(self) -> int:
        """Bytes of what comes next, as far as that is known; 0 if nothing is there."""

        heard = self._heard
        if not heard:
            return 0
        head = _RECTANGLE if self._left else _HEADS.get(heard[0], 0)
        if not head:
            raise AreaError(f"The VNC server says something unknown ({heard[0]}).")
        if len(heard) < head:
            return head
        if self._left:
            width, height, encoding = struct.unpack_from(">HHi", heard, 4)
            if encoding:
                raise AreaError("The VNC server does not send raw pixels.")
            size = int(head + _PIXEL * width * height)
        elif heard[0] == 1:
            size = head + 6 * int(struct.unpack_from(">H", heard, 4)[0])
        elif heard[0] == 3:
            size = head + int(struct.unpack_from(">I", heard, 4)[0])
        else:
            size = head
        if size > MAX_UPDATE:
            raise AreaError("The VNC server wants to send too much.")
        return size

    def _paint(self, rectangle: bytes) -> None:
        x, y, width, height = struct.unpack_from(">HHHH", rectangle)
        left, right = max(x, self._x), min(x + width, self._x + self._width)
        for row in range(max(y, self._y), min(y + height, self._y + self._height)):
            if left < right:
                begin = _RECTANGLE + _PIXEL * ((row - y) * width + left - x)
                place = _PIXEL * ((row - self._y) * self._width + left - self._x)
                size = _PIXEL * (right - left)
                self._pixels[place : place + size] = rectangle[begin : begin + size]
