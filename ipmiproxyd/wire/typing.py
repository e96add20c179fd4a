"""A text as the key events that type it (RFC 6143 §7.5.4; keysyms by the X Window System's keysymdef)."""

from __future__ import annotations

import struct
from typing import Final, Literal, get_args

from ipmiproxyd.errors import BadValue

Layout = Literal["eu", "us"]
"""What the keyboard of the typed-to has: our own displays have the layout "eu" (EurKEY), a US keyboard with the letters
of Western Europe on further levels; of others no more than a US keyboard is expected. A key that a keyboard does not
have would be put on it at its first use, and programs miss that press."""
LAYOUTS: Final = get_args(Layout)

MAX_TEXT: Final = 4000
"""Characters that are typed at once: 80 seconds at the usual pace."""

_SHIFT: Final = 0xFFE1
_NAMED: Final = {"\n": 0xFF0D, "\t": 0xFF09}
_EURKEY: Final = frozenset("¡¹ª²º³£¥€¢„‚“‘”’–—×÷æÆåÅëËýÝþÞÿŸüÜïÏöÖœŒ«‹»›¬¦äÄß§ðÐèÈéÉùÙúÚøØ°·àÀáÁçÇìÌíÍñÑòÒóÓ¿…")
_OLD_KEYSYMS: Final = {
    "€": 0x20AC, "œ": 0x13BD, "Œ": 0x13BC, "Ÿ": 0x13BE, "„": 0x0AFE, "‚": 0x0AFD, "“": 0x0AD2, "”": 0x0AD3, "‘": 0x0AD0,
    "’": 0x0AD1, "–": 0x0AAA, "—": 0x0AA9,
}  # fmt: skip
"""Older than Unicode, and still what keyboards have."""
_SHIFTED_US: Final = frozenset('~!@#$%^&*()_+{}|:"<>?') | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def keystrokes(text: str, layout: Layout = "eu") -> list[bytes]:
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
    return sign in _NAMED or (sign.isascii() and sign.isprintable()) or (layout == "eu" and sign in _EURKEY)


def _name(sign: str) -> str:
    return f"“{sign}”" if sign.isprintable() else f"U+{ord(sign):04X}"


def _stroke(sign: str) -> bytes:
    key = _key(True, keysym(sign)) + _key(False, keysym(sign))
    return _key(True, _SHIFT) + key + _key(False, _SHIFT) if sign in _SHIFTED_US else key


def _key(down: bool, symbol: int) -> bytes:
    return struct.pack(">BBxxI", 4, down, symbol)


def keysym(sign: str) -> int:
    """Latin-1 is its own keysym; the rest of Unicode stands at 0x01000000, but for what had one before."""

    if sign in _NAMED:
        return _NAMED[sign]
    if sign in _OLD_KEYSYMS:
        return _OLD_KEYSYMS[sign]
    number = ord(sign)
    return number if number < 0x100 else 0x01000000 | number
