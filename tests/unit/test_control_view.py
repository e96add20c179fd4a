"""What ipmiproxyctl shows."""

from __future__ import annotations

import io
import json
import os
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.control.declare import CommandTable
from ipmiproxyd.control.view import (
    Facts,
    JsonView,
    PlainView,
    RichView,
    Table,
    View,
    choose_view,
    clean,
    plain_lines,
    progress_text,
    shape,
)
from ipmiproxyd.wire.control import Help, Refused
from tests.support.control_fakes import Fakes

REFUSED = Refused("not-found", "There is none.", "See: list", {"message": "There is none.", "hint": "See: list"})
EVIL = "a\x1b]0;x\x07\u202eb\nc"


def use_time_zone(name: str | None) -> None:
    os.environ.pop("TZ", None)
    if name is not None:
        os.environ["TZ"] = name
    time.tzset()


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class ShapeTests(SynchronousTestCase):
    def setUp(self) -> None:
        before = os.environ.get("TZ")
        self.addCleanup(use_time_zone, before)
        use_time_zone("UTC")

    def test_facts(self) -> None:
        data = {
            "console": "c1",
            "idle": None,
            "max": 5400.0,
            "opened": 1_700_000_000.5,
            "reused": False,
            "port": None,
            "uptime": 61.4,
        }
        self.assertEqual(
            shape(data),
            [
                Facts(
                    (
                        ("console", "c1"),
                        ("idle", "never"),
                        ("max", "1h30m"),
                        ("opened", "2023-11-14 22:13:20"),
                        ("reused", "no"),
                        ("port", "-"),
                        ("uptime", "1m1s"),
                    )
                )
            ],
        )

    def test_warnings_are_a_fact_each(self) -> None:
        self.assertEqual(shape({"warnings": ["one", "two"]}), [Facts((("warning", "one"), ("warning", "two")))])
        self.assertEqual(shape({"warnings": []}), [])

    def test_known_lists_have_chosen_columns(self) -> None:
        row = {"console": "c1", "device": "n1", "state": "ready", "viewers": 2, "idle": 600.0, "bmc": "10.0.0.1:623"}
        row |= {"agent": "east", "proxy": "racks", "agent_away": True}
        (table,) = shape({"consoles": [row]})
        assert isinstance(table, Table)
        columns = ("console", "device", "type", "user", "agent", "proxy", "state", "viewers", "idle")
        self.assertEqual(table.columns, columns)
        self.assertEqual(table.rows, (("c1", "n1", "", "", "east", "racks", "ready, agent away", "2", "10m"),))
        (table,) = shape({"consoles": [row | {"proxy": ""}]})
        assert isinstance(table, Table)
        self.assertEqual(table.columns, tuple(column for column in columns if column != "proxy"))
        self.assertEqual(plain_lines(shape({"devices": []})[0]), ["no devices"])

    def test_viewers(self) -> None:
        row = {"viewer": "g1", "user": "ann", "control": True, "credentials": False, "connected": 1, "steers": False}
        (table,) = shape({"viewers": [{**row, "peer": "192.0.2.9", "joined": 1_700_000_000.5}]})
        assert isinstance(table, Table)
        self.assertEqual(table.rows, (("g1", "ann", "yes", "no", "1", "no", "192.0.2.9", "2023-11-14 22:13:20"),))
        self.assertEqual(plain_lines(shape({"viewers": []})[0]), ["no viewers"])
        self.assertEqual(plain_lines(shape({"revoked": []})[0]), ["there was none"])
        self.assertEqual(shape({"viewers": 2}), [Facts((("viewers", "2"),))])

    def test_a_picture_is_no_text(self) -> None:
        (facts,) = shape({"bytes": 3, "png": "AAAA"})
        assert isinstance(facts, Facts)
        self.assertIn("4 characters", dict(facts.rows)["png"])
        self.assertNotIn("AAAA", str(facts))

    def test_other_lists_have_the_columns_that_occur(self) -> None:
        data = {"hosts": [{"name": "local", "displays": {"total": 9, "in_use": 1}}, {"name": "east", "why": "down"}]}
        (table,) = shape(data)
        assert isinstance(table, Table)
        self.assertEqual(table.columns, ("name", "displays", "why"))
        self.assertEqual(table.rows, (("local", "total 9, in_use 1", ""), ("east", "", "down")))

    def test_families(self) -> None:
        family = {"vendor": "imm2", "label": "IBM", "evidence": "6 projects", "consoles": ["java"],
                  "ports": {"java": ["623", "5900-5901"]}, "signs_out": "after-jnlp", "slot_seconds": 600}  # fmt: skip
        (table,) = shape({"vendors": [family, {**family, "signs_out": "none", "slot_seconds": None}]})
        assert isinstance(table, Table)
        columns = ("vendor", "label", "consoles", "ports", "signs out", "forgets after", "evidence")
        self.assertEqual(table.columns, columns)
        self.assertEqual(table.rows[0], ("imm2", "IBM", "java", "java 623, 5900-5901", "at once", "10m", "6 projects"))
        self.assertEqual(table.rows[1][4:6], ("cannot", "-"))
        self.assertEqual(shape({"consoles": ["html5", "java"]}), [Facts((("consoles", "html5, java"),))])

    def test_javas(self) -> None:
        java = {"name": "debian_17", "version": "17", "used": True, "windows": True, "unpacks": False, "home": "/j"}
        told = {"use": "jdk_8u121", "warnings": ["It is missing."], "installed": [java], "available": []}
        facts, installed, available = shape(told)
        self.assertEqual(facts, Facts((("use", "jdk_8u121"), ("warning", "It is missing."))))
        self.assertEqual(plain_lines(installed)[1].split(), ["debian_17", "17", "yes", "yes", "no", "/j"])
        self.assertEqual(plain_lines(available), ["no other is known"])

    def test_nested_facts(self) -> None:
        data = {"relay": {"ports": "1-2", "listen": ["a", "b"]}, "names": []}
        self.assertEqual(shape(data), [Facts((("relay ports", "1-2"), ("relay listen", "a, b"), ("names", "-")))])

    def test_help(self) -> None:
        table: CommandTable = Fakes().table()
        (commands,) = shape(table.help(Help()))
        assert isinstance(commands, Table)
        self.assertEqual(commands.columns, ("command", "summary"))
        self.assertIn(("power cycle", "Switch the server off, and on again."), commands.rows)
        (commands,) = shape(table.help(Help("daemon")))
        self.assertEqual(plain_lines(commands)[1], "daemon status  Tell how the daemon and its agents are.")
        facts, arguments = shape(table.help(Help("console", "url")))
        assert isinstance(facts, Facts)
        assert isinstance(arguments, Table)
        self.assertEqual([name for name, _ in facts.rows], ["summary", "usage"])
        self.assertEqual(arguments.rows, (("console", "name", "-", "the console's id"),))

    def test_nothing_steers_the_terminal(self) -> None:
        self.assertEqual(clean(EVIL), "a\ufffd]0;x\ufffd\ufffdb c")
        for block in shape(
            {EVIL: EVIL, "list": [EVIL], "map": {EVIL: EVIL}, "devices": [{"name": EVIL}], "x": [{EVIL: EVIL}]}
        ):
            text = "\n".join(plain_lines(block))
            self.assertNotIn("\x1b", text)
            self.assertNotIn("\u202e", text)
        self.assertNotIn("\x1b", progress_text({"text": EVIL}))

    def test_progress(self) -> None:
        self.assertEqual(progress_text({"stage": "display", "text": "Starting", "ms": 1234}), "  1.23 s  Starting")
        self.assertEqual(progress_text({"stage": "display"}), "display")
        self.assertEqual(progress_text({"n": 1}), '{"n": 1}')
        self.assertEqual(progress_text({"text": "Unpacking", "percent": 41.7}), "Unpacking  42 %")


class ViewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()

    def show(self, view: View, data: dict[str, Any]) -> str:
        view.done(data)
        return self.out.getvalue()

    def test_plain(self) -> None:
        view = PlainView(self.out, self.err)
        view.progress({"text": "Starting"})
        text = self.show(view, {"url": "http://x", "stages": [{"label": "A", "begun_ms": 1, "done_ms": 23}]})
        self.assertEqual(text, "url: http://x\nLABEL  BEGUN MS  DONE MS\nA      1         23\n")
        view.refused(REFUSED)
        self.assertEqual(self.err.getvalue(), "Starting\nerror (not-found): There is none.\nhint: See: list\n")

    def test_limits(self) -> None:
        text = self.show(PlainView(self.out, self.err), {"limits": {"per_user": 0, "displays": 100}})
        self.assertEqual(text, "limits per user: none\nlimits displays: 100\n")

    def test_json(self) -> None:
        view = JsonView(self.out, self.err)
        view.progress({"text": "Starting"})
        view.done({"a": [1, {"b": None}]})
        view.refused(REFUSED)
        first, second = (json.loads(line) for line in self.out.getvalue().splitlines())
        self.assertEqual(first, {"a": [1, {"b": None}]})
        self.assertEqual(second, {"code": "not-found", "message": "There is none.", "hint": "See: list"})
        self.assertEqual(self.err.getvalue(), "error (not-found): There is none.\nhint: See: list\n")

    def test_json_tells_a_terminal_of_progress(self) -> None:
        self.err = Terminal()
        JsonView(self.out, self.err).progress({"text": "Starting"})
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("", "Starting\n"))

    def test_rich(self) -> None:
        self.out, self.err = Terminal(), Terminal()
        url = "http://gate.example.net:6081/#t=" + "x" * 200
        view = choose_view(as_json=False, out=self.out, err=self.err)
        self.assertIsInstance(view, RichView)
        view.progress({"text": "Starting [b]it[/b]", "ms": 10})
        text = self.show(view, {"url": url, "warnings": ["old"], "devices": [{"name": "[red]n1"}], "consoles": []})
        view.refused(REFUSED)
        view.end()
        self.assertIn(url, text)
        self.assertIn("[red]n1", text)
        self.assertIn("no consoles", text)
        self.assertIn("Starting [b]it[/b]", self.err.getvalue())
        self.assertIn("error (not-found): There is none.", self.err.getvalue())

    def test_findings(self) -> None:
        rows = [
            {"what": "clock", "level": "ok", "words": "It goes as ours.", "advice": ""},
            {"what": "disk", "level": "warning", "words": "/run is almost full.", "advice": "Make room."},
            {"what": "fonts", "level": "fault", "words": "There is no [font].", "advice": "Install\x1b[31m one."},
        ]
        answer = {"name": "east", "problems": ["x"], "warnings": ["y"], "findings": rows}
        plain = [line for block in shape(answer) for line in plain_lines(block)]
        self.assertEqual(
            plain,
            [
                "name: east",
                "fault: fonts: There is no [font].",
                "    Install\N{REPLACEMENT CHARACTER}[31m one.",
                "warning: disk: /run is almost full.",
                "    Make room.",
                "ok: clock: It goes as ours.",
                "1 fault, 1 warning, 1 ok",
            ],
        )
        self.out, self.err = Terminal(), Terminal()
        text = self.show(choose_view(as_json=False, out=self.out, err=self.err), answer)
        places = [text.index(words) for words in ("no [font]", "Make room", "as ours", "1 fault, 1 warning, 1 ok")]
        self.assertEqual(places, sorted(places))
        self.assertNotIn("problems", text)

    def test_which(self) -> None:
        self.assertIsInstance(choose_view(as_json=False, out=self.out, err=self.err), PlainView)
        self.assertIsInstance(choose_view(as_json=True, out=Terminal(), err=self.err), JsonView)


class NumbersTests(SynchronousTestCase):
    def test_a_count_is_no_moment(self) -> None:
        """The word "ready" is a moment of one console, but a number among counts."""

        (facts,) = shape({"consoles": {"ready": 2}})
        assert isinstance(facts, Facts)
        self.assertEqual(facts.rows, (("consoles ready", "2"),))
