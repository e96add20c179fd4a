"""A short run of what ``make soak`` does for long."""

from __future__ import annotations

from typing import ClassVar

from tests.soak import test_relay_fuzz


class FuzzTests(test_relay_fuzz.FuzzTests):
    messages: ClassVar[int] = 20_000
