"""The page in a real browser, with a scripted console behind it, and a real Xvnc where a screen is needed."""

from __future__ import annotations

import base64
from typing import Any, ClassVar, Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.page_display import PageDisplay, Running
from tests.support.page_server import PageServer, stop_later
from tests.support.scratch import scratch
from tests.support.viewer import Page, open_page

BLACK = (0, 0, 0)
WHITE = (255, 255, 255)


def stage(name: str, label: str, begun: int, done: int | None = None, *, failed: bool = False) -> dict[str, Any]:
    return {"name": name, "label": label, "begun_ms": begun, "done_ms": done, "failed": failed}


KEYS: Final = 4
POINTER: Final = 5
CUT_TEXT: Final = 6
_HANDSHAKE: Final = 12 + 1 + 1  # version, security type None, ClientInit
_LENGTHS: Final[dict[int, Any]] = {
    0: lambda _: 20,
    2: lambda rest: 4 + 4 * int.from_bytes(rest[2:4]),
    3: lambda _: 10,
    KEYS: lambda _: 8,
    POINTER: lambda rest: 7 if rest[1] & 0x80 else 6,
    CUT_TEXT: lambda rest: 8 + abs(int.from_bytes(rest[4:8], signed=True)),
    150: lambda _: 10,
    248: lambda rest: 9 + rest[8],
    251: lambda rest: 8 + 16 * rest[6],
    255: lambda _: 12,
}


def client_messages(sent: list[str]) -> list[bytes]:
    """The RFB messages in the frames that a page has sent on one WebSocket, without its handshake."""

    rest = b"".join(map(base64.b64decode, sent))[_HANDSHAKE:]
    found = []
    while rest:
        length = _LENGTHS[rest[0]](rest)
        found.append(rest[:length])
        rest = rest[length:]
    return found


def is_input(message: bytes) -> bool:
    """Whether this is a key, the pointer, a text or a size: what no mere onlooker may send.

    What noVNC answers to a server's announcement of Extended Clipboard is a text by its type only.
    """

    announces = message[0] == CUT_TEXT and message[4] & 0x80 and message[8] & 0x01
    return message[0] in (KEYS, POINTER, CUT_TEXT, 250, 251, 255) and not announces


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

    async def inputs(self, page: Page) -> list[bytes]:
        """What the page has sent on its last WebSocket that acts on the server."""

        return [message for message in client_messages((await page.sockets())[-1]["sent"]) if is_input(message)]

    async def connected(self, **options: Any) -> Page:
        page = await self.open(**options)
        await page.phase("connected")
        return page
