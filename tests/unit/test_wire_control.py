"""The control protocol's lines: whatever their pieces, their quoting, their contents."""

from __future__ import annotations

import json
import shlex

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadRequest
from ipmiproxyd.model import Secret
from ipmiproxyd.wire.control import (
    MAX_LINE,
    CutOff,
    Done,
    Greeting,
    Help,
    Line,
    LineEvent,
    LineSplitter,
    Progress,
    ProtocolError,
    Quit,
    Refused,
    Request,
    TooLong,
    format_done,
    format_greeting,
    format_progress,
    format_refused,
    format_request,
    parse_greeting,
    parse_reply,
    parse_request,
    split_words,
    to_json,
)


def events_of(splitter: LineSplitter) -> list[LineEvent]:
    found: list[LineEvent] = []
    while (event := splitter.next_event()) is not None:
        found.append(event)
    return found


class LineSplitterTests(SynchronousTestCase):
    def test_lf_and_crlf(self) -> None:
        splitter = LineSplitter()
        splitter.feed(b"one\ntwo\r\n\nthree\r")
        self.assertEqual(events_of(splitter), [Line(b"one"), Line(b"two"), Line(b"")])
        splitter.feed(b"\n")
        self.assertEqual(events_of(splitter), [Line(b"three")])

    def test_longest_line(self) -> None:
        for end in (b"\n", b"\r\n"):
            splitter = LineSplitter()
            splitter.feed(b"x" * MAX_LINE + end)
            self.assertEqual(events_of(splitter), [Line(b"x" * MAX_LINE)])

    def test_one_byte_too_long(self) -> None:
        for end in (b"\n", b"\r\n"):
            splitter = LineSplitter()
            splitter.feed(b"x" * (MAX_LINE + 1) + end + b"next\n")
            self.assertEqual(events_of(splitter), [TooLong(), Line(b"next")])

    def test_too_long_is_told_before_the_line_ends_and_only_once(self) -> None:
        splitter = LineSplitter()
        told: list[LineEvent] = []
        for _ in range(1000):
            splitter.feed(b"x" * 4096)
            told += events_of(splitter)
            self.assertLessEqual(splitter.held, MAX_LINE + 4097)
        self.assertEqual(told, [TooLong()])
        splitter.feed(b"x\ngood\n")
        self.assertEqual(events_of(splitter), [Line(b"good")])

    def test_full_means_that_an_event_waits(self) -> None:
        splitter = LineSplitter(10)
        splitter.feed(b"x" * 11)
        self.assertFalse(splitter.full)
        splitter.feed(b"\r")
        self.assertTrue(splitter.full)
        self.assertEqual(events_of(splitter), [TooLong()])
        self.assertFalse(splitter.full)

    def test_end_inside_a_line(self) -> None:
        splitter = LineSplitter()
        splitter.feed(b"whole\npower off device=node1")
        splitter.end()
        self.assertEqual(events_of(splitter), [Line(b"whole"), CutOff()])
        self.assertEqual(events_of(splitter), [])

    def test_end_after_blanks_is_no_line(self) -> None:
        splitter = LineSplitter()
        splitter.feed(b"whole\n \t\r")
        splitter.end()
        self.assertEqual(events_of(splitter), [Line(b"whole")])

    def test_end_inside_a_line_that_is_too_long(self) -> None:
        splitter = LineSplitter(4)
        splitter.feed(b"x" * 10)
        splitter.end()
        self.assertEqual(events_of(splitter), [TooLong()])

    @given(st.lists(st.binary(max_size=30)), st.integers(0, 12), st.booleans())
    def test_any_pieces_give_the_same_lines(self, pieces: list[bytes], limit: int, ended: bool) -> None:
        whole, cut = LineSplitter(limit), LineSplitter(limit)
        whole.feed(b"".join(pieces))
        found: list[LineEvent] = []
        for piece in pieces:
            cut.feed(piece)
            found += events_of(cut)
        expected = events_of(whole)
        if ended:
            whole.end()
            cut.end()
            expected += events_of(whole)
            found += events_of(cut)
        self.assertEqual(found, expected)

    @given(st.binary(max_size=200), st.integers(0, 20))
    def test_lines_are_those_of_the_bytes(self, data: bytes, limit: int) -> None:
        splitter = LineSplitter(limit)
        splitter.feed(data)
        expected: list[LineEvent] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r")
            expected.append(Line(text) if len(text) <= limit else TooLong())
        if len(rest) > limit + 1:
            expected.append(TooLong())
        self.assertEqual(events_of(splitter), expected)


class SplitWordsTests(SynchronousTestCase):
    def test_posix_quoting(self) -> None:
        for text, words in (
            ("a  b\tc", ["a", "b", "c"]),
            ("a='b c'", ["a=b c"]),
            ("a='b'\\''c'", ["a=b'c"]),
            ("a=\"b 'c'\"", ["a=b 'c'"]),
            (r'a="\" \\ \$ \` \n \x"', ['a=" \\ $ ` \\n \\x']),
            (r"a=\"b\ c", ['a="b c']),
            ("a=", ["a="]),
            ("a='' ''", ["a=", ""]),
            ("a=#b #c", ["a=#b", "#c"]),
            ("a=$HOME;*|&", ["a=$HOME;*|&"]),
            ("a=ü\u3000b", ["a=ü\u3000b"]),
        ):
            self.assertEqual(split_words(text), words, text)

    def test_unclosed(self) -> None:
        for text in ("a='zebra", 'a="zebra', "a=zebra\\", 'a="zebra\\"'):
            error = self.assertRaises(BadRequest, split_words, text)
            self.assertNotIn("zebra", f"{error.message} {error.hint}", text)

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))))
    def test_what_is_quoted_comes_back(self, words: list[str]) -> None:
        self.assertEqual(split_words(" ".join(shlex.quote(word) for word in words)), words)

    @given(st.text("ab='\"\\ \t#;é"))
    def test_like_the_standard_library(self, text: str) -> None:
        try:
            expected = shlex.split(text)
        except ValueError:
            self.assertRaises(BadRequest, split_words, text)
        else:
            self.assertEqual(split_words(text), expected)

    def test_longest_lines(self) -> None:
        half = MAX_LINE // 2
        self.assertEqual(split_words("a" * MAX_LINE), ["a" * MAX_LINE])
        self.assertEqual(split_words("a " * half), ["a"] * half)
        self.assertEqual(split_words('"' + "\\\\" * half + '"'), ["\\" * half])
        self.assertEqual(split_words("\\a" * half), ["a" * half])


class ParseRequestTests(SynchronousTestCase):
    def test_request(self) -> None:
        self.assertEqual(
            parse_request(b" device add name=n1 notes='rack 4 = left' web_username="),
            Request("device", "add", (("name", "n1"), ("notes", "rack 4 = left"), ("web_username", ""))),
        )

    def test_noun_alone(self) -> None:
        self.assertEqual(parse_request(b"device"), Request("device", ""))

    def test_ignored(self) -> None:
        for line in (b"", b" \t ", b"# comment 'unclosed", b"  # comment"):
            self.assertIsNone(parse_request(line), line)

    def test_hash_elsewhere_is_no_comment(self) -> None:
        request = parse_request(b"device set notes=#1 location=a#b")
        self.assertEqual(request, Request("device", "set", (("notes", "#1"), ("location", "a#b"))))

    def test_built_in(self) -> None:
        self.assertEqual(parse_request(b"quit"), Quit())
        self.assertEqual(parse_request(b"help"), Help())
        self.assertEqual(parse_request(b"help power"), Help("power"))
        self.assertEqual(parse_request(b"help power cycle"), Help("power", "cycle"))

    def test_unreadable(self) -> None:
        for line in (
            b"\xff\xfe",
            b"device add name=\xc3",
            b"device add name=a\x00b",
            b"device add name=a\x1bb",
            b"device add name=a\rb",
            b"device add name",
            b"device add =x",
            b"device add 9=x",
            b"device=x add",
            b"device add=x",
            b"'' list",
            b"quit now",
            b"help a b c",
            b"help a=b",
            b"device add notes='x",
        ):
            self.assertRaises(BadRequest, parse_request, line)

    def test_nothing_of_an_unreadable_line_is_repeated(self) -> None:
        for line in (
            b"device add password hunter2",
            b"device add password =hunter2",
            b"device add password='hunter2",
            b"hunter2= list",
            b"device hunter2=",
            b"help hunter2 hunter2 hunter2",
            b"help =hunter2",
            b"device add password=hunter2\x00",
        ):
            error = self.assertRaises(BadRequest, parse_request, line)
            self.assertNotIn("hunter2", f"{error.message} {error.hint}", line)

    def test_representation_hides_arguments(self) -> None:
        self.assertNotIn("hunter2", repr(parse_request(b"device add password=hunter2")))
        self.assertNotIn("hunter2", repr(Line(b"device add password=hunter2")))

    @given(st.binary(max_size=300))
    def test_any_bytes_are_read_or_refused(self, line: bytes) -> None:
        try:
            parse_request(line)
        except BadRequest as error:
            self.assertTrue(error.message)

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]))))
    def test_what_is_formatted_is_read_again(self, values: list[str]) -> None:
        words = [f"k{number}={value}" for number, value in enumerate(values)]
        line = format_request("device", "add", *words)
        self.assertEqual(
            parse_request(line.removesuffix(b"\n")),
            Request("device", "add", tuple((f"k{number}", value) for number, value in enumerate(values))),
        )

    def test_what_cannot_be_sent(self) -> None:
        for word in ("a=b\nc", "a=b\x00", "a=\udcff", "a=" + "x" * MAX_LINE):
            self.assertRaises(ValueError, format_request, "device", "add", word)


class ReplyTests(SynchronousTestCase):
    def test_exact_form(self) -> None:
        self.assertEqual(format_greeting("1.2.3"), b"ipmiproxyd 1.2.3 protocol 1\n")
        self.assertEqual(format_progress({"stage": "display"}), b'.. {"stage": "display"}\n')
        self.assertEqual(format_done({}), b"OK {}\n")
        self.assertEqual(format_refused("not-found", "No."), b'ERR not-found {"message": "No."}\n')
        self.assertEqual(
            format_refused("not-found", "No.", "See: list"), b'ERR not-found {"message": "No.", "hint": "See: list"}\n'
        )

    def test_secrets_are_never_written(self) -> None:
        secret = Secret("hunter2")
        for value in ({"p": secret}, {"list": [1, {"p": secret}]}, {secret: 1}):
            error = self.assertRaises(TypeError, to_json, value)
            self.assertNotIn("hunter2", str(error))

    def test_numbers_that_json_does_not_have(self) -> None:
        self.assertRaises(ValueError, to_json, {"n": float("nan")})

    def test_lone_surrogates_become_a_replacement_character(self) -> None:
        self.assertEqual(to_json({"a": "x\udcff"}), '{"a": "x\\ufffd"}')

    @given(
        st.dictionaries(
            st.text(),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=10,
            ),
        )
    )
    def test_any_object_is_one_ascii_line_and_comes_back(self, data: dict[str, object]) -> None:
        line = format_done(data)
        self.assertTrue(line.endswith(b"\n"))
        self.assertTrue(all(0x20 <= byte <= 0x7E for byte in line[:-1]))
        self.assertEqual(parse_reply(line[:-1]), Done(data))
        self.assertEqual(json.loads(line[3:]), data)

    def test_parse(self) -> None:
        self.assertEqual(parse_greeting(b"ipmiproxyd 0.1 protocol 1"), Greeting("0.1", 1))
        self.assertEqual(parse_reply(b'.. {"a": 1}'), Progress({"a": 1}))
        self.assertEqual(
            parse_reply(b'ERR bmc-auth {"message": "m", "hint": "h", "n": 1}'),
            Refused("bmc-auth", "m", "h", {"message": "m", "hint": "h", "n": 1}),
        )
        refused = parse_greeting(b'ERR limit {"message": "full"}')
        self.assertEqual(refused, Refused("limit", "full", None, {"message": "full"}))

    def test_what_is_no_reply(self) -> None:
        for line in (b"", b"OK", b"OK []", b"OK {", b"OKAY {}", b"ERR {}", b'ERR Bad {"message": ""}', b"OK \xff"):
            self.assertRaises(ProtocolError, parse_reply, line)
        for line in (b"SSH-2.0-OpenSSH", b"ipmiproxyd 1 protocol x", b"OK {}"):
            self.assertRaises(ProtocolError, parse_greeting, line)
