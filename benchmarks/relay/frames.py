"""A WebSocket as its client sees it (RFC 6455 §5): frames out, and the payload of whatever pieces come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

CONTINUATION: Final = 0
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

MASK: Final = b"\x37\xfa\x21\x3d"


class BadFrame(Exception):
    """A server may not send this."""


def client_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")
    mask = (MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return head + MASK + masked.to_bytes(size, "big")


class FrameReader:
    """Hands the payload of data frames on in place, and each control frame whole.

    :param take: is given a buffer, and where in it a piece of payload begins and ends.
    :param control: is given the opcode and the payload of a control frame.
    """

    __slots__ = ("_control", "_head", "_left", "_opcode", "_take", "_wanted")

    def __init__(self, take: Callable[[bytearray, int, int], None], control: Callable[[int, bytes], None]) -> None:
        self._take = take
        self._control = control
        self._head = bytearray()
        self._wanted = 2
        self._left = 0
        self._opcode = BINARY

    def divert(self, take: Callable[[bytearray, int, int], None]) -> None:
        self._take = take

    def feed(self, data: bytearray, start: int, end: int) -> None:
        """Raises :class:`BadFrame`, and whatever ``take`` and ``control`` raise."""

        head = self._head
        while start < end:
            if self._left:
                step = min(self._left, end - start)
                self._left -= step
                self._take(data, start, start + step)
                start += step
                continue
            step = min(self._wanted - len(head), end - start)
            head += data[start : start + step]
            start += step
            if len(head) == self._wanted:
                self._look(head)

    def _look(self, head: bytearray) -> None:
        """``head`` is as long as was wanted: find out what else is."""

        size, begin = head[1], 2
        if size > 127 or head[0] & 0x70:
            raise BadFrame("masked, or with reserved bits")
        if size > 125:
            begin = 4 if size == 126 else 10
            if len(head) < begin:
                self._wanted = begin
                return
            size = int.from_bytes(head[2:begin], "big")
        opcode = head[0] & 15
        if opcode in (BINARY, CONTINUATION):
            self._left = size
        elif opcode < CLOSE or size > 125:
            raise BadFrame(f"opcode {opcode} with {size} bytes")
        elif len(head) < begin + size:
            self._wanted = begin + size
            return
        else:
            self._control(opcode, bytes(head[begin:]))
        head.clear()
        self._wanted = 2
