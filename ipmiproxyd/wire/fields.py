"""What may stand in the fields of stored things: each check gives what is wrong with a value, or None."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from unicodedata import category

from ipmiproxyd.errors import BadValue
from ipmiproxyd.model import Secret

Check = Callable[[Any], str | None]

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_WORDS: Final = (
    "is not a name (up to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit)"
)
JAVA: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
JAVA_WORDS: Final = "is not the name of a Java (see java list)"


def check_all(checks: Mapping[str, Check], value: object) -> None:
    """Check the attributes of ``value`` by their names. Raises BadValue, in which all that is wrong is named."""

    problems = [
        f"{name}: {problem}" for name, check in checks.items() if (problem := check(getattr(value, name))) is not None
    ]
    if problems:
        raise BadValue("; ".join(problems) + ".")


def check_changes(checks: Mapping[str, Check], what: str, name: str, changes: Mapping[str, Any]) -> None:
    """See whether there are the fields to be changed, and the thing's ``name`` is left alone. Raises BadValue.

    :param what: a word for such a thing.
    """

    for field in changes:
        if field not in checks:
            raise BadValue(f"A {what} has no field {field!r}.")
    if changes.get("name", name) != name:
        raise BadValue(f"A {what}'s name cannot be changed.", hint=f"Remove the {what} and add it under the new name.")


def text(limit: int, *, lines: bool = False) -> Check:
    def check(value: object) -> str | None:
        text = value.reveal() if isinstance(value, Secret) else value
        if not isinstance(text, str):
            return "is not a text"
        if len(text) > limit:
            return f"is longer than {limit} characters"
        if any(category(mark) in ("Cc", "Cs") and not (lines and mark in "\n\t") for mark in text):
            return "holds control characters"
        return None

    return check


def secret(limit: int) -> Check:
    plain = text(limit)
    return lambda value: plain(value) if isinstance(value, Secret) else "is not a secret"


def matching(pattern: re.Pattern[str], wrong: str, *, empty: bool = False) -> Check:
    def check(value: object) -> str | None:
        fits = isinstance(value, str) and ((empty and value == "") or pattern.fullmatch(value) is not None)
        return None if fits else wrong

    return check


def choice(words: tuple[object, ...]) -> Check:
    return lambda value: None if value in words else f"is not one of {', '.join(map(str, words))}"


_JOINERS: Final = "\u200c\u200d"
"""Invisible, but some scripts need them."""


def _place() -> Check:
    plain = text(256)

    def check(value: object) -> str | None:
        unseen = [mark for mark in str(value) if category(mark) == "Cf" and mark not in _JOINERS]
        return plain(value) or ("holds invisible characters" if unseen else None)

    return check


LOCATION: Final = _place()
"""Devices and proxies meet by it, so it is what it looks like."""
