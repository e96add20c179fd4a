"""Every family that has an HTML5 console, on the whole daemon and in a real Chromium."""

from __future__ import annotations

from typing import ClassVar

from ipmiproxyd.vendors.registry import by_key
from tests.integration.test_html5_console import Html5World
from tests.simulator import pages
from tests.simulator.vendors import PERSONALITIES

ATTRIBUTES = {"supermicro": {"firmware": "x11"}}
"""Of panels that have no such console by themselves."""

AFTER_THE_SHARP = ("xcc",)
"""Panels whose page has its token there, which no server sees."""


class EveryFamilyTests(Html5World):
    timeout: ClassVar[float] = 300

    async def test_from_the_command_to_the_key(self) -> None:
        shown: list[bool] = []
        page = pages.try_out

        def seen(server: str, *, signed_in: bool) -> str:
            shown.append(signed_in)
            return page(server, signed_in=signed_in)

        self.patch(pages, "try_out", seen)
        families = by_key()
        kinds = [kind for kind in PERSONALITIES if kind in families and "html5" in families[kind].consoles]
        self.assertGreater(len(kinds), 8)
        for kind in kinds:
            await self.visit(kind)
            if kind not in AFTER_THE_SHARP:
                self.assertEqual(shown[-1:], [True], kind)
            shown.clear()

    async def visit(self, kind: str) -> None:
        panel, opened = await self.html5(kind, **ATTRIBUTES.get(kind, {}))
        await self.key(panel, opened)
        for secret in self.secrets(panel):
            self.assert_unseen(secret)
        await self.close(opened["console"])
        await self.nothing_left()
        self.assertEqual(panel.signs[0], panel.signs[1], kind)
        self.assertEqual(panel.personality.sessions, {}, kind)
