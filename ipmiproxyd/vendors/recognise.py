"""Find out what kind of panel a BMC has, from what it shows without a sign-in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final
from urllib.parse import urlsplit

from ipmiproxyd.errors import ProxyError, VendorUnknown
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.generic import Generic
from ipmiproxyd.vendors.talk import Answer, Request, Talk

_HOPS: Final = 3
_LIMIT: Final = 1 << 19
_TITLE: Final = re.compile(r"<title[^>]*>\s*([^<]{1,200}?)\s*</title", re.IGNORECASE)
_HINT: Final = "If you know what it is, set the device's vendor= (ipmiproxyctl vendor list); type=panel works with any."


@dataclass(frozen=True, slots=True)
class Recognised:
    """
    :ivar family: its key.
    :ivar why: in words.
    :ivar looked_at: the paths that were asked for, in their order.
    """

    family: str
    why: str
    looked_at: tuple[str, ...]


def recognise(families: Sequence[Family], manufacturer: int | None = None) -> Talk[Recognised]:
    """Look at the families' probes, each once, until it is certain. Raises VendorUnknown.

    :param families: those that the configuration describes among them: they know better than ours.
    :param manufacturer: the IANA number that the BMC tells by IPMI: its families are looked for first, and it decides
        between families that look alike. Alone it tells nothing: one number has several generations of panels.
    """

    hinted = [family for family in families if manufacturer in family.manufacturers]
    order = [*hinted, *(family for family in families if family not in hinted)]
    seen: dict[str, Answer] = {}
    failed: ProxyError | None = None
    for path in _probes(order):
        try:
            seen[path] = yield from _look(path)
        except ProxyError as error:  # one page that breaks off says nothing about the others
            failed = error
            continue
        found = _matches(order, seen)
        if len(found) == 1:
            return _told(*found[0], seen)
    if not seen and failed:
        raise failed
    return _decide(_matches(order, seen), hinted, seen)


def _probes(order: Iterable[Family]) -> list[str]:
    """Every path once: all families' first ones, then their second ones, …"""

    rows = zip_longest(*(family.probes for family in order))
    return list(dict.fromkeys(path for row in rows for path in row if path is not None))


def _look(path: str) -> Talk[Answer]:
    """The page, or where it redirects to within the panel; with the headers of all answers on the way."""

    visited = [path]
    headers: list[tuple[str, str]] = []
    while True:
        answer = yield Request(visited[-1], limit=_LIMIT)
        headers += answer.headers
        place = answer.header("location") if 300 <= answer.status < 400 else ""
        target = urlsplit(place)
        # Panels redirect to whatever they believe to be their own name: only the path counts.
        onward = target.path + (f"?{target.query}" if target.query else "")
        if not onward.startswith("/") or onward in visited or len(visited) > _HOPS:
            return Answer(answer.status, tuple(headers), answer.body, visited[-1])
        visited.append(onward)


def _matches(families: Iterable[Family], seen: Mapping[str, Answer]) -> list[tuple[Family, str]]:
    return [(family, why) for family in families if (why := family.recognise(seen))]


def _decide(found: list[tuple[Family, str]], hinted: Sequence[Family], seen: Mapping[str, Answer]) -> Recognised:
    configured = [match for match in found if isinstance(match[0], Generic)]
    expected = [match for match in found if match[0] in hinted]
    for chosen in (configured, expected):
        if len(chosen) == 1:
            return _told(*chosen[0], seen)
    if found:
        names = " or ".join(family.key for family, _ in found)
        raise VendorUnknown(f"The panel looks like {names}.", hint=_HINT)
    title = _titles(seen)[:1]
    named = f"; its title is “{title[0]}”" if title else ""
    raise VendorUnknown(f"The panel is of no known kind{named}.", hint=_HINT, details={"seen": _summary(seen)})


def _told(family: Family, why: str, seen: Mapping[str, Answer]) -> Recognised:
    return Recognised(family.key, why, tuple(seen))


def _titles(seen: Mapping[str, Answer]) -> list[str]:
    return list(dict.fromkeys(title for answer in seen.values() if (title := _title(answer))))


def _summary(seen: Mapping[str, Answer]) -> str:
    """What was there to see, for people: titles, and the other pages' status codes."""

    words = [f"“{title}”" for title in _titles(seen)[:2]]
    words += [f"{path}: {answer.status}" for path, answer in list(seen.items())[:12]]
    return ", ".join(words)


def _title(answer: Answer) -> str:
    found = _TITLE.search(answer.text)
    return "".join(sign for sign in " ".join(found[1].split()) if sign.isprintable())[:60] if found else ""
