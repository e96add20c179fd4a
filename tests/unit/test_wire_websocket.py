"""WebSocket frames after the handshake."""

from __future__ import annotations

import random
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.relay.upgrade import unmask_large
from ipmiproxyd.wire import websocket
from ipmiproxyd.wire.websocket import BINARY, CLOSE, CONTINUATION, HEAD, MAX_FRAME, PING, PONG, TEXT, Unmask
from tests.support.chunks import cut
from tests.support.held import held_bytes

MASKERS: tuple[Unmask, ...] = (websocket.unmask, unmask_large)
KEY = bytes.fromhex("37fa213d")
HELD = 14 + 125
"""The longest header, and the longest control frame."""


def slow_unmask(data: bytes, key: bytes) -> bytes:
    """As RFC 6455 §5.3 has it."""

    return bytes(octet ^ key[at % 4] for at, octet in enumerate(data))


def from_browser(opcode: int, payload: bytes, key: bytes = KEY, *, fin: bool = True) -> bytes:
    length = len(payload)
    if length < 126:
        head = bytes((fin << 7 | opcode, 0x80 | length))
    elif length < 65536:
        head = struct.pack(">BBH", fin << 7 | opcode, 0x80 | 126, length)
    else:
        head = struct.pack(">BBQ", fin << 7 | opcode, 0x80 | 127, length)
    return head + key + slow_unmask(payload, key)


Controls = list[tuple[int, bytes]]


def read(chunks: list[bytes], masker: Unmask = websocket.unmask) -> tuple[bytes, Controls, int]:
    """Everything that comes out, and the code of the error that it ended with."""

    frames = websocket.ClientFrames(masker)
    payload = b""
    controls: Controls = []
    for chunk in chunks:
        try:
            piece, completed = frames.feed(chunk)
        except websocket.FrameError as error:
            return payload, controls, error.code
        payload += piece
        controls += completed or []
        assert held_bytes(frames) <= HELD
    return payload, controls, 0


KEYS = st.binary(min_size=4, max_size=4)
CONTROL = st.tuples(st.sampled_from((PING, PONG)), st.binary(max_size=125))
PAYLOADS = st.one_of(
    st.binary(max_size=140),
    st.tuples(st.integers(1390, 1500), st.integers(0, 255)).map(lambda some: random.Random(some[1]).randbytes(some[0])),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, bytes, Controls]:
    """A legal stream, with the payload and the control frames in it."""

    stream = payload = b""
    controls: Controls = []
    for pieces in draw(st.lists(st.lists(PAYLOADS, min_size=1, max_size=3), max_size=5)):
        for number, piece in enumerate(pieces):
            kind = CONTINUATION if number else BINARY
            stream += from_browser(kind, piece, draw(KEYS), fin=number == len(pieces) - 1)
            payload += piece
            for opcode, said in draw(st.lists(CONTROL, max_size=2)):
                stream += from_browser(opcode, said, draw(KEYS))
                controls.append((opcode, said))
    return stream, payload, controls


class ClientFramesTests(SynchronousTestCase):
    @settings(max_examples=40)
    @given(conversations(), st.lists(st.integers(0, 20000), max_size=12))
    def test_any_chunking_gives_the_same(self, said: tuple[bytes, bytes, Controls], places: list[int]) -> None:
        stream, payload, controls = said
        told = payload, controls, 0
        single = [stream[at : at + 1] for at in range(len(stream))]
        for masker in MASKERS:
            for chunks in ([stream], cut(stream, places), single):
                self.assertEqual(read(chunks, masker), told)

    @settings(max_examples=300)
    @given(st.binary(max_size=300), st.booleans(), st.lists(st.integers(0, 400), max_size=6))
    def test_garbage_raises_nothing_else(self, garbage: bytes, likely: bool, places: list[int]) -> None:
        if likely:
            garbage = b"\x82" + garbage[:1] + garbage[1:5] + b"\x82\xfe\x00" + garbage[5:]
        whole, controls, code = read([garbage])
        pieces, same_controls, same_code = read(cut(garbage, places))
        self.assertEqual(same_code, code)
        if not code:
            self.assertEqual((pieces, same_controls), (whole, controls))

    def test_refusals(self) -> None:
        legal = from_browser(BINARY, b"fine")
        for code, stream in (
            (1002, b"\x82\x04fine"),
            (1002, b"\xc2\x80"),
            (1002, b"\xa2\x80"),
            (1002, b"\x92\x80"),
            (1003, from_browser(TEXT, b"words")),
            *((1002, bytes((0x80 | opcode, 0x80))) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
            (1002, from_browser(PING, b"in pieces", fin=False)),
            (1002, struct.pack(">BBH", 0x89, 0xFE, 126)),
            (1002, from_browser(CONTINUATION, b"of what?")),
            (1002, from_browser(BINARY, b"one", fin=False) + from_browser(BINARY, b"another")),
            (1009, struct.pack(">BBQ", 0x82, 0xFF, MAX_FRAME + 1) + KEY),
            (1009, struct.pack(">BBQ", 0x82, 0xFF, 1 << 63) + KEY),
        ):
            for before in (b"", legal):
                self.assertEqual(read([before + stream])[2], code, stream)
                self.assertEqual(read([before, stream])[0], b"fine" if before else b"")
                self.assertEqual(read([before + stream[:1], stream[1:]])[2], code, stream)

    def test_nothing_after_the_end_is_read(self) -> None:
        goodbye = from_browser(CLOSE, b"\x03\xe8bye")
        for after in (from_browser(PING, b"?"), from_browser(BINARY, b"more"), bytes(100)):
            frames = websocket.ClientFrames()
            self.assertEqual(frames.feed(from_browser(BINARY, b"last") + goodbye + after)[0], b"last")
            self.assertTrue(frames.closed)
            self.assertEqual(frames.feed(after), (b"", None))
        refused = websocket.ClientFrames()
        self.assertRaises(websocket.FrameError, refused.feed, b"\x00\x00")
        self.assertTrue(refused.closed)
        self.assertEqual(refused.feed(from_browser(BINARY, b"more")), (b"", None))

    def test_longest_frame(self) -> None:
        payload = random.Random(1).randbytes(MAX_FRAME)
        stream = from_browser(BINARY, payload)
        self.assertEqual(read(cut(stream, list(range(0, len(stream), 10007))), unmask_large), (payload, [], 0))

    def test_maskers_agree_at_every_phase_of_the_key(self) -> None:
        for length in (*range(10), 1399, 1400, 1401, 1402, 1403, 16384, 65537):
            payload = random.Random(length).randbytes(length)
            masked = slow_unmask(payload, KEY)
            for masker in MASKERS:
                self.assertEqual(masker(masked, KEY), payload)
            stream = from_browser(BINARY, payload)
            for first in range(1, 9):
                for masker in MASKERS:
                    head = len(stream) - length
                    chunks = [stream[: head + first], stream[head + first :]]
                    self.assertEqual(read(chunks, masker), (payload, [], 0), (length, first))


class ServerFramesTests(SynchronousTestCase):
    def test_headers(self) -> None:
        for length, head in (
            (0, b"\x82\x00"),
            (125, b"\x82\x7d"),
            (126, b"\x82\x7e\x00\x7e"),
            (65535, b"\x82\x7e\xff\xff"),
            (65536, b"\x82\x7f" + (65536).to_bytes(8, "big")),
            (262144, b"\x82\x7f" + (262144).to_bytes(8, "big")),
        ):
            payload = random.Random(length).randbytes(length)
            buffer = bytearray(b"\xaa" * HEAD + payload + b"\xaa" * 5)
            begin = websocket.put_header(buffer, HEAD, HEAD + length)
            self.assertEqual(buffer[begin : HEAD + length], head + payload)
            self.assertEqual(buffer[:begin], b"\xaa" * begin)
            self.assertEqual(buffer[HEAD + length :], b"\xaa" * 5)
            self.assertEqual(websocket.frame(BINARY, payload), head + payload)
            self.assertLessEqual(len(head), HEAD)

    def test_control_frames(self) -> None:
        self.assertEqual(websocket.frame(PING), b"\x89\x00")
        self.assertEqual(websocket.frame(PONG, b"abc"), b"\x8a\x03abc")
        self.assertEqual(websocket.close_frame(4000), b"\x88\x02\x0f\xa0")
        self.assertEqual(websocket.close_frame(4000, "idle"), b"\x88\x06\x0f\xa0idle")

    @given(st.text(max_size=200))
    def test_reason_of_a_close_is_cut_between_characters(self, reason: str) -> None:
        told = websocket.close_frame(4002, reason)
        self.assertEqual(told[:4], bytes((0x88, len(told) - 2)) + b"\x0f\xa2")
        self.assertLessEqual(len(told) - 2, 125)
        self.assertTrue(reason.startswith(told[4:].decode()))
        whole = reason.encode()
        self.assertGreaterEqual(len(told) - 4, len(whole) if len(whole) <= 123 else 120)
