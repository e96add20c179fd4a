"""A text as key events."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadValue
from ipmiproxyd.wire.rfb import ClientMessages
from ipmiproxyd.wire.typing import LAYOUTS, MAX_TEXT, Layout, keystrokes, keysym

SHIFT = 0xFFE1
EUROPEAN = "abcXYZ019 äöüßÄÖÜéèàçñøåæ£€§°œ„“–…"
ON_A_US_KEYBOARD = "".join(map(chr, range(0x20, 0x7F))) + "\n\t"
US_SHIFTED = '~!@#$%^&*()_+{}|:"<>?ABCDEFGHIJKLMNOPQRSTUVWXYZ'


def events(stroke: bytes) -> list[tuple[bool, int]]:
    """(down, keysym) of each message."""

    found = []
    for kind, down, rest, symbol in struct.iter_unpack(">BBHI", stroke):
        assert (kind, rest) == (4, 0)
        found.append((bool(down), symbol))
    return found


class Allows:
    def user_acts(self, *, strong: bool) -> bool:
        return True

    def has_control(self) -> bool:
        return True


class KeystrokeTests(SynchronousTestCase):
    def test_plain_and_shifted(self) -> None:
        small, large = keystrokes("aA")
        self.assertEqual(events(small), [(True, 0x61), (False, 0x61)])
        self.assertEqual(events(large), [(True, SHIFT), (True, 0x41), (False, 0x41), (False, SHIFT)])

    def test_shift_as_on_a_us_keyboard(self) -> None:
        for layout in LAYOUTS:
            for sign, stroke in zip(ON_A_US_KEYBOARD, keystrokes(ON_A_US_KEYBOARD, layout), strict=True):
                self.assertEqual((True, SHIFT) in events(stroke), sign in US_SHIFTED, sign)

    def test_keysyms(self) -> None:
        for sign, symbol in (
            ("\n", 0xFF0D), ("\t", 0xFF09), (" ", 0x20), ("z", 0x7A), ("ä", 0xE4), ("ÿ", 0xFF),
            ("€", 0x20AC), ("œ", 0x13BD), ("…", 0x01002026),
        ):  # fmt: skip
            self.assertEqual(keysym(sign), symbol)
            self.assertEqual(events(keystrokes(sign)[0]), [(True, symbol), (False, symbol)])

    def test_line_ends(self) -> None:
        for text in ("a\nb\n\n", "a\r\nb\r\n\r\n", "a\rb\r\r", "a\r\nb\n\r"):
            symbols = [events(stroke)[0][1] for stroke in keystrokes(text)]
            self.assertEqual(symbols, [0x61, 0xFF0D, 0x62, 0xFF0D, 0xFF0D])

    @given(st.text(alphabet=EUROPEAN, min_size=1, max_size=50))
    def test_what_is_typed_is_the_text(self, text: str) -> None:
        strokes = keystrokes(text)
        typed = [events(stroke) for stroke in strokes]
        own = [next(symbol for down, symbol in stroke if down and symbol != SHIFT) for stroke in typed]
        self.assertEqual(own, [keysym(sign) for sign in text])
        messages = ClientMessages(Allows())
        for stroke in strokes:
            self.assertEqual(messages.feed(stroke), stroke)
            self.assertEqual(messages.release(), b"", "each key is let go by what presses it")

    def refusal(self, text: str, layout: Layout = "eu") -> BadValue:
        error: BadValue = self.assertRaises(BadValue, keystrokes, text, layout)
        return error

    def test_what_cannot_be_typed_is_named(self) -> None:
        cases: tuple[tuple[Layout, str, tuple[str, ...]], ...] = (
            ("us", "naïve €5 ö", ("“ï”", "“€”", "“ö”")),
            ("eu", "naïve Ω → ő", ("“Ω”", "“→”", "“ő”")),
            ("eu", "bell \x07, \x1b[31m, \xa0, \ud800", ("U+0007", "U+001B", "U+00A0", "U+D800")),
        )
        for layout, text, names in cases:
            message = self.refusal(text, layout).message
            for name in names:
                self.assertIn(name, message)
            self.assertNotIn("“e”", message)
            message.encode()
        self.assertEqual(len(keystrokes("naïve €5 ö")), 10)

    def test_not_everything_is_named(self) -> None:
        message = self.refusal("".join(map(chr, range(0x400, 0x500))), "us").message
        self.assertEqual(message.count("“"), 20)

    def test_lengths(self) -> None:
        self.assertEqual(len(keystrokes("x" * MAX_TEXT)), MAX_TEXT)
        self.assertIn(str(MAX_TEXT + 1), self.refusal("x" * (MAX_TEXT + 1)).message)
        self.assertIn("nothing", self.refusal("").message)
        self.assertEqual(len(keystrokes("\r\n" * MAX_TEXT)), MAX_TEXT)

    def test_text_is_not_in_the_refusal(self) -> None:
        """It may be a password."""

        for text in ("s3cret-" * 1000, "s3cret-é"):
            self.assertNotIn("s3cret", str(self.refusal(text, "us")))
