"""Mutated messages of viewers, very many, through the relay's parsers.

``IPMIPROXYD_FUZZ_MESSAGES`` says how many; a short run is one of the unit tests.
"""

from __future__ import annotations

import os
import random
import struct
from typing import ClassVar, Final

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.relay.upgrade import unmask_large
from ipmiproxyd.wire import websocket
from ipmiproxyd.wire.rfb import ClientMessages, ProtocolError
from ipmiproxyd.wire.typing import keystrokes
from ipmiproxyd.wire.websocket import ClientFrames, FrameError
from tests.support.end_peer import resident
from tests.support.held import held_bytes

GROWTH: Final = 2 << 20
HELD: Final = 8 << 10
"""One message, and the keys that are down."""
AT_ONCE: Final = 20
"""Messages between two looks at everything."""
LONG_TEXT: Final = 5000
STROKE: Final = keystrokes("Ä")[0]


class Dice(random.Random):
    """What a viewer says, legal and not."""

    def message(self) -> bytes:
        """One legal message; most of them are short."""

        kind = self.randrange(14)
        if kind < 3:
            return struct.pack(">BBxxI", 4, self.getrandbits(1), self.choice((0x61, 0x62, 0xFFE1, 0xFFE3, 0xFF0D)))
        if kind < 6:
            return struct.pack(">BBHH", 5, self.choice((0, 0, 0, 1, 4, 0x7F)), *self.choices(range(2000), k=2))
        if kind == 6:
            return b"\x03" + self.randbytes(9)
        if kind == 7:
            return struct.pack(">BBHII", 255, 0, self.getrandbits(1), 0x61, self.randrange(200))
        if kind == 8:
            text = self.randbytes(self.randrange(self.choice((10, 100, 2000))))
            return struct.pack(">B3xi", 6, len(text)) + text
        if kind == 9:
            more = self.randbytes(self.randrange(60))
            return (
                struct.pack(">B3xiI", 6, -4 - len(more), self.choice((1 << 24, 1 << 25, 1 << 27, 1 << 28)) | 1) + more
            )
        if kind == 10:
            numbers = self.choices((0, 1, 7, 16, -239, -308, -316), k=self.randrange(9))
            return struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers)
        if kind == 11:
            body = self.randbytes(self.randrange(65))
            return struct.pack(">B3xIB", 248, 1, len(body)) + body
        if kind == 12:
            screens = self.randrange(4)
            return struct.pack(">BxHHBx", 251, 800, 600, screens) + self.randbytes(16 * screens)
        return self.choice((bytes(20), b"\x96" + bytes(9), b"\xfa\x00\x01\x02"))

    def mutated(self, data: bytes) -> bytes:
        """With a few bytes changed, lost, doubled or added."""

        changed = bytearray(data)
        for _ in range(self.randrange(1, 4)):
            at = self.randrange(len(changed) + 1)
            length = self.randrange(6)
            replacement = self.choice((b"", self.randbytes(length), bytes(changed[at : at + 20]), b"\xff" * length))
            changed[at : at + self.choice((0, length, length))] = replacement
        return bytes(changed)

    def frames(self, payload: bytes) -> bytes:
        """The payload in binary messages of one or more frames, and a ping now and then."""

        framed = b""
        while payload:
            size = self.choice((len(payload), self.randrange(1, 300)))
            piece, payload = payload[:size], payload[size:]
            half = self.randrange(len(piece)) if self.random() < 0.1 else 0
            if half:
                framed += self.frame(0x02, piece[:half]) + self.frame(0x80, piece[half:])
            else:
                framed += self.frame(0x82, piece)
            if self.random() < 0.05:
                framed += self.frame(self.choice((0x89, 0x8A)), self.randbytes(self.randrange(126)))
        return framed

    def frame(self, first: int, payload: bytes) -> bytes:
        key = self.randbytes(4)
        length = len(payload)
        head = bytes((first, 0x80 | length)) if length < 126 else struct.pack(">BBH", first, 0x80 | 126, length)
        return head + key + websocket.unmask(payload, key)

    def chunks(self, stream: bytes) -> list[bytes]:
        edges = sorted(self.choices(range(len(stream) + 1), k=self.choice((0, 1, 5, 20))))
        return [stream[start:end] for start, end in zip([0, *edges], [*edges, len(stream)], strict=True)]


class Session:
    """A viewer on a server. The server reads along: whatever passes has to be what it can read."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._trust = dice.choice((0.0, 0.5, 1.0, 1.0))
        self._frames = ClientFrames(dice.choice((websocket.unmask, unmask_large)))
        either = dice.choice((True, True, False)), dice.choice((True, True, False))
        self._messages = ClientMessages(self, clipboard_in=either[0], clipboard_out=either[1])
        self._server = ClientMessages(Everything())

    def user_acts(self, *, strong: bool) -> bool:
        return self._dice.random() < self._trust

    def has_control(self) -> bool:
        return self._dice.random() < self._trust

    def feed(self, chunk: bytes) -> None:
        payload, _ = self._frames.feed(chunk)
        self._serve(self._messages.feed(payload))
        if self._dice.random() < 0.02:
            self._serve(self._messages.release())
            self._serve(self._messages.insert(STROKE))
        assert held_bytes(self._frames) <= 14 + 125, held_bytes(self._frames)
        assert held_bytes(self._messages) <= HELD, held_bytes(self._messages)

    def _serve(self, passed: bytes) -> None:
        try:
            self._server.feed(passed)
        except ProtocolError as error:
            raise AssertionError("what passed was no message") from error

    def end(self) -> None:
        """The viewer is gone; no key stays down."""

        self._serve(self._messages.release())
        if not self._messages._left:  # in the midst of a text the server takes nothing else
            assert not self._server.release()

    @property
    def is_over(self) -> bool:
        """Closed, or in a text that is longer than all that is to come."""

        return self._frames.closed or self._messages._left > LONG_TEXT


class Everything:
    def user_acts(self, *, strong: bool) -> bool:
        return True

    def has_control(self) -> bool:
        return True


class FuzzTests(SynchronousTestCase):
    timeout: ClassVar[float] = 1800
    messages: ClassVar[int] = int(os.environ.get("IPMIPROXYD_FUZZ_MESSAGES", "1000000"))

    def test_mutated_messages(self) -> None:
        seed = random.randrange(1 << 32)
        dice = Dice(seed)
        try:
            self.throw(dice, self.messages // 10)
            before = resident()
            refusals = self.throw(dice, self.messages)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        self.assertLess(resident() - before, GROWTH, f"seed {seed}")
        self.assertTrue(all(refusals.values()), f"both kinds of refusal: {refusals}, seed {seed}")

    def throw(self, dice: Dice, count: int) -> dict[type[Exception], int]:
        """So many messages, and those that were refused. How often that was."""

        refusals: dict[type[Exception], int] = {FrameError: 0, ProtocolError: 0}
        session = Session(dice)
        while count > 0:
            payload = b"".join(dice.message() for _ in range(AT_ONCE))
            if dice.random() < 0.5:
                payload = dice.mutated(payload)
            stream = dice.frames(payload)
            if dice.random() < 0.2:
                stream = dice.mutated(stream)
            try:
                for chunk in dice.chunks(stream):
                    session.feed(chunk)
                count -= AT_ONCE
            except (FrameError, ProtocolError) as error:
                refusals[type(error)] += 1
                session.end()
                session = Session(dice)
            if session.is_over or dice.random() < 0.1:
                session.end()
                session = Session(dice)
        return refusals
