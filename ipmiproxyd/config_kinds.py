"""What a value in the configuration file may be.

A kind is a function that takes a value as the TOML parser gives it and returns the setting's value; it raises
:class:`KindError` with an explanation for the person who wrote the file. No Twisted, no I/O.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from ipmiproxyd.model import NO_BROWSER, POLICY_PLACES, SSH_AGENT

T = TypeVar("T")
Kind = Callable[[object], T]

SOCKET_PATH_LIMIT: Final = 107
"""Bytes that the kernel has room for in the path of a UNIX socket."""

AGENT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
AGENT_NAME_WORDS: Final = "small letters, digits, dots, dashes and underscores"

_SHOWN: Final = 60
_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII)
_RANGE: Final = re.compile(r"(\d{1,5})-(\d{1,5})", re.ASCII)
_GEOMETRY: Final = re.compile(r"(\d{3,4})x(\d{3,4})", re.ASCII)
_HOST_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class KindError(Exception):
    """A value that cannot be: pairs of the place inside the value ("" or "[2]") and an explanation."""

    def __init__(self, *mistakes: tuple[str, str]) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes


def wrong(explanation: str) -> KindError:
    """A mistake of the value as a whole."""

    return KindError(("", explanation))


def shown(raw: object) -> str:
    """A value as an explanation repeats it: near to how it stands in the file, and never long."""

    text = {True: "true", False: "false"}[raw] if isinstance(raw, bool) else repr(raw)
    if isinstance(raw, str):
        text = '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in raw) + '"'
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _text(raw: object, wanted: str) -> str:
    if not isinstance(raw, str):
        raise wrong(f"must be {wanted}, in quotes, not {shown(raw)}")
    return raw


def switch(raw: object) -> bool:
    """true or false."""

    if not isinstance(raw, bool):
        raise wrong(f"must be true or false, not {shown(raw)}")
    return raw


# --- words and names --------------------------------------------------------------------------------------------------


def choice(*words: str) -> Kind[Any]:
    """One of a few words; the setting's own annotation names them again as a Literal."""

    listed = ", ".join(f'"{word}"' for word in words)

    def read(raw: object) -> str:
        if raw not in words or not isinstance(raw, str):
            raise wrong(f"must be one of {listed}, not {shown(raw)}")
        return raw

    return read


def browser(raw: object) -> str:
    """One that panels can be locked down in, or none."""

    known = (*POLICY_PLACES, NO_BROWSER)
    if raw not in known or not isinstance(raw, str):
        listed = f"{', '.join(known[:-1])} or {known[-1]}"
        raise wrong(f"must be {listed}, not {shown(raw)}: of others it is not known where they read their policies")
    return raw


def name(pattern: str, wanted: str) -> Kind[str]:
    """A text of a pattern that ``wanted`` puts into words."""

    compiled = re.compile(pattern, re.ASCII)

    def read(raw: object) -> str:
        text = _text(raw, wanted)
        if not compiled.fullmatch(text):
            raise wrong(f"must be {wanted}, not {shown(raw)}")
        return text

    return read


JOBS_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"
jobs_name = name(f"|{JOBS_NAME}", "a name of at most 32 letters, digits, _, . and -")
"""Of the runner's folder of jobs, where it is root."""

group = name(r"|[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", "a group's name, or empty")


def program(raw: object) -> str:
    """A program: its name, looked up in PATH on the agent, or its absolute path."""

    text = _text(raw, "a program's name or absolute path")
    if not text or not text.isprintable() or text.startswith("-") or ("/" in text and not text.startswith("/")):
        raise wrong(f"must be a program's name or absolute path, not {shown(raw)}")
    return text


def path(raw: object) -> Path:
    """An absolute path without ``..`` and control characters."""

    text = _text(raw, "an absolute path")
    if not text.startswith("/") or not text.isprintable() or ".." in text.split("/"):
        raise wrong(f"must be an absolute path (it begins with / and has no ..), not {shown(raw)}")
    return Path(text)


def path_or_default(raw: object) -> Path:
    """An absolute path, or "" for a default that follows from other settings; that one is ``Path()`` here."""

    return Path() if raw == "" else path(raw)


def path_or_none(raw: object) -> Path | None:
    """An absolute path, or "" for none."""

    return None if raw == "" else path(raw)


def agent_path(raw: object) -> str:
    """An absolute path on another machine, or "" for a default that is found there."""

    return "" if raw == "" else str(path(raw))


def ssh_key(raw: object) -> str:
    """The absolute path of a private SSH key's file, or SSH_AGENT. "" is left alone: it is not set."""

    return SSH_AGENT if raw == SSH_AGENT else agent_path(raw)


def ssh_fingerprint(raw: object) -> str:
    """The fingerprint of an SSH key, as ssh-keygen -l shows it."""

    wanted = 'a fingerprint such as "SHA256:…", as "ssh-keygen -lf" shows it'
    text = _text(raw, wanted).rstrip("=")
    if not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", text, re.ASCII):
        raise wrong(f"must be {wanted}, not {shown(raw)}")
    return text


def mode(raw: object) -> int:
    """A file mode: octal digits in quotes."""

    if not isinstance(raw, str) or not re.fullmatch(r"0?[0-7]{3}", raw, re.ASCII):
        raise wrong(f'must be octal digits in quotes, such as "0660", not {shown(raw)}')
    bits = int(raw, 8)
    if bits & 0o600 != 0o600:
        raise wrong(f"must let the owner read and write (06xx), not {shown(raw)}")
    return bits


def geometry(raw: object) -> str:
    """Width x height of a display in pixels."""

    text = _text(raw, 'width x height such as "1280x1024"')
    match = _GEOMETRY.fullmatch(text)
    if not match:
        raise wrong(f'must be width x height in pixels, such as "1280x1024", not {shown(raw)}')
    width, height = (int(side) for side in match.groups())
    if not (320 <= width <= 7680 and 200 <= height <= 4320):
        raise wrong(f"must be between 320x200 and 7680x4320, not {shown(raw)}")
    return f"{width}x{height}"


# --- numbers, times, ranges -------------------------------------------------------------------------------------------


def whole(least: int, most: int) -> Kind[int]:
    """A whole number within bounds."""

    def read(raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
            raise wrong(f"must be a whole number from {least} to {most}, not {shown(raw)}")
        return raw

    return read


def parse_duration(text: str) -> float:
    """Seconds of a text such as "10m", "90s", "1h30m", "0.5s" or "20ms". Raises ValueError for any other text."""

    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"not a duration: {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in zip(match.groups(), _UNITS, strict=True) if number)


def _seconds(raw: object, least: float, most: float, words: str) -> float:
    try:
        if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
            raise ValueError
        value = parse_duration(raw) if isinstance(raw, str) else float(raw)
        if not math.isfinite(value):
            raise ValueError
    except (ValueError, OverflowError):
        raise wrong(f'must be a time such as "90s", "10m" or "1h30m"{words}, not {shown(raw)}') from None
    if not least <= value <= most:
        raise wrong(f"must be from {_worded(least)} to {_worded(most)}{words}, not {shown(raw)}")
    return value


def _worded(seconds: float) -> str:
    for unit, size in _UNITS.items():
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def duration(least: float, most: float) -> Kind[float]:
    """A time in seconds within bounds."""

    return lambda raw: _seconds(raw, least, most, "")


def duration_or_never(least: float, most: float) -> Kind[float | None]:
    """A time in seconds within bounds; None for "never"."""

    return lambda raw: None if raw == "never" else _seconds(raw, least, most, ' or "never"')


def span(least: int, most: int) -> Kind[range]:
    """First and last number, "6081-6200"; both belong to it."""

    def read(raw: object) -> range:
        text = _text(raw, f'a range such as "{least}-{most}"')
        match = _RANGE.fullmatch(text.replace(" ", ""))
        if not match:
            raise wrong(f'must be first-last, such as "{least}-{most}", not {shown(raw)}')
        first, last = (int(end) for end in match.groups())
        if first > last:
            raise wrong(f"its first number is above its last: {shown(raw)}")
        if first < least or last > most:
            raise wrong(f"must lie within {least}-{most}, not {shown(raw)}")
        return range(first, last + 1)

    return read


def span_or_none(least: int, most: int) -> Kind[range]:
    """As :func:`span`, or "" (or "none") for an empty range."""

    read_span = span(least, most)
    return lambda raw: range(0) if raw in ("", "none") else read_span(raw)


def list_of(kind: Kind[T], *, empty: bool) -> Kind[tuple[T, ...]]:
    """A list of different values of one kind; ``empty`` says whether it may have none."""

    def read(raw: object) -> tuple[T, ...]:
        if not isinstance(raw, list | tuple):
            raise wrong(f"must be a list in square brackets, not {shown(raw)}")
        values: list[T] = []
        mistakes: list[tuple[str, str]] = []
        for number, item in enumerate(raw, start=1):
            try:
                value = kind(item)
            except KindError as error:
                mistakes += [(f"[{number}]{place}", explanation) for place, explanation in error.mistakes]
                continue
            if value in values:
                mistakes.append((f"[{number}]", f"{shown(item)} stands in the list already"))
            values.append(value)
        if not raw and not empty:
            mistakes.append(("", "must not be an empty list"))
        if mistakes:
            raise KindError(*mistakes)
        return tuple(values)

    return read


# --- addresses and origins --------------------------------------------------------------------------------------------


def address(raw: object) -> str:
    """An IPv4 or IPv6 address to listen on."""

    text = _text(raw, 'an address such as "0.0.0.0" or "::"')
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise wrong(f'must be an IPv4 or IPv6 address, such as "0.0.0.0" or "::", not {shown(raw)}') from None


def listen_place(raw: object) -> tuple[str, int] | None:
    """Where to listen: "address:port", or a port alone, which gives an empty address; "" is None, for nowhere."""

    wanted = 'an address and a port such as "0.0.0.0:6080" or "[::]:6080", or a port alone'
    text = _text(raw, wanted)
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
        raise wrong(f"must be {wanted}, not {shown(raw)}")
    if host and (":" in host) != (host.startswith("[") and host.endswith("]")):
        raise wrong(f"must have an IPv6 address in square brackets, not {shown(raw)}")
    return (address(host.strip("[]")) if host or ":" in text else "", int(port))


def is_host(text: str) -> bool:
    """Whether a text is a host name or an address, as it stands in a URL (IPv6 in square brackets)."""

    try:
        if text.startswith("[") and text.endswith("]"):
            ipaddress.IPv6Address(text[1:-1])
            return "%" not in text
        if re.fullmatch(r"[0-9.]+", text, re.ASCII):
            ipaddress.IPv4Address(text)
            return True
    except ValueError:
        return False
    labels = text.lower().removesuffix(".").split(".")
    return len(text) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)


def host(raw: object) -> str:
    """A host's name or address; IPv6 with or without square brackets. "" is left alone: it is not set."""

    text = _text(raw, "a host name or address")
    if text and not is_host(f"[{text}]" if ":" in text and not text.startswith("[") else text):
        raise wrong(f"must be a host name or address alone, not {shown(raw)}")
    return text.strip("[]").lower()


def public_host(raw: object) -> str:
    """The host that browsers reach: a name or an address, without scheme, port or path, as it stands in a URL:
    an IPv6 address comes out in square brackets. "" is left alone: a default that is filled in later."""

    text = _text(raw, "a host name or address")
    host = f"[{text}]" if ":" in text and not text.startswith("[") else text
    if text and not is_host(host):
        raise wrong(f"must be a host name or address alone, without scheme, port or path, not {shown(raw)}")
    return host.lower()


def _split(text: str) -> tuple[SplitResult, int | None] | None:
    try:
        parts = urlsplit(text)
        return parts, parts.port
    except ValueError:
        return None


def _origin(raw: object, *, wildcard: bool) -> str:
    text = _text(raw, 'an origin such as "https://panel.example.org"')
    split = _split(text) if text.isascii() and text.isprintable() and " " not in text else None
    if split is None or split[0].scheme not in _DEFAULT_PORTS or not split[0].netloc:
        raise wrong(f'must be scheme://host[:port], such as "https://panel.example.org", not {shown(raw)}')
    parts, port = split
    if parts.path or "?" in text or "#" in text:
        raise wrong(f"must be scheme://host[:port] with nothing behind it, no path and no slash, not {shown(raw)}")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    if "@" in parts.netloc or not is_host(host.removeprefix("*.") if wildcard else host) or port == 0:
        raise wrong(f"has no host name or port that a browser could send: {shown(raw)}")
    ending = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{ending}"


def public_url(raw: object) -> str:
    """A URL without user, query and fragment; it comes out without a slash at its end. "" is left alone."""

    text = _text(raw, 'a URL such as "https://console.example.org/kvm"')
    if not text:
        return ""
    split = _split(text)
    path = split[0].path if split else ""
    if split is None or "?" in text or "#" in text or not re.fullmatch(r"(?:/[\w.~-]+)*/?", path, re.ASCII):
        raise wrong(f'must be a URL such as "https://console.example.org/kvm", without ? and #, not {shown(raw)}')
    return _origin(text.removesuffix(path) if path else text, wildcard=False) + path.rstrip("/")


def origin(raw: object) -> str:
    """A web origin as browsers send it: lower case, without a default port."""

    return _origin(raw, wildcard=False)


def frame_ancestor(raw: object) -> str:
    """A source of Content-Security-Policy's frame-ancestors: ``'self'``, ``'none'`` or an origin, whose host may
    begin with ``*.``."""

    if raw in ("'self'", "'none'"):
        return str(raw)
    if raw in ("self", "none"):
        raise wrong(f"""needs single quotes inside the double ones: "'{raw}'\"""")
    return _origin(raw, wildcard=True)


def frame_ancestors(raw: object) -> tuple[str, ...]:
    """The sources of frame-ancestors; ``'none'`` stands alone."""

    values = list_of(frame_ancestor, empty=False)(raw)
    if "'none'" in values and len(values) > 1:
        raise wrong("\"'none'\" cannot stand beside other entries")
    return values
