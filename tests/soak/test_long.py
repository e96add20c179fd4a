"""What takes long: many browsers, many crashes, much nonsense."""

from __future__ import annotations

import random
import signal
import time
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


class IdleTests(World):
    timeout: ClassVar[float] = 300
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"panel": {"chromium": SMALL_PROGRAM}}

    async def test_automatically_close_sessions(self) -> None:
        """The form's field, with the shortest time that it takes: the location's proxy, and the console's end."""

        await self.client.must("proxy add name=p1 locations=Lab type=panel idle=5m")
        await self.client.must("device set name=node1 location=Lab")
        await self.client.must("proxy set name=p1 idle=1m")
        opened = await self.opened()
        self.assertEqual(opened["proxy"], "p1")
        await leftovers.pause(20)
        await self.use(opened["url"])  # from now on
        begun = time.monotonic()
        ended = await self.closes(opened["console"], 90.0)
        self.assertEqual((ended["reason"], ended["message"]), ("idle", "Nothing was typed or clicked for 1 minute."))
        self.assertTrue(55 < time.monotonic() - begun < 75, time.monotonic() - begun)
        await self.nothing_left()


class FuzzTests(test_fuzz.FuzzTests):
    timeout: ClassVar[float] = 900
    rounds: ClassVar[int] = 1500
