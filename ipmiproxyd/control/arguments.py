"""What a command takes: arguments that declare themselves, and the types of their values."""

from __future__ import annotations

import abc
import enum
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

from ipmiproxyd.errors import BadValue
from ipmiproxyd.model import Secret

T = TypeVar("T")
L = TypeVar("L", bound=str)


class UnfitError(Exception):
    """A value is not of its type. The reason completes the sentence "<the value> …" and never repeats the value,
    which may be secret."""

    def __init__(self, reason: str, *, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class ArgumentType(abc.ABC, Generic[T]):
    """How the text of an argument becomes a value."""

    secret: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What the help calls it."""

    @abc.abstractmethod
    def parse(self, text: str) -> T:
        """The value; raises :class:`UnfitError`."""

    def show(self, value: T) -> str:
        """A value as one would write it: for defaults in the help."""

        return str(value)


class Unset(enum.Enum):
    """The mark of "no default", where None may be a value."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Argument(Generic[T]):
    """One ``key=value`` of a command. ``help`` is one line in plain words; ``instead_of`` are names that people may
    give it, and that it has not; ``also`` is one that it has, too."""

    name: str
    type: ArgumentType[T]
    help: str
    required: bool = False
    default: T | Unset = UNSET
    instead_of: tuple[str, ...] = ()
    also: str = ""

    def parse(self, text: str) -> T:
        """Raises BadValue, which shows the value unless it is secret."""

        try:
            return self.type.parse(text)
        except UnfitError as unfit:
            shown = "the value" if self.type.secret else quoted(text)
            raise BadValue(f"{self.name}: {shown} {unfit.reason}.", hint=unfit.hint) from None

    @property
    def usage(self) -> str:
        return f"{self.name}=…" if self.required else f"[{self.name}=…]"

    def describe(self) -> dict[str, Any]:
        """A row for a table."""

        return {
            "name": self.name,
            "type": self.type.label,
            "required": self.required,
            "default": None if isinstance(self.default, Unset) else self.type.show(self.default),
            "secret": self.type.secret,
            "help": self.help,
        }


class Values:
    """The arguments of one request, typed by their declarations."""

    def __init__(self, given: Mapping[str, Any], names: frozenset[str]) -> None:
        self._given = given
        self._names = names

    def __contains__(self, argument: Argument[Any]) -> bool:
        """Was it given on the request?"""

        return argument.name in self._given

    def __getitem__(self, argument: Argument[T]) -> T:
        """What was given, or the default. KeyError if there is neither."""

        self._check(argument)
        if argument.name in self._given:
            value: T = self._given[argument.name]
            return value
        if isinstance(argument.default, Unset):
            raise KeyError(argument.name)
        return argument.default

    def get(self, argument: Argument[T]) -> T | None:
        """What was given, or the default, or None."""

        self._check(argument)
        return self[argument] if argument in self or not isinstance(argument.default, Unset) else None

    def _check(self, argument: Argument[Any]) -> None:
        if argument.name not in self._names:
            raise KeyError(f"{argument.name} is not declared")


def quoted(text: str) -> str:
    """A user's text inside a message: short, and in quotation marks."""

    return f'"{text}"' if len(text) <= 60 else f'"{text[:57]}…"'


def meant(word: str, known: Sequence[str]) -> str | None:
    """What was probably meant."""

    close = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return close[0] if close else None


# --- types -----------------------------------------------------------------------------------------------------------


class Text(ArgumentType[str]):
    """Any text up to a length. ``label`` says more about it where others check it further."""

    def __init__(self, maximum: int = 256, label: str = "text") -> None:
        self._maximum = maximum
        self._label = label

    @property
    def label(self) -> str:
        return self._label

    def parse(self, text: str) -> str:
        if len(text) > self._maximum:
            raise UnfitError(f"is longer than {self._maximum} characters")
        return text


class SecretText(ArgumentType[Secret]):
    """A text that must not be seen."""

    secret = True

    def __init__(self, maximum: int = 256) -> None:
        self._maximum = maximum

    @property
    def label(self) -> str:
        return "secret"

    def parse(self, text: str) -> Secret:
        if len(text) > self._maximum:
            raise UnfitError(f"is longer than {self._maximum} characters")
        return Secret(text)


class Name(ArgumentType[str]):
    """A name that is also fit for a file's or a log's."""

    _PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

    @property
    def label(self) -> str:
        return "name"

    def parse(self, text: str) -> str:
        if not self._PATTERN.fullmatch(text):
            raise UnfitError(
                "is not a name",
                hint="A name has up to 64 letters (a to z), digits, dots, underscores and hyphens, "
                "and begins with a letter or a digit.",
            )
        return text


class Integer(ArgumentType[int]):
    def __init__(self, minimum: int, maximum: int) -> None:
        self._minimum = minimum
        self._maximum = maximum

    @property
    def label(self) -> str:
        return f"{self._minimum}-{self._maximum}"

    def parse(self, text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not self._minimum <= int(text) <= self._maximum:
            raise UnfitError(f"is not a whole number from {self._minimum} to {self._maximum}")
        return int(text)


class Flag(ArgumentType[bool]):
    @property
    def label(self) -> str:
        return "yes|no"

    def parse(self, text: str) -> bool:
        if text not in ("yes", "no"):
            raise UnfitError("is neither yes nor no")
        return text == "yes"

    def show(self, value: bool) -> str:
        return "yes" if value else "no"


class Choice(ArgumentType[L]):
    """One of some words."""

    def __init__(self, words: Sequence[L]) -> None:
        self._words: Mapping[str, L] = {word: word for word in words}

    @property
    def label(self) -> str:
        return "|".join(self._words)

    def parse(self, text: str) -> L:
        if text in self._words:
            return self._words[text]
        guess = meant(text, list(self._words))
        raise UnfitError(
            f"is not one of {', '.join(self._words)}", hint=None if guess is None else f'Did you mean "{guess}"?'
        )


_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(
    r"(?P<bare>[0-9]{1,9}(?:\.[0-9]{1,3})?)"
    r"|(?=.)(?:(?P<d>[0-9]{1,6})d)?(?:(?P<h>[0-9]{1,6})h)?(?:(?P<m>[0-9]{1,6})m)?"
    r"(?:(?P<s>[0-9]{1,9}(?:\.[0-9]{1,3})?)s)?"
)


def parse_duration(text: str) -> float:
    """Seconds from "30s", "10m", "1h30m", "2d" or a bare number of seconds. Raises :class:`UnfitError`."""

    match = _DURATION.fullmatch(text)
    if match is None:
        raise UnfitError("is not a duration", hint="Write 30s, 10m, 1h30m or 2d; a number alone is seconds.")
    if match["bare"]:
        return float(match["bare"])
    return float(sum(float(match[unit]) * size for unit, size in _UNITS.items() if match[unit]))


def show_duration(seconds: float | None) -> str:
    """The shortest way to write a duration; "never" for None."""

    if seconds is None:
        return "never"
    rest = round(seconds, 3)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        count = math.floor(rest / size)
        rest -= count * size
        if count:
            parts.append(f"{count}{unit}")
    if rest or not parts:
        parts.append(f"{round(rest, 3):g}s")
    return "".join(parts)


class Duration(ArgumentType[float]):
    """A span of time, in seconds. ``unit``: a number alone is refused, as people may mean minutes by it."""

    def __init__(self, minimum: float, maximum: float, *, unit: bool = False) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._unit = unit

    @property
    def label(self) -> str:
        return "duration"

    def parse(self, text: str) -> float:
        seconds = parse_duration(text)
        if self._unit and text[-1].isdigit():
            raise UnfitError("has no unit", hint=f"For minutes write {text}m.")
        if not self._minimum <= seconds <= self._maximum:
            raise UnfitError(f"is not between {show_duration(self._minimum)} and {show_duration(self._maximum)}")
        return seconds

    def show(self, value: float) -> str:
        return show_duration(value)


class DurationOrNever(ArgumentType[float | None]):
    """A span of time in seconds, or None for "never"."""

    def __init__(self, minimum: float, maximum: float, *, unit: bool = False) -> None:
        self._duration = Duration(minimum, maximum, unit=unit)

    @property
    def label(self) -> str:
        return "duration|never"

    def parse(self, text: str) -> float | None:
        return None if text == "never" else self._duration.parse(text)

    def show(self, value: float | None) -> str:
        return show_duration(value)


class OrDefault(ArgumentType[T | Literal["default"]]):
    """A value of another type, or the word "default"."""

    def __init__(self, other: ArgumentType[T]) -> None:
        self._other = other

    @property
    def label(self) -> str:
        return f"{self._other.label}|default"

    def parse(self, text: str) -> T | Literal["default"]:
        return "default" if text == "default" else self._other.parse(text)

    def show(self, value: T | Literal["default"]) -> str:
        return "default" if value == "default" else self._other.show(value)


class Texts(ArgumentType[tuple[str, ...]]):
    """Texts with commas in between; a backslash in front of a comma makes it part of the text."""

    def __init__(self, label: str) -> None:
        self._label = label

    @property
    def label(self) -> str:
        return f"{self._label},…"

    def parse(self, text: str) -> tuple[str, ...]:
        parts = (part.strip().replace("\\,", ",") for part in re.split(r"(?<!\\),", text))
        return tuple(part for part in parts if part)

    def show(self, value: tuple[str, ...]) -> str:
        return ",".join(part.replace(",", "\\,") for part in value)
