"""The page that people see, in a real browser, on a real Xvnc: opening, keys and pointer, picture, clipboard."""

from __future__ import annotations

from tests.support.page_case import BLACK, CUT_TEXT, WHITE, ScreenCase, stage
from tests.support.page_display import Running
from tests.support.scratch import scratch


class OpeningTests(ScreenCase):
    async def test_stages_then_screen(self) -> None:
        """Somebody who comes early sees each stage, and then, without doing anything, the screen. The token leaves
        no trace."""

        await self.xev()
        self.server.tell(state="opening", stages=[stage("display", "Starting the display", 10)])
        page = await self.open()
        await page.see("#stages li.now")
        self.assertIn("Starting the display", await page.text("#stages li.now .label"))
        self.assertEqual(await page.text("#state"), "Starting the display")
        self.assertIn("10 minutes", await page.text("#card-next"))

        stages = [stage("display", "Starting the display", 10, 1240), stage("app", "Opening the panel", 1240)]
        self.server.tell(stages=stages)
        await page.wait("document.querySelectorAll('#stages li').length === 2")
        self.assertEqual(await page.text("#stages li.done .time"), "1.2 s")
        self.assertEqual(await page.text("#stages li.now .label"), "Opening the panel")
        failed = [{**stages[1], "done_ms": 1300, "failed": True}, stage("fall-back", "It does not work.", 1300, 1310)]
        self.server.tell(stages=[stages[0], *failed, stages[1]])
        await page.wait("document.querySelectorAll('#stages li').length === 4")
        kinds = await page.evaluate("[...document.querySelectorAll('#stages li')].map((item) => item.className)")
        self.assertEqual(kinds, ["done", "failed", "turned", "now"])
        await page.wait("parseFloat(document.querySelector('#stages li.now .time').textContent) > 0.2")

        self.server.tell(state="ready", stages=[stages[0], {**stages[1], "done_ms": 2000}])
        await page.phase("connected")
        await page.wait_pixel((500, 300), WHITE)
        self.assertEqual(await page.pixels((20, 20)), [BLACK])
        self.assertFalse(await page.visible("#card"))
        self.assertEqual(await page.text("#device"), "node17")
        self.assertEqual(await page.text("#state"), "Connected")
        self.assertEqual(await page.evaluate("document.title"), "node17 – Connected")
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")
        await self.assert_quiet(page)

        self.assertEqual(await page.address(), self.server.address)
        urls = [request["url"].split("#")[0] for request in await page.requests()]
        urls += [socket["url"] for socket in await page.sockets()]
        self.assertEqual([url for url in urls if "token-one" in url or "key-one" in url], [])
        self.assertEqual(self.server.seen[0], "POST /api/session")
        self.assertEqual(self.server.offered, [["binary", "key.key-one"]])

    async def test_without_a_secure_context(self) -> None:
        """A plain http address of the daemon's machine is no secure context: the screen is there all the same."""

        page = await self.connected(url=self.server.url(host="console.test"))
        self.assertFalse(await page.evaluate("window.isSecureContext"))
        await page.wait("document.querySelector('#screen canvas').width === 1024")


class InputTests(ScreenCase):
    async def test_keys_and_drag(self) -> None:
        window = await self.xev()
        page = await self.connected()
        await page.move(300, 300)
        await page.type("aZ")
        await page.press("F5")
        await window.says(r"KeyPress.*keysym 0x61, a\).*KeyPress.*keysym 0x5a, Z\).*KeyRelease.*keysym 0xffc2, F5")
        await page.drag((200, 200), (420, 330))
        dragged = await window.says(
            r"ButtonPress.*?root:\((\d+),(\d+)\).*MotionNotify.*ButtonRelease[^(]*\S* \(\d+,\d+\), root:\((\d+),(\d+)\)"
        )
        for place, wanted in zip(map(int, dragged.groups()), (200, 200, 420, 330), strict=True):
            self.assertLessEqual(abs(place - wanted), 1)

    async def test_keys_that_the_browser_keeps(self) -> None:
        window = await self.xev()
        page = await self.connected()
        await page.move(300, 300)
        await page.click("#ctrl-alt-del")
        await window.says(r"KeyPress.*Control_L.*KeyPress.*Alt_L.*KeyPress.*, Delete\).*KeyRelease.*Control_L")

        await page.click("#keys-button")
        await page.click("#keys-panel button:text-is('Ctrl')")
        await page.click("#keys-panel button:text-is('F11')")
        pressed = await window.says(r"KeyPress[^=]*=?[^=]*state 0x(\w+), keycode \d+ \(keysym 0xffc8, F11\)")
        self.assertTrue(int(pressed[1], 16) & 4, "Control is not held")
        await page.click("#keys-panel button:text-is('Ctrl')")
        await page.click("#keys-panel button:text-is('SysRq')")
        await window.says(r"KeyRelease.*Control_L.*KeyPress.*Alt_L.*KeyPress.*(Sys_Req|Print)\)")
        for label, keysym in (("Alt-Tab", "Tab"), ("Alt-F4", "F4"), ("Print", "Print"), ("Esc", "Escape")):
            await page.click(f"#keys-panel button:text-is('{label}')")
            await window.says(rf"KeyPress.*, {keysym}\)")
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")

    async def test_held_key_does_not_outlive_its_connection(self) -> None:
        window = await self.xev()
        page = await self.connected()
        await page.move(300, 300)
        await page.click("#keys-button")
        await page.click("#keys-panel button:text-is('Alt')")
        await window.says(r"KeyPress.*Alt_L")
        self.server.drop()
        await window.says(r"KeyRelease.*Alt_L")
        await page.wait("document.querySelector('#keys-panel [title=\"Hold Alt down\"]').ariaPressed === 'false'")

    async def test_the_keyboards_way_to_the_controls(self) -> None:
        page = await self.connected()
        await page.press("Control+Alt+Shift")
        self.assertEqual(await page.evaluate("document.activeElement.id"), "ctrl-alt-del")
        await page.press("Tab")
        await page.press("Enter")
        await page.see("#keys-panel")
        await page.press("Escape")
        self.assertFalse(await page.visible("#keys-panel"))
        self.assertEqual(await page.evaluate("document.activeElement.tagName"), "CANVAS")
        outline = await page.accessible(".tools")
        for name in ("Ctrl-Alt-Del", "Keys", "Clipboard", "Fit", "Full screen", "Close"):
            self.assertIn(f'button "{name}"', outline)

    async def test_phone(self) -> None:
        """At a phone's width everything is in reach, and its own keyboard types."""

        window = await self.xev()
        page = await self.connected(width=360, height=640, touch=True)
        await page.move(300, 300)
        self.assertEqual(await page.evaluate("document.documentElement.scrollWidth"), 360)
        await page.click("#type-button")
        await page.wait("document.activeElement.id === 'soft'")
        await page.call("type", text="né", delay=0)
        await page.press("Backspace")
        await page.press("Enter")
        await window.says(r"KeyPress.*, n\).*KeyPress.*, eacute\).*KeyPress.*, BackSpace\).*KeyPress.*, Return\)")
        await page.click("#fit-button")
        await page.click("#pan-button")
        self.assertEqual(await page.evaluate("document.getElementById('pan-button').ariaPressed"), "true")

    async def test_keys_do_not_stick_when_the_focus_leaves(self) -> None:
        """Whatever is down is let go when the keyboard goes to a control, by the mouse or by its own way."""

        window = await self.xev()
        page = await self.connected()
        await page.move(300, 300)
        await page.call("key_down", key="Shift")
        await window.says(r"KeyPress.*Shift_L")
        await page.click("#clipboard-button")
        self.assertEqual(await page.evaluate("document.activeElement.id"), "clipboard-out")
        await window.says(r"KeyRelease.*Shift_L")
        await page.call("key_up", key="Shift")
        await page.press("Escape")

        await page.press("Control+Alt+Shift")
        self.assertEqual(await page.evaluate("document.activeElement.id"), "ctrl-alt-del")
        await window.says(r"KeyPress.*Alt_L.*KeyRelease.*(Alt|Meta)_L")
        await window.says(r"KeyPress.*Control_L.*KeyRelease.*Control_L")

    async def test_a_key_that_went_down_on_a_control_is_not_typed(self) -> None:
        """Enter presses a button, the focus goes to the screen, and Enter goes on repeating there: no Enter for it."""

        window = await self.xev()
        page = await self.connected()
        await page.move(300, 300)
        await page.press("Control+Alt+Shift")
        await page.evaluate(
            "document.getElementById('ctrl-alt-del').addEventListener('click', "
            "() => document.querySelector('#screen canvas').focus())"
        )
        for _ in range(3):
            await page.call("key_down", key="Enter")
        await page.call("key_up", key="Enter")
        await page.type("z")
        await window.says(r"KeyRelease.*, z\)")
        self.assertIn("Delete)", window.output)
        self.assertNotIn("Return)", window.output)


class PictureTests(ScreenCase):
    async def test_fit_own_size_and_full_screen(self) -> None:
        page = await self.connected(width=600, height=400)
        width = "document.querySelector('#screen canvas').getBoundingClientRect().width"
        await page.wait(f"{width} < 600")
        await page.click("#fit-button")
        await page.wait(f"{width} === 1024")
        await page.wait("document.querySelector('#screen > div').scrollWidth >= 1024")
        self.assertEqual(await page.text("#fit-label"), "1:1")
        await page.reload()
        await page.phase("connected")
        await page.wait(f"{width} === 1024")

        # And in full screen, where the bar steps aside.
        await page.click("#fit-button")
        await page.click("#full-button")
        await page.wait("document.fullscreenElement !== null && document.activeElement.tagName === 'CANVAS'")
        await page.move(500, 500)
        await page.wait("document.getElementById('bar').getBoundingClientRect().bottom <= 0")
        await page.call("evaluate", expression="document.getElementById('handle').click()")
        await page.wait("document.getElementById('bar').getBoundingClientRect().top === 0")
        await page.click("#full-button")
        await page.wait("document.fullscreenElement === null")


class ClipboardTests(ScreenCase):
    async def own_selection(self, text: str) -> None:
        source = scratch(self) / "text"
        source.write_text(text, encoding="utf-8")
        self.display.run("xclip", "-selection", "clipboard", "-quiet", "-i", str(source))

    async def selection(self) -> Running:
        return self.display.run("xclip", "-selection", "clipboard", "-o")

    async def test_by_the_browsers_own(self) -> None:
        page = await self.connected(permissions=["clipboard-read", "clipboard-write"])
        await page.evaluate("navigator.clipboard.writeText('from the browser: €')")
        await page.evaluate("window.dispatchEvent(new Event('focus'))")
        await self.pasted("from the browser: €")

        await self.own_selection("from the server: Grüße")
        await page.wait("navigator.clipboard.readText().then((text) => text === 'from the server: Grüße')")
        await page.click("#clipboard-button")
        self.assertIn("follow each other", await page.text("#clipboard-hint"))

    async def test_by_hand(self) -> None:
        page = await self.connected(url=self.server.url(host="console.test"))
        await page.click("#clipboard-button")
        await page.fill("#clipboard-out", "typed in\nthe panel")
        await page.click("#clipboard-send")
        await self.pasted("typed in\nthe panel")
        self.assertIn("Sent", await page.text("#clipboard-note"))
        await page.click("#clipboard-button")

        await self.own_selection("copied <b>there</b>")
        await page.see("#clipboard-badge")
        await page.click("#clipboard-button")
        self.assertEqual(await page.value("#clipboard-in"), "copied <b>there</b>")
        await page.click("#clipboard-copy")
        await page.fill("#clipboard-out", "")
        await page.press("Control+v")
        self.assertEqual(await page.value("#clipboard-out"), "copied <b>there</b>")

    async def test_one_way_only(self) -> None:
        """What the console's clipboard does not allow is neither offered, nor sent, nor taken."""

        self.server.tell(clipboard="in")
        page = await self.connected(permissions=["clipboard-read", "clipboard-write"])
        await page.evaluate("navigator.clipboard.writeText('there')")
        await page.evaluate("window.dispatchEvent(new Event('focus'))")
        await self.pasted("there")
        await page.click("#clipboard-button")
        self.assertTrue(await page.visible("#clipboard-out"))
        self.assertFalse(await page.visible("#clipboard-in"))
        self.assertIn("nothing comes back", await page.text("#clipboard-hint"))

        self.server.tell(clipboard="out")
        await page.see("#clipboard-in")
        self.assertFalse(await page.visible("#clipboard-out"))
        await page.evaluate("navigator.clipboard.writeText('not there')")
        await page.evaluate("window.dispatchEvent(new Event('focus'))")
        await self.own_selection("back")
        await page.wait("navigator.clipboard.readText().then((text) => text === 'back')")
        self.assertEqual(await page.value("#clipboard-in"), "back")

        before = len(await self.inputs(page))
        self.server.tell(clipboard="off")
        await page.wait("document.getElementById('clipboard-panel').hidden")
        self.assertFalse(await page.visible("#clipboard-button"))
        self.assertEqual(await page.evaluate("document.getElementById('clipboard-in').value"), "")
        await page.evaluate("navigator.clipboard.writeText('kept here')")
        await page.evaluate("window.dispatchEvent(new Event('focus'))")
        await self.own_selection("kept there")
        await page.move(300, 300)
        await page.type("q")  # what comes later than a text would have come
        self.assertEqual(await page.evaluate("navigator.clipboard.readText()"), "kept here")
        texts = [message for message in (await self.inputs(page))[before:] if message[0] == CUT_TEXT]
        self.assertEqual([text for text in texts if b"kept" in text or text[8] & 0x18], [])

    async def test_only_who_has_control_shares_it_by_itself(self) -> None:
        """Where nobody has control yet, only a press takes it: no text goes out by itself."""

        self.server.tell(steers=False, held=False)
        page = await self.connected(permissions=["clipboard-read", "clipboard-write"])
        await page.evaluate("navigator.clipboard.writeText('mine')")
        await page.evaluate("window.dispatchEvent(new Event('focus'))")
        self.assertTrue(await page.visible("#clipboard-button"))
        await page.evaluate("new Promise((later) => setTimeout(later, 700))")  # it waits 500 ms after connecting
        self.assertEqual([message for message in await self.inputs(page) if message[0] == CUT_TEXT], [])
        self.server.tell(steers=True, held=True)
        await self.pasted("mine")

    async def pasted(self, text: str) -> None:
        """Until a program on the display is given this text."""

        for _ in range(200):
            reader = await self.selection()
            await reader.ended
            if reader.output == text:
                return
        self.fail(f"the server's clipboard holds {reader.output!r}")
