"""docs/control-protocol.md is in step with the code."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.control import reference
from ipmiproxyd.model import ConsoleState
from ipmiproxyd.wire.control import MAX_LINE, Request, parse_reply, parse_request
from tests.support.control_fakes import Fakes

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "control-protocol.md"


class DocumentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = DOCUMENT.read_text()

    def test_what_is_generated_is_fresh(self) -> None:
        self.assertEqual(
            reference.update(self.text),
            self.text,
            "run: python -m ipmiproxyd.control.reference docs/control-protocol.md",
        )

    def test_every_command_and_code_is_there(self) -> None:
        for command in Fakes().table().commands:
            self.assertIn(f"\n### {command.noun} {command.verb}\n", self.text)
        for code in ("bad-request", "bmc-auth", "no-free-display", "internal"):
            self.assertIn(f"| `{code}` |", self.text)

    def test_every_state_of_a_console_is_there(self) -> None:
        for state in ConsoleState:
            self.assertIn(f"\n| `{state.value}` |", self.text)

    def test_the_grammar_tells_the_limit(self) -> None:
        self.assertIn(f"at most {MAX_LINE} bytes", reference.grammar())

    def test_examples_can_be_read(self) -> None:
        table = Fakes().table()
        requests = re.findall(r"^> (.*)$", self.text, re.MULTILINE)
        self.assertGreaterEqual(len(requests), 3)
        for line in requests:
            request = parse_request(line.encode())
            assert isinstance(request, Request)
            table.bind(request)
        for line in re.findall(r"^< ((?:\.\.|OK|ERR) .*)$", self.text, re.MULTILINE):
            if "…" not in line:
                parse_reply(line.encode())

    def test_a_document_without_markers_is_a_mistake(self) -> None:
        self.assertRaises(ValueError, reference.update, "# Nothing\n")
