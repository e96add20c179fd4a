"""The engine as it travels to a host: the modules of ``host/``, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def engine_argv(python: str) -> tuple[str, ...]:
    return (python,)


def engine_input(document: Mapping[str, Any]) -> bytes:
    """Blocks: it reads the files."""

    return b""
