"""Who moves much on the relay does not keep those waiting who move little. Counted in bytes, not in seconds."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.endpoints import TCP4ClientEndpoint

from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.relay.ends import READ, UP_READ
from ipmiproxyd.relay.viewer import Viewer
from tests.support.fake_console import FakeConsole
from tests.support.relay_case import RelayCase, reactor, until
from tests.support.relay_talk import UPDATE_REQUEST
from tests.support.relay_tls import TlsCase
from tests.support.vnc_servers import VncServers

ROOT = Path(__file__).resolve().parents[2]
HOGS = 4
TURNS = 12
"""Of the reactor, in which a round trip is through it here: our client, the relay, the display, and back."""


class FairTests(RelayCase):
    rounds: ClassVar[int] = 200

    def setUp(self) -> None:
        super().setUp()
        self.moved: Counter[Viewer] = Counter()  # bytes that the relay had of each viewer and its server
        relay = Viewer.received

        def received(viewer: Viewer, end: Any, start: int, stop: int) -> None:
            self.moved[viewer] += stop - start
            relay(viewer, end, start, stop)

        self.patch(Viewer, "received", received)
        self.programs = VncServers(self)
        self.display.keeps = False

    async def server(self) -> VncServer:
        """It gives without end to whoever asks."""

        child = self.programs.start([sys.executable, "-m", "benchmarks.relay.server"], {"PYTHONPATH": str(ROOT)})
        port = int((await child.says(r"(\d+)\n"))[1])
        return VncServer(TCP4ClientEndpoint(reactor, "127.0.0.1", port))

    async def flood(self, way: str, server: VncServer) -> None:
        """Four viewers on a console of their own."""

        hogs = FakeConsole("c2")
        hogs.server = server
        port = self.host.open(hogs)
        protocols = f"binary, key.{self.key('c2')}"
        job = {"port": port.number, "protocols": protocols, "tls": isinstance(self, TlsCase), "ways": [way] * HOGS}
        child = self.programs.start([sys.executable, "-m", "tests.support.flood"], {"PYTHONPATH": str(ROOT)})
        assert child.transport is not None
        child.transport.write(json.dumps(job).encode() + b"\n")
        from tests.support.leftovers import pause; await pause(2); print(child.output, self.moved)
        await until(lambda: len(self.moved) == HOGS and min(self.moved.values()) > READ)

    async def in_between(self) -> list[tuple[int, float]]:
        """Round trips of one more viewer: what the relay moved meanwhile, and the seconds."""

        self.serve()
        client, end = await self.greeted(len(self.display.ends))
        found = []
        for count in range(1, self.rounds + 1):
            moved, began = self.moved.total(), reactor.seconds()
            client.say(UPDATE_REQUEST)
            await end.hears(count * len(UPDATE_REQUEST))
            end.say(b"an update")
            self.assertEqual(await client.hears(9), b"an update")
            found.append((self.moved.total() - moved, reactor.seconds() - began))
        return found

    async def is_fair(self, most: int) -> None:
        """:param most: that the relay may read at once."""

        before = self.moved.copy()
        found = await self.in_between()
        hogs = self.moved - before
        moved = [one for one, _ in found]
        self.assertLess(max(moved), HOGS * TURNS * most)
        self.assertGreater(sum(moved), self.rounds * most)  # or else it was no flood
        shares = sorted(hogs[viewer] for viewer in before)
        self.assertGreater(shares[0], shares[-1] / 4, shares)
        self.check([seconds for _, seconds in found])

    def check(self, seconds: list[float]) -> None:
        """For where time is measured."""

    async def test_floods_from_the_servers(self) -> None:
        await self.flood("down", await self.server())
        await self.is_fair(READ)

    async def test_floods_from_the_viewers(self) -> None:
        await self.flood("up", VncServer(self.display.endpoint))
        await self.is_fair(UP_READ)


class TlsFairTests(FairTests, TlsCase):
    """As browsers have it."""
