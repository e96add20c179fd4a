"""What a VNC client says, split into messages: RFB (RFC 6143, sections 7.1, 7.3 and 7.5). No I/O, no Twisted.

The relay passes the browser's bytes on as they are. It only has to know where each message ends and whether a person
caused it, because idle means "no key, pointer or clipboard from the user" and not "silence on the wire". The server
offers security type None; this is the client's half of such a conversation:

    stream   = version [choice] init *message
    version  = "RFB 003.003" LF | "RFB 003.007" LF | "RFB 003.008" LF
    choice   = 1                                      ; None; absent in 3.3
    init     = shared-flag                            ; 1 byte

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

import enum
import struct
from collections.abc import Callable
from typing import Final

MAX_ENCODINGS: Final = 1024
MAX_CUT_TEXT: Final = 16 << 20
MAX_FENCE: Final = 64

_EXTENDED_MOUSE_BUTTONS: Final = -316
_CLIPBOARD_NOTIFY: Final = 1 << 27
_CLIPBOARD_FORMATS: Final = 0xFFFF
_SECURITY_NONE: Final = 1
_VERSIONS: Final = {b"RFB 003.003\n": False, b"RFB 003.007\n": True, b"RFB 003.008\n": True}


class ProtocolError(Exception):
    """The peer said what it may not say. The text is a plain reason that fits into a WebSocket close (123 bytes)."""


class ClientEvent(enum.Enum):
    """One complete message of the client."""

    VERSION = "version"
    SECURITY = "security"
    INIT = "init"
    PIXEL_FORMAT = "pixel-format"
    ENCODINGS = "encodings"
    UPDATE_REQUEST = "update-request"
    KEY = "key"
    POINTER = "pointer"
    CUT_TEXT = "cut-text"  # the user put a text into the clipboard
    CLIPBOARD = "clipboard"  # clipboard talk that the client's program does by itself
    CONTINUOUS_UPDATES = "continuous-updates"
    FENCE = "fence"
    XVP = "xvp"
    DESKTOP_SIZE = "desktop-size"


USER_EVENTS: Final = frozenset({ClientEvent.KEY, ClientEvent.POINTER, ClientEvent.CUT_TEXT})
"""What only a person causes."""

_FIXED: Final = {
    0: (20, ClientEvent.PIXEL_FORMAT),
    3: (10, ClientEvent.UPDATE_REQUEST),
    4: (8, ClientEvent.KEY),
    150: (10, ClientEvent.CONTINUOUS_UPDATES),
    250: (4, ClientEvent.XVP),
}

_Known = tuple[int, ClientEvent] | int
"""A message's length and kind; or the number of its first bytes from which they can be told."""


class ClientSplitter:
    """Fed with the client's bytes in pieces of any size, tells of each message once it is complete.

    Keeps no more than one message's header (and SetEncodings whole); payload is only counted.
    """

    def __init__(self) -> None:
        self._look: Callable[[bytearray], _Known] = self._version
        self._head = bytearray()
        self._wanted = 12
        self._left = 0
        self._event = ClientEvent.VERSION
        self._extended_pointer = False
        self._refusal: str | None = None
        self._variable: dict[int, Callable[[bytearray], _Known]] = {
            2: self._set_encodings,
            5: self._pointer,
            6: self._cut_text,
            248: self._fence,
            251: self._desktop_size,
            255: self._qemu,
        }

    def feed(self, data: bytes) -> list[ClientEvent]:
        """The messages that ``data`` completes, in order.

        Raises :class:`ProtocolError`, and from then on for whatever follows: the stream cannot be read any more.
        """

        if self._refusal is not None:
            raise ProtocolError(self._refusal)
        try:
            return self._split(data)
        except ProtocolError as error:
            self._refusal = str(error)
            raise

    def _split(self, data: bytes) -> list[ClientEvent]:
        events: list[ClientEvent] = []
        at, end, head = 0, len(data), self._head
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                at += step
                self._left -= step
            else:
                more = data[at : at + self._wanted - len(head)]
                head += more
                at += len(more)
                if len(head) < self._wanted:
                    break
                known = self._look(head)
                if isinstance(known, int):
                    self._wanted = known
                    continue
                self._left = known[0] - len(head)
                self._event = known[1]
                head.clear()
                self._wanted = 1
            if not self._left:
                events.append(self._event)
        return events

    # --- handshake ---------------------------------------------------------------------------------------------------

    def _version(self, head: bytearray) -> _Known:
        chooses = _VERSIONS.get(bytes(head))
        if chooses is None:
            raise ProtocolError("The viewer does not speak RFB 3.3, 3.7 or 3.8")
        self._look = self._security if chooses else self._init
        return 12, ClientEvent.VERSION

    def _security(self, head: bytearray) -> _Known:
        if head[0] != _SECURITY_NONE:
            raise ProtocolError(f"The viewer chose security type {head[0]}, which was not offered")
        self._look = self._init
        return 1, ClientEvent.SECURITY

    def _init(self, _: bytearray) -> _Known:
        self._look = self._message
        return 1, ClientEvent.INIT

    # --- messages ----------------------------------------------------------------------------------------------------

    def _message(self, head: bytearray) -> _Known:
        fixed = _FIXED.get(head[0])
        if fixed is not None:
            return fixed
        variable = self._variable.get(head[0])
        if variable is None:
            raise ProtocolError(f"Unknown message type {head[0]} from the viewer")
        return variable(head)

    def _set_encodings(self, head: bytearray) -> _Known:
        if len(head) < 4:
            return 4
        count = int.from_bytes(head[2:4], "big")
        if count > MAX_ENCODINGS:
            raise ProtocolError(f"The viewer announced {count} encodings; {MAX_ENCODINGS} are allowed")
        if len(head) < 4 + 4 * count:
            return 4 + 4 * count
        self._extended_pointer = _EXTENDED_MOUSE_BUTTONS in struct.unpack_from(f">{count}i", head, 4)
        return len(head), ClientEvent.ENCODINGS

    def _pointer(self, head: bytearray) -> _Known:
        if len(head) < 2:
            return 2
        extended = self._extended_pointer and head[1] & 0x80
        return (7 if extended else 6), ClientEvent.POINTER

    def _cut_text(self, head: bytearray) -> _Known:
        if len(head) < 8:
            return 8
        length = int.from_bytes(head[4:8], "big", signed=True)
        if abs(length) > MAX_CUT_TEXT:
            raise ProtocolError(f"A clipboard text of {abs(length)} bytes is too long; {MAX_CUT_TEXT} are allowed")
        if length >= 0:
            return 8 + length, ClientEvent.CUT_TEXT
        if length > -4:
            raise ProtocolError("A clipboard message without flags")
        if len(head) < 12:
            return 12
        flags = int.from_bytes(head[8:12], "big")
        # Capabilities, requests and the text itself go back and forth without the user; only "there is a new text"
        # is the user's doing.
        announced = flags & _CLIPBOARD_NOTIFY and flags & _CLIPBOARD_FORMATS
        return 8 - length, ClientEvent.CUT_TEXT if announced else ClientEvent.CLIPBOARD

    def _fence(self, head: bytearray) -> _Known:
        if len(head) < 9:
            return 9
        if head[8] > MAX_FENCE:
            raise ProtocolError(f"A fence of {head[8]} bytes is too long; {MAX_FENCE} are allowed")
        return 9 + head[8], ClientEvent.FENCE

    def _desktop_size(self, head: bytearray) -> _Known:
        if len(head) < 7:
            return 7
        return 8 + 16 * head[6], ClientEvent.DESKTOP_SIZE

    def _qemu(self, head: bytearray) -> _Known:
        if len(head) < 2:
            return 2
        if head[1] != 0:
            raise ProtocolError(f"Unknown message type 255/{head[1]} from the viewer")
        return 12, ClientEvent.KEY
