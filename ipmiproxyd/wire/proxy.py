"""A proxy's fields: what is valid in them, and proxy ⇄ stored document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, Final, get_args

from ipmiproxyd.errors import BadValue
from ipmiproxyd.model import ConsoleType, Proxy
from ipmiproxyd.wire.fields import (
    JAVA,
    JAVA_WORDS,
    LOCATION,
    NAME,
    NAME_WORDS,
    Check,
    check_all,
    check_changes,
    choice,
    matching,
)

MOST_LOCATIONS: Final = 256
SHORTEST_IDLE: Final = 60.0
LONGEST_IDLE: Final = 31 * 86400.0

_PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,4000}")


def checked(proxy: Proxy) -> Proxy:
    """The proxy with each of its locations once.

    :raises BadValue: some fields are not valid; all of them are named.
    """

    check_all(_CHECKS, proxy)
    if proxy.key and not proxy.certificate:
        raise BadValue("key: there is no certificate that it belongs to.", hint="Give certificate=, too.")
    return replace(proxy, locations=tuple(dict.fromkeys(proxy.locations)))


def changed(proxy: Proxy, changes: Mapping[str, Any]) -> Proxy:
    """The proxy with some fields replaced, and checked. A certificate that is taken away takes its key with it.

    :raises BadValue: no such field, or its new value is not valid.
    """

    check_changes(_CHECKS, "proxy", proxy.name, changes)
    if changes.get("certificate") == "":
        changes = {"key": "", **changes}
    return checked(replace(proxy, **changes))


def to_document(proxy: Proxy) -> dict[str, Any]:
    return {**asdict(proxy), "locations": list(proxy.locations)}


def from_document(document: Mapping[str, Any]) -> Proxy:
    """Fields that are missing have their defaults; unknown ones are passed over (a later version wrote them)."""

    known = {field.name: document[field.name] for field in fields(Proxy) if field.name in document}
    return Proxy(**{**known, "locations": tuple(known["locations"])})


# --- the checks: each gives what is wrong, or None -------------------------------------------------------------------


def _locations(value: object) -> str | None:
    if not isinstance(value, tuple) or not value:
        return "is empty: a proxy is used in at least one location"
    if len(value) > MOST_LOCATIONS:
        return f"has more than {MOST_LOCATIONS} locations"
    if "" in value:
        return "has one without a name"
    return next((problem for one in value if (problem := LOCATION(one)) is not None), None)


def _idle(value: object) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and SHORTEST_IDLE <= value <= LONGEST_IDLE
    return None if number or value in (None, "default") else "is not between a minute and a month"


def _switch(value: object) -> str | None:
    return None if isinstance(value, bool) else "is neither yes nor no"


def _file(value: object) -> str | None:
    fits = isinstance(value, str) and (not value or (_PATH.fullmatch(value) and ".." not in value.split("/")))
    return None if fits else "is not the whole path of a file"


_CHECKS: Final[dict[str, Check]] = {
    "name": matching(NAME, NAME_WORDS),
    "agent": matching(NAME, "is not the name of an agent (see agent list)"),
    "locations": _locations,
    "type": choice(get_args(ConsoleType)),
    "idle": _idle,
    "login_buttons": choice((True, False, "default")),
    "encrypt": _switch,
    "certificate": _file,
    "key": _file,
    "java": matching(JAVA, JAVA_WORDS, empty=True),
}
