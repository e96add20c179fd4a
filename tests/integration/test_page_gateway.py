"""The page in a real browser by the gateway: two consoles in one tab, by https and wss."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.trial.unittest import TestCase

from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.model import Grant
from ipmiproxyd.relay.host import WebRelayHost, WebRelayPort
from tests.support.fake_console import FakeConsole
from tests.support.page_display import PageDisplay
from tests.support.ports import free_ports
from tests.support.relay_tls import Made
from tests.support.scratch import scratch
from tests.support.viewer import Page, open_page


class PageOnGatewayTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        folder = scratch(self)
        self.display = PageDisplay(reactor, folder)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.display.stop()))
        await self.display.start()
        made = Made(folder)
        self.grants = GrantBook(reactor, 300.0)
        self.host = WebRelayHost(
            reactor,
            self.grants,
            listen=["127.0.0.1"],
            ports=[],
            gateway=("127.0.0.1", free_ports(1)[0]),
            public_host="127.0.0.1",
            certificate=made.both(),
        )
        self.addCleanup(self.host.close, "shutdown", "The test is over.")

    def url(self, console: FakeConsole, port: WebRelayPort) -> str:
        return self.host.url(port, self.grants.issue(Grant(console=console.id, id="g1")))

    async def sees_the_screen(self, page: Page) -> None:
        await page.phase("connected")
        await page.wait_pixel((500, 300), (0, 0, 0))

    async def test_two_consoles_in_one_tab(self) -> None:
        endpoint = UNIXClientEndpoint(reactor, str(self.display.socket))
        one, two = FakeConsole("c1", endpoint), FakeConsole("c2", endpoint)
        first, second = self.host.open(one), self.host.open(two)
        page = await open_page(self, self.url(one, first))
        await self.sees_the_screen(page)
        self.assertTrue(await page.evaluate("isSecureContext"))
        place = await page.address()
        self.assertTrue(place.startswith("https://") and place.endswith("/c/c1/"), place)
        await page.goto(self.url(two, second))
        await self.sees_the_screen(page)
        await page.goto(place)
        await self.sees_the_screen(page)
        self.assertTrue(all(opened["url"].startswith("wss://") for opened in await page.sockets()))

        await second.close("closed", "It was closed.")
        await self.sees_the_screen(page)
        await first.close("closed", "It was closed.")
        await page.phase("over")
        await page.goto(place)
        self.assertIn("This console is closed", await page.text("body"))
