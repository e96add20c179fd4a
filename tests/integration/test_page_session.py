"""The page that people see, in a real browser: who may come in, coming back, and the end. And the browser's driver."""

from __future__ import annotations

import base64
import contextlib
import re
from pathlib import Path

from twisted.internet import reactor

from ipmiproxyd.errors import all_errors
from tests.support.page_case import WHITE, PageCase, ScreenCase, stage
from tests.support.page_server import PageServer, stop_later, wait_until
from tests.support.scratch import scratch
from tests.support.viewer import Page, Viewer, ViewerFailed

CLOSE_WORDS = (
    "idle", "closed", "viewer", "abandoned", "unvisited", "max-time", "replaced", "shutdown", "restart", "agent-removed"
)  # fmt: skip

HOSTILE = '<img src=x onerror="document.title=1;window.hit=1"><b>bold</b>'
NO_STORAGE = """
Object.defineProperty(window, "sessionStorage", {get() { throw new DOMException("no", "SecurityError"); }});
"""
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


def processes_with(text: str) -> list[str]:
    """The processes in whose command line this stands."""

    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found += [entry.name] if text.encode() in (entry / "cmdline").read_bytes() else []
    return found


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

    async def test_many_consoles_on_one_port(self) -> None:
        """A gateway's consoles have each its own path: all that the page asks for is there, and keys are kept apart."""

        one, two = (PageServer(reactor, self.display.socket, path=f"/c/{name}/") for name in ("one", "two"))
        one.start()
        self.addCleanup(stop_later(one))
        one.beside(two)
        two.key = "key-two"
        two.tell(device="node18")
        page = await self.open(url=one.url())
        await page.phase("connected")
        self.assertEqual(await page.address(), one.address)
        await page.goto(two.url("token-one"))
        await page.phase("connected")
        self.assertEqual(await page.text("#device"), "node18")
        await page.goto(one.address)
        await page.phase("connected")
        self.assertEqual(await page.text("#device"), "node17")
        self.assertEqual([one.seen.count("POST /api/session"), two.seen.count("POST /api/session")], [1, 1])
        self.assertEqual(one.offered, [["binary", "key.key-one"]] * 2)
        self.assertEqual(two.offered, [["binary", "key.key-two"]])
        urls = [entry["url"] for entry in [*await page.requests(), *await page.sockets()]]
        self.assertEqual([url for url in urls if "/c/one/" not in url and "/c/two/" not in url], [])
        await self.assert_quiet(page)

    async def test_https_means_wss(self) -> None:
        page = await self.open(url=self.server.address)
        url = await page.evaluate(
            "import('/assets/session.js').then(({ Session }) => { window.WebSocket = class { constructor(url) "
            "{ this.url = url; } }; const location = new URL('https://gate.test/c/one/?x=1#t=a'); "
            "return new Session({ location, sessionStorage, history }).socket().url; })"
        )
        self.assertEqual(url, "wss://gate.test/c/one/vnc")

    async def test_in_another_sites_frame(self) -> None:
        """Loading the panel around it again keeps the console, although its link is used."""

        self.server.allow_frames("http://panel.test:*")
        page = await self.connected(frame={"width": 420, "height": 260, "name": "panel.test"}, width=500, height=400)
        for part in ("#keys-button", "#clipboard-button", "#fit-button", "#close-button"):
            self.assertTrue(await page.visible(part), part)
        await page.reload()
        await page.phase("connected")
        self.assertEqual(self.server.seen.count("POST /api/session"), 2)

    async def test_in_a_frame_without_storage(self) -> None:
        """Where the browser withholds its storage, loading the frame again is all it can do."""

        self.server.allow_frames("http://panel.test:*")
        page = await self.connected(frame={"name": "panel.test"}, init=NO_STORAGE)
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
        await page.phase("connected")
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

    async def test_the_agent_is_away(self) -> None:
        """It waits as long as it takes, says why, and lets one close the console; once the agent is back, it tells of a
        screen that does not answer, and what a proxy may have to do with it only where no WebSocket is had."""

        times = ("first = 500, most = 8000, bound = 120000", "first = 9, most = 99, bound = 400")
        self.server.patches["retry.js"] = times
        self.server.vnc = str(Path(scratch(self)) / "none")
        self.server.tell(agent_away=True)
        page = await self.open()
        await page.phase("reconnecting")
        self.assertIn("The connection to the place where the console runs is lost.", await page.text("#card"))
        self.assertIn("Your console keeps running; this page goes on by itself", await page.text("#card-next"))
        self.assertTrue(await page.visible("#close-button"))
        await wait_until(reactor, lambda: len(self.server.offered) > 7, what="more tries than the bound allows")
        self.server.tell(agent_away=False)
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "The screen does not answer")
        self.assertNotIn("proxy", await page.text("#card"))
        await page.click("#close-button")
        await page.click("#close-yes")
        await wait_until(reactor, lambda: "POST /api/close" in self.server.seen, what="the request to close")
        self.server.tell(state="closed", reason="viewer")
        await page.wait("document.getElementById('card-title').textContent === 'You closed the console'")
        self.assertFalse(await page.visible("#close-button"))

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
        self.assertEqual(await page.evaluate("Object.keys(sessionStorage).filter((name) => name.includes('key'))"), [])
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
        self.assertEqual(await page.text("#card-title"), "Your access was withdrawn")

    async def test_right_withdrawn_while_looking_on(self) -> None:
        """Whichever of the two refuses first, the page says why and forgets its key."""

        page = await self.connected()
        self.server.key = "another"
        self.server.tell()
        await page.wait("performance.getEntriesByType('resource').some((entry) => entry.responseStatus === 403)")
        self.server.close_sockets(4003, "forbidden")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "Your access was withdrawn")
        self.assertEqual(await page.text("#state"), "No entry")
        self.assertFalse(await page.visible("#card-actions"))
        await page.reload()
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "This page needs a link")

    async def test_the_screen_refuses(self) -> None:
        """The server has no room, or its screen will not have us: said at once, tried again when somebody asks."""

        page = await self.connected()
        cases = (
            (4004, "limit", "No room for another viewer", "The server's screen takes no more viewers just now."),
            (4004, "This iDRAC shows its screen to one viewer.", "No room for another viewer", None),
            (4005, "The VNC server refused the password.", "The server's screen refuses the connection", None),
        )
        for number, (code, reason, title, text) in enumerate(cases, 1):
            self.server.close_sockets(code, reason)
            await page.phase("over")
            self.assertEqual(await page.text("#card-title"), title)
            self.assertEqual(await page.text("#card-text"), text or reason)
            self.assertEqual(await page.text("#state"), "Not connected")
            self.assertEqual(len(self.server.offered), number)
            self.assertTrue(await page.evaluate("document.activeElement.id === 'card-title'"))
            await page.click("#card-actions button:text-is('Try again')")
            await page.phase("connected")

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

        self.server.refusals["close"] = (403, {"code": "forbidden", "message": "Only its owner may close it."})
        await page.click("#close-button")
        await page.click("#close-yes")
        await page.wait("document.getElementById('close-note').textContent === 'Only its owner may close it.'")

        self.server.refusals.clear()
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
