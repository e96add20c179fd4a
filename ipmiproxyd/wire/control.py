"""The control protocol, version 1: lines of text ⇄ values. No I/O.

This is the grammar; the documentation repeats it from here. LF is byte 0A, SP is one blank, TAB byte 09::

    server     = greeting *answer                 ; or one "ERR limit" line and the end, where too many are connected
    greeting   = "ipmiproxyd" SP version SP "protocol" SP "1" LF
    answer     = *progress ( done / refused )     ; exactly one per request, in the order of the requests
    progress   = ".." SP object LF
    done       = "OK" SP object LF
    refused    = "ERR" SP code SP object LF       ; the object has "message", and "hint" where one helps
    code       = a lower-case word in which "-" may stand, e.g. bad-request
    object     = a JSON object (RFC 8259) on one line, in printable ASCII: all else as \\u and four digits

    client     = *( line ( LF / CR LF ) )
    line       = [ blanks ] [ comment / ( request [ blanks ] ) ]
                                                  ; UTF-8, at most 65536 bytes; empty lines and comments are ignored
    comment    = "#" anything                     ; "#" has no meaning elsewhere
    request    = noun blanks verb *( blanks argument )
               / "help" [ blanks noun [ blanks verb ] ]
               / "quit"                           ; answered with OK, then the server closes
    argument   = key "=" value                    ; a key at most once; "-" in it is the same as "_"
    key        = letter *( letter / digit / "_" / "-" )
    blanks     = 1*( SP / TAB )

Words are quoted as in a POSIX shell: 'between single quotes all is literal', "between double quotes a backslash
takes the meaning from $ ` \\" and itself", and outside of quotes a \\backslash does so for any character. Nothing is
expanded, and no other character is special. A line has no control characters but TAB.

A line that is too long, is not UTF-8, or cannot be read is answered with ERR bad-request, and the connection goes
on. So is a last line that is cut off by the end of the client's side: nothing of it is carried out.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ipmiproxyd.errors import BadRequest

PROTOCOL: Final = 1
MAX_LINE: Final = 65_536
"""Longest request line in bytes, its end not counted."""


# --- lines -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A whole line without its end."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line longer than the limit; it is told once, as soon as that is known, and its bytes are forgotten."""


@dataclass(frozen=True, slots=True)
class CutOff:
    """The stream ended inside a line."""


LineEvent = Line | TooLong | CutOff


class LineSplitter:
    """Bytes to lines, whatever pieces they come in.

    Hand over what arrives with :meth:`feed` and take what it means with :meth:`next_event` until that is None.
    It keeps at most one line of ``limit`` bytes beyond what was fed and not yet taken.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0  # no LF stands before this offset
        self._skipping = False  # inside a line that was told to be too long
        self._ended = False

    @property
    def held(self) -> int:
        """How many bytes wait to be taken."""

        return len(self._buffer)

    @property
    def full(self) -> bool:
        """True while so much is held that :meth:`next_event` surely has an event: feed no more."""

        return len(self._buffer) > self._limit + 1

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def end(self) -> None:
        """The stream is over: a line that was begun yields :class:`CutOff`."""

        self._ended = True

    def next_event(self) -> LineEvent | None:
        """The next line, or None until more is fed."""

        while True:
            at = self._buffer.find(b"\n", self._searched)
            if at < 0:
                return self._unfinished()
            line = bytes(self._buffer[:at])
            del self._buffer[: at + 1]
            self._searched = 0
            if self._skipping:
                self._skipping = False
                continue
            line = line.removesuffix(b"\r")
            return Line(line) if len(line) <= self._limit else TooLong()

    def _unfinished(self) -> LineEvent | None:
        self._searched = len(self._buffer)
        if self._skipping:
            self._forget()
            return None
        # One byte above the limit may be the CR of a line that just fits.
        if len(self._buffer) > self._limit + 1:
            self._forget()
            self._skipping = True
            return TooLong()
        if self._ended and self._buffer:
            blank = not self._buffer.strip(b" \t\r")
            self._forget()
            return None if blank else CutOff()
        return None

    def _forget(self) -> None:
        self._buffer.clear()
        self._searched = 0


# --- requests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A command and its arguments as they were written. ``verb`` is empty if only a noun was given.

    Which arguments are secret only the command's declaration knows: the representation shows none.
    """

    noun: str
    verb: str
    arguments: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Help:
    """``help [noun [verb]]``; empty texts for what was left out."""

    noun: str = ""
    verb: str = ""


@dataclass(frozen=True, slots=True)
class Quit:
    """``quit``."""


_PIECE = re.compile(
    r"""(?P<blank>[ \t]+) | (?P<plain>[^ \t'"\\]+) | '(?P<single>[^']*)'
      | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)" | \\(?P<escaped>.)""",
    re.VERBOSE,
)
_DOUBLE_ESCAPE = re.compile(r'\\([$`"\\])')
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}", re.IGNORECASE)
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.IGNORECASE)
_EXAMPLE = "A request looks like this: power status device=node17"


def split_words(text: str) -> list[str]:
    """Split a line into words as a POSIX shell would, without any expansion.

    Raises BadRequest, whose text repeats nothing of the line: it may hold a password.
    """

    words: list[str] = []
    word: list[str] | None = None
    at = 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise _unclosed(text[at])
        at = match.end()
        kind = match.lastgroup or ""
        if kind == "blank":
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        piece = match[kind]
        if kind == "double":
            piece = _DOUBLE_ESCAPE.sub(r"\1", piece)
        if word is None:
            word = []
        word.append(piece)
    if word is not None:
        words.append("".join(word))
    return words


def _unclosed(mark: str) -> BadRequest:
    if mark == "\\":
        return BadRequest("The line ends with a lone backslash.", hint="Write \\\\ for a backslash.")
    name = "single" if mark == "'" else "double"
    return BadRequest(
        f"A {name} quotation mark is not closed.", hint="Words are quoted as in a POSIX shell, e.g. notes='rack 4'."
    )


def parse_request(line: bytes) -> Request | Help | Quit | None:
    """What a line asks for; None for a blank line or a comment. Raises BadRequest."""

    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise BadRequest("The line is not UTF-8 text.") from None
    text = text.strip(" \t")
    if not text or text.startswith("#"):
        return None
    if _CONTROL.search(text):
        raise BadRequest("The line holds a control character.")
    words = split_words(text)
    if words[0] == "quit":
        if len(words) > 1:
            raise BadRequest("quit takes no arguments.")
        return Quit()
    if words[0] == "help":
        return _parse_help(words[1:])
    for number, word in enumerate(words[:2], 1):
        if not _WORD.fullmatch(word):
            raise BadRequest(f"Word {number} is not a command's name.", hint=_EXAMPLE)
    verb = words[1] if len(words) > 1 else ""
    return Request(words[0], verb, tuple(_parse_arguments(words[2:])))


def _parse_help(words: list[str]) -> Help:
    if len(words) > 2 or not all(_WORD.fullmatch(word) for word in words):
        raise BadRequest("help takes a noun and a verb at most.", hint="For example: help power cycle")
    return Help(*words)


def _parse_arguments(words: list[str]) -> Iterable[tuple[str, str]]:
    for number, word in enumerate(words, 3):
        key, equals, value = word.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise BadRequest(
                f"Word {number} is not of the form key=value.",
                hint="Arguments are written like device=node17, with no blanks around the =; "
                "a value with blanks needs quotation marks, e.g. notes='rack 4'.",
            )
        yield key, value


def format_request(*words: str) -> bytes:
    """The line that asks for these words, each quoted where it has to be.

    Raises ValueError for what a line cannot carry: control characters, and texts that are not Unicode.
    """

    text = " ".join(shlex.quote(word) for word in words)
    if _CONTROL.search(text):
        raise ValueError("a request cannot carry control characters")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ValueError("a request is UTF-8 text") from None
    if len(data) > MAX_LINE:
        raise ValueError(f"a request has at most {MAX_LINE} bytes")
    return data + b"\n"


# --- replies ---------------------------------------------------------------------------------------------------------


class ProtocolError(Exception):
    """The other side does not speak this protocol."""


@dataclass(frozen=True, slots=True)
class Greeting:
    version: str
    protocol: int


@dataclass(frozen=True, slots=True)
class Progress:
    """More will follow."""

    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out."""

    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was not carried out. ``data`` is the whole object."""

    code: str
    message: str
    hint: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


Reply = Progress | Done | Refused

_NOT_ASCII = re.compile(r"[^\x20-\x7e]")


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xD800 <= number <= 0xDFFF:
        return "\\ufffd"  # a lone surrogate is no character: strict readers refuse it
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} may not stand in a reply")


def to_json(value: Mapping[str, Any]) -> str:
    """A JSON object on one line, in printable ASCII.

    Raises TypeError for everything that is not JSON, a :class:`~ipmiproxyd.model.Secret` above all, and ValueError
    for numbers that JSON does not have.
    """

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    return _NOT_ASCII.sub(_escape, text)


def format_greeting(version: str) -> bytes:
    return f"ipmiproxyd {version} protocol {PROTOCOL}\n".encode("ascii")


def format_progress(data: Mapping[str, Any]) -> bytes:
    return f".. {to_json(data)}\n".encode("ascii")


def format_done(data: Mapping[str, Any]) -> bytes:
    return f"OK {to_json(data)}\n".encode("ascii")


def format_refused(
    code: str, message: str, hint: str | None = None, details: Mapping[str, Any] | None = None
) -> bytes:
    data = {"message": message, **({} if hint is None else {"hint": hint}), **(details or {})}
    return f"ERR {code} {to_json(data)}\n".encode("ascii")


def parse_greeting(line: bytes) -> Greeting | Refused:
    """The server's first line: its greeting, or a refusal where too many are connected. Raises ProtocolError."""

    if line.startswith(b"ERR "):
        reply = parse_reply(line)
        if isinstance(reply, Refused):
            return reply
    match = re.fullmatch(rb"ipmiproxyd (\S+) protocol ([0-9]{1,9})", line)
    if match is None:
        raise ProtocolError("this is not ipmiproxyd's greeting")
    return Greeting(match[1].decode("ascii", "replace"), int(match[2]))


def parse_reply(line: bytes) -> Reply:
    """One line of an answer. Raises ProtocolError."""

    mark, _, rest = line.partition(b" ")
    if mark == b"..":
        return Progress(_parse_object(rest))
    if mark == b"OK":
        return Done(_parse_object(rest))
    if mark == b"ERR":
        code, _, text = rest.partition(b" ")
        if not re.fullmatch(rb"[a-z][a-z0-9-]*", code):
            raise ProtocolError("a refusal without a code")
        data = _parse_object(text)
        hint = data.get("hint")
        return Refused(code.decode("ascii"), str(data.get("message", "")), None if hint is None else str(hint), data)
    raise ProtocolError("a line that is neither progress nor a reply")


def _parse_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("a reply that is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("a reply that is not a JSON object")
    return value
