"""The fields of what is stored, as ``… add`` and ``… set`` take them."""

from __future__ import annotations

import dataclasses
from typing import Any

from ipmiproxyd.control.arguments import UNSET, Argument, Values

Fields = tuple[Argument[Any], ...]


def to_add(fields: Fields, *needed: Argument[Any]) -> Fields:
    """For something new, which takes those that are ``needed``."""

    return tuple(dataclasses.replace(field, required=field in needed) for field in fields)


def to_change(fields: Fields) -> Fields:
    """For something that is there: what is not given stays as it is."""

    return tuple(dataclasses.replace(field, default=UNSET) for field in fields)


def given_fields(values: Values, fields: Fields) -> dict[str, Any]:
    """Those of ``fields`` that are on the request."""

    return {field.name: values[field] for field in fields if field in values}
