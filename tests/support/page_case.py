"""The page in a real browser, with a scripted console behind it, and a real Xvnc where a screen is needed."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.page_display import PageDisplay, Running
from tests.support.page_server import PageServer, stop_later
from tests.support.scratch import scratch
from tests.support.viewer import Page, open_page

BLACK = (0, 0, 0)
WHITE = (255, 255, 255)


def stage(name: str, label: str, begun: int, done: int | None = None) -> dict[str, Any]:
    return {"name": name, "label": label, "begun_ms": begun, "done_ms": done}


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
