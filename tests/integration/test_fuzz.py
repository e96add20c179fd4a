"""Nonsense on the control socket and on a console's port: the daemon and its console stay as they are."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from twisted.internet.threads import deferToThread

from tests.support import garbage, leftovers
from tests.support.world import SMALL_PROGRAM, World, port_of

UPGRADE = (
    b"GET /vnc HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def throw(family: socket.AddressFamily, address: Any, chunks: Iterable[bytes]) -> None:
    """Send the chunks, read a little, and hang up. What the other side makes of it does not matter here."""

    with socket.socket(family, socket.SOCK_STREAM) as thrown:
        thrown.settimeout(5.0)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            thrown.connect(address)
            for chunk in chunks:
                thrown.sendall(chunk)
            thrown.settimeout(0.05)
            thrown.recv(4096)


class FuzzTests(World):
    timeout: ClassVar[float] = 90
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"panel": {"chromium": SMALL_PROGRAM}}
    rounds: ClassVar[int] = 40
    """How often; ``make soak`` does it for longer."""

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    async def test_nonsense(self) -> None:
        opened = await self.opened()
        before = self.descriptors()
        seed = random.randrange(1 << 32)
        port = port_of(opened["url"])
        control = str(self.daemon.control)
        for number in range(seed, seed + self.rounds):
            await deferToThread(throw, socket.AF_UNIX, control, garbage.lines(number, 30))
            key = random.choice((b"", b"Sec-WebSocket-Protocol: binary, key.nonsense\r\n"))
            start = random.choice((b"", UPGRADE + key + b"\r\n", b"POST /api/session HTTP/1.1\r\nHost: x\r\n"))
            await deferToThread(throw, socket.AF_INET, ("127.0.0.1", port), (start, *garbage.frames(number, 30)))
        self.assertEqual((await self.show(opened["console"]))["state"], "ready", f"seed {seed}")
        listed = (await self.client.must("console list"))["consoles"]
        self.assertEqual([console["console"] for console in listed], [opened["console"]], f"seed {seed}")
        await leftovers.until_none(lambda: max(0, self.descriptors() - before))
        self.assertNotIn("Traceback", self.daemon.log_text(), f"seed {seed}")
        await self.close(opened["console"])
        await self.nothing_left()
