"""The main job, from the command on the control line to keys in the server's management panel."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ipmiproxyd.model import Secret
from tests.simulator.bmc import BmcUser
from tests.simulator.pages import CANVAS, TEXT_BOX
from tests.support import leftovers
from tests.support.viewer import Page, open_page
from tests.support.world import World

PASSWORD = "Vq7-unseen-4tZ"
HEADER = (23, 50, 77)
"""The colour of the simulated panel's header bar."""


class WholeTests(World):
    timeout: ClassVar[float] = 90
    users = (BmcUser("ADMIN", PASSWORD),)

    async def visit(self, url: str) -> Page:
        page = await open_page(self, url)
        await page.phase("connected")
        await page.wait_pixel((640, 32), HEADER)
        return page

    async def to_try(self, page: Page) -> None:
        """From the panel's sign-in page to its page with a text box and a canvas: by keyboard alone."""

        await page.click_at(640, 300)
        await self.server.panel.recorded("request", lambda event: event["path"] == "/")
        for _ in range(3):
            await page.press("Tab")
        await page.press("Enter")
        await self.server.panel.recorded("request", lambda event: event["path"] == "/try")
        await page.wait_pixel((CANVAS[0] + 400, CANVAS[1] + 390), (255, 255, 255))

    async def test_panel_in_the_browser(self) -> None:
        """The sign-in page is in the canvas; keys and a drag arrive; the password is nowhere to be seen."""

        opened = await self.opened()
        page = await self.visit(opened["url"])
        shots = Path("_trial_temp.shots")
        shots.mkdir(exist_ok=True)
        await page.screenshot(shots / "sign-in.png")
        await self.to_try(page)
        await page.click_at(TEXT_BOX[0] + 50, TEXT_BOX[1] + 20)
        await page.type("Hello, BMC 42!")
        await self.server.panel.recorded("text", lambda event: event.get("value") == "Hello, BMC 42!")
        await page.drag((CANVAS[0] + 100, CANVAS[1] + 100), (CANVAS[0] + 300, CANVAS[1] + 200))
        drag = await self.server.panel.recorded("drag")
        for told, meant in zip((*drag["points"][0], *drag["points"][-1]), (100, 100, 300, 200), strict=True):
            self.assertLess(abs(told - meant), 3)  # the page shows the screen scaled
        await page.screenshot(shots / "used.png")
        self.assertEqual((await self.show(opened["console"]))["viewers"], 1)
        await self.assert_private(page)

        await page.click("#close-button")
        await page.click("#close-yes")
        closed = await self.closes(opened["console"])
        self.assertEqual(closed["reason"], "viewer")
        await page.phase("over")
        await self.nothing_left()
        await self.assert_private(page)

    async def assert_private(self, page: Page) -> None:
        self.assert_unseen(PASSWORD)
        urls = [request["url"] for request in await page.requests()]
        self.assertFalse([url for url in urls if PASSWORD in url or "#t=" in url])
        self.assertNotIn("#t=", self.daemon.log_text())

    async def test_reload_and_second_viewer(self) -> None:
        opened = await self.opened()
        page = await self.visit(opened["url"])
        await page.reload()
        await page.phase("connected")
        other = await self.client.must(f"console url console={opened['console']}")
        second = await self.visit(other["url"])
        self.assertEqual((await self.show(opened["console"]))["viewers"], 2)
        thief = await open_page(self, opened["url"])
        await thief.phase("over")
        self.assertIn("already used", await thief.text("#card"))
        await self.close(opened["console"])
        for viewer in (page, second):
            await viewer.phase("over")
        await self.nothing_left()

    async def test_the_last_moments_and_stay(self) -> None:
        """Somebody is told before an idle console closes, and stays by a click that is no click on the server."""

        opened = await self.opened("device=node1 idle=8s")
        page = await self.visit(opened["url"])
        await page.see("#notice")
        Path("_trial_temp.shots").mkdir(exist_ok=True)
        self.assertRegex(await page.text("#notice-clock"), r"^[1-4] s$")
        await page.screenshot(Path("_trial_temp.shots") / "notice.png")
        await page.click("#notice-stay")
        await page.wait("document.querySelector('#notice').hidden")
        shown = await self.show(opened["console"])
        self.assertEqual((shown["state"], shown["closes_in"]), ("ready", None))
        await self.close(opened["console"])
        await page.phase("over")
        self.assertFalse(await page.visible("#notice"))
        await self.nothing_left()

    async def test_the_programs_end(self) -> None:
        """Whoever looks at a console whose display dies is told so, in words."""

        opened = await self.opened()
        page = await self.visit(opened["url"])
        for pid, command in leftovers.sandboxed(self.jobs).items():
            if "Xvnc" in command.split(" ")[0]:
                leftovers.kill(pid)
        closed = await self.closes(opened["console"])
        self.assertEqual(closed["reason"], "job-failed")
        self.assertIn("Xvnc", closed["message"])
        await page.phase("over")
        self.assertIn("Xvnc", await page.text("#card"))
        await self.nothing_left()

    async def test_power(self) -> None:
        await self.client.must("power on device=node1 wait=10s")
        await self.client.must("power cycle device=node1 wait=10s")
        self.assertEqual((await self.client.must("power status device=node1"))["power"], "on")
        again = await self.client.ask("power on device=node1")
        self.assertEqual(again.code, "bmc-state")

    async def test_wrong_password_is_asked_once(self) -> None:
        device = self.server.device(password=Secret("wrong"))
        words = f"address={device.address} port={device.port} username=ADMIN password=wrong cipher=3"
        for _ in range(2):
            self.assertEqual((await self.client.ask(f"power status {words}")).code, "bmc-auth")

    async def test_panel_that_does_not_answer(self) -> None:
        await self.server.panel.stop()
        reply = await self.open()
        self.assertEqual(reply.code, "bmc-unreachable")
        self.assertIn("Nothing answers", reply.body["message"])
        await self.nothing_left()
