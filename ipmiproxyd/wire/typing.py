"""A text as the key events that type it (RFC 6143 §7.5.4; keysyms by the X Window System's keysymdef)."""

from __future__ import annotations

import struct
from typing import Final, Literal, get_args

from ipmiproxyd.errors import BadValue

Layout = Literal["any", "us"]
"""What the keyboard of the typed-to can make: every sign ("any", our own display), or those of a US keyboard."""
LAYOUTS: Final = get_args(Layout)

MAX_TEXT: Final = 4000
"""Characters that are typed at once: 80 seconds at the usual pace."""

_SHIFT: Final = 0xFFE1
_NAMED: Final = {"\n": 0xFF0D, "\t": 0xFF09}
_SHIFTED_US: Final = frozenset('~!@#$%^&*()_+{}|:"<>?') | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def keystrokes(text: str, layout: Layout = "any") -> list[bytes]:
    """For each character the RFB messages that press and release its key, Shift included.

    Line ends of any kind are the Enter key. Raises BadValue before anything is typed: too long, empty, or characters
    that the layout cannot make, which are named.
    """

    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise BadValue("There is nothing to type.")
    if len(text) > MAX_TEXT:
        raise BadValue(f"The text has {len(text)} characters; at most {MAX_TEXT} are typed at once.")
    wrong = sorted({sign for sign in text if not _can_make(sign, layout)})
    if wrong:
        raise BadValue(
            f"These characters cannot be typed here: {' '.join(_name(sign) for sign in wrong[:20])}",
            hint="Nothing was typed. Leave them out.",
        )
    return [_stroke(sign) for sign in text]


def _can_make(sign: str, layout: Layout) -> bool:
    return sign in _NAMED or ((sign.isascii() or layout == "any") and sign.isprintable())


def _name(sign: str) -> str:
    return f"“{sign}”" if sign.isprintable() else f"U+{ord(sign):04X}"


def _stroke(sign: str) -> bytes:
    key = _key(True, keysym(sign)) + _key(False, keysym(sign))
    return _key(True, _SHIFT) + key + _key(False, _SHIFT) if sign in _SHIFTED_US else key


def _key(down: bool, symbol: int) -> bytes:
    return struct.pack(">BBxxI", 4, down, symbol)


def keysym(sign: str) -> int:
    """Latin-1 is its own keysym; the rest of Unicode stands at 0x01000000."""

    if sign in _NAMED:
        return _NAMED[sign]
    number = ord(sign)
    return number if number < 0x100 else 0x01000000 | number
