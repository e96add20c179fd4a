"""Commands declare themselves: from their declarations come the checks, the help, the hints and the documentation."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ipmiproxyd.control.arguments import Argument, Values, meant, quoted
from ipmiproxyd.errors import BadRequest, MissingArgument, UnknownArgument, UnknownCommand
from ipmiproxyd.interfaces import Progress
from ipmiproxyd.wire.control import Help, Request


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way through a command's handler."""

    values: Values
    progress: Progress


Handler = Callable[[Call], Coroutine[Any, Any, Mapping[str, Any]]]
"""Carries a request out and returns the object of its OK. It may be cancelled; it raises ProxyError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """``noun verb [key=value …]``. ``summary`` is one line in plain words."""

    noun: str
    verb: str
    summary: str
    handler: Handler
    arguments: tuple[Argument[Any], ...] = ()

    @property
    def usage(self) -> str:
        return " ".join([self.noun, self.verb, *(argument.usage for argument in self.arguments)])

    def bind(self, given: Iterable[tuple[str, str]]) -> Values:
        """Check what was written against what is declared. A name may also be written with hyphens for its underscores.

        Raises UnknownArgument, MissingArgument, BadValue, and BadRequest for an argument that is given twice.
        """

        declared = {argument.name: argument for argument in self.arguments}
        also = {argument.also: argument.name for argument in self.arguments if argument.also}
        values: dict[str, Any] = {}
        for written, text in given:
            name = written.replace("-", "_")
            name = also.get(name, name)
            if name not in declared:
                raise self._unknown(written)
            if name in values:
                raise BadRequest(f"{name} is given twice.")
            values[name] = declared[name].parse(text)
        missing = [name for name, argument in declared.items() if argument.required and name not in values]
        if missing:
            raise MissingArgument(
                f"{self.noun} {self.verb} needs {' and '.join(f'{name}=' for name in missing)}.",
                hint=f"Usage: {self.usage}",
            )
        return Values(values, frozenset(declared))

    def _unknown(self, name: str) -> UnknownArgument:
        names = [argument.name for argument in self.arguments]
        plain = name.replace("-", "_")
        of_that_name = [argument.name for argument in self.arguments if plain in argument.instead_of]
        guess = of_that_name[0] if of_that_name else meant(plain, names)
        if guess is not None:
            hint = f'Did you mean "{guess}="?'
        elif names:
            hint = f"It takes: {', '.join(names)}."
        else:
            hint = "It takes no arguments."
        return UnknownArgument(f"{self.noun} {self.verb} has no argument {quoted(name)}.", hint=hint)

    def describe(self) -> dict[str, Any]:
        """A row for a table of commands."""

        return {
            "command": f"{self.noun} {self.verb}",
            "noun": self.noun,
            "verb": self.verb,
            "summary": self.summary,
            "usage": self.usage,
        }


_BUILT_IN = (
    {
        "command": "help",
        "noun": "help",
        "verb": "",
        "summary": "Tell what commands there are, or what one of them takes.",
        "usage": "help [noun [verb]]",
    },
    {
        "command": "quit",
        "noun": "quit",
        "verb": "",
        "summary": "Close the connection once all is answered.",
        "usage": "quit",
    },
)


class CommandTable:
    """Every command of the daemon. Raises ValueError for one that is declared twice or has no words."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self._commands: dict[tuple[str, str], Command] = {}
        for command in commands:
            key = (command.noun, command.verb)
            if key in self._commands or not all(key):
                raise ValueError(f"{command.noun} {command.verb} is declared twice, or without a verb")
            names = [argument.name for argument in command.arguments]
            if len(names) != len(set(names)) or any("-" in name for name in names):
                raise ValueError(f"{command.noun} {command.verb} declares an argument twice, or one with a hyphen")
            self._commands[key] = command

    @property
    def commands(self) -> tuple[Command, ...]:
        """In the order of their declaration."""

        return tuple(self._commands.values())

    def find(self, noun: str, verb: str) -> Command:
        """Raises UnknownCommand with a hint at what was meant."""

        command = self._commands.get((noun, verb))
        if command is not None:
            return command
        verbs = self._verbs(noun)
        if verbs and not verb:
            raise UnknownCommand(f"{noun} needs a verb.", hint=f"One of: {', '.join(verbs)}.")
        if verbs:
            guess = meant(verb, verbs)
            hint = f"One of: {', '.join(verbs)}." if guess is None else f'Did you mean "{noun} {guess}"?'
            raise UnknownCommand(f"{noun} has no verb {quoted(verb)}.", hint=hint)
        raise UnknownCommand(f"There is no command {quoted(f'{noun} {verb}'.strip())}.", hint=self._guess(noun, verb))

    def bind(self, request: Request) -> tuple[Command, Values]:
        """The command that a request means, and its arguments."""

        command = self.find(request.noun, request.verb)
        return command, command.bind(request.arguments)

    def help(self, asked: Help) -> dict[str, Any]:
        """What ``help`` answers. Raises UnknownCommand."""

        if not asked.noun:
            return {"commands": [command.describe() for command in self.commands] + [dict(row) for row in _BUILT_IN]}
        if not asked.verb:
            if not self._verbs(asked.noun):
                self.find(asked.noun, "")
            rows = [command.describe() for command in self.commands if command.noun == asked.noun]
            return {"noun": asked.noun, "commands": rows}
        command = self.find(asked.noun, asked.verb)
        return {**command.describe(), "arguments": [argument.describe() for argument in command.arguments]}

    def _verbs(self, noun: str) -> list[str]:
        return [verb for known, verb in self._commands if known == noun]

    def _guess(self, noun: str, verb: str) -> str:
        if (verb, noun) in self._commands:
            return f'Did you mean "{verb} {noun}"?'
        nouns = list(dict.fromkeys(known for known, _ in self._commands))
        guess = meant(noun, nouns)
        if guess is not None:
            closest = meant(verb, self._verbs(guess)) if verb else None
            return f'Did you mean "{f"{guess} {closest}" if closest else guess}"?'
        return f"There are: {', '.join(nouns)}. See: help"
