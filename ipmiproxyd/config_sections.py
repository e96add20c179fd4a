"""Sections of the configuration file: how their settings are declared, and how they are read."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ipmiproxyd.config_kinds import Kind, KindError

T = TypeVar("T")


def setting(kind: Kind[T], default: object) -> T:
    """Declare a setting: ``default`` as it would stand in the file."""

    return field(default=kind(default), metadata={"kind": kind})


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where ("relay.ports", "line 12", a path) and an explanation in plain words."""

    key: str
    explanation: str

    def __str__(self) -> str:
        return f"{self.key}: {self.explanation}"


def suggestion(written: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(written.lower().replace("-", "_"), list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def suggestion_in(_section: str, declared: Iterable[str], name: str) -> str:
    return suggestion(name, declared)


def read_section(
    section: str,
    declaration: Any,
    raw: Mapping[str, Any],
    problems: list[Problem],
    hint: Callable[[str, Iterable[str], str], str],
) -> dict[str, Any]:
    """The settings that stand in a section, by name. ``declaration`` is its dataclass; ``hint`` says in words what else
    may be meant by a name that is not declared."""

    declared = {item.name: item for item in dataclasses.fields(declaration)}
    values: dict[str, Any] = {}
    for written, value in raw.items():
        name = written.replace("-", "_")
        key = f"{section}.{name}"
        if name not in declared:
            problems.append(
                Problem(f"{section}.{written}", f"there is no such setting{hint(section, declared, name)}")
            )
        elif name in values:
            problems.append(Problem(key, "is set twice, once with - and once with _"))
        else:
            values[name] = declared[name].default
            try:
                values[name] = declared[name].metadata["kind"](value)
            except KindError as error:
                problems += [Problem(key + place, explanation) for place, explanation in error.mistakes]
    return values
