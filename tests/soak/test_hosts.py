"""Many consoles on agents that are other machines."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from twisted.internet.defer import gatherResults

from tests.support import leftovers
from tests.support.hosts_world import HostsWorld

MOST: Final = 40
AT_ONCE: Final = 10
BROWSERS: Final = (
    'sh -c \'case $DISPLAY in :10[1-6]) exec chromium "$0" "$@";; esac;'
    " exec xmessage -buttons Fine:0 -geometry 400x300+50+50 a small program'"
)
"""Chromium on six displays, and a small program on the others."""


class ManyTests(HostsWorld):
    timeout: ClassVar[float] = 400
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"panel": {"chromium": BROWSERS}}
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1), ("west", 1))

    async def test_forty_over_one_connection(self) -> None:
        consoles: list[dict[str, Any]] = []
        while len(consoles) < MOST:
            consoles += await self.open_at_once(["east"] * AT_ONCE)
        for console in consoles:
            await self.use(console["url"])
        host = self.east.host
        self.assertEqual(len(host.connections()), 1)
        running = [one for one in host.processes() if one.uid > host.first_uid]
        self.assertEqual(len({one.uid for one in running}), MOST)
        self.assertEqual(len({one.uid for one in running if "--type=renderer" in one.command}), 6)
        random.shuffle(consoles)
        clients = [await self.connect() for _ in consoles]
        closing = [
            client.ask(f"console close console={console['console']}")
            for client, console in zip(clients, consoles, strict=True)
        ]
        self.assertEqual({reply.code for reply in await gatherResults(closing)}, {""})
        await self.nothing_left()

    async def test_ten_at_once_on_two_agents(self) -> None:
        for _ in range(3):
            names = ["east", "west"] * AT_ONCE
            consoles = await self.open_at_once(names)
            for console in consoles:
                await self.use(console["url"])
            await gatherResults([self.client.ask(f"console close device={name}1") for name in ("east", "west")])
            await self.nothing_left()


class CutTests(HostsWorld):
    timeout: ClassVar[float] = 400
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)

    async def test_cut_at_any_moment(self) -> None:
        """The connection is lost, or the host loses power, while consoles open: each is there or is not."""

        for turn in range(20):
            clients = [await self.connect() for _ in range(3)]
            asked = [client.ask("console open device=east1 agent=east existing=new") for client in clients]
            await leftovers.pause(random.uniform(0.0, 1.0))
            if turn % 5 == 4:
                await self.east.reboot()
            else:
                self.east.host.cut()
            replies = await gatherResults(asked)
            self.assertLessEqual({reply.code for reply in replies}, {"", "agent-unreachable", "job-failed"}, replies)
            await self.until_power(self.east, 60.0)
            await self.client.must("console close device=east1", 60.0)
            while (await self.client.must("console list"))["consoles"]:
                await leftovers.pause(0.1)  # those that are lost are tried again
            await self.nothing_left()
