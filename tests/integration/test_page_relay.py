"""The page on the relay that really serves it, with a real Xvnc behind: both sides of their contract at once."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.trial.unittest import TestCase

from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import ConsoleState, Grant
from ipmiproxyd.relay.host import WebRelayHost
from tests.support.fake_console import FakeConsole
from tests.support.page_display import PageDisplay
from tests.support.page_server import wait_until
from tests.support.ports import free_ports
from tests.support.scratch import scratch
from tests.support.viewer import Page, open_page


class PageOnRelayTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.display = PageDisplay(reactor, scratch(self))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.display.stop()))
        await self.display.start()
        self.window = self.display.run("xev", "-geometry", "600x400+100+100")
        await self.window.says("Expose event")
        self.console = FakeConsole()
        self.grants = GrantBook(reactor, 300.0)
        self.host = WebRelayHost(
            reactor, self.grants, listen=["127.0.0.1"], ports=free_ports(1), public_host="127.0.0.1", port_rest=0.0
        )
        self.port = self.host.open(self.console)
        self.addCleanup(lambda: self.port.close("shutdown", "The test is over."))

    def ready(self) -> None:
        self.console.server = VncServer(UNIXClientEndpoint(reactor, str(self.display.socket)))
        self.console.change(state=ConsoleState.READY)

    async def visit(self, control: bool = True, **options: Any) -> Page:
        token = self.grants.issue(Grant(console=self.console.id, id="g1", control=control))
        return await open_page(self, self.host.url(self.port, token), **options)

    async def assert_quiet(self, page: Page) -> None:
        complaints = [entry for entry in await page.console() if entry["type"] in ("error", "pageerror")]
        self.assertEqual(complaints, [])

    async def test_from_opening_to_close(self) -> None:
        page = await self.visit()
        await page.see("#stages li.now")
        self.assertEqual(await page.text("#stages li.now .label"), "Starting <b>it</b>")
        self.ready()
        await page.phase("connected")
        await page.wait_pixel((500, 300), (255, 255, 255))
        await page.move(300, 300)
        await page.type("k")
        await self.window.says(r"KeyPress.*, k\)")
        self.assertIn("active", self.console.told)

        await page.reload()
        await page.phase("connected")
        await page.click("#close-button")
        await page.click("#close-yes")
        await wait_until(reactor, lambda: "close" in self.console.told, what="the request to close")
        await self.port.close("viewer", "A viewer closed the console.")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "You closed the console")
        await self.assert_quiet(page)

    async def test_coming_again_is_no_activity(self) -> None:
        """Not even where the browser lets the page hand its clipboard over by itself, which it does each time."""

        self.ready()
        page = await self.visit(permissions=["clipboard-read", "clipboard-write"])
        await page.phase("connected")
        await page.evaluate("navigator.clipboard.writeText('mine')")
        await page.reload()
        await page.phase("connected")
        for _ in range(200):
            reader = self.display.run("xclip", "-selection", "clipboard", "-o")
            await reader.ended
            if reader.output == "mine":
                break
        self.assertEqual(reader.output, "mine")
        self.assertNotIn("active", self.console.told)
        await page.move(300, 300)
        await page.type("k")
        await self.window.says(r"KeyPress.*, k\)")
        self.assertIn("active", self.console.told)

    async def test_idle_and_used_link(self) -> None:
        self.ready()
        page = await self.visit()
        await page.phase("connected")
        token = self.grants.issue(Grant(console=self.console.id))
        self.assertIsNotNone(self.grants.redeem(self.console.id, token))
        late = await open_page(self, self.host.url(self.port, token))
        await late.phase("over")
        self.assertIn("This link was already used or has expired. Ask for a new one.", await late.text("#card"))

        self.grants.revoke(self.console.id)
        self.console.change(state=ConsoleState.CLOSING, reason="idle", message="Nobody used it for 10 minutes.")
        await self.port.close("idle", "Nobody used it for 10 minutes.")
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "Closed because nobody used it")
        self.assertEqual(await page.text("#card-text"), "Nobody used it for 10 minutes.")
