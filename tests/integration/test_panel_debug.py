"""A console of type panel-debug: the panel in an ordinary Chromium, with its address field and its developer tools."""

from __future__ import annotations

import itertools
import stat
from pathlib import Path
from typing import Any, ClassVar

from ipmiproxyd.model import JOB_LOG
from tests.support import leftovers
from tests.support.world import World
from tests.support.ws_client import WsClient

CONTROL, SHIFT, RETURN = 0xFFE3, 0xFFE1, 0xFF0D


def press(viewer: WsClient, *keys: int) -> None:
    """Keys together, the first first."""

    for down, order in ((1, keys), (0, keys[::-1])):
        for key in order:
            viewer.say(bytes((4, down, 0, 0)) + key.to_bytes(4, "big"))


def write(viewer: WsClient, text: str) -> None:
    for letter in text:
        press(viewer, ord(letter))
    press(viewer, RETURN)


class DebugTests(World):
    timeout: ClassVar[float] = 90
    settings: ClassVar[dict[str, Any]] = {"panel": {"debug": True}}

    async def test_from_the_address_field_to_the_console(self) -> None:
        """By a proxy; more is logged than of other consoles, and all of it is kept."""

        await self.client.must("proxy add name=p1 locations=Lab type=panel-debug")
        await self.client.must("device set name=node1 location=Lab")
        opened = await self.opened()
        self.assertEqual((opened["type"], opened["proxy"]), ("panel-debug", "p1"))
        log = Path((await self.show(opened["console"]))["log"])
        self.assertTrue(any(str(log) in words for words in opened["warnings"]), opened["warnings"])
        self.assertEqual(stat.S_IMODE(log.stat().st_mode), 0o600)
        first = log.read_text()
        self.assertIn("VERBOSE1", first)
        viewer = await self.use(opened["url"])
        await self.server.panel.recorded("request", lambda event: event["path"] == "/favicon.ico")
        await self.asks("/typed", viewer, f"{self.server.panel.url}/typed", CONTROL, ord("l"))
        much = f'console.log("much".repeat({JOB_LOG // 4}));fetch("/told")'
        await self.asks("/told", viewer, much, CONTROL, SHIFT, ord("J"))
        while len(kept := log.read_text()) < JOB_LOG:
            self.assertTrue(kept.startswith(first))
            await leftovers.pause(0.05)
        self.assertTrue(kept.startswith(first))
        await self.close(opened["console"])
        self.assertFalse(log.exists())
        await self.nothing_left()

    async def asks(self, path: str, viewer: WsClient, text: str, *shortcut: int) -> None:
        """The browser asks the panel for a page, once a text has come to where a shortcut leads."""

        for tries in itertools.count():
            if any(event["path"] == path for event in self.server.panel.record("request")):
                return
            if tries % 8 == 0:  # the same shortcut may lead away again
                press(viewer, *shortcut)
            await leftovers.pause(0.5)
            write(viewer, text)
