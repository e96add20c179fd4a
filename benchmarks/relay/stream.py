"""What the synthetic server says after the handshake, so that every byte of it can be checked.

The server's bytes are one endless repetition of a pattern whose period is a prime: a byte that is lost, doubled,
moved or changed anywhere puts what follows at the wrong place.

The server obeys ordinary messages of a viewer (RFC 6143 §7.5), so that a relay that reads them sees nothing odd. In a
FramebufferUpdateRequest ``x`` is one of the commands below and ``y`` counts the connection's requests; ``width`` and
``height`` are the command's arguments. A PointerEvent's place counts the connection's pointer events.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

PERIOD: Final = 65_521
LARGEST: Final = 1 << 20
"""As many bytes can be compared, or taken from :data:`PATTERN`, at once."""

PATTERN: Final = memoryview(random.Random(3).randbytes(PERIOD) * (LARGEST // PERIOD + 2))

GIVE: Final = 0
"""Say ``width << 16 | height`` bytes of the pattern."""
UPDATES: Final = 1
"""From now on, ``width`` times a second a record with ``height`` KiB of the pattern; the records of pointer events."""
STALL: Final = 2
"""Read nothing any more."""

COUNT: Final = 4096
"""Requests and pointer events are counted modulo this."""

ECHO_EVERY: Final = 12
"""Every such pointer event is answered with an empty record."""

UPDATE: Final = 1
ECHO: Final = 2
RECORD: Final = struct.Struct(">BxHI")
"""A record's kind, the number of the pointer event, and the length of what follows."""

_REQUEST = struct.Struct(">BBHHHH")
_POINTER = struct.Struct(">BBHH")


class Corrupt(Exception):
    """What came in is not what was sent."""


def request(count: int, command: int, width: int = 0, height: int = 0) -> bytes:
    return _REQUEST.pack(3, 0, command, count % COUNT, width, height)


def give(count: int, size: int) -> bytes:
    return request(count, GIVE, size >> 16, size & 0xFFFF)


def pointer(count: int) -> bytes:
    return _POINTER.pack(5, 0, count % COUNT, count // COUNT % COUNT)


class Pattern:
    """Takes pieces of a stream that is nothing but the pattern. ``position``: how many bytes it has taken."""

    __slots__ = ("position",)

    def __init__(self) -> None:
        self.position = 0

    def take(self, data: bytearray, start: int, end: int) -> None:
        """Raises :class:`Corrupt`."""

        at = self.position % PERIOD
        # The only comparison of a slice in the standard library that neither copies nor goes byte by byte.
        if not data.startswith(PATTERN[at : at + end - start], start):
            wrong = next(i for i in range(end - start) if data[start + i] != PATTERN[at + i])
            raise Corrupt(f"byte {self.position + wrong} of the stream is wrong")
        self.position += end - start


class Records:
    """Takes pieces of a stream of records; tells the kind and number of each once it is complete."""

    __slots__ = ("_body", "_head", "_kind", "_left", "_number", "_tell")

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell
        self._body = Pattern()
        self._head = bytearray()
        self._left = 0
        self._kind = 0
        self._number = 0

    def take(self, data: bytearray, start: int, end: int) -> None:
        """Raises :class:`Corrupt`."""

        while start < end:
            if self._left:
                step = min(self._left, end - start)
                self._body.take(data, start, start + step)
                self._left -= step
                start += step
            else:
                step = min(RECORD.size - len(self._head), end - start)
                self._head += data[start : start + step]
                start += step
                if len(self._head) < RECORD.size:
                    return
                self._kind, self._number, self._left = RECORD.unpack(self._head)
                self._head.clear()
                if self._kind not in (UPDATE, ECHO):
                    raise Corrupt(f"a record of kind {self._kind}")
            if not self._left:
                self._tell(self._kind, self._number)
