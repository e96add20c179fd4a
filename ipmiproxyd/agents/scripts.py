"""Files of ours that an agent's Python runs without having them: they are handed to it by standard input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

LOAD: Final = (
    "import json, sys; given = json.load(sys.stdin); names = {'__name__': 'given'};"
    " exec(compile(given.pop('program'), 'given.py', 'exec'), names); names['main'](given)"
)


def script_argv(python: str) -> tuple[str, ...]:
    """The command that runs what :func:`script_input` gives it."""

    return (python, "-I", "-S", "-c", LOAD)


def script_input(program: str, given: Mapping[str, Any]) -> bytes:
    """A program's text, and what its ``main`` is given."""

    return json.dumps({"program": program, **given}).encode()
