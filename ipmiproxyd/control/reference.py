"""The parts of docs/control-protocol.md that the code itself knows: the grammar, the codes, the commands.

``python -m ipmiproxyd.control.reference FILE`` writes them between the file's markers.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipmiproxyd import errors
from ipmiproxyd.control.arguments import Argument, Unset
from ipmiproxyd.control.commands import Defaults, make_commands
from ipmiproxyd.control.commands.bmc import TARGET
from ipmiproxyd.control.declare import Command
from ipmiproxyd.errors import all_errors
from ipmiproxyd.wire import control


def grammar() -> str:
    """The grammar, as it stands at the top of :mod:`ipmiproxyd.wire.control`."""

    text = inspect.cleandoc(control.__doc__ or "")
    indented = re.search(r"::\n\n((?:    .*\n|\n)+)", text)
    if indented is None:
        raise ValueError("the module has no grammar")
    return f"```abnf\n{inspect.cleandoc(indented[1])}\n```\n"


def codes() -> str:
    """A table of the error codes."""

    known = [error for error in all_errors() if error.__module__ == errors.__name__]
    rows = [(f"`{error.code}`", _one_line(error.__doc__ or "")) for error in known]
    return table(("code", "meaning"), rows)


def target() -> str:
    """The arguments that tell which BMC a request means."""

    return _arguments(TARGET)


def commands() -> str:
    """Every command with its own arguments."""

    nobody: Any = None  # nothing is carried out: only the declarations are read
    known = make_commands(nobody, nobody, nobody, nobody, nobody, nobody, nobody, nobody, nobody, Defaults())
    return "\n".join(_command(command) for command in known.commands)


def _command(command: Command) -> str:
    text = f"### {command.noun} {command.verb}\n\n{command.summary}\n"
    own = [argument for argument in command.arguments if argument not in TARGET]
    if not all(argument in command.arguments for argument in TARGET):
        own = list(command.arguments)
    elif own:
        text += "\nIt takes the BMC, and:\n"
    return f"{text}\n{_arguments(own)}" if own else text


def _arguments(arguments: Sequence[Argument[Any]]) -> str:
    return table(("argument", "type", "default", "meaning"), map(_row, arguments))


def _row(argument: Argument[Any]) -> tuple[str, ...]:
    if argument.required:
        default = "required"
    elif isinstance(argument.default, Unset):
        default = ""
    else:
        shown = argument.type.show(argument.default)
        default = f"`{shown}`" if shown else ""
    return f"`{argument.name}`", argument.type.label, default, argument.help


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def update(document: str) -> str:
    """The document with fresh text between its markers. Raises ValueError if a marker is missing."""

    return filled(
        document, {"grammar": grammar(), "codes": codes(), "target": target(), "commands": commands()}
    )


def filled(document: str, sections: Mapping[str, str]) -> str:
    """The document with these texts between their markers. Raises ValueError if a marker is missing."""

    for name, text in sections.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->\n"
        head, found, rest = document.partition(begin)
        _, ended, tail = rest.partition(end)
        if not found or not ended:
            raise ValueError(f"the document has no markers for {name}")
        document = f"{head}{begin}\n{text}\n{end}{tail}"
    return document


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(update(path.read_text()))


if __name__ == "__main__":
    main()
