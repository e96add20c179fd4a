"""What a VNC client says after the handshake: where each message ends, what it does, and whether it may (RFC 6143,
section 7.5, and the community's extensions). No I/O, no Twisted.

    message, by its first byte:                       bytes in all
        0    SetPixelFormat                           20
        2    SetEncodings                             4 + 4 * u16 at 2
        3    FramebufferUpdateRequest                 10
        4    KeyEvent                                 8
        5    PointerEvent                             6; 7 if bit 7 of the mask is set and encoding -316 was announced
        6    ClientCutText                            8 + |s32 at 4|; a negative length: extended clipboard, flags at 8
        150  EnableContinuousUpdates                  10
        248  ClientFence                              9 + u8 at 8
        250  xvp                                      4
        251  SetDesktopSize                           8 + 16 * u8 at 6
        255  QEMU, sub-type 0: extended KeyEvent      12
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

MAX_ENCODINGS: Final = 1024
MAX_CUT_TEXT: Final = 16 << 20
MAX_FENCE: Final = 64
MAX_HELD: Final = 256
"""Keys that are down at once. Nobody has so many fingers; who never lets go would fill our memory."""

_UPDATE_REQUEST: Final = 3
_KEY: Final = 4
_POINTER: Final = 5
_CUT_TEXT: Final = 6
_QEMU: Final = 255

_EXTENDED_MOUSE_BUTTONS: Final = -316
_CLIPBOARD_REQUEST: Final = 1 << 25
_CLIPBOARD_PEEK: Final = 1 << 26
_CLIPBOARD_NOTIFY: Final = 1 << 27
_CLIPBOARD_PROVIDE: Final = 1 << 28
_CLIPBOARD_FORMATS: Final = 0xFFFF

_VARIABLE: Final = -1
_SIZES: Final = [0] * 256
for _kind, _size in {0: 20, _UPDATE_REQUEST: 10, _KEY: 8, 150: 10, 250: 4}.items():
    _SIZES[_kind] = _size
for _kind in (2, _POINTER, _CUT_TEXT, 248, 251, _QEMU):
    _SIZES[_kind] = _VARIABLE

_WATCHING: Final = frozenset({0, 2, _UPDATE_REQUEST, 150, 248})
"""What a viewer says who only watches: pixel format, encodings, update requests, continuous updates, fences."""


class ProtocolError(Exception):
    """The peer said what it may not say. The text is a plain reason that fits into a WebSocket close (123 bytes)."""


class Judge(Protocol):
    """Decides for one viewer, message by message."""

    def user_acts(self, *, strong: bool) -> bool:
        """The user did something; may it pass? ``strong``: a key or a button, not just a movement."""

    def has_control(self) -> bool:
        """Whether what the viewer's program says by itself (desktop size, clipboard talk) may pass."""


class ClientMessages:
    """Fed with the client's bytes in pieces of any size, gives those that may go on to the server.

    It knows which keys and buttons are down, and can release them. Kept is no more than one message that is not whole
    yet (4 KB), and which keys are down; of a clipboard text only its header.

    :param clipboard_in: whether the user's texts may pass; ``clipboard_out``: whether the server's may be asked for.
    """

    __slots__ = (
        "_acted", "_buttons", "_clipboard_in", "_clipboard_out", "_extended_pointer", "_held", "_inserted", "_judge",
        "_left", "_partial", "_passes", "_position", "_refusal", "_unsaid",
    )  # fmt: skip

    def __init__(self, judge: Judge, *, clipboard_in: bool = True, clipboard_out: bool = True) -> None:
        self._judge = judge
        self._clipboard_in = clipboard_in
        self._clipboard_out = clipboard_out
        self._extended_pointer = False
        self._acted = False  # a key or the pointer came already
        self._held: dict[bytes, None] = {}  # the message that would release each key, in the order of pressing
        self._buttons = 0
        self._position = bytes(4)
        self._partial = b""
        self._left = 0
        self._passes = True
        self._inserted = b""
        self._refusal = ""
        self._unsaid = b""  # what was judged in the call that ended in the refusal

    def feed(self, data: bytes) -> bytes:
        """What of ``data`` may go on, whole messages only (but for clipboard texts, which may be long).

        Raises :class:`ProtocolError`, and from then on for whatever follows: the stream cannot be read any more. What
        came before the fault comes out of :meth:`release`.
        """

        # One whole update request, or one movement of the mouse: most of what there is.
        size = len(data)
        if (size == 10 or size == 6) and not (self._left or self._partial or self._refusal):
            if data[0] == _UPDATE_REQUEST and size == 10:
                return data
            if data[0] == _POINTER and size == 6 and not (data[1] or self._buttons):
                self._acted = True
                return data if self._judge.user_acts(strong=False) else b""
        if self._refusal:
            raise ProtocolError(self._refusal)
        pieces: list[bytes] = []
        try:
            self._split(data, pieces)
        except ProtocolError as error:
            self._refusal = str(error)
            self._unsaid = b"".join(pieces)
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def insert(self, messages: bytes) -> bytes:
        """Messages of our own between the client's: what to send now. In the midst of a clipboard text that is
        nothing; they come out of :meth:`feed` right after it."""

        if not self._left or not self._passes:
            return messages
        self._inserted += messages
        return b""

    def release(self) -> bytes:
        """Let go of all keys and buttons that are down: what to send now (see :meth:`insert`)."""

        messages = self._unsaid + b"".join(self._held)
        self._unsaid = b""
        self._held.clear()
        if self._buttons:
            messages += b"\x05\x00" + self._position
            self._buttons = 0
        return self.insert(messages) if messages else b""

    # --- splitting ---------------------------------------------------------------------------------------------------

    def _split(self, data: bytes, pieces: list[bytes]) -> None:
        at = self._rest_of_text(data, pieces) if self._left else 0
        if self._partial:
            data = self._partial + data[at:]
            self._partial = b""
            at = 0
        start, end = at, len(data)  # from start on nothing is given out yet
        try:
            while at < end:
                size = _SIZES[data[at]] or _unknown(data[at])
                if size == _VARIABLE:
                    size = self._size(data, at, end)
                is_whole = at + size <= end
                if not size or not (is_whole or data[at] == _CUT_TEXT):
                    self._partial = data[at:]
                    break
                passes = self._may_pass(data, at, size)
                if not passes:
                    pieces.append(data[start:at])
                    start = min(at + size, end)
                self._passes = passes
                self._left = max(0, at + size - end)
                at = min(at + size, end)
        finally:
            pieces.append(data[start:at])

    def _rest_of_text(self, data: bytes, pieces: list[bytes]) -> int:
        step = min(self._left, len(data))
        self._left -= step
        if self._passes:
            pieces.append(data[:step])
            if not self._left:
                pieces.append(self._inserted)
                self._inserted = b""
        return step

    def _size(self, data: bytes, at: int, end: int) -> int:
        """Of the message of varying size that begins at ``at``; 0 if it cannot be told yet."""

        kind, there = data[at], end - at
        if kind == _POINTER:
            if there < 2:
                return 0
            return 7 if self._extended_pointer and data[at + 1] & 0x80 else 6
        if kind == _QEMU:
            if there > 1 and data[at + 1]:
                raise ProtocolError(f"Unknown message type 255/{data[at + 1]} from the viewer")
            return 12
        if kind == _CUT_TEXT:
            return _size_of_text(data, at, there)
        if kind == 2:
            count = int.from_bytes(data[at + 2 : at + 4], "big") if there >= 4 else 0
            if count > MAX_ENCODINGS:
                raise ProtocolError(f"The viewer announced {count} encodings; {MAX_ENCODINGS} are allowed")
            return 4 + 4 * count if there >= 4 else 0
        if kind == 248:
            length = data[at + 8] if there >= 9 else 0
            if length > MAX_FENCE:
                raise ProtocolError(f"A fence of {length} bytes is too long; {MAX_FENCE} are allowed")
            return 9 + length if there >= 9 else 0
        return 8 + 16 * data[at + 6] if there >= 7 else 0

    # --- judging -----------------------------------------------------------------------------------------------------

    def _may_pass(self, data: bytes, at: int, size: int) -> bool:
        kind = data[at]
        if kind == _POINTER:
            return self._pointer(data[at + 1 : at + size])
        if kind == _KEY:
            return self._key(data[at + 1], b"\x04\x00\x00\x00" + data[at + 4 : at + 8])
        if kind == _QEMU:
            return self._key(data[at + 2] | data[at + 3], b"\xff\x00\x00\x00" + data[at + 4 : at + 12])
        if kind == _CUT_TEXT:
            return self._text(data, at)
        if kind == 2:
            announced = struct.unpack_from(f">{(size - 4) // 4}i", data, at + 4)
            self._extended_pointer = _EXTENDED_MOUSE_BUTTONS in announced
        return kind in _WATCHING or self._judge.has_control()

    def _pointer(self, body: bytes) -> bool:
        # In the longer form bit 7 says only that it is the longer form.
        self._acted = True
        buttons = body[0] & 0x7F | body[5] << 7 if len(body) > 5 else body[0]
        # Letting go always passes: a button must not stay down because the user may not press any.
        if not self._judge.user_acts(strong=buttons != 0) and not (self._buttons and not buttons):
            return False
        self._buttons = buttons
        self._position = body[1:5]
        return True

    def _key(self, down: int, release: bytes) -> bool:
        self._acted = True
        if down:
            if not self._judge.user_acts(strong=True):
                return False
            self._held[release] = None
            if len(self._held) > MAX_HELD:
                raise ProtocolError(f"More than {MAX_HELD} keys are down at once")
            return True
        was_held = release in self._held
        self._held.pop(release, None)
        return self._judge.user_acts(strong=True) or was_held

    def _text(self, data: bytes, at: int) -> bool:
        length = int.from_bytes(data[at + 4 : at + 8], "big", signed=True)
        if length >= 0:
            return self._clipboard_in and self._new_text()
        flags = int.from_bytes(data[at + 8 : at + 12], "big")
        if flags & (_CLIPBOARD_REQUEST | _CLIPBOARD_PEEK) and not self._clipboard_out:
            return False
        if flags & (_CLIPBOARD_NOTIFY | _CLIPBOARD_PROVIDE) and not self._clipboard_in:
            return False
        # Capabilities, requests and the text itself go back and forth without the user; only "there is a new text"
        # is the user's doing.
        if flags & _CLIPBOARD_NOTIFY and flags & _CLIPBOARD_FORMATS:
            return self._new_text()
        return self._judge.has_control()

    def _new_text(self) -> bool:
        # Before any key or movement it is mostly the page that hands its clipboard over, each time it connects.
        return (not self._acted and self._judge.has_control()) or self._judge.user_acts(strong=True)


def _unknown(kind: int) -> int:
    raise ProtocolError(f"Unknown message type {kind} from the viewer")


def _size_of_text(data: bytes, at: int, there: int) -> int:
    if there < 8:
        return 0
    length = int.from_bytes(data[at + 4 : at + 8], "big", signed=True)
    if abs(length) > MAX_CUT_TEXT:
        raise ProtocolError(f"A clipboard text of {abs(length)} bytes is too long; {MAX_CUT_TEXT} are allowed")
    if length >= 0:
        return 8 + length
    if length > -4:
        raise ProtocolError("A clipboard message without flags")
    return 8 - length if there >= 12 else 0
