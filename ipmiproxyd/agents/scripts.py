"""Files of ours that an agent's Python runs without having them: they are handed to it by standard input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

# The last line: where sudo asked nobody for a password, the line with it is left in front.
LOAD: Final = (
    "import json, sys; given = json.loads(sys.stdin.readlines()[-1]); names = {'__name__': 'given'};"
    " exec(compile(given.pop('program'), 'given.py', 'exec'), names); names['main'](given)"
)

SEVERAL: Final = """
import sys, types

def main(given):
    for name, text in given.pop("modules").items():
        above, _, last = name.rpartition(".")
        module = types.ModuleType(name)
        parent = sys.modules.setdefault(above, types.ModuleType(above))
        sys.modules[name] = module
        exec(compile(text, f"{name}.py", "exec"), module.__dict__)
        setattr(parent, last, module)
    module.main(given)
"""


def script_argv(python: str) -> tuple[str, ...]:
    """The command that runs what :func:`script_input` or :func:`modules_input` gives it."""

    return (python, "-I", "-S", "-c", LOAD)


def script_input(program: str, given: Mapping[str, Any]) -> bytes:
    """A program's text, and what its ``main`` is given."""

    return json.dumps({"program": program, **given}).encode()


def modules_input(modules: Mapping[str, str], given: Mapping[str, Any]) -> bytes:
    """Texts of modules of one package by their full names, each after those that it imports, and what the last one's
    ``main`` is given. They find each other by these names, and nothing else of the package."""

    return script_input(SEVERAL, {**given, "modules": modules})
