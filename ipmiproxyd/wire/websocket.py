"""WebSocket frames after the handshake (RFC 6455, section 5), as a server sees them. No I/O, no Twisted.

    frame = FIN RSV opcode . MASK length . [length16 | length64] . [masking key] . payload

What we send is never masked; what a browser sends always is. Nothing is compressed: no extension is agreed upon.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

HEAD: Final = 14
"""Bytes to leave free in front of a payload for the longest header there is (10; a masked one has 14)."""

MAX_CONTROL: Final = 125
MAX_FRAME: Final = 256 << 10
"""Bytes of one frame's payload that a browser may announce. noVNC's longest message goes out in pieces of 10 KiB."""

PROTOCOL_ERROR: Final = 1002
NOT_BINARY: Final = 1003
TOO_BIG: Final = 1009

_FIN: Final = 0x80
_MASKED: Final = 0x80
_FIN_BINARY: Final = _FIN | BINARY
_SMALL: Final = 1400
"""Up to here a big integer unmasks faster than any call to a compiled masker."""

Unmask = Callable[[bytes, bytes], bytes]
"""(masked payload, 4 bytes of key) → payload."""


class FrameError(Exception):
    """The browser sent what is no frame that it may send. ``code`` is for the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def put_header(buffer: bytearray, start: int, end: int, opcode: int = BINARY) -> int:
    """Write the header of a whole frame with the payload ``buffer[start:end]`` right in front of it.

    :returns: where the frame begins; ``start`` has to be at least :data:`HEAD`.
    """

    length = end - start
    if length < 126:
        buffer[start - 1] = length
        buffer[start - 2] = _FIN | opcode
        return start - 2
    if length < 65536:
        struct.pack_into(">BBH", buffer, start - 4, _FIN | opcode, 126, length)
        return start - 4
    struct.pack_into(">BBQ", buffer, start - 10, _FIN | opcode, 127, length)
    return start - 10


def header(length: int) -> bytes:
    """The header of a whole binary frame."""

    if length < 126:
        return bytes((_FIN_BINARY, length))
    if length < 65536:
        return struct.pack(">BBH", _FIN_BINARY, 126, length)
    return struct.pack(">BBQ", _FIN_BINARY, 127, length)


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A whole frame of its own."""

    buffer = bytearray(HEAD) + payload
    return bytes(buffer[put_header(buffer, HEAD, len(buffer), opcode) :])


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is cut where a control frame ends (RFC 6455 §5.5.1)."""

    words = reason.encode()[: MAX_CONTROL - 2].decode(errors="ignore").encode()
    return frame(CLOSE, code.to_bytes(2, "big") + words)


def unmask(data: bytes, key: bytes) -> bytes:
    length = len(data)
    pad = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(length, "little")


class ClientFrames:
    """The browser's bytes, in pieces of any size, as the payload of its binary messages.

    Where a message ends does not matter: RFB is a stream of bytes. Of a frame that has not come whole only the header
    is kept, and what it says; of a control frame all of it (at most 125 bytes).

    :param unmask_large: what takes the mask off more than 1.4 KB.
    """

    __slots__ = ("_control", "_in_message", "_key", "_left", "_opcode", "_partial", "_unmask_large", "closed")

    def __init__(self, unmask_large: Unmask = unmask) -> None:
        self._unmask_large = unmask_large
        self._partial = b""
        self._opcode = BINARY
        self._key = b""
        self._left = 0
        self._in_message = False
        self._control: bytes | None = None
        self.closed = False
        """A close frame has come, or what is no frame: nothing after it means anything."""

    def feed(self, data: bytes) -> tuple[bytes, list[tuple[int, bytes]] | None]:
        """The payload in ``data``, and the control frames (opcode, payload) that it completes.

        Raises :class:`FrameError`, once; what else was in ``data`` is lost then.
        """

        # One whole small frame, as every key and every movement of the mouse is.
        size = len(data) - 6
        if 0 < size < 126 and data[0] == _FIN_BINARY and data[1] == size | _MASKED and self._is_at_start:
            pad = (data[2:6] * 32)[:size]
            whole = int.from_bytes(data[6:], "little") ^ int.from_bytes(pad, "little")
            return whole.to_bytes(size, "little"), None
        try:
            return self._read(self._partial + data if self._partial else data)
        except FrameError:
            self.closed = True
            raise

    @property
    def _is_at_start(self) -> bool:
        return not (self._left or self._partial or self._in_message or self.closed or self._control is not None)

    def _read(self, data: bytes) -> tuple[bytes, list[tuple[int, bytes]] | None]:
        self._partial = b""
        pieces: list[bytes] = []
        controls: list[tuple[int, bytes]] | None = None
        at, end = 0, len(data)
        while at < end and not self.closed:
            if not self._left:
                after = self._header(data, at)
                if not after:
                    self._partial = data[at:]
                    break
                at = after
            piece = self._payload(data[at : at + self._left])
            at += len(piece)
            if self._control is None:
                pieces.append(piece)
            else:
                self._control += piece
                if not self._left:
                    controls = controls or []
                    controls.append((self._opcode, self._control))
                    self.closed = self._opcode == CLOSE
                    self._control = None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), controls

    def _payload(self, masked: bytes) -> bytes:
        """Unmask what has come of the frame; the key is turned so that it fits what follows."""

        size = len(masked)
        self._left -= size
        key = self._key
        turn = size & 3
        if turn:
            self._key = key[turn:] + key[:turn]
        return self._unmask_large(masked, key) if size > _SMALL else unmask(masked, key)

    def _header(self, data: bytes, at: int) -> int:
        """Read the header at ``at``. Returns where it ends, 0 if it is not there whole."""

        rest = len(data) - at
        if rest < 2:
            return 0
        first, second = data[at], data[at + 1]
        length = second & 0x7F
        self._check(first, second, length)
        key_at = at + (2 if length < 126 else 4 if length == 126 else 10)
        if rest < key_at + 4 - at:
            return 0
        if length > 125:
            length = int.from_bytes(data[at + 2 : key_at], "big")
            if length > MAX_FRAME:
                raise FrameError(TOO_BIG, f"A frame of {length} bytes is too long; {MAX_FRAME} are allowed")
        opcode = first & 0x0F
        self._left = length
        self._key = data[key_at : key_at + 4]
        if opcode < CLOSE:
            self._in_message = not first & _FIN
            self._control = None
        else:
            self._opcode = opcode
            self._control = b""
        return key_at + 4

    def _check(self, first: int, second: int, length: int) -> None:
        opcode = first & 0x0F
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "A frame with reserved bits, though no extension was agreed upon")
        if not second & _MASKED:
            raise FrameError(PROTOCOL_ERROR, "A frame that is not masked")
        if opcode in (CLOSE, PING, PONG):
            if not first & _FIN or length > MAX_CONTROL:
                raise FrameError(PROTOCOL_ERROR, "A control frame that is too long, or in pieces")
        elif opcode == TEXT:
            raise FrameError(NOT_BINARY, "Only binary messages are understood here")
        elif opcode not in (CONTINUATION, BINARY):
            raise FrameError(PROTOCOL_ERROR, f"Unknown kind of frame: {opcode}")
        elif (opcode == CONTINUATION) != self._in_message:
            raise FrameError(PROTOCOL_ERROR, "A message's pieces do not belong together")
