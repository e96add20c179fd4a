"""The parts of docs/vendors.md that the code itself knows: the families, and the settings of ``[vendor.NAME]``.

``python -m ipmiproxyd.control.vendor_reference FILE`` writes them between the file's markers.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ipmiproxyd.control.reference import filled, table
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.generic import GenericFamily
from ipmiproxyd.vendors.ports import ALL, written
from ipmiproxyd.vendors.registry import BUILT_IN

_SIGNS_OUT: Final = {
    "after-viewer": "when the console is closed",
    "after-jnlp": "as soon as the JNLP is there",
    "none": "never: it ends by itself",
}


def families() -> str:
    """A table of the families that come with ipmiproxyd."""

    columns = ("vendor", "panel", "consoles", "TCP ports", "signs out", "Java", "known from")
    return table(columns, map(_row, BUILT_IN))


def _row(family: Family) -> tuple[str, ...]:
    out = _SIGNS_OUT[family.signs_out]
    if family.slot_seconds:
        out += f"; forgotten after {family.slot_seconds // 60} minutes unused"
    likes = f"`{family.java}`" if family.java else ""
    kinds = ", ".join(sorted(family.consoles))
    return f"`{family.key}`", family.label, kinds, _ports(family), out, likes, family.evidence


def _ports(family: Family) -> str:
    return "; ".join(f"{kind} {', '.join(written(ports))}" for kind, ports in family.needed_ports().items())


def settings() -> str:
    """A table of the settings of a section."""

    told = dict(_explained())
    fields = [field for field in dataclasses.fields(GenericFamily) if field.name != "key"]
    rows = [(f"`{_written(field.name)}`", _default(field), told[field.name]) for field in fields]
    return table(("setting", "default", "meaning"), rows)


def _explained() -> Iterator[tuple[str, str]]:
    """Names and explanations from the class's own words."""

    text = inspect.cleandoc(GenericFamily.__doc__ or "")
    for name, words in re.findall(r"^:ivar (\w+): (.*?)(?=\n:ivar|\Z)", text, re.MULTILINE | re.DOTALL):
        yield name, re.sub(r"``(\w+)``", lambda found: f"`{_written(found[1])}`", " ".join(words.split()))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default == ALL:
        return f"`{written(ALL)}`".replace("'", '"')
    if field.default_factory is not dataclasses.MISSING:
        return "`{}`"
    if field.default is dataclasses.MISSING:
        return "required"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{list(field.default) if isinstance(field.default, tuple) else field.default!r}`".replace("'", '"')


def _written(name: str) -> str:
    return name.replace("_", "-")


def update(document: str) -> str:
    """The document with fresh text between its markers. Raises ValueError if a marker is missing."""

    return filled(document, {"families": families(), "settings": settings()})


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(update(path.read_text()))


if __name__ == "__main__":
    main()
