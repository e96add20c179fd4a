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


def read_section(
    section: str,
    declaration: Any,
    raw: Mapping[str, Any],
    problems: list[Problem],
    elsewhere: Callable[[str], str] = lambda _name: "",
) -> dict[str, Any]:
    """The settings that stand in a section, by name. ``declaration`` is its dataclass; ``elsewhere`` says in words
    where a name belongs that is not declared, if anywhere."""

    declared = {item.name: item for item in dataclasses.fields(declaration)}
    values: dict[str, Any] = {}
    for written, value in raw.items():
        name = written.replace("-", "_")
        key = f"{section}.{name}"
        if name not in declared:
            hint = elsewhere(name) or suggestion(name, declared)
            problems.append(Problem(f"{section}.{written}", f"there is no such setting{hint}"))
        elif name in values:
            problems.append(Problem(key, "is set twice, once with - and once with _"))
        else:
            values[name] = declared[name].default
            try:
                values[name] = declared[name].metadata["kind"](value)
            except KindError as error:
                problems += [Problem(key + place, explanation) for place, explanation in error.mistakes]
    return values
