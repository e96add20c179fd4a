"""The splitter of what a VNC client says."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.wire.rfb import MAX_CUT_TEXT, USER_EVENTS, ClientEvent, ClientSplitter, ProtocolError

HELLO = b"RFB 003.008\n\x01\x01"
GREETED = [ClientEvent.VERSION, ClientEvent.SECURITY, ClientEvent.INIT]
PLAIN = struct.pack(">BxHiii", 2, 3, 7, 0, -239)
WITH_EXTENDED_POINTER = struct.pack(">BxHii", 2, 2, 0, -316)

NOTIFY, REQUEST, CAPS, PROVIDE, PEEK = 1 << 27, 1 << 25, 1 << 24, 1 << 28, 1 << 26
TEXT = 1


def clipboard(flags: int, more: bytes = b"") -> bytes:
    return struct.pack(">B3xiI", 6, -4 - len(more), flags) + more


def sized(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


MESSAGES = st.one_of(
    sized(19).map(lambda body: (b"\x00" + body, ClientEvent.PIXEL_FORMAT)),
    st.lists(st.integers(-(2**31), 2**31 - 1).filter(lambda number: number != -316), max_size=20).map(
        lambda numbers: (struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers), ClientEvent.ENCODINGS)
    ),
    sized(9).map(lambda body: (b"\x03" + body, ClientEvent.UPDATE_REQUEST)),
    sized(7).map(lambda body: (b"\x04" + body, ClientEvent.KEY)),
    sized(5).map(lambda body: (b"\x05" + body, ClientEvent.POINTER)),
    st.binary(max_size=60).map(lambda text: (struct.pack(">B3xi", 6, len(text)) + text, ClientEvent.CUT_TEXT)),
    st.binary(max_size=60).map(lambda more: (clipboard(PROVIDE | TEXT, more), ClientEvent.CLIPBOARD)),
    st.just((clipboard(NOTIFY | TEXT), ClientEvent.CUT_TEXT)),
    sized(9).map(lambda body: (b"\x96" + body, ClientEvent.CONTINUOUS_UPDATES)),
    st.binary(max_size=64).map(
        lambda body: (struct.pack(">B3xIB", 248, 1, len(body)) + body, ClientEvent.FENCE),
    ),
    sized(3).map(lambda body: (b"\xfa" + body, ClientEvent.XVP)),
    st.integers(0, 5).flatmap(
        lambda screens: sized(16 * screens).map(
            lambda body: (struct.pack(">BxHHBx", 251, 800, 600, screens) + body, ClientEvent.DESKTOP_SIZE)
        )
    ),
    sized(10).map(lambda body: (b"\xff\x00" + body, ClientEvent.KEY)),
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[start:end] for start, end in pairwise(edges)]


def split(chunks: list[bytes]) -> tuple[list[ClientEvent], str | None]:
    splitter = ClientSplitter()
    events = []
    for chunk in chunks:
        try:
            events += splitter.feed(chunk)
        except ProtocolError as error:
            return events, str(error)
    return events, None


class SplitterTests(SynchronousTestCase):
    def events(self, *messages: bytes) -> list[ClientEvent]:
        splitter = ClientSplitter()
        self.assertEqual(splitter.feed(HELLO), GREETED)
        return splitter.feed(b"".join(messages))

    def refusal(self, stream: bytes) -> str:
        splitter = ClientSplitter()
        error = self.assertRaises(ProtocolError, splitter.feed, stream)
        again = self.assertRaises(ProtocolError, splitter.feed, b"\x04" + bytes(7))
        self.assertEqual(str(again), str(error))
        self.assertLessEqual(len(str(error).encode()), 123)
        return str(error)

    @given(st.lists(MESSAGES, max_size=12), st.lists(st.integers(0, 2000), max_size=12))
    def test_any_chunking_tells_the_same(self, messages: list[tuple[bytes, ClientEvent]], places: list[int]) -> None:
        stream = HELLO + b"".join(message for message, _ in messages)
        told = [*GREETED, *(event for _, event in messages)]
        self.assertEqual(split(cut(stream, places)), (told, None))
        self.assertEqual(split([stream[at : at + 1] for at in range(len(stream))]), (told, None))

    @settings(max_examples=300)
    @given(st.binary(max_size=300), st.booleans(), st.lists(st.integers(0, 400), max_size=6))
    def test_garbage_raises_nothing_else(self, garbage: bytes, greeted: bool, places: list[int]) -> None:
        stream = HELLO + garbage if greeted else garbage
        whole, reason = split([stream])
        pieces, same_reason = split(cut(stream, places))
        self.assertEqual(reason, same_reason)
        if reason is None:
            self.assertEqual(whole, pieces)

    def test_versions(self) -> None:
        for version, rest, events in (
            (b"RFB 003.003\n", b"\x00", [ClientEvent.VERSION, ClientEvent.INIT]),
            (b"RFB 003.007\n", b"\x01\x00", GREETED),
            (b"RFB 003.008\n", b"\x01\x00", GREETED),
        ):
            self.assertEqual(split([version + rest]), (events, None))
        self.assertIn("RFB", self.refusal(b"RFB 004.001\n"))
        self.assertIn("RFB", self.refusal(b"GET / HTTP/1.1\r\n"))

    def test_only_security_none(self) -> None:
        self.assertIn("security type 2", self.refusal(b"RFB 003.008\n\x02"))

    def test_only_people_are_active(self) -> None:
        self.assertEqual(USER_EVENTS, {ClientEvent.KEY, ClientEvent.POINTER, ClientEvent.CUT_TEXT})
        for flags in (CAPS | TEXT, REQUEST | TEXT, PEEK, PROVIDE | TEXT, NOTIFY):
            self.assertEqual(self.events(clipboard(flags)), [ClientEvent.CLIPBOARD], hex(flags))
        self.assertEqual(self.events(clipboard(NOTIFY | TEXT)), [ClientEvent.CUT_TEXT])

    def test_pointer_with_many_buttons(self) -> None:
        eighth, extended = b"\x05\x80" + bytes(4), b"\x05\x80" + bytes(5)
        self.assertEqual(self.events(PLAIN, eighth, eighth)[1:], [ClientEvent.POINTER] * 2)
        self.assertEqual(self.events(WITH_EXTENDED_POINTER, extended, extended)[1:], [ClientEvent.POINTER] * 2)
        plain = b"\x05\x7f" + bytes(4)
        self.assertEqual(self.events(WITH_EXTENDED_POINTER, plain, plain)[1:], [ClientEvent.POINTER] * 2)

    def test_refusals(self) -> None:
        for message, words in (
            (b"\x01", "type 1"),
            (b"\xff\x01", "255/1"),
            (struct.pack(">B3xi", 6, MAX_CUT_TEXT + 1), "too long"),
            (struct.pack(">B3xi", 6, -(2**31)), "too long"),
            (struct.pack(">B3xi", 6, -3), "flags"),
            (struct.pack(">BxH", 2, 1025), "1025 encodings"),
            (struct.pack(">B3xIB", 248, 0, 65), "fence"),
        ):
            self.assertIn(words, self.refusal(HELLO + message))

    def test_payload_is_only_counted(self) -> None:
        splitter = ClientSplitter()
        splitter.feed(HELLO + struct.pack(">B3xi", 6, MAX_CUT_TEXT))
        for _ in range(MAX_CUT_TEXT >> 20):
            self.assertEqual(splitter.feed(b""), [])
            last = splitter.feed(bytes(1 << 20))
        self.assertEqual(last, [ClientEvent.CUT_TEXT])
