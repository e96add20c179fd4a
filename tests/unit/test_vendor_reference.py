"""docs/vendors.md is in step with the code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.control import vendor_reference
from ipmiproxyd.vendors.generic import GenericFamily
from ipmiproxyd.vendors.registry import BUILT_IN
from tests.simulator.vendors.generic import SECTION

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "vendors.md"


class DocumentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = DOCUMENT.read_text()

    def test_what_is_generated_is_fresh(self) -> None:
        self.assertEqual(
            vendor_reference.update(self.text),
            self.text,
            "run: python -m ipmiproxyd.control.vendor_reference docs/vendors.md",
        )

    def test_everything_is_there(self) -> None:
        for family in BUILT_IN:
            self.assertIn(f"\n| `{family.key}` | {family.label} |", self.text)
        for field in dataclasses.fields(GenericFamily)[1:]:
            self.assertIn(f"\n| `{field.name.replace('_', '-')}` |", self.text)

    def test_the_example_is_the_one_that_is_tried(self) -> None:
        self.assertIn(f"```toml\n{SECTION}```\n", self.text)
