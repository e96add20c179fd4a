"""The page that people see, in a real browser, on a real Xvnc; only the console behind it is scripted."""

from __future__ import annotations

import base64
import contextlib
import re
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from ipmiproxyd.errors import all_errors
from tests.support.page_display import PageDisplay, Running
from tests.support.page_server import PageServer, stop_later, wait_until
from tests.support.scratch import scratch
from tests.support.viewer import Page, Viewer, ViewerFailed, open_page

BLACK = (0, 0, 0)
WHITE = (255, 255, 255)
CLOSE_WORDS = ("idle", "closed", "viewer", "abandoned", "unvisited", "max-time", "replaced", "shutdown")

HOSTILE = '<img src=x onerror="document.title=1;window.hit=1"><b>bold</b>'
EAGER = "Object.defineProperty(Math, 'random', {value: () => 0});"  # back-off without its chance

WAITS = """(async () => {
  const { Retry } = await import("/assets/retry.js");
  let now = 0;
  performance.now = () => now;
  window.setTimeout = (run, ms) => { now += ms; queueMicrotask(run); };
  const retry = new Retry();
  const waits = [];
  for (let before = 0; await retry.pause(() => {}); before = now) waits.push((now - before) / 1000);
  return waits;
})()"""


def stage(name: str, label: str, begun: int, done: int | None = None) -> dict[str, Any]:
    return {"name": name, "label": label, "begun_ms": begun, "done_ms": done}


def processes_with(text: str) -> list[str]:
    """The processes in whose command line this stands."""

    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found += [entry.name] if text.encode() in (entry / "cmdline").read_bytes() else []
    return found


class PageCase(TestCase):
    """A scripted console, ready, with nothing behind its screen."""

    timeout: ClassVar[float] = 60

    def setUp(self) -> None:
        self.server = PageServer(reactor)
        self.server.start()
        self.addCleanup(stop_later(self.server))

    async def open(self, **options: Any) -> Page:
        return await open_page(self, options.pop("url", self.server.url()), **options)

    async def assert_quiet(self, page: Page) -> None:
        """The browser found nothing to complain about: no error, no breach of the content policy."""

        complaints = [entry for entry in await page.console() if entry["type"] in ("error", "pageerror")]
        self.assertEqual(complaints, [])


class ScreenCase(PageCase):
    """With an Xvnc behind it, on which ``xev`` shows a white window and tells what arrives."""

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.display = PageDisplay(reactor, scratch(self))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.display.stop()))
        await self.display.start()
        self.server.vnc = str(self.display.socket)

    async def xev(self) -> Running:
        window = self.display.run("xev", "-geometry", "600x400+100+100")
        await window.says("Expose event")
        return window

    async def connected(self, **options: Any) -> Page:
        page = await self.open(**options)
        await page.phase("connected")
        return page


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

    async def test_view_only(self) -> None:
        window = await self.xev()
        self.server.tell(control=False, viewers=2)
        page = await self.connected()
        self.assertEqual(await page.text("#state"), "Connected · view only · 2 viewers")
        for part in ("#close-button", "#keys-button", "#ctrl-alt-del", "#clipboard-button"):
            self.assertFalse(await page.visible(part), part)
        await page.type("q")
        self.server.tell(control=True)
        await page.see("#keys-button")
        await page.move(300, 300)
        await page.evaluate("document.querySelector('#screen canvas').focus()")
        await page.type("w")
        await window.says(r"KeyPress.*, w\)")
        self.assertNotIn("keysym 0x71, q", window.output)


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

    async def pasted(self, text: str) -> None:
        """Until a program on the display is given this text."""

        for _ in range(50):
            reader = await self.selection()
            await reader.ended
            if reader.output == text:
                return
        self.fail(f"the server's clipboard holds {reader.output!r}")


class SessionTests(ScreenCase):
    async def test_reload_keeps_the_session(self) -> None:
        page = await self.connected()
        await page.reload()
        await page.phase("connected")
        self.assertEqual(self.server.seen.count("POST /api/session"), 1)

        await page.goto("about:blank")
        await page.goto(self.server.url("token-one"))  # the panel shows the same link again
        await page.phase("connected")
        self.assertEqual(await page.address(), self.server.address)

    async def test_in_a_frame(self) -> None:
        """In a panel of the same site, loading the panel again keeps the console, although its link is used."""

        self.server.allow_frames("http://127.0.0.1:*")
        page = await self.connected(frame={"width": 420, "height": 260}, width=500, height=400)
        for part in ("#keys-button", "#clipboard-button", "#fit-button", "#close-button"):
            self.assertTrue(await page.visible(part), part)
        await page.reload()
        await page.phase("connected")
        self.assertEqual(self.server.seen.count("POST /api/session"), 2)

    async def test_in_another_sites_frame(self) -> None:
        """There the browser withholds its storage: loading the frame again is all it can do."""

        self.server.allow_frames("http://panel.test:*")
        page = await self.connected(frame={"width": 420, "height": 260, "name": "panel.test"}, width=500, height=400)
        await page.call("reload_frame")
        await page.phase("connected")
        self.assertEqual(self.server.seen.count("POST /api/session"), 1)
        await page.reload()
        await page.phase("over")
        self.assertIn("lets the page remember nothing", await page.text("#card-next"))

    async def test_the_networks_blip(self) -> None:
        """The WebSocket is cut: the page is back by itself, with the same key."""

        await self.xev()
        page = await self.connected(init=EAGER)
        await page.wait_pixel((500, 300), WHITE)
        self.server.drop()
        await wait_until(reactor, lambda: len(self.server.offered) == 2, what="a second WebSocket")
        await page.phase("connected")
        await page.wait_pixel((500, 300), WHITE)
        self.assertEqual(self.server.offered[1], self.server.offered[0])

    async def test_the_server_is_away_for_a_while(self) -> None:
        await self.xev()
        page = await self.connected()
        await page.wait_pixel((500, 300), WHITE)
        await self.server.stop()
        await page.phase("reconnecting")
        await page.wait("/^in \\d+ s$/.test(document.getElementById('count').textContent)")
        self.assertIn("connection was lost", await page.text("#card-text"))
        self.assertTrue(await page.visible("#screen .frozen"))
        await page.wait("document.getElementById('card-next').textContent.includes('Attempt 3')")
        self.server.start()
        await page.click("#card-actions button:text-is('Try now')")
        await page.phase("connected", limit=1.5)
        self.assertFalse(await page.visible("#screen .frozen"))

    async def test_a_dead_network_is_noticed(self) -> None:
        """Nothing says that the connection is gone, as after a change of network: the page finds out."""

        page = await self.connected()
        await page.offline(True)
        await page.phase("reconnecting")
        await page.offline(False)
        await page.phase("connected")


class BoundTests(PageCase):
    async def test_it_gives_up_and_can_be_asked_again(self) -> None:
        times = ("first = 500, most = 8000, bound = 120000", "first = 9, most = 99, bound = 400")
        self.server.patches["retry.js"] = times
        self.server.refuse_sockets = True
        page = await self.open()
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "The screen cannot be connected")
        self.assertGreater(len(self.server.offered), 1)
        self.server.tell(state="closed", reason="idle")
        await page.click("#card-actions button:text-is('Try again')")
        await page.wait("document.getElementById('card-title').textContent === 'Closed because nobody used it'")

    async def test_waits_and_bound(self) -> None:
        """Half a second at first, twice as long each time, at most eight; two minutes in all."""

        page = await self.open(url=self.server.address)
        await page.phase("over")
        waits = await page.evaluate(WAITS)
        for wait, wanted in zip(waits, [0.5, 1, 2, 4] + [8] * len(waits), strict=False):
            self.assertGreaterEqual(wait, 0.8 * wanted)
            self.assertLessEqual(wait, 1.2 * wanted)
        self.assertGreaterEqual(sum(waits), 120)
        self.assertLess(sum(waits), 130)


class RefusalTests(PageCase):
    async def shown(self, page: Page) -> str:
        await page.phase("over")
        return await page.text("#card")

    async def test_with_and_without_a_link(self) -> None:
        page = await self.open(url=self.server.address)
        self.assertIn("This page needs a link", await self.shown(page))
        self.assertEqual(self.server.seen, [])

        await page.goto("about:blank")
        await page.goto(self.server.url("used-before"))
        self.assertIn("This link was already used or has expired. Ask for a new one.", await self.shown(page))
        self.assertEqual(await page.address(), self.server.address)
        self.assertEqual(await page.text("#state"), "No entry")

        # A new link, put into the same window, changes only the fragment.
        await page.evaluate(f"location.href = '{self.server.url('token-one')}'")
        await page.wait("document.getElementById('device').textContent === 'node17'")

    async def test_right_withdrawn(self) -> None:
        page = await self.open()
        await page.wait("document.getElementById('device').textContent === 'node17'")
        self.server.key = "another"
        await page.reload()
        self.assertIn("You can no longer use this console", await self.shown(page))
        await page.reload()
        self.assertIn("This page needs a link", await self.shown(page))

    async def test_no_viewer_files(self) -> None:
        empty = PageServer(reactor, novnc=scratch(self))
        empty.start()
        self.addCleanup(stop_later(empty))
        page = await self.open(url=empty.url())
        self.assertIn("A part of this page is missing", await self.shown(page))

    async def test_every_code_has_words(self) -> None:
        """Whatever reason the daemon gives, the page has a title and advice of its own for it."""

        page = await self.open(url=self.server.address)
        codes = [*CLOSE_WORDS, *(error.code for error in all_errors())]
        words = await page.evaluate(
            f"import('/assets/words.js').then(({{explain}}) => {codes!r}.map((code) => explain(code)))"
        )
        unspoken = {"bad-request", "unknown-command", "unknown-argument", "missing-argument", "bad-value", "not-found"}
        for code, word in zip(codes, words, strict=True):
            if code not in unspoken | {"exists"}:
                self.assertNotEqual(word["title"], "The console is closed", code)
                self.assertTrue(word["text"], code)
                self.assertTrue(word["next"], code)
        odd = await page.evaluate("import('/assets/words.js').then(({explain}) => explain('constructor'))")
        self.assertEqual(odd["text"], "constructor")


class ClosedTests(ScreenCase):
    async def test_closed_while_looking_on(self) -> None:
        await self.xev()
        page = await self.connected()
        self.server.tell(state="closed", reason="idle", message="Nobody touched it for 10 minutes.")
        self.server.close_sockets(4000, "idle")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "Closed because nobody used it")
        self.assertEqual(await page.text("#card-text"), "Nobody touched it for 10 minutes.")
        self.assertEqual(await page.evaluate("document.querySelectorAll('#screen canvas').length"), 0)
        self.assertIsNone(await page.evaluate("sessionStorage.getItem('ipmiproxyd.key:' + location.host)"))
        await self.assert_quiet(page)

    async def test_only_the_socket_says_so(self) -> None:
        page = await self.connected()
        self.server.close_sockets(4000, "max-time")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "The console's time is over")

        self.server.token = "token-two"
        await page.goto("about:blank")
        await page.goto(self.server.url())
        await page.phase("connected")
        self.server.close_sockets(4003, "forbidden")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "You can no longer use this console")

    async def test_gone_while_closing(self) -> None:
        """The relay port is shut before the last news was asked for: what is known is said, nobody waits."""

        page = await self.connected()
        self.server.tell(state="closing", reason="max-time", message="Eight hours are over.")
        await page.wait("document.getElementById('state').textContent === 'Closing'")
        await self.server.stop()
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "The console's time is over")
        self.assertEqual(await page.text("#card-text"), "Eight hours are over.")

    async def test_failed_opening(self) -> None:
        self.server.tell(state="opening", stages=[stage("display", "Starting the display", 0)])
        page = await self.open()
        await page.see("#stages li.now")
        self.server.tell(state="closed", reason="tool-missing", message="Xvnc is not installed on agent local.")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "A program is missing")
        self.assertEqual(await page.text("#card-text"), "Xvnc is not installed on agent local.")
        self.assertTrue(await page.visible("#stages li.failed"))

    async def test_close_button(self) -> None:
        page = await self.connected()
        await page.click("#close-button")
        self.assertEqual(await page.evaluate("document.activeElement.id"), "close-no")
        await page.click("#close-no")
        self.assertFalse(await page.visible("#close-panel"))
        self.assertNotIn("POST /api/close", self.server.seen)

        self.server.close_refusal = {"message": "Only its owner may close it."}
        await page.click("#close-button")
        await page.click("#close-yes")
        await page.wait("document.getElementById('close-note').textContent === 'Only its owner may close it.'")

        self.server.close_refusal = None
        await page.click("#close-yes")
        await wait_until(reactor, lambda: self.server.seen.count("POST /api/close") == 2, what="the second request")
        self.server.tell(state="closed", reason="viewer")
        self.server.close_sockets(4000, "viewer")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "You closed the console")
        self.assertFalse(await page.visible("#close-panel"))

    async def test_text_from_outside_is_text(self) -> None:
        self.server.tell(state="opening", device=HOSTILE, stages=[stage(HOSTILE, HOSTILE, 0)])
        page = await self.open()
        await page.see("#stages li.now")
        self.assertEqual(await page.text("#device"), HOSTILE)
        self.assertEqual(await page.text("#stages .label"), HOSTILE)
        self.server.tell(state="closed", reason=HOSTILE, message=HOSTILE)
        await page.phase("over")
        self.assertEqual(await page.text("#card-text"), HOSTILE)
        self.assertEqual(await page.evaluate("document.querySelectorAll('img, b').length"), 0)
        self.assertFalse(await page.evaluate("Boolean(window.hit)"))
        await self.assert_quiet(page)


class HarnessTests(PageCase):
    """The browser's driver itself."""

    async def test_what_it_notices(self) -> None:
        """Breaches of the content policy, WebSocket frames, what never comes true; contexts are apart."""

        page = await self.open(url=self.server.address)
        await page.phase("over")
        await self.assert_quiet(page)
        await page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')")
        await page.wait("document.querySelector('img[src=x]').complete")
        text = " ".join(entry["text"] for entry in await page.console())
        self.assertRegex(text, re.compile("content security policy", re.IGNORECASE))

        await page.evaluate(
            "new WebSocket('ws://' + location.host + '/vnc', ['binary', 'key.key-one']).onopen = "
            "({target}) => { target.send(new Uint8Array([1, 2, 250])); window.sent = true; }"
        )
        await page.wait("window.sent")
        [socket] = await page.sockets()
        self.assertEqual([base64.b64decode(frame) for frame in socket["sent"]], [bytes([1, 2, 250])])

        with self.assertRaisesRegex(ViewerFailed, "never true: 1 === 2"):
            await page.wait("1 === 2", limit=0.1)
        with self.assertRaisesRegex(ViewerFailed, "no such verb"):
            await page.call("dance")

        other = await self.open(url=self.server.address)
        self.assertIs(other.viewer, page.viewer)
        await page.evaluate("localStorage.setItem('mark', 'first')")
        self.assertIsNone(await other.evaluate("localStorage.getItem('mark')"))

    async def test_stop_ends_everything(self) -> None:
        viewer = await Viewer.start()
        self.addCleanup(viewer.kill)
        page = await viewer.open(self.server.address)
        folder = str(viewer.folder)
        self.assertGreater(len(processes_with(folder)), 1)
        await viewer.stop()
        self.assertFalse(viewer.alive)
        await wait_until(reactor, lambda: not processes_with(folder), what="the end of every process of the browser")
        self.assertFalse(viewer.folder.exists())
        with self.assertRaisesRegex(ViewerFailed, "has ended"):
            await page.text("#state")
