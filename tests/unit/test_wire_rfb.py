"""What a VNC client says: where its messages end, and which of them may pass."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.wire.rfb import MAX_CUT_TEXT, MAX_HELD, ClientMessages, ProtocolError
from tests.support.chunks import PLACES, cut
from tests.support.held import held_bytes

PLAIN = struct.pack(">BxHiii", 2, 3, 7, 0, -239)
WITH_EXTENDED_POINTER = struct.pack(">BxHii", 2, 2, 0, -316)
NOTIFY, REQUEST, CAPS, PROVIDE, PEEK = 1 << 27, 1 << 25, 1 << 24, 1 << 28, 1 << 26
TEXT = 1

ONE_MESSAGE = 4 + 4 * 1024
"""The longest message that is kept until it is whole."""
KEYS_DOWN = MAX_HELD * 12
WORDS = 123
"""A refusal has to fit into a WebSocket's close."""

ALWAYS, PROGRAM, MOVEMENT, USER = "always", "has control", "a movement", "the user acts"


class Says:
    """A judge with one answer, or with a row of answers; it remembers what it was asked."""

    def __init__(self, *answers: bool) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def _answer(self, question: str) -> bool:
        self.asked.append(question)
        return self._answers[len(self.asked) % len(self._answers)]

    def user_acts(self, *, strong: bool) -> bool:
        return self._answer(USER if strong else MOVEMENT)

    def has_control(self) -> bool:
        return self._answer(PROGRAM)


def key(down: bool, symbol: int) -> bytes:
    return struct.pack(">BBxxI", 4, down, symbol)


def qemu_key(down: bool, symbol: int, code: int) -> bytes:
    return struct.pack(">BBHII", 255, 0, down, symbol, code)


def pointer(buttons: int, x: int = 3, y: int = 4) -> bytes:
    return struct.pack(">BBHH", 5, buttons, x, y)


def long_pointer(buttons: int, x: int = 3, y: int = 4) -> bytes:
    return struct.pack(">BBHHB", 5, 0x80 | buttons & 0x7F, x, y, buttons >> 7)


def cut_text(text: bytes) -> bytes:
    return struct.pack(">B3xi", 6, len(text)) + text


def clipboard(flags: int, more: bytes = b"") -> bytes:
    return struct.pack(">B3xiI", 6, -4 - len(more), flags) + more


def sized(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


NUMBERS = st.lists(st.integers(-(2**31), 2**31 - 1).filter(lambda number: number != -316), max_size=20)
SYMBOLS = st.sampled_from((0x61, 0xFFE1, 0xFFE3, 0xFF0D, 0x010020AC))
MESSAGES = st.one_of(
    sized(19).map(lambda body: (b"\x00" + body, ALWAYS)),
    NUMBERS.map(lambda numbers: (struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers), ALWAYS)),
    sized(9).map(lambda body: (b"\x03" + body, ALWAYS)),
    sized(9).map(lambda body: (b"\x96" + body, ALWAYS)),
    st.binary(max_size=64).map(lambda body: (struct.pack(">B3xIB", 248, 1, len(body)) + body, ALWAYS)),
    st.tuples(st.booleans(), SYMBOLS).map(lambda some: (key(*some), USER)),
    st.tuples(st.booleans(), SYMBOLS, st.integers(1, 200)).map(lambda some: (qemu_key(*some), USER)),
    st.integers(1, 255).map(lambda buttons: (pointer(buttons), USER)),
    st.integers(0, 65535).map(lambda x: (pointer(0, x), MOVEMENT)),
    st.binary(max_size=60).map(lambda text: (cut_text(text), USER)),
    st.just((clipboard(NOTIFY | TEXT), USER)),
    st.binary(max_size=60).map(lambda more: (clipboard(PROVIDE | TEXT, more), PROGRAM)),
    sized(3).map(lambda body: (b"\xfa" + body, PROGRAM)),
    st.integers(0, 5).flatmap(
        lambda screens: sized(16 * screens).map(
            lambda body: (struct.pack(">BxHHBx", 251, 800, 600, screens) + body, PROGRAM)
        )
    ),
)
CONVERSATIONS = st.lists(MESSAGES, max_size=12)


def questions_of(said: list[tuple[bytes, str]]) -> list[str]:
    """What the judge is asked of each message. Texts before the first key or movement are the page's own doing."""

    asked, acted = [], False
    for message, kind in said:
        acted = acted or message[0] in (4, 5, 255)
        by_itself = kind == USER and not acted
        asked += [] if kind == ALWAYS else [PROGRAM if by_itself else kind]
    return asked


def one_by_one(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def relay(chunks: list[bytes], judge: Says, **clipboards: bool) -> tuple[bytes, list[str], str]:
    """What passes and what a release adds, the questions, and the refusal that it ended with."""

    messages = ClientMessages(judge, **clipboards)
    passed = b""
    for chunk in chunks:
        try:
            passed += messages.feed(chunk)
        except ProtocolError as error:
            return passed + messages.release(), judge.asked, str(error)
        assert held_bytes(messages) <= ONE_MESSAGE + KEYS_DOWN
    return passed + messages.release(), judge.asked, ""


class SplittingTests(SynchronousTestCase):
    def refusal(self, stream: bytes) -> str:
        messages = ClientMessages(Says(True))
        error = self.assertRaises(ProtocolError, messages.feed, stream)
        for more in (key(True, 0x61), pointer(0), bytes(10)):
            again = self.assertRaises(ProtocolError, messages.feed, more)
            self.assertEqual(str(again), str(error))
        self.assertLessEqual(len(str(error).encode()), WORDS)
        return str(error)

    @given(CONVERSATIONS, PLACES)
    def test_who_may_everything(self, said: list[tuple[bytes, str]], places: list[int]) -> None:
        stream = b"".join(message for message, _ in said)
        questions = questions_of(said)
        for chunks in ([stream], cut(stream, places), one_by_one(stream)):
            messages = ClientMessages(judge := Says(True))
            self.assertEqual(b"".join(map(messages.feed, chunks)), stream)
            # A movement with a button down is a press to the judge: the list of kinds cannot know.
            asked = [USER if question == MOVEMENT else question for question in judge.asked]
            self.assertEqual(asked, [USER if kind == MOVEMENT else kind for kind in questions])

    @given(CONVERSATIONS, PLACES)
    def test_who_only_watches(self, said: list[tuple[bytes, str]], places: list[int]) -> None:
        stream = b"".join(message for message, _ in said)
        allowed = b"".join(message for message, kind in said if kind == ALWAYS)
        for chunks in ([stream], cut(stream, places), one_by_one(stream)):
            self.assertEqual(relay(chunks, Says(False))[::2], (allowed, ""))

    @given(CONVERSATIONS, PLACES, st.lists(st.booleans(), min_size=1, max_size=7), st.booleans(), st.booleans())
    def test_any_chunking_is_judged_the_same(
        self, said: list[tuple[bytes, str]], places: list[int], answers: list[bool], inward: bool, outward: bool
    ) -> None:
        stream = b"".join(message for message, _ in said)
        whole, *others = (
            relay(chunks, Says(*answers), clipboard_in=inward, clipboard_out=outward)
            for chunks in ([stream], cut(stream, places), one_by_one(stream))
        )
        for other in others:
            self.assertEqual(other, whole)

    @settings(max_examples=300)
    @given(CONVERSATIONS, st.binary(max_size=300), PLACES, st.booleans())
    def test_garbage_raises_nothing_else(
        self, said: list[tuple[bytes, str]], garbage: bytes, places: list[int], answer: bool
    ) -> None:
        """And what came before it is not lost."""

        stream = b"".join(message for message, _ in said) + garbage
        whole = relay([stream], Says(answer))
        self.assertEqual(relay(cut(stream, places), Says(answer)), whole)
        self.assertEqual(relay(one_by_one(stream), Says(answer)), whole)

    def test_refusals(self) -> None:
        for message, words in (
            (b"\x01", "type 1"),
            (b"\xff\x01", "255/1"),
            (struct.pack(">B3xi", 6, MAX_CUT_TEXT + 1), "too long"),
            (struct.pack(">B3xi", 6, -(2**31)), "too long"),
            (struct.pack(">B3xi", 6, -MAX_CUT_TEXT - 1), "too long"),
            (struct.pack(">B3xi", 6, -3), "flags"),
            (struct.pack(">BxH", 2, 1025), "1025 encodings"),
            (struct.pack(">B3xIB", 248, 0, 65), "fence"),
            (b"".join(key(True, number) for number in range(MAX_HELD + 1)), "keys"),
        ):
            self.assertIn(words, self.refusal(message))
            self.assertIn(words, self.refusal(bytes(20) + message))

    def test_longest_messages(self) -> None:
        encodings = struct.pack(">BxH1024i", 2, 1024, *range(1024))
        screens = struct.pack(">BxHHBx", 251, 8, 6, 255) + bytes(16 * 255)
        for message in (encodings, screens):
            self.assertEqual(relay(one_by_one(message), Says(True))[::2], (message, ""))

    def test_long_text_is_passed_on_and_not_kept(self) -> None:
        for allowed in (True, False):
            messages = ClientMessages(Says(allowed))
            start = struct.pack(">B3xi", 6, MAX_CUT_TEXT)
            self.assertEqual(messages.feed(start), start if allowed else b"")
            piece = bytes(1 << 20)
            for _ in range(MAX_CUT_TEXT >> 20):
                self.assertEqual(messages.feed(piece), piece if allowed else b"")
                self.assertEqual(held_bytes(messages), 4)
            self.assertEqual(messages.feed(bytes(10)), b"")

    def test_pointer_with_many_buttons(self) -> None:
        eighth, longer = pointer(0x80), long_pointer(0x100)
        for stream in (PLAIN + eighth * 2, WITH_EXTENDED_POINTER + longer * 2 + pointer(0x7F)):
            for chunks in ([stream], one_by_one(stream)):
                messages = ClientMessages(Says(True))
                self.assertEqual(b"".join(map(messages.feed, chunks)), stream)
                self.assertEqual(messages.release(), pointer(0))

    def test_longer_form_is_no_button(self) -> None:
        judge = Says(True)
        messages = ClientMessages(judge)
        messages.feed(WITH_EXTENDED_POINTER + long_pointer(0))
        self.assertEqual(judge.asked, [MOVEMENT])
        self.assertEqual(messages.release(), b"")


class ClipboardTests(SynchronousTestCase):
    def passes(self, message: bytes, *, judge: Says | None = None, inward: bool = True, outward: bool = True) -> bool:
        passed = relay([message], judge or Says(True), clipboard_in=inward, clipboard_out=outward)[0]
        self.assertIn(passed, (b"", message))
        return bool(passed)

    def test_what_is_whose_doing(self) -> None:
        for message, question in (
            (cut_text(b"a text"), PROGRAM),  # USER, once there was a key or a movement
            (clipboard(NOTIFY | TEXT), PROGRAM),
            (clipboard(NOTIFY), PROGRAM),
            (clipboard(CAPS | TEXT, bytes(4)), PROGRAM),
            (clipboard(REQUEST | TEXT), PROGRAM),
            (clipboard(PEEK), PROGRAM),
            (clipboard(PROVIDE | TEXT, b"zipped"), PROGRAM),
        ):
            judge = Says(True)
            self.assertTrue(self.passes(message, judge=judge))
            self.assertEqual(judge.asked, [question], message)
            self.assertFalse(self.passes(message, judge=Says(False)))

    def test_a_text_on_coming_is_the_page_s_doing(self) -> None:
        """Where it has control, that is. A text after a key or a movement is the user's."""

        for text in (cut_text(b"a text"), clipboard(NOTIFY | TEXT)):
            for act in (pointer(0), pointer(1), key(True, 0x61), qemu_key(True, 0x61, 30)):
                asked = relay([text, act, text], Says(True))[1]
                self.assertEqual((asked[0], asked[2]), (PROGRAM, USER))
            passed, asked, _ = relay([text], Says(True, False))
            self.assertEqual((passed, asked), (text, [PROGRAM, USER]))

    def test_directions(self) -> None:
        into = (cut_text(b"a text"), cut_text(b""), clipboard(NOTIFY | TEXT), clipboard(PROVIDE | TEXT, b"zipped"))
        out = (clipboard(REQUEST | TEXT), clipboard(PEEK))
        for message in into:
            self.assertTrue(self.passes(message, outward=False))
            self.assertFalse(self.passes(message, inward=False))
        for message in out:
            self.assertTrue(self.passes(message, inward=False))
            self.assertFalse(self.passes(message, outward=False))
        self.assertTrue(self.passes(clipboard(CAPS | TEXT, bytes(4)), inward=False, outward=False))
        for both in (clipboard(REQUEST | PROVIDE | TEXT, b"zipped"), clipboard(PEEK | NOTIFY)):
            self.assertFalse(self.passes(both, inward=False))
            self.assertFalse(self.passes(both, outward=False))


class ReleasingTests(SynchronousTestCase):
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("key"), st.booleans(), st.sampled_from((0x61, 0xFFE1, 0xFFE3, 0xFFE9))),
                st.tuples(st.just("qemu"), st.booleans(), st.sampled_from((0x61, 0xFFE1))),
                st.tuples(st.just("pointer"), st.just(True), st.integers(0, 255)),
            ),
            max_size=30,
        )
    )
    def test_what_is_down_and_only_that(self, acts: list[tuple[str, bool, int]]) -> None:
        messages = ClientMessages(Says(True))
        down: dict[bytes, None] = {}
        buttons, position = 0, 0
        for number, (kind, is_down, value) in enumerate(acts):
            if kind == "pointer":
                buttons, position = value, number
                messages.feed(pointer(value, number))
                continue
            release = key(False, value) if kind == "key" else qemu_key(False, value, 30)
            messages.feed(key(is_down, value) if kind == "key" else qemu_key(is_down, value, 30))
            if is_down:
                down[release] = None
            else:
                down.pop(release, None)
        self.assertEqual(messages.release(), b"".join(down) + (pointer(0, position) if buttons else b""))
        self.assertEqual(messages.release(), b"")

    def test_what_did_not_pass_is_not_released(self) -> None:
        for message in (key(True, 0x61), qemu_key(True, 0x61, 30), pointer(1)):
            messages = ClientMessages(Says(False))
            self.assertEqual(messages.feed(message), b"")
            self.assertEqual(messages.release(), b"")

    def test_letting_go_passes_though_control_is_lost(self) -> None:
        """Before the relay has released everything, that is; afterwards it is nobody's."""

        for press, release in (
            (key(True, 0x61), key(False, 0x61)),
            (qemu_key(True, 0x61, 30), qemu_key(False, 0x61, 30)),
            (pointer(1), pointer(0)),
        ):
            messages = ClientMessages(Says(False, True))  # the first answer is the second of the row
            self.assertEqual(messages.feed(press), press)
            self.assertEqual(messages.feed(release), release)
            self.assertEqual(messages.release(), b"")
            messages = ClientMessages(Says(False, True, False, False))
            self.assertEqual(messages.feed(press), press)
            self.assertEqual(messages.release(), release)
            self.assertEqual(messages.feed(release), b"")

    def test_key_let_go_right_before_a_fault(self) -> None:
        """The message was judged, but the fault kept it from going out: nothing may stay down."""

        messages = ClientMessages(Says(True))
        self.assertEqual(messages.feed(key(True, 0xFFE1)), key(True, 0xFFE1))
        self.assertRaises(ProtocolError, messages.feed, key(False, 0xFFE1) + key(True, 0x61) + b"\x01")
        self.assertEqual(messages.release(), key(False, 0xFFE1) + key(True, 0x61) + key(False, 0x61))
        self.assertEqual(messages.release(), b"")


class InsertingTests(SynchronousTestCase):
    def test_between_messages(self) -> None:
        messages = ClientMessages(Says(True))
        self.assertEqual(messages.insert(b"ours"), b"ours")
        half = PLAIN[:7]
        self.assertEqual(messages.feed(half), b"")
        self.assertEqual(messages.insert(b"ours"), b"ours")
        self.assertEqual(messages.feed(PLAIN[7:]), PLAIN)

    def test_in_the_midst_of_a_text(self) -> None:
        for text in (cut_text(b"a longer text"), clipboard(PROVIDE | TEXT, b"zipped text")):
            head = 8 if text[4] == 0 else 12
            for at in range(head, len(text)):
                for after in (b"", pointer(1)):
                    messages = ClientMessages(Says(True))
                    messages.feed(key(True, 0xFFE3))
                    self.assertEqual(messages.feed(text[:at]), text[:at])
                    self.assertEqual(messages.insert(b"first"), b"")
                    self.assertEqual(messages.release(), b"")
                    self.assertEqual(messages.feed(b""), b"")
                    self.assertEqual(
                        messages.feed(text[at:] + after), text[at:] + b"first" + key(False, 0xFFE3) + after
                    )
                    self.assertEqual(messages.insert(b"ours"), b"ours")

    def test_in_the_midst_of_a_text_that_does_not_pass(self) -> None:
        messages = ClientMessages(Says(True), clipboard_in=False)
        self.assertEqual(messages.feed(key(True, 0xFFE3) + cut_text(b"a text")[:10]), key(True, 0xFFE3))
        self.assertEqual(messages.insert(b"ours"), b"ours")
        self.assertEqual(messages.release(), key(False, 0xFFE3))
        self.assertEqual(messages.feed(cut_text(b"a text")[10:] + pointer(0)), pointer(0))

    def test_text_that_ends_in_a_fault(self) -> None:
        messages = ClientMessages(Says(True))
        self.assertEqual(messages.feed(cut_text(b"a text")[:9]), cut_text(b"a text")[:9])
        self.assertEqual(messages.insert(b"ours"), b"")
        self.assertRaises(ProtocolError, messages.feed, cut_text(b"a text")[9:] + b"\x01")
        self.assertEqual(messages.release(), b" textours")
