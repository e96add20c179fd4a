"""Declarations: types, checks, hints and help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.control.arguments import (
    Argument,
    ArgumentType,
    Choice,
    Duration,
    DurationOrNever,
    Flag,
    Integer,
    Name,
    SecretText,
    Text,
    UnfitError,
    show_duration,
)
from ipmiproxyd.control.declare import Call, Command, CommandTable
from ipmiproxyd.errors import BadRequest, BadValue, MissingArgument, ProxyError, UnknownArgument, UnknownCommand
from ipmiproxyd.model import Secret
from ipmiproxyd.wire.control import Help, Request

NAME = Argument("name", Name(), "its name", required=True)
PORT = Argument("port", Integer(1, 65535), "its port", default=623)
PASSWORD = Argument("password", SecretText(8), "its password")
KIND = Argument("kind", Choice(("reuse", "new", "replace")), "which", default="reuse")
IDLE: Argument[float | None] = Argument("idle", DurationOrNever(1, 3600), "how long", default=None)


async def nothing(_call: Call) -> Mapping[str, Any]:
    return {}


ADD = Command(noun="device", verb="add", summary="Add.", handler=nothing, arguments=(NAME, PORT, PASSWORD, KIND, IDLE))
TABLE = CommandTable(
    [
        ADD,
        Command(noun="device", verb="list", summary="List.", handler=nothing),
        Command(noun="power", verb="cycle", summary="Cycle.", handler=nothing),
    ]
)


class TypeTests(SynchronousTestCase):
    def check(self, kind: ArgumentType[Any], good: Mapping[str, Any], bad: tuple[str, ...]) -> None:
        for text, value in good.items():
            self.assertEqual(kind.parse(text), value, text)
        for text in bad:
            with self.assertRaises(UnfitError, msg=text):
                kind.parse(text)

    def test_text(self) -> None:
        self.check(Text(3), {"": "", "ä b": "ä b"}, ("abcd",))

    def test_name(self) -> None:
        longest = "n" * 64
        self.check(
            Name(),
            {"node-17.rack_4": "node-17.rack_4", "7": "7", longest: longest},
            ("", ".", "..", "-a", "a b", "a/b", "ä", "n\n", longest + "n"),
        )

    def test_integer(self) -> None:
        self.check(Integer(-1, 20), {"-1": -1, "020": 20}, ("", "-2", "21", "1.0", "1e1", "٣", " 1", "9" * 5000))

    def test_flag(self) -> None:
        self.check(Flag(), {"yes": True, "no": False}, ("", "true", "Yes"))
        self.assertEqual((Flag().show(True), Flag().show(False)), ("yes", "no"))

    def test_choice(self) -> None:
        self.check(KIND.type, {"new": "new"}, ("", "New"))
        with self.assertRaises(UnfitError) as caught:
            KIND.type.parse("replase")
        self.assertEqual(caught.exception.hint, 'Did you mean "replace"?')

    def test_duration(self) -> None:
        self.check(
            Duration(0.5, 7 * 86400),
            {
                "30s": 30.0,
                "10m": 600.0,
                "8h": 28800.0,
                "1h30m": 5400.0,
                "2d": 172800.0,
                "90": 90.0,
                "0.5": 0.5,
                "1m0.5s": 60.5,
            },
            ("", "never", "10 m", "m", "30m1h", "-1", "0.4", "8d", "10ms", "1e3", "nan", "1h1h"),
        )

    def test_duration_or_never(self) -> None:
        self.check(DurationOrNever(1, 60), {"never": None, "1m": 60.0}, ("0", "61", "Never"))

    def test_durations_are_shown_as_they_are_written(self) -> None:
        for text in ("never", "0s", "0.5s", "30s", "10m", "1h30m", "8h", "1d1h", "1m0.25s"):
            value = None if text == "never" else Duration(0, 1e6).parse(text)
            self.assertEqual(show_duration(value), text)


class BindTests(SynchronousTestCase):
    def test_given_and_defaults(self) -> None:
        values = ADD.bind([("name", "n1"), ("password", "hunter2"), ("idle", "10m")])
        self.assertEqual(values[NAME], "n1")
        self.assertEqual(values[PORT], 623)
        self.assertEqual(values[PASSWORD].reveal(), "hunter2")
        self.assertEqual(values[IDLE], 600.0)
        self.assertIn(IDLE, values)
        self.assertNotIn(PORT, values)

    def test_a_default_may_be_none(self) -> None:
        self.assertIsNone(ADD.bind([("name", "n1")])[IDLE])

    def test_neither_given_nor_default(self) -> None:
        values = ADD.bind([("name", "n1")])
        given: Secret | None = values.get(PASSWORD)
        self.assertIsNone(given)
        self.assertRaises(KeyError, lambda: values[PASSWORD])

    def test_undeclared_is_our_mistake(self) -> None:
        values = ADD.bind([("name", "n1")])
        other = Argument("other", Text(), "", default="x")
        self.assertRaises(KeyError, lambda: values.get(other))

    def test_another_name(self) -> None:
        version = Argument("version", Name(), "its name", instead_of=("name",))
        use = Command(noun="java", verb="use", summary="Use.", handler=nothing, arguments=(version,))
        self.assertEqual(self.assertRaises(UnknownArgument, use.bind, [("name", "x")]).hint,
                         'Did you mean "version="?')  # fmt: skip

    def test_unknown(self) -> None:
        error = self.assertRaises(UnknownArgument, ADD.bind, [("nane", "x")])
        self.assertEqual(error.message, 'device add has no argument "nane".')
        self.assertEqual(error.hint, 'Did you mean "name="?')
        error = self.assertRaises(UnknownArgument, ADD.bind, [("zzz", "x")])
        self.assertEqual(error.hint, "It takes: name, port, password, kind, idle.")
        error = self.assertRaises(UnknownArgument, TABLE.find("device", "list").bind, [("zzz", "x")])
        self.assertEqual(error.hint, "It takes no arguments.")

    def test_twice(self) -> None:
        error = self.assertRaises(BadRequest, ADD.bind, [("name", "n1"), ("name", "n1")])
        self.assertEqual(error.message, "name is given twice.")

    def test_hyphens_are_underscores(self) -> None:
        dry_run = Argument("dry_run", Flag(), "change nothing", default=False)
        run = Command(noun="agent", verb="run", summary="Run.", handler=nothing, arguments=(dry_run,))
        for name in ("dry_run", "dry-run"):
            self.assertTrue(run.bind([(name, "yes")])[dry_run])
        twice = self.assertRaises(BadRequest, run.bind, [("dry-run", "yes"), ("dry_run", "yes")])
        self.assertEqual(twice.message, "dry_run is given twice.")
        unknown = self.assertRaises(UnknownArgument, run.bind, [("dry-rum", "yes")])
        self.assertEqual((unknown.message, unknown.hint),
                         ('agent run has no argument "dry-rum".', 'Did you mean "dry_run="?'))  # fmt: skip

    def test_missing(self) -> None:
        error = self.assertRaises(MissingArgument, ADD.bind, [])
        self.assertEqual(error.message, "device add needs name=.")
        self.assertEqual(error.hint, "Usage: device add name=… [port=…] [password=…] [kind=…] [idle=…]")

    def test_bad_value(self) -> None:
        error = self.assertRaises(BadValue, ADD.bind, [("name", "n1"), ("port", "many")])
        self.assertEqual(error.message, 'port: "many" is not a whole number from 1 to 65535.')

    def test_long_values_are_cut(self) -> None:
        error = self.assertRaises(BadValue, ADD.bind, [("name", "x" * 60_000)])
        self.assertLess(len(error.message), 120)

    def test_bad_secrets_are_not_repeated(self) -> None:
        error = self.assertRaises(BadValue, ADD.bind, [("name", "n1"), ("password", "hunter2-and-more")])
        self.assertEqual(error.message, "password: the value is longer than 8 characters.")


class TableTests(SynchronousTestCase):
    def refusal(self, noun: str, verb: str) -> tuple[str, str | None]:
        error = self.assertRaises(UnknownCommand, TABLE.find, noun, verb)
        return error.message, error.hint

    def test_found(self) -> None:
        command, values = TABLE.bind(Request("device", "add", (("name", "n1"),)))
        self.assertIs(command, ADD)
        self.assertEqual(values[NAME], "n1")

    def test_hints(self) -> None:
        self.assertEqual(self.refusal("device", "lst"), ('device has no verb "lst".', 'Did you mean "device list"?'))
        self.assertEqual(self.refusal("device", "zzz"), ('device has no verb "zzz".', "One of: add, list."))
        self.assertEqual(self.refusal("device", ""), ("device needs a verb.", "One of: add, list."))
        self.assertEqual(self.refusal("devcie", "lst")[1], 'Did you mean "device list"?')
        self.assertEqual(self.refusal("pwoer", ""), ('There is no command "pwoer".', 'Did you mean "power"?'))
        self.assertEqual(self.refusal("cycle", "power")[1], 'Did you mean "power cycle"?')
        self.assertEqual(self.refusal("zzz", "zzz")[1], "There are: device, power. See: help")

    def test_mistakes_in_declarations(self) -> None:
        for commands in (
            [ADD, ADD],
            [Command(noun="a", verb="", summary="", handler=nothing)],
            [Command(noun="a", verb="b", summary="", handler=nothing, arguments=(NAME, NAME))],
        ):
            self.assertRaises(ValueError, CommandTable, commands)

    def test_help(self) -> None:
        rows = TABLE.help(Help())["commands"]
        self.assertEqual([row["command"] for row in rows], ["device add", "device list", "power cycle", "help", "quit"])
        self.assertEqual(
            TABLE.help(Help("power")),
            {
                "noun": "power",
                "commands": [
                    {
                        "command": "power cycle",
                        "noun": "power",
                        "verb": "cycle",
                        "summary": "Cycle.",
                        "usage": "power cycle",
                    }
                ],
            },
        )

    def test_help_of_a_command(self) -> None:
        told = TABLE.help(Help("device", "add"))
        self.assertEqual(told["summary"], "Add.")
        self.assertEqual(
            told["arguments"][0],
            {"name": "name", "type": "name", "required": True, "default": None, "secret": False, "help": "its name"},
        )
        self.assertEqual([row["default"] for row in told["arguments"]], [None, "623", None, "reuse", "never"])
        self.assertEqual([row["name"] for row in told["arguments"] if row["secret"]], ["password"])

    def test_help_of_the_unknown(self) -> None:
        for asked in (Help("zzz"), Help("device", "zzz")):
            self.assertRaises(ProxyError, TABLE.help, asked)
