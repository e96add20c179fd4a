"""Several people on a console, and those whose connection breaks: in real browsers, on the running daemon."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
from collections.abc import Awaitable
from typing import Any, ClassVar

from PIL import Image
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall

from tests.support.network import Network
from tests.support.page_case import client_messages, is_input
from tests.support.screen_world import IN_THE_WINDOW, UNRULY, ScreenWorld, key, pointer, said_by
from tests.support.viewer import Page, open_page
from tests.support.visit import enter, key_for
from tests.support.world import World, port_of
from tests.support.ws_client import Refused, WsClient, ask, open_socket

reactor: Any = global_reactor

HEADER = (23, 50, 77)
"""The colour of the simulated panel's header bar."""
USER_FIELD = (640, 315)
FENCE = -312
DESKTOP_SIZE = -308
# An unruly page asks for a spot of the picture, and it comes: what it said before has been looked at.
ECHO = """new Promise((heard) => {
  window.wire.addEventListener("message", heard, { once: true });
  window.say(3, 0, 0, 0, 0, 0, 0, 1, 0, 1);
})"""


def cut_text(text: bytes) -> bytes:
    return struct.pack(">B3xI", 6, len(text)) + text


def set_desktop_size(width: int, height: int) -> bytes:
    return struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 1, 0, 0, width, height, 0)


def encodings(*numbers: int) -> bytes:
    return struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers)


def fence(payload: bytes) -> bytes:
    """The server answers with ``payload`` once it has done all that came before."""

    return struct.pack(">B3xIB", 248, 1 << 31 | 3, len(payload)) + payload


async def posted(page: Page, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """POST with the page's own key: the answer's status and code."""

    options = json.dumps({"method": "POST", "body": json.dumps(body or {})})
    status, code = await page.evaluate(
        f"fetch('{path}', {{...{options}, headers: {{Authorization: 'Bearer ' + Object.values(sessionStorage)[0]}}}})"
        ".then(async (answer) => [answer.status, (await answer.json()).code ?? ''])"
    )
    return status, code


class SharingTests(ScreenWorld):
    timeout: ClassVar[float] = 90

    async def share(self, console: str, words: str) -> dict[str, Any]:
        return await self.client.must(f"console share console={console} {words}")

    async def viewers(self, console: str) -> dict[str, tuple[int, bool]]:
        """Each grant that is out: how many connections, and whether it has control."""

        listed = (await self.client.must(f"console viewers console={console}"))["viewers"]
        return {viewer["viewer"]: (viewer["connected"], viewer["steers"]) for viewer in listed}

    async def raw(self, url: str) -> WsClient:
        """A viewer without a browser. Nothing is said yet after the handshake."""

        port, own = await key_for(url)
        viewer = await open_socket(reactor, port, f"binary, key.{own}")
        self.addCleanup(viewer.hang_up)
        await enter(viewer)
        return viewer

    async def all_done(self, viewer: WsClient, mark: bytes) -> None:
        """The server has done all that this viewer said, and that may pass."""

        viewer.say(fence(mark))
        await viewer.until(lambda: mark in viewer.data or viewer.is_lost)
        self.assertIn(mark, viewer.data, viewer.closed)

    async def clipboard(self) -> str:
        reader = self.servers.start(["xclip", "-selection", "clipboard", "-o"], {"DISPLAY": f":{self.screen.number}"})
        await reader.ended
        return reader.output

    async def size(self, console: str) -> tuple[int, int]:
        shot = await self.client.must(f"console screenshot console={console}")
        return shot["width"], shot["height"]

    # --- the server's own VNC server ---------------------------------------------------------------------------------

    async def test_the_servers_own_vnc_server(self) -> None:
        """Shown in the browser, with keys; what does not work is said at once; the password is nowhere."""

        with socket.create_server(("127.0.0.1", 0)) as unused:
            nobody = unused.getsockname()[1]
        wrong = await self.open(self.words(password="N0t-it-5"))
        self.assertEqual(wrong.code, "bmc-auth", wrong.body)
        silent = await self.open(f"type=vnc vnc=127.0.0.1:{nobody} vnc_password={self.vnc_password}")
        self.assertEqual(silent.code, "bmc-unreachable", silent.body)
        self.assertIn("Connection refused", silent.body["message"])
        self.assertEqual([one["state"] for one in (await self.client.must("console list"))["consoles"]], [])

        opened = await self.opened(self.words())
        self.assertEqual((opened["type"], opened["warnings"]), ("vnc", []))
        page = await self.visit(opened["url"])
        await self.types(page, "k")
        await page.click_at(*IN_THE_WINDOW)
        await self.window.says("ButtonPress")
        for secret in (self.vnc_password, "N0t-it-5"):
            self.assert_unseen(secret)
        await self.wrong_uses(opened["console"])
        await self.close(opened["console"])
        await page.phase("over")
        await self.nothing_left()
        await self.closed_uses(opened["console"])
        self.assert_unseen(self.vnc_password)

    async def wrong_uses(self, console: str) -> None:
        """Each is answered by one line that says what is wrong."""

        for line, code, words in (
            ("console share console=c0ffee", "not-found", "c0ffee"),
            ("console viewers", "missing-argument", "console"),
            (f"console share console={console} credentials=yes", "bad-value", "only watches"),
            (f"console share console={console} view=perhaps", "bad-value", "view"),
            (f"console share console={console} colour=red", "unknown-argument", "colour"),
            (f"console revoke console={console}", "missing-argument", "viewer=, user= or all=yes"),
            (f"console revoke console={console} viewer=zzz", "not-found", "zzz"),
            (f"console revoke console={console} user=nobody", "not-found", "nobody"),
            (f"console revoke console={console} viewer=zzz all=yes", "bad-request", "just one"),
            (f"console screenshot console={console} file=shot.png", "bad-value", "absolute"),
            (f"console screenshot console={console} file=/no/such/folder/shot.png", "bad-value", "cannot be written"),
            ("console open type=vnc vnc_password=x", "missing-argument", "which BMC"),
            ("console open type=vnc vnc=127.0.0.1", "bad-value", "vnc"),
            ("console open type=vnc vnc=127.0.0.1:99999", "bad-value", "vnc"),
            ("console open device=node1 type=vnc", "missing-argument", "VNC"),
            ("console open device=node1 clipboard=sideways", "bad-value", "clipboard"),
        ):
            reply = await self.client.ask(line)
            self.assertEqual(reply.code, code, f"{line}: {reply.body}")
            self.assertIn(words, reply.body["message"], line)
            self.assertNotIn("\n", reply.body["message"])

    async def closed_uses(self, console: str) -> None:
        for verb in ("share", "viewers", "url", "screenshot", "revoke all=yes", "extend"):
            name, _, more = verb.partition(" ")
            reply = await self.client.ask(f"console {name} console={console} {more}")
            self.assertIn(reply.code, ("bmc-state", "not-found"), f"{verb}: {reply.body}")
            self.assertIn("closed", reply.body["message"], verb)

    # --- who may do what ---------------------------------------------------------------------------------------------

    async def test_who_only_watches(self) -> None:
        """Nothing that acts gets through the relay, whatever the viewer's program sends; the picture comes."""

        opened = await self.opened(self.words("user=ann idle=1h"))
        console = opened["console"]
        eve = await self.share(console, "view=yes user=eve")
        owner, watcher = await self.raw(opened["url"]), await self.raw(eve["url"])
        for viewer in (owner, watcher):
            viewer.say(encodings(FENCE, DESKTOP_SIZE, 0))
            await self.all_done(viewer, b"has come")
        for viewer, sign, width in ((owner, "o", 400), (watcher, "w", 500)):
            viewer.say(pointer(90, 80) + pointer(91, 81) + pointer(91, 81, 1) + pointer(91, 81))
            viewer.say(key(sign) + key(sign, False) + cut_text(sign.encode()) + set_desktop_size(width, 300))
            await self.all_done(viewer, f"{sign} is done".encode())
            await self.window.says(r"ButtonPress.*ButtonRelease.*, o\).*, o\)")
            self.assertEqual((await self.clipboard(), await self.size(console)), ("o", (400, 300)))
        self.assertEqual(self.keys("KeyPress", "w"), [])
        self.assertEqual(self.window.output.count("ButtonPress"), 1)
        before = await self.viewers(console)
        self.assertEqual(before.pop(eve["viewer"]), (1, False))
        self.assertEqual(list(before.values()), [(1, True)])

        # A browser's page offers nothing and sends nothing; and if it is made to, it is of no use.
        page = await self.visit((await self.share(console, "user=tom"))["url"], init=UNRULY)
        self.assertEqual(await page.text("#state"), "Connected · view only · ann has control")
        for part in ("#take-button", "#close-button", "#keys-button", "#text-button", "#clipboard-button"):
            self.assertFalse(await page.visible(part), part)
        await page.click_at(*IN_THE_WINDOW)
        await page.type("p")
        sent = client_messages((await page.sockets())[-1]["sent"])
        self.assertEqual([message for message in sent if is_input(message)], [])
        await page.evaluate(said_by(key("p") + key("p", False) + pointer(90, 90, 1) + cut_text(b"p")))
        await page.evaluate(ECHO)
        for path in ("control", "type", "type/stop", "stay", "close"):
            self.assertEqual(await posted(page, f"api/{path}", {"what": "text", "text": "p"}), (403, "forbidden"), path)
        owner.say(key("z"))
        await self.window.says(r"KeyPress.*, z\)")
        self.assertEqual(self.keys("KeyPress", "p"), [])
        self.assertEqual(self.window.output.count("ButtonPress"), 1)
        self.assertEqual(await self.clipboard(), "o")

    async def test_control_is_taken_over_and_taken_away(self) -> None:
        opened = await self.opened(self.words("user=ann"))
        console = opened["console"]
        tom = await self.share(console, "view=no user=tom")
        first = await self.visit(opened["url"], init=UNRULY)
        second = await self.visit(tom["url"])
        self.assertEqual(await second.text("#state"), "Connected · ann has control")
        await first.wait("document.getElementById('state').textContent === 'Connected · you have control'")

        # A page that says nothing more, with Shift down: only the relay can let go of it.
        await first.call("key_down", key="Shift")
        await self.window.says(r"KeyPress.*, Shift_L\)")
        await first.evaluate("window.mute = true")
        await second.click("#take-button")
        await second.wait("document.getElementById('state').textContent === 'Connected · you have control'")
        self.assertEqual(len(self.keys("KeyRelease", "Shift_L")), 1)
        await self.types(second, "q")
        self.assertEqual(self.keys("KeyPress", "q"), [0])
        await first.wait("document.getElementById('remark').textContent === 'tom took control. You are watching now.'")
        await first.evaluate("window.mute = false")
        await first.call("key_up", key="Shift")
        await first.click_at(*IN_THE_WINDOW)
        await first.type("x")
        await first.evaluate(said_by(key("x") + key("x", False) + pointer(100, 100, 1) + cut_text(b"x")))
        await first.evaluate(ECHO)
        await self.types(second, "r")
        self.assertEqual((self.keys("KeyPress", "x"), self.window.output.count("ButtonPress")), ([], 0))
        owner = await self.owner(console, tom["viewer"])
        self.assertEqual(await self.viewers(console), {owner: (1, False), tom["viewer"]: (1, True)})
        await self.revoking(console, owner, tom["viewer"], first, second)

    async def revoking(self, console: str, owner: str, viewer: str, first: Page, second: Page) -> None:
        """One who is revoked is cut at once, with whatever key is down, and does not come back."""

        unused = await self.share(console, "view=no user=tom")
        own = await second.evaluate("Object.values(sessionStorage)[0]")
        await second.call("key_down", key="Shift")
        await self.window.until(lambda: len(self.keys("KeyPress", "Shift_L")) == 2)
        revoked = await self.client.must(f"console revoke console={console} viewer={viewer}")
        self.assertEqual([(one["viewer"], one["connected"]) for one in revoked["revoked"]], [(viewer, 1)])
        self.assertEqual(await self.viewers(console), {owner: (1, False), unused["viewer"]: (0, False)})
        await second.phase("over")
        self.assertEqual(await second.text("#card-title"), "Your access was withdrawn")
        await self.window.until(lambda: len(self.keys("KeyRelease", "Shift_L")) == 2)
        port = port_of(unused["url"])
        bearer = f"Bearer {own}"
        self.assertEqual((await ask(reactor, port, "GET", "/api/status", Authorization=bearer))[0], 403)
        with self.assertRaises(Refused) as answer:
            await open_socket(reactor, port, f"binary, key.{own}")
        self.assertEqual(answer.exception.status, 403)
        await second.reload()
        await second.phase("over")

        # So is one who has not come yet; and for the others it goes on.
        await self.client.must(f"console revoke console={console} user=tom")
        late = await open_page(self, unused["url"])
        await late.phase("over")
        self.assertIn("already used or has expired", await late.text("#card"))
        self.assertFalse((await first.sockets())[-1]["closed"])
        await self.types(first, "y")
        self.assertEqual(await self.viewers(console), {owner: (1, True)})
        await self.client.must(f"console revoke console={console} all=yes")
        await first.phase("over")
        self.assertEqual((await self.viewers(console), (await self.show(console))["state"]), ({}, "ready"))

    async def owner(self, console: str, *others: str) -> str:
        (owner,) = set(await self.viewers(console)) - {*others}
        return owner

    # --- lost connections --------------------------------------------------------------------------------------------

    async def test_no_key_stays_down(self) -> None:
        """Whoever held it may be cut off by a reset: on a server that would not let go of it by itself."""

        server = await self.servers.x11vnc(password=self.vnc_password)
        window = await self.xev(server)
        opened = await self.opened(self.words(server=server))
        raw = await self.raw(opened["url"])
        raw.say(pointer(*IN_THE_WINDOW) + key("h") + pointer(*IN_THE_WINDOW, buttons=1))
        await window.says(r"KeyPress.*, h\).*ButtonPress")
        await raw.hang_up()
        await window.says(r"KeyRelease.*, h\)")
        await window.says("ButtonRelease")

        network = Network(self, (await self.client.must(f"console url console={opened['console']}"))["url"])
        page = await self.visit(network.url)
        await page.call("key_down", key="Control")
        await window.says(r"KeyPress.*, Control_L\)")
        network.cut()
        await window.says(r"KeyRelease.*, Control_L\)")
        await page.call("key_up", key="Control")
        await page.phase("connected")
        await self.types(page, "j", window)
        self.assertEqual(self.keys("KeyPress", "j", window), [0])

    async def test_the_network_is_away_for_a_while(self) -> None:
        """The page comes back by itself, with its control, and without the key that was down when it went."""

        opened = await self.opened(self.words("user=ann"))
        network = Network(self, opened["url"])
        page = await self.visit(network.url)
        ended = Deferred.fromCoroutine(self.moves_alone())
        tom = await self.visit((await self.share(opened["console"], "view=no user=tom"))["url"])
        await page.call("key_down", key="Shift")
        await self.window.says(r"KeyPress.*, Shift_L\)")

        network.swallow()
        await page.offline(True)
        await page.phase("reconnecting")
        self.assertIn("The console keeps running meanwhile.", await page.text("#card-text"))
        self.assertEqual((await self.show(opened["console"]))["state"], "ready")
        self.assertEqual(await tom.text("#state"), "Connected · ann has control")
        await page.call("key_up", key="Shift")
        network.recover()
        await page.offline(False)
        await page.phase("connected")
        await page.wait("document.getElementById('state').textContent.includes('you have control')")
        await page.move(*IN_THE_WINDOW)
        await page.click_at(*IN_THE_WINDOW)  # with a key the VNC server itself would see to Shift
        pressed = await self.window.says(r"ButtonPress.*?state (0x\d+), button 1")
        self.assertEqual(pressed[1], "0x0")
        await ended

    async def moves_alone(self) -> None:
        """Who only watches does not keep a console, however much the mouse is moved; and is told that it ends."""

        console = (await self.opened(self.words("idle=3s user=bob")))["console"]
        kept = LoopingCall(lambda: Deferred.fromCoroutine(self.client.must(f"console extend console={console}")))
        ended = kept.start(1.0)
        try:
            page = await self.visit((await self.share(console, "view=yes"))["url"], init=UNRULY)
        finally:
            kept.stop()
            await ended
        await page.evaluate(f"setInterval(() => {{ {said_by(pointer(99, 99))}; {said_by(pointer(90, 90))}; }}, 50)")
        await page.see("#notice")
        self.assertFalse(await page.visible("#notice-stay"))
        closed = await self.closes(console)
        self.assertEqual(closed["reason"], "idle")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "Closed because nobody used it")


class PanelSharingTests(World):
    """On the panel in a real browser, which is what most people see."""

    timeout: ClassVar[float] = 90

    async def visit(self, url: str, **options: Any) -> Page:
        page = await open_page(self, url, **options)
        await page.phase("connected")
        await page.wait_pixel((640, 32), HEADER)
        return page

    async def holds(self, value: str) -> None:
        """The panel's field for the user name holds this."""

        await self.server.panel.recorded("text", lambda event: event.get("value") == value)

    async def once_more(self, kind: str, doing: Awaitable[None]) -> None:
        """Do it, and wait until the panel tells of its effect: the next thing could overtake that in its browser."""

        seen = len(self.server.panel.record(kind))
        await doing
        await self.server.panel.recorded(kind, lambda _: len(self.server.panel.record(kind)) > seen)

    async def test_a_watcher_and_a_screenshot(self) -> None:
        opened = await self.opened()
        console = opened["console"]
        owner = await self.visit(opened["url"])
        shared = await self.client.must(f"console share console={console} view=yes")
        watcher = await self.visit(shared["url"], init=UNRULY)
        before = self.server.panel.record()
        await watcher.click_at(*USER_FIELD)
        await watcher.type("w")
        spot = key("w") + key("w", False) + pointer(640, 457, 1) + pointer(640, 457)  # the button that signs in
        await watcher.evaluate(said_by(spot))
        await watcher.evaluate(ECHO)
        await owner.click_at(*USER_FIELD)
        await owner.type("o")
        await self.holds("o")
        kinds = [event["kind"] for event in self.server.panel.record()[len(before) :]]
        self.assertEqual((set(kinds), kinds.count("click")), ({"click", "key", "text"}, 1))

        file = self.folder / "shot.png"
        taken = await self.client.must(f"console screenshot console={console} file={file}")
        plain = await self.client.must(f"console screenshot console={console}")
        pictures = [Image.open(file), Image.open(io.BytesIO(base64.b64decode(plain["png"])))]
        self.assertEqual((taken["file"], taken["bytes"]), (str(file), file.stat().st_size))
        spots = [(640, 32), (100, 700), (500, 200), (640, 457), (460, 460)]
        for page in (owner, watcher):
            for seen in pictures:
                self.assertEqual(seen.size, (1280, 1024))
                pixels = [seen.convert("RGB").getpixel(spot) for spot in spots]
                self.assertEqual(pixels, await page.pixels(*spots))
        self.assertEqual(len(set(pixels)), 4)
        again = await self.client.ask(f"console screenshot console={console} file={file}")
        self.assertEqual((again.code, "exists" in again.body["message"]), ("bad-value", True), again.body)
        for page in (owner, watcher):
            self.assertEqual([one["closed"] for one in await page.sockets()], [False])
        self.assertEqual((await self.show(console))["viewers"], 2)
        await owner.type("k")
        await self.holds("ok")

    async def test_which_way_texts_go(self) -> None:
        """What the console's clipboard does not allow is not offered; and a page that sends a text all the same sends
        it in vain."""

        modes = ("both", "in", "out", "off")
        opened = await gatherResults([self.open(f"device=node1 existing=new clipboard={mode}") for mode in modes])
        for mode, reply in zip(modes, opened, strict=True):
            page = await self.visit(reply.body["url"], init=UNRULY)
            await self.once_more("click", page.click_at(*USER_FIELD))
            await self.out(page, mode)
            await self.into(page, mode)
            await self.close(reply.body["console"])
            await page.leave()

    async def out(self, page: Page, mode: str) -> None:
        text = f"copied with {mode}"
        await page.type(text)
        await self.holds(text)
        await self.once_more("select", page.press("Control+a"))
        await page.press("Control+c")
        await page.press("End")
        await page.type(".")
        await self.holds(f"{text}.")
        box = "document.getElementById('clipboard-in').value"
        if mode in ("both", "out"):
            await page.wait(f"{box} === '{text}'")
            return
        await page.evaluate(ECHO)
        self.assertEqual(await page.evaluate(box), "")

    async def into(self, page: Page, mode: str) -> None:
        text = f"pasted with {mode}"
        self.assertEqual(await page.visible("#clipboard-button"), mode != "off")
        if mode in ("both", "in"):
            await page.click("#clipboard-button")
            await page.fill("#clipboard-out", text)
            await page.click("#clipboard-send")
            await self.once_more("click", page.click_at(*USER_FIELD))
            passed = text
        else:
            self.assertFalse(await page.visible("#clipboard-out"))
            await page.evaluate(said_by(cut_text(text.encode())))
            passed = f"copied with {mode}"  # what was there before
        await self.once_more("select", page.press("Control+a"))
        await page.press("Control+v")
        await page.type("!")
        await self.holds(f"{passed}!")
