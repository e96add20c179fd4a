"""The page that people see, in a real browser: who has control, who is there, and what the server's side types."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor

from tests.support.page_case import ScreenCase
from tests.support.page_server import person, wait_until
from tests.support.viewer import Page

HOSTILE = '<img src=x onerror="window.hit=1">'


def typing(what: str, done: int, of: int, by: str = "me") -> dict[str, Any]:
    return {"what": what, "by": by, "done": done, "of": of}


class ControlTests(ScreenCase):
    def another_steers(self, user: str = "ann", **more: Any) -> None:
        people = [person("me"), person("other", user, steers=True)]
        self.server.tell(people=people, steers=False, held=True, viewers=2, **more)

    async def sends_nothing(self, page: Page) -> None:
        before = len(await self.inputs(page))
        await page.move(310, 310)
        await page.click_at(320, 320)
        await page.evaluate("document.querySelector('#screen canvas').focus()")
        await page.type("xyz")
        self.assertEqual((await self.inputs(page))[before:], [])

    async def test_another_has_control(self) -> None:
        """One who may take control over watches until it is taken, and then acts."""

        window = await self.xev()
        self.another_steers()
        page = await self.connected()
        self.assertEqual(await page.text("#state"), "Connected · ann has control")
        for part in ("#keys-button", "#ctrl-alt-del", "#clipboard-button", "#text-button"):
            self.assertFalse(await page.visible(part), part)
        self.assertTrue(await page.visible("#close-button"))
        await self.sends_nothing(page)

        await page.click("#take-button")
        await page.wait("document.getElementById('state').textContent.includes('you have control')")
        self.assertIn("POST /api/control", self.server.seen)
        self.assertFalse(await page.visible("#take-button"))
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")
        await page.move(300, 300)
        await page.type("w")
        await window.says(r"KeyPress.*, w\)")
        self.assertNotIn("keysym 0x78, x", window.output)
        await self.assert_quiet(page)

    async def test_by_the_keyboard(self) -> None:
        self.another_steers("")
        page = await self.connected()
        self.assertEqual(await page.text("#state"), "Connected · a viewer has control")
        await page.press("Control+Alt+Shift")
        self.assertEqual(await page.evaluate("document.activeElement.id"), "take-button")
        await page.press("Enter")
        await wait_until(reactor, lambda: "POST /api/control" in self.server.seen, what="the request")

    async def test_taking_is_refused(self) -> None:
        self.another_steers()
        self.server.refusals["control"] = (403, {"code": "forbidden", "message": "Ann may not be disturbed."})
        page = await self.connected()
        await page.click("#take-button")
        await page.see("#remark")
        self.assertEqual(await page.text("#remark"), "Ann may not be disturbed.")

    async def test_view_only(self) -> None:
        """Without the right there is nothing to press, and nothing is sent."""

        window = await self.xev()
        people = [person("me", control=False), person("other", "ann", steers=True)]
        self.server.tell(control=False, steers=False, people=people, viewers=2)
        page = await self.connected()
        self.assertEqual(await page.text("#state"), "Connected · view only · ann has control")
        hidden = ("#take-button", "#close-button", "#keys-button", "#ctrl-alt-del", "#clipboard-button", "#text-button")
        for part in hidden:
            self.assertFalse(await page.visible(part), part)
        await self.sends_nothing(page)
        self.server.tell(held=False, people=[people[0]], viewers=1)
        await page.wait("document.getElementById('state').textContent === 'Connected · view only'")
        await self.sends_nothing(page)

        self.server.tell(control=True, people=[person("me")])
        await page.see("#keys-button")
        self.assertEqual(await page.text("#state"), "Connected")
        await page.move(300, 300)
        await page.evaluate("document.querySelector('#screen canvas').focus()")
        await page.type("w")
        await window.says(r"KeyPress.*, w\)")

    async def test_control_is_taken_away(self) -> None:
        """It is said, panels that act are closed, and keys that were held are forgotten."""

        page = await self.connected()
        await page.click("#keys-button")
        await page.click("#keys-panel button:text-is('Alt')")
        await page.click("#text-button")
        await page.fill("#text-box", "half a senten")
        self.another_steers()
        await page.see("#remark")
        self.assertEqual(await page.text("#remark"), "ann took control. You are watching now.")
        self.assertFalse(await page.visible("#text-panel"))
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")
        held = "document.querySelector('#keys-panel [title=\"Hold Alt down\"]').ariaPressed"
        self.assertEqual(await page.evaluate(held), "false")
        await self.sends_nothing(page)
        await page.click("#take-button")
        await page.wait("document.getElementById('remark').hidden")
        await page.click("#text-button")
        self.assertEqual(await page.value("#text-box"), "half a senten")

    async def test_who_is_there(self) -> None:
        page = await self.connected()
        self.assertFalse(await page.visible("#viewers-button"))
        self.server.tell(viewers=2)  # one person's two windows
        await page.wait("document.getElementById('state').innerText === 'Connected · 2 viewers'")
        people = [
            person("other", HOSTILE, control=False),
            person("third", steers=False),
            person("me", "tom", steers=True),
        ]
        self.server.tell(people=people, viewers=4)
        await page.click("#viewers-button")
        rows = await page.evaluate("[...document.querySelectorAll('#people li')].map((row) => row.innerText.trim())")
        shown = [" ".join(row.split()) for row in rows]
        self.assertEqual(shown, ["tom (you) has control", f"{HOSTILE} view only", "a viewer may take control"])
        self.assertEqual(await page.text("#viewers-count"), "3")
        self.assertEqual(await page.text("#state"), "Connected · you have control")
        self.assertFalse(await page.evaluate("Boolean(window.hit)"))
        await page.press("Escape")
        self.assertFalse(await page.visible("#viewers-panel"))
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")
        await page.click("#viewers-button")
        self.server.tell(people=people[2:], viewers=1)
        await page.wait("document.getElementById('viewers-panel').hidden")
        await self.assert_quiet(page)


class TypingTests(ScreenCase):
    async def test_the_devices_sign_in(self) -> None:
        """A press asks for it and does nothing else: the keyboard is the screen's, and nothing reaches the server."""

        page = await self.connected()
        for button in ("#username-button", "#password-button"):
            self.assertFalse(await page.visible(button))
        self.server.tell(credentials=True)
        await page.see("#username-button")
        outline = await page.accessible(".tools")
        for name in ("IPMI Username", "IPMI Password", "Type text…"):
            self.assertIn(f'button "{name}"', outline)
        before = len(await self.inputs(page))
        await page.click("#username-button")
        await page.press("Control+Alt+Shift")
        await page.evaluate("document.getElementById('password-button').focus()")
        for _ in range(3):
            await page.call("key_down", key="Enter")
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")
        await page.call("key_up", key="Enter")
        await wait_until(reactor, lambda: len(self.server.typed) == 2, what="the second request")
        self.assertEqual(self.server.typed, [{"what": "username"}, {"what": "password"}])
        modifiers = {0xFFE3, 0xFFE9, 0xFFE1, 0xFFE7}  # those that led to the controls
        keys = {int.from_bytes(key[-8:-4]) for key in (await self.inputs(page))[before:]}
        self.assertLessEqual(keys, modifiers)
        await self.assert_quiet(page)

    async def test_on_a_phone(self) -> None:
        """Where the bar has no room for them, the panel holds them."""

        self.server.tell(credentials=True)
        page = await self.connected(width=420, height=800)
        self.assertFalse(await page.visible("#password-button"))
        await page.click("#text-button")
        self.assertEqual(await page.evaluate("document.activeElement.textContent"), "IPMI Username")
        await page.click("#text-panel button:text-is('IPMI Password')")
        await wait_until(reactor, lambda: self.server.typed == [{"what": "password"}], what="the request")
        self.assertFalse(await page.visible("#text-panel"))
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")

    async def test_progress_and_stop(self) -> None:
        self.server.tell(credentials=True, typing=typing("password", 7, 12))
        page = await self.connected()
        await page.see("#typing")
        self.assertEqual(" ".join((await page.text("#typing")).split()), "Typing the password … 7 of 12 Stop")
        self.assertEqual(await page.evaluate("document.getElementById('typing-progress').value"), 7)
        self.assertTrue(await page.evaluate("document.getElementById('password-button').disabled"))
        self.server.tell(typing=typing("password", 9, 12))
        await page.wait("document.getElementById('typing-count').textContent === '9 of 12'")
        await page.click("#typing-stop")
        await wait_until(reactor, lambda: "POST /api/type/stop" in self.server.seen, what="the request")
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")
        self.server.tell(typing=None)
        await page.wait("document.getElementById('typing').hidden")
        self.assertFalse(await page.evaluate("document.getElementById('password-button').disabled"))

        people = [person("me", control=False), person("other", "ann", steers=True)]
        self.server.tell(people=people, control=False, steers=False, typing=typing("text", 0, 300, by="other"))
        await page.see("#typing")
        self.assertIn("ann has the text typed … 0 of 300", await page.text("#typing"))
        self.assertFalse(await page.visible("#typing-stop"))

    async def test_a_text(self) -> None:
        page = await self.connected()
        await page.click("#text-button")
        self.assertEqual(await page.evaluate("document.activeElement.id"), "text-box")
        self.assertIn("whatever has the focus", await page.text("#text-panel"))
        await page.click("#text-type")
        self.assertEqual(await page.text("#text-note"), "There is no text to type.")

        words = "These characters cannot be typed there: € and →."
        self.server.refusals["type"] = (400, {"code": "bad-value", "message": words, "hint": "Nothing was typed."})
        await page.fill("#text-box", "5 € →\nsecond line")
        await page.click("#text-type")
        await page.wait("document.getElementById('text-note').textContent.includes('€')")
        self.assertEqual(await page.text("#text-note"), f"{words} Nothing was typed.")
        self.assertEqual(self.server.typed, [])
        self.assertEqual(await page.value("#text-box"), "5 € →\nsecond line")

        self.server.refusals.clear()
        await page.fill("#text-box", "5 euro\nsecond line")
        self.assertEqual(await page.evaluate("document.getElementById('text-note').textContent"), "")
        await page.press("Tab")
        await page.press("Enter")
        await page.wait("document.getElementById('text-panel').hidden")
        self.assertEqual(self.server.typed, [{"what": "text", "text": "5 euro\nsecond line"}])
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")
        self.assertEqual(await page.evaluate("document.getElementById('text-box').value"), "")

    async def test_refusals_of_the_buttons(self) -> None:
        self.server.tell(credentials=True)
        page = await self.connected()
        refusals = [
            (403, {"code": "forbidden", "message": "The login buttons are off for this console.", "hint": ""}),
            (
                409,
                {"code": "bmc-state", "message": "Something is being typed already.", "hint": "Wait, or press Stop."},
            ),
            (403, {"code": "forbidden"}),
        ]
        words = [
            "The login buttons are off for this console.",
            "Something is being typed already. Wait, or press Stop.",
            "The server did not accept this browser.",
        ]
        for refusal, text in zip(refusals, words, strict=True):
            self.server.refusals["type"] = refusal
            await page.click("#password-button")
            await page.wait(f"document.getElementById('remark').textContent === {text!r}")
        self.server.refusals["type"] = (502, {})
        await page.click("#password-button")
        await page.wait("document.getElementById('remark').textContent.startsWith('No answer came.')")
