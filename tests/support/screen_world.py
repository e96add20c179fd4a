"""The daemon, and a VNC server of the server's own: Xvnc behind a password, with a window that tells what comes."""

from __future__ import annotations

import re
import shlex
import struct
from typing import Any, ClassVar, Final

from tests.support.page_display import Running
from tests.support.viewer import Page, open_page
from tests.support.vnc_servers import RealServer, VncServers
from tests.support.world import World

WHITE: Final = (255, 255, 255)
IN_THE_WINDOW: Final = (150, 120)

# A page that can be made to misbehave: `mute` keeps what it would send, say() sends any bytes all the same.
UNRULY: Final = """(() => {
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) { window.wire = this; if (!window.mute) send.call(this, data); };
  window.say = (...bytes) => send.call(window.wire, new Uint8Array(bytes));
})();"""


def key(symbol: int | str, down: bool = True) -> bytes:
    """A KeyEvent (RFC 6143 §7.5.4)."""

    return struct.pack(">BBxxI", 4, down, ord(symbol) if isinstance(symbol, str) else symbol)


def pointer(x: int, y: int, buttons: int = 0) -> bytes:
    return struct.pack(">BBHH", 5, buttons, x, y)


def said_by(page_bytes: bytes) -> str:
    """JavaScript: an unruly page says these bytes."""

    return f"say({', '.join(map(str, page_bytes))})"


class ScreenWorld(World):
    """:ivar screen: the VNC server. ``window``: xev on it.

    :cvar vnc_password: of the server.
    """

    vnc_password: ClassVar[str] = "qW7-zt4K"

    async def _prepare(self) -> None:
        await super()._prepare()
        self.servers = VncServers(self)
        self.screen = await self.servers.xvnc("VncAuth", password=self.vnc_password)
        self.window = await self.xev(self.screen)

    async def xev(self, server: RealServer) -> Running:
        argv = ["stdbuf", "-oL", "xev", "-geometry", "200x150+50+40"]
        window = self.servers.start(argv, {"DISPLAY": f":{server.number}"})
        await window.says("Expose event")
        return window

    def words(self, more: str = "", *, server: RealServer | None = None, password: str | None = None) -> str:
        """The arguments of ``console open`` for a VNC server."""

        server = server or self.screen
        secret = shlex.quote(self.vnc_password if password is None else password)
        return f"type=vnc vnc=127.0.0.1:{server.port} vnc_password={secret} {more}"

    async def visit(self, url: str, **options: Any) -> Page:
        page = await open_page(self, url, **options)
        await page.phase("connected")
        await page.wait_pixel(IN_THE_WINDOW, WHITE)
        await page.move(*IN_THE_WINDOW)
        return page

    async def types(self, page: Page, letter: str, window: Running | None = None) -> None:
        """The page presses a key, and it arrives."""

        window = window or self.window
        seen = len(self.keys("KeyPress", letter, window))
        await page.type(letter)
        await window.until(lambda: len(self.keys("KeyPress", letter, window)) > seen)

    def keys(self, kind: str, name: str, window: Running | None = None) -> list[int]:
        """For each KeyPress or KeyRelease of a key what was held with it: bit 0 is Shift."""

        pattern = rf"{kind} event.*?\n.*?\n +state (0x[0-9a-f]+), keycode \d+ \(keysym 0x[0-9a-f]+, {re.escape(name)}\)"
        return [int(state, 16) for state in re.findall(pattern, (window or self.window).output)]
