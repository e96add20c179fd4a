"""A real Chromium in a real job, on a small HTTPS site."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from ipmiproxyd.agents import sandbox
from ipmiproxyd.errors import BmcError, BmcUnreachable, TlsTooOld
from ipmiproxyd.model import JobFile, JobSpec, Ready
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.curl import Curl
from ipmiproxyd.tools.xvnc import Display
from tests.integration.test_local_agent import LocalCase
from tests.support import leftovers
from tests.support.agent_suite import reach_of, shell
from tests.support.https_site import HttpsSite
from tests.support.rfb_client import CONTROL, RETURN, RfbClient, Screen

BLUE, GREEN, YELLOW, RED, WHITE = (34, 68, 102), (34, 136, 34), (221, 204, 34), (238, 17, 17), (255, 255, 255)
STYLE = "position:absolute;width:200px;height:60px;top:100px"
PANEL = f"""<!doctype html><title>Panel</title><body style="margin:0;background:rgb{BLUE}">
<button style="{STYLE};left:100px" onclick="window.open('/popup', '', 'width=400,height=300')">pop-up</button>
<button style="{STYLE};left:400px" onclick="window.open('/tab')">new tab</button>
<a style="{STYLE};left:700px;background:white" href="/firmware.bin" download>download</a>
<script>
    onbeforeunload = event => event.preventDefault()
    requestAnimationFrame(() => requestAnimationFrame(() => fetch("/painted")))
</script>"""
# Each line that is written to the pipe becomes a new tab, as if a program had asked for it.
OPENER = shell(
    f"mkfifo {sandbox.HOME}/addresses && exec 4<>{sandbox.HOME}/addresses && echo > {sandbox.READY} &&"
    f" while read -r address <&4; do chromium --user-data-dir={sandbox.HOME}/profile \"$address\"; done",
    ready=Ready.TOLD,
)
POPUP_BUTTON, TAB_BUTTON, DOWNLOAD = (200, 130), (500, 130), (750, 115)


def coloured(colour: tuple[int, int, int]) -> str:
    return f'<!doctype html><body style="background:rgb{colour}">'


class BrowserTests(LocalCase):
    timeout: ClassVar[float] = 90

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.site = HttpsSite(self, {"/": PANEL, "/popup": coloured(GREEN), "/tab": coloured(YELLOW), "/x": ""})

    async def browse(self, pin: str) -> tuple[JobSpec, RfbClient]:
        program, files = PanelBrowser().programs(self.agent, self.site.url, pin)
        page = JobFile(place="home", name="page.html", text=coloured(RED))
        small = self.spec()
        screen, screen_files = Display().programs(small.display)
        spec = JobSpec(
            id=small.id,
            display=small.display,
            programs=(*screen, OPENER, program),
            files=(*screen_files, *files, page),
            reach=reach_of(self.site.url),
        )
        job = await self.agent.launch(spec, lambda _: None)
        self.home = self.home_of(spec)
        client = await RfbClient.connect(self.agent.dial(job.vnc))
        self.addCleanup(client.close)
        return spec, client

    async def until(
        self, client: RfbClient, good: Callable[[Screen], bool], what: str
    ) -> Screen:
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            screen = await client.look()
            if good(screen):
                return screen
            await leftovers.pause(0.05)
        raise AssertionError(f"this was not seen: {what}")

    async def test_panel_and_nothing_else(self) -> None:
        spec, client = await self.browse(await self.pin())
        await self.site.asked_for("/painted")
        screen = await self.until(client, lambda screen: screen.share(BLUE) > 0.9, "the panel on the whole screen")
        self.assertEqual([screen.colour(x, y) for x, y in ((0, 0), (1279, 0), (0, 1023), (1279, 1023))], [BLUE] * 4)
        everything = self.check_processes(spec)
        await self.check_popup(client)
        client.click(*DOWNLOAD)
        await self.site.asked_for("/firmware.bin")
        await self.check_addresses(client)
        self.check_files()
        await self.agent.stop(spec.id)
        self.assertEqual([pid for pid in everything if os.path.exists(f"/proc/{pid}/exe")], [])
        await self.nothing_left()

    async def pin(self) -> str:
        """What curl finds is the site's own."""

        found = await Curl().look(self.agent, self.site.url, "weak-keys")
        self.assertEqual(found, self.site.pin)
        return self.site.pin

    def check_processes(self, spec: JobSpec) -> set[int]:
        """Chromium's own sandbox is on, and nothing runs as root."""

        keeper = int(self.state(spec)["keeper"].split(":")[1])
        everything = descendants(keeper)
        owners = {leftovers.status(pid).get("Uid", "gone") for pid in everything}
        self.assertFalse([owner for owner in owners if owner.startswith("0\t")], owners)
        renderers = [pid for pid in everything if b"--type=renderer" in leftovers.read(f"/proc/{pid}/cmdline")]
        self.assertTrue(renderers)
        first = self.first_of(spec)
        for pid in renderers:
            self.assertIn("\nSeccomp:\t2\n", Path(f"/proc/{pid}/status").read_text())
            for kind in ("user", "pid"):
                own, job = (os.readlink(f"/proc/{one}/ns/{kind}") for one in (pid, first))
                self.assertNotEqual(own, job, f"{kind} namespace")
        return everything

    async def check_popup(self, client: RfbClient) -> None:
        """A pop-up comes as it wants to be, and its window has a button that closes it."""

        client.click(*POPUP_BUTTON)
        screen = await self.until(client, lambda screen: screen.share(GREEN) > 0.07, "the pop-up")
        self.assertLess(screen.share(GREEN), 0.2)
        self.assertGreater(screen.share(BLUE), 0.6)
        right = max(x for x in range(screen.width) if screen.colour(x, 200) == GREEN)
        top = min(y for y in range(screen.height) if screen.colour(right, y) == GREEN)
        client.click(right - 6, top - 10)
        await self.until(client, lambda screen: not screen.share(GREEN), "the pop-up's end")

    def check_files(self) -> None:
        """Nothing was saved."""

        self.assertTrue((self.home / "page.html").exists())
        self.assertEqual([path for path in self.home.rglob("*") if path.suffix in (".bin", ".crdownload")], [])

    def home_of(self, spec: JobSpec) -> Path:
        """The console's home, by way of the sandbox's process 1."""

        return Path(f"/proc/{self.first_of(spec)}/root{sandbox.HOME}")

    async def check_addresses(self, client: RfbClient) -> None:
        """No address leads anywhere but to the panel. The reference is another server: it sees no request, and all that
        is forbidden looks the same."""

        other = HttpsSite(self, {"/": coloured(RED)}, tls=False)
        client.click(*TAB_BUTTON)
        await self.until(client, is_page_of(YELLOW), "the new tab")
        client.point(1200, 900)
        typed = await self.type_address(client, "chrome://version")
        await self.go(client, other.url + "/", is_page_with_words)
        blocked = await self.settled(client)
        self.assertEqual(words(typed), words(blocked))
        for address in (
            "file:///home/console/page.html",
            f"data:text/html,{coloured(RED)}",
            self.site.url.replace("127.0.0.1", "127.0.0.2"),
        ):
            await self.go(client, f"{self.site.url}/tab", is_page_of(YELLOW))
            await self.go(client, address, lambda screen: words(screen) == words(blocked))
        self.assertEqual(other.connections, 0)

    async def go(self, client: RfbClient, address: str, good: Callable[[Screen], bool]) -> Screen:
        with (self.home / "addresses").open("w") as pipe:
            pipe.write(f"{address}\n")
        return await self.until(client, good, f"what comes of {address}")

    async def type_address(self, client: RfbClient, address: str) -> Screen:
        """What only the person at the keyboard may open. The address field takes its time to get the keyboard."""

        before = await self.settled(client)
        client.press(CONTROL, ord("l"))
        await self.until(client, lambda screen: not screen.same(before), "the keyboard in the address field")
        await self.settled(client)
        client.type(address)
        client.press(RETURN)
        await self.until(client, is_page_with_words, f"what comes of {address}")
        return await self.settled(client)

    async def settled(self, client: RfbClient) -> Screen:
        """The screen, once it does not change any more."""

        while True:
            before = await client.look()
            await leftovers.pause(0.3)
            if before.same(screen := await client.look()):
                return screen

    async def test_another_certificate(self) -> None:
        """Somebody in between shows another one than was seen before: nothing is asked of it."""

        other = HttpsSite(self, {})
        _, client = await self.browse(other.pin)
        await self.site.connected()
        await self.until(client, is_page_of(WHITE), "a warning")
        self.assertEqual(self.site.requests, [])


class PinTests(LocalCase):
    """curl on the agent, on panels that are not as they should be."""

    def pin(self, url: str, **settings: float) -> Deferred[str | None]:
        return Deferred.fromCoroutine(Curl(**settings).look(self.agent, url, "modern"))  # type: ignore[arg-type]

    async def test_plain_http_has_none(self) -> None:
        site = HttpsSite(self, {"/": ""}, tls=False)
        self.assertIsNone(await self.pin(site.url))
        self.assertEqual(site.requests, ["/"])

    async def test_nothing_there(self) -> None:
        for url in ("https://127.0.0.1:1", "http://127.0.0.1:1", "https://no-such-host.invalid"):
            error = await self.assertFailure(self.pin(url), BmcUnreachable)
            self.assertIn(url, str(error))

    async def test_not_tls(self) -> None:
        await self.assertFailure(self.pin(self.answering(b"220 mail\r\n")), TlsTooOld)

    async def test_panel_that_says_nothing(self) -> None:
        error = await self.assertFailure(self.pin(self.answering(b""), connect_timeout=0.3), BmcUnreachable)
        self.assertIn("did not answer in time", str(error))

    def answering(self, said: bytes) -> str:
        """A server that is no web server."""

        class Server(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(said)

        port = cast(Any, reactor).listenTCP(0, Factory.forProtocol(Server), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"https://127.0.0.1:{cast(Any, port.getHost()).port}"

    async def test_program_that_is_no_curl(self) -> None:
        agent = self.agent
        look = Curl(program="false").look(agent, "https://x", "modern")
        await self.assertFailure(Deferred.fromCoroutine(look), BmcError)


def is_page_of(colour: tuple[int, int, int]) -> Callable[[Screen], bool]:
    return lambda screen: screen.share(colour) > 0.75


def is_page_with_words(screen: Screen) -> bool:
    return screen.share(WHITE) > 0.75 and len(words(screen)) > 10


def words(screen: Screen) -> list[list[tuple[int, int, int]]]:
    """The part of a white page that has words, wherever it begins."""

    rows = [[screen.colour(x, y) for x in range(200, 900, 8)] for y in range(120, 700)]
    written = [at for at, row in enumerate(rows) if set(row) != {row[0]}]
    return rows[written[0] : written[-1] + 1] if written else []


def descendants(pid: int) -> set[int]:
    found = set(leftovers.children_of(pid))
    return found.union(*(descendants(child) for child in found))
