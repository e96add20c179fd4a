"""The TCP ports that a description of a Java console names: where its program will connect to.

The panel itself says so, and only about itself: these ports are opened on its own address and on no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from ipmiproxyd.wire.jnlp import Jnlp

PORTS_LIMIT: Final = 16
"""Ports of one description; what it names beyond them stays closed."""

_NAME: Final = re.compile(r"(?<!sup)port(?:_?n(?:o|um|umber))?$", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4}")
_UNNAMED: Final = 1024
"""A number below this that nothing calls a port is a version, a colour depth or a switch."""


def named_ports(jnlp: Jnlp) -> tuple[int, ...]:
    """In their order: what an argument, a parameter or a property calls a port (``kvmport=5900``, ``-kvmport 7578``),
    and what stands alone and looks like one: some programs know their arguments by their places."""

    found = dict.fromkeys(_all(jnlp))
    return tuple(found)[:PORTS_LIMIT]


def _all(jnlp: Jnlp) -> Iterator[int]:
    yield from _in_arguments([argument.reveal() for argument in jnlp.arguments])
    if jnlp.applet is not None:
        for name, value in jnlp.applet.parameters.items():
            yield from _port(value.reveal(), 1 if _NAME.search(name) else _UNNAMED)
    for name, value in jnlp.properties.items():
        if _NAME.search(name):
            yield from _port(value.reveal())


def _in_arguments(arguments: Sequence[str]) -> Iterator[int]:
    for before, argument in zip(("", *arguments), arguments, strict=False):
        name, sign, value = argument.partition("=")
        if sign:
            if _NAME.search(name.strip()):
                yield from _port(value)
        elif not before.startswith("-"):
            yield from _port(argument, _UNNAMED)
        elif _NAME.search(before):
            yield from _port(argument)


def _port(text: str, least: int = 1) -> Iterator[int]:
    if _NUMBER.fullmatch(text.strip()) and least <= int(text) <= 65535:
        yield int(text)
