"""Who moves much on the relay does not keep those waiting who move little. Counted in bytes, not in seconds."""

from __future__ import annotations

import fcntl
import json
import socket
import statistics
import struct
import sys
import termios
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from ipmiproxyd.relay.ends import READ, UP_READ
from ipmiproxyd.relay.socket_end import SocketEnd
from ipmiproxyd.relay.viewer import Viewer
from tests.support.fake_console import FakeConsole
from tests.support.page_display import Running
from tests.support.relay_case import RelayCase, reactor, until
from tests.support.relay_talk import UPDATE_REQUEST
from tests.support.relay_tls import TlsCase
from tests.support.vnc_servers import VncServers

ROOT = Path(__file__).resolve().parents[2]
HOGS = 4
ROUNDS = 25
ENOUGH = 8
"""Reads of each of the others, or else it was no flood."""
LIMIT = 100
"""Reads of each of the others during a round trip. It is 6 to 20; more on a busy machine: its kernel delivers late."""


class FloodCase(RelayCase):
    """``self.programs`` are this test's; ``self.flooded`` is the flooded console's port."""

    def setUp(self) -> None:
        super().setUp()
        self.programs = VncServers(self)

    def program(self, module: str, job: dict[str, Any] | None = None) -> Running:
        child = self.programs.start([sys.executable, "-m", module], {"PYTHONPATH": str(ROOT)})
        assert child.transport is not None
        if job is not None:
            child.transport.write(json.dumps(job).encode() + b"\n")
            child.transport.closeStdin()
        return child

    async def server(self) -> IStreamClientEndpoint:
        """It gives without end to whoever asks."""

        port = int((await self.program("benchmarks.relay.server").says(r"(\d+)\n"))[1])
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    async def flood(self, way: str, server: IStreamClientEndpoint) -> None:
        """Four viewers on a console of their own."""

        self.flooded = self.host.open(FakeConsole("c2", server))
        protocols = f"binary, key.{self.key('c2')}"
        tls = isinstance(self, TlsCase)
        job = {"port": self.flooded.number, "protocols": protocols, "tls": tls, "ways": [way] * HOGS}
        await self.program("tests.support.flood", job).says("flooding")


def moved(sock: socket.socket) -> int:
    """How many bytes the relay has read from a connection and written to it, as the kernel counts."""

    acknowledged, received = struct.unpack_from("QQ", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), 120)
    unsent, unread = (
        int.from_bytes(fcntl.ioctl(sock, what, bytes(4)), sys.byteorder)
        for what in (termios.TIOCOUTQ, termios.FIONREAD)
    )
    return int(acknowledged + unsent + received - unread)


class FairTests(FloodCase):
    def hogs(self) -> list[int]:
        """What the relay has moved for each of the four viewers."""

        ends = [one._browser for one in self.flooded._sockets if isinstance(one, Viewer)]
        sockets = [end._socket for end in ends if isinstance(end, SocketEnd)]
        return [moved(one) for one in sockets if one is not None]

    async def is_fair(self, most: int) -> None:
        """What one more viewer says, and hears, waits for a limited number of reads of the others only; and none of
        them is kept from moving.

        :param most: bytes that the relay may read at once.
        """

        self.display.keeps = False
        await until(lambda: len(self.hogs()) == HOGS and min(self.hogs()) > ENOUGH * most)
        self.serve()
        client, end = await self.greeted(len(self.display.ends))
        whole = [one + ENOUGH * most for one in self.hogs()]
        found: list[int] = []
        while len(found) < ROUNDS or any(now < then for now, then in zip(self.hogs(), whole, strict=True)):
            before, heard = sum(self.hogs()), end.count
            client.say(UPDATE_REQUEST)
            await end.hears(heard + len(UPDATE_REQUEST))
            end.say(b"an update")
            self.assertEqual(await client.hears(9), b"an update")
            found.append(sum(self.hogs()) - before)
        self.assertLess(statistics.median(found), HOGS * LIMIT * most)

    async def test_floods_from_the_servers(self) -> None:
        await self.flood("down", await self.server())
        await self.is_fair(READ)

    async def test_floods_from_the_viewers(self) -> None:
        await self.flood("up", self.display.endpoint)
        await self.is_fair(UP_READ)


class TlsFairTests(FairTests, TlsCase):
    """As browsers have it."""
