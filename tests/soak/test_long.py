"""What takes long: many browsers, many crashes, much nonsense."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.internet.defer import gatherResults

from tests.integration import test_fuzz
from tests.support import leftovers
from tests.support.wire_client import Reply
from tests.support.world import SMALL_PROGRAM, World


class BrowserTests(World):
    timeout: ClassVar[float] = 300

    async def test_twenty_browsers_at_once(self) -> None:
        opening = [self.client.ask("console open device=node1 existing=new", 120.0)]
        clients = [await self.connect() for _ in range(19)]
        opening += [client.ask("console open device=node1 existing=new", 120.0) for client in clients]
        replies: list[Reply] = await gatherResults(opening)
        self.assertEqual([reply.code for reply in replies], [""] * 20, [reply.body for reply in replies])
        consoles = [reply.body["console"] for reply in replies]
        random.shuffle(consoles)
        await gatherResults([self.client.ask(f"console close console={console}") for console in consoles])
        await self.nothing_left()


class KillTests(World):
    timeout: ClassVar[float] = 600
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"panel": {"chromium": SMALL_PROGRAM}}

    async def test_killed_at_any_moment(self) -> None:
        for _ in range(30):
            client = await self.daemon.connect()
            for _ in range(4):
                client.ask("console open device=node1 existing=new").addErrback(lambda _: None)
            await leftovers.pause(random.uniform(0.0, 1.0))
            await self.daemon.signal(signal.SIGKILL)
            await self.daemon.start()
            await self.nothing_left()


class FuzzTests(test_fuzz.FuzzTests):
    timeout: ClassVar[float] = 900
    rounds: ClassVar[int] = 1500
