"""Panels by their names, and by IPv6: curl and the browser of one console come to the same host."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from tests.simulator.panel import Settings
from tests.simulator.server import SimulatedPanel
from tests.support.world import World


class HostTests(World):
    timeout: ClassVar[float] = 60

    async def shows(self, panel: SimulatedPanel, words: str) -> None:
        opened = await self.opened(words)
        self.assertEqual(opened["warnings"], [])
        await panel.recorded("request", lambda event: event["path"] == "/favicon.ico")  # for a page that is there
        await self.close(opened["console"])
        await self.nothing_left()

    async def test_a_name(self) -> None:
        panel = self.server.panel
        await self.shows(panel, f"address=127.0.0.1 web={panel.url.replace('127.0.0.1', 'localhost')}")

    async def test_an_unknown_name(self) -> None:
        reply = await self.open("address=127.0.0.1 web=https://no-such-host.invalid")
        self.assertEqual(reply.code, "bmc-unreachable")
        self.assertIn("no-such-host.invalid", json.dumps(reply.body))
        self.assertNotIn("display", [told["stage"] for told in reply.progress])

    async def test_ipv6(self) -> None:
        folder = self.folder / "six"
        folder.mkdir()
        users: dict[str, Any] = {user.name: user.password for user in self.users}
        panel = SimulatedPanel(folder, Settings(address="::1", users=users, chassis=str(folder)))
        self.addCleanup(panel.stop)
        await panel.start()
        await self.shows(panel, f"address=::1 web={panel.url}")
