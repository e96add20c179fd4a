"""What the relay types for a viewer, in real browsers, on the running daemon. The password never comes to them."""

from __future__ import annotations

from typing import ClassVar

from tests.integration.test_sharing import posted
from tests.simulator.bmc import BmcUser
from tests.support.screen_world import ScreenWorld
from tests.support.traffic import Traffic
from tests.support.viewer import Page, open_page
from tests.support.world import World

PASSWORD = "Zk8!un-Seen_4%tQ"
HEADER = (23, 50, 77)
"""The colour of the simulated panel's header bar."""
USER_FIELD, PASSWORD_FIELD = (640, 315), (640, 393)
EUROPEAN = "Zoë, Straße, 5 €, £ 7 – çà et là, smørrebrød, “mañana”…"
LONG = "AbCDe@FG#" * 150


class PanelTests(World):
    """Into the panel's sign-in page."""

    timeout: ClassVar[float] = 60
    users = (BmcUser("ADMIN", PASSWORD),)

    async def type_text(self, page: Page, text: str) -> None:
        await page.click("#text-button")
        await page.fill("#text-box", text)
        await page.click("#text-type")

    async def user_field(self) -> str:
        """What the panel's field for the user name holds."""

        events = [event for event in self.server.panel.record("text") if event["field"] == "user"]
        return str(events[-1]["value"]) if events else ""

    async def holds(self, value: str) -> None:
        await self.server.panel.recorded("text", lambda event: event.get("value") == value)

    async def test_the_devices_sign_in(self) -> None:
        opened = await self.opened()
        page = await open_page(self, opened["url"], tap=True)
        await page.phase("connected")
        await page.wait_pixel((640, 32), HEADER)
        await page.click_at(*USER_FIELD)
        await self.a_text(page)

        await page.press("Control+a")
        await page.click("#username-button")
        await self.holds("ADMIN")
        await page.click_at(*PASSWORD_FIELD)
        await page.click("#password-button")
        await self.server.panel.recorded(
            "text", lambda event: event["field"] == "password" and event["length"] == len(PASSWORD)
        )
        self.assert_unseen(PASSWORD)
        await page.press("Enter")
        told = await self.server.panel.recorded("sign-in")
        self.assertEqual((told["user"], told["password_length"], told["ok"]), ("ADMIN", len(PASSWORD), True))

        traffic = await Traffic.of(page)
        self.assertEqual(traffic.unread(), [])
        self.assertGreater(min(traffic.frames.values()), 20)
        self.assertEqual(traffic.where(PASSWORD), [])
        self.assertEqual(traffic.where(PASSWORD[:8]) + traffic.where(PASSWORD[8:]), [])
        found = " ".join(traffic.where("typed by hand"))  # what is there is found
        self.assertIn("sent keys", found)
        self.assertIn("api/type: utf-8", " ".join(traffic.where("AbCDe@FG#AbCDe@FG#")))
        self.assert_unseen(PASSWORD)

    async def a_text(self, page: Page) -> None:
        """Progress is shown; what is stopped in the middle leaves no Shift down; what cannot be typed is named."""

        await self.type_text(page, LONG)
        await page.wait(f"/^[2-9]\\d of {len(LONG)}$/.test(document.getElementById('typing-count').textContent)")
        self.assertIn("Typing the text …", await page.text("#typing"))
        self.assertFalse(await page.visible("#text-panel"))
        await page.click("#typing-stop")
        await page.wait("document.getElementById('typing').hidden")
        await page.press("Home")
        await page.type("x")
        await self.server.panel.recorded("text", lambda event: event.get("value", "").startswith("x"))
        typed = (await self.user_field())[1:]
        self.assertEqual(LONG[: len(typed)], typed)
        self.assertGreater(len(typed), 20)
        self.assertLess(len(typed), len(LONG) // 2)

        await page.press("Control+a")
        await self.type_text(page, EUROPEAN)
        await self.holds(EUROPEAN)

        await self.type_text(page, "bell\u200b and\u0007 nothing")
        await page.wait("document.getElementById('text-note').textContent.includes('U+0007')")
        self.assertIn("U+200B", await page.text("#text-note"))
        await page.click("#text-button")
        await page.press("Control+a")
        await page.type("typed by hand")
        await self.holds("typed by hand")
        values = [event.get("value", "") for event in self.server.panel.record("text")]
        self.assertEqual([value for value in values if "bell" in value], [])


class RightsTests(ScreenWorld):
    """Onto the server's own screen, by whoever may."""

    timeout: ClassVar[float] = 60

    async def test_who_may_have_it_typed(self) -> None:
        sign_in = f"username=ADMIN password='{PASSWORD}' existing=new"
        off = await self.opened(self.words(f"{sign_in} login_buttons=no"))
        on = await self.opened(self.words(sign_in))
        refused = await self.client.ask(f"console share console={off['console']} view=no credentials=yes")
        self.assertEqual(refused.code, "bad-value", refused.body)
        share = f"console share console={on['console']} view=no"
        shared = await self.client.must(share)
        for url, words in ((off["url"], "login buttons"), (shared["url"], "credentials")):
            page = await self.visit(url)
            self.assertTrue(await page.visible("#text-button"))
            self.assertFalse(await page.visible("#username-button") or await page.visible("#password-button"), words)
            for what in ("username", "password"):
                self.assertEqual(await posted(page, "api/type", {"what": what}), (403, "forbidden"), words)
            await page.leave()
        self.assertNotIn("KeyPress", self.window.output)

        # To the server's own keyboard, which is taken for a US one, goes only what it can make.
        page = await self.visit((await self.client.must(f"{share} credentials=yes"))["url"])
        await page.click("#text-button")
        await page.fill("#text-box", "5 € für Zoë →")
        await page.click("#text-type")
        await page.wait("document.getElementById('text-note').textContent.includes('“€”')")
        self.assertIn("“ë” “ü” “€” “→”", await page.text("#text-note"))
        await page.click("#text-button")
        await page.click("#password-button")
        last = PASSWORD[-1]
        await self.window.says(rf"KeyRelease.*, {last}\)")
        self.assertEqual(self.keys("KeyPress", last), [1])  # with Shift
        self.assertEqual(self.window.output.count("KeyPress"), len(PASSWORD) + sum(map(needs_shift, PASSWORD)))
        await self.window.until(lambda: self.window.output.count("KeyRelease") == self.window.output.count("KeyPress"))
        self.assert_unseen(PASSWORD)
        self.assert_unseen(self.vnc_password)


def needs_shift(sign: str) -> bool:
    return sign.isupper() or sign in "!%_"
