"""The cable between the panel host and an agent is pulled: for a moment, and for good."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.integration.test_whole import HEADER
from tests.simulator.pages import CANVAS, TEXT_BOX
from tests.support import leftovers
from tests.support.hosts_world import HostsWorld
from tests.support.viewer import Page, Viewer

PULLED = 5.0
TOLD_WITHIN = 20.0
PROMPT = 5.0
"""Seconds within which the other agent answers, whatever becomes of the first."""


class PulledForAMomentTests(HostsWorld):
    small = False
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)

    async def visit(self, url: str) -> Page:
        with self.hosts.panel.entered():
            viewer = Viewer(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(viewer.stop()))
        await viewer.ready()
        page = await viewer.open(url)
        await page.phase("connected")
        return page

    async def test_the_page_goes_on(self) -> None:
        """What was typed while the cable was out arrives, and the screen is as it was."""

        opened = await self.opened("device=east1 agent=east")
        page = await self.visit(opened["url"])
        panel = self.east.servers[1].panel
        await page.wait_pixel((640, 32), HEADER)
        await page.click_at(640, 300)
        await panel.recorded("request", lambda event: event["path"] == "/")
        for _ in range(3):
            await page.press("Tab")
        await page.press("Enter")
        await page.wait_pixel((CANVAS[0] + 400, CANVAS[1] + 390), (255, 255, 255))
        await page.click_at(TEXT_BOX[0] + 50, TEXT_BOX[1] + 20)
        await page.type("one ")
        await panel.recorded("text", lambda event: event.get("value") == "one ")
        self.east.pull_cable()
        await page.type("two ")
        await leftovers.pause(PULLED)
        self.east.plug_cable()
        await page.type("three")
        await panel.recorded("text", lambda event: event.get("value") == "one two three", limit=20.0)
        await page.phase("connected")
        await page.wait_pixel((640, 32), HEADER)
        await self.close(opened["console"])
        await page.phase("over")
        await self.nothing_left()


class PulledForGoodTests(HostsWorld):
    lease = "6s"
    bmcs: ClassVar[Sequence[tuple[str, int]]] = (("west", 1),)
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)

    async def test_the_agent_is_clean_and_the_daemon_goes_on(self) -> None:
        opened = await self.opened("device=east1 agent=east")
        viewer = await self.use(opened["url"])
        self.assertNotEqual(self.east.host.console_processes(), {})
        self.east.pull_cable()
        begun = time.monotonic()
        asking = (await self.connect()).ask("power status device=east1 agent=east")
        while (told := await self.agent_told("east"))["connected"] or not asking.called:
            self.assertLess(time.monotonic() - begun, TOLD_WITHIN)
            asked = time.monotonic()
            self.assertEqual(await self.power(self.west), ("", "off"))
            self.assertLess(time.monotonic() - asked, PROMPT)
            await leftovers.pause(0.2)
        self.assertEqual(((await asking).code, told["code"]), ("agent-unreachable", "agent-unreachable"))
        self.assertIn("has not answered for", told["problem"])
        await viewer.gone()
        await self.east.host.is_clean(away=True)

        asked = time.monotonic()
        reply = await self.client.ask("console open device=east1 agent=east existing=new")
        self.assertEqual(reply.code, "agent-unreachable")
        self.assertLess(time.monotonic() - asked, PROMPT)
        self.east.plug_cable()
        closed = await self.closes(opened["console"], limit=30.0)
        self.assertEqual(closed["reason"], "job-failed")
        self.assertIn("no sign of life", closed["message"])
        self.assertEqual(await self.power(self.east), ("", "off"))
        await self.nothing_left()
