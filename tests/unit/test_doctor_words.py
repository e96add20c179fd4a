"""docs/doctor.md tells of every finding that there can be, and of no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
WORD = re.compile(r"[a-z]+(-[a-z]+)*")


def named() -> Iterator[str]:
    """What findings and the doctor's steps are called in the code, where that is written out."""

    for path in (ROOT / "ipmiproxyd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())) if "node_modules" not in path.parts else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Finding", "Step"):
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield str(first.value)


class WordsTests(SynchronousTestCase):
    def test_every_finding_stands_in_the_documentation(self) -> None:
        text = (ROOT / "docs" / "doctor.md").read_text()
        told = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))
        found = set(named())
        self.assertGreater(len(found), 20)
        self.assertTrue(all(WORD.fullmatch(word) for word in found), found)
        self.assertEqual(found, told)
