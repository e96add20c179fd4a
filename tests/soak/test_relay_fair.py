"""Nobody waits long on the relay while others move all that they can: measured in seconds."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from twisted.internet.interfaces import IStreamClientEndpoint

from tests.integration.test_relay_fair import FloodCase
from tests.support.fake_console import FakeConsole
from tests.support.relay_tls import TlsCase

LONGEST = 20.0
"""Milliseconds of the median round trip."""


class PatienceTests(FloodCase):
    timeout: ClassVar[int] = 120  # type: ignore[misc]

    async def is_served(self, way: str, server: IStreamClientEndpoint) -> None:
        self.display.keeps = False
        await self.flood(way, server)
        port = self.host.open(FakeConsole("c1", await self.server()))
        target: dict[str, Any] = {
            "port": port.number, "pid": 0, "protocols": f"binary, key.{self.key()}", "path": "/vnc",
            "tls": isinstance(self, TlsCase),
        }  # fmt: skip
        load = self.program(
            "benchmarks.relay.load", {"scenario": "round_trips", "target": target, "connections": 1, "seconds": 5}
        )
        await load.ended
        found = json.loads(load.output)
        self.assertLess(found["p50 ms"], LONGEST, found)

    async def test_floods_from_the_servers(self) -> None:
        await self.is_served("down", await self.server())

    async def test_floods_from_the_viewers(self) -> None:
        await self.is_served("up", self.display.endpoint)


class TlsPatienceTests(PatienceTests, TlsCase):
    """As browsers have it."""
