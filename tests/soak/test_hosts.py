"""Many consoles on agents that are other machines."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from twisted.internet.defer import gatherResults

from tests.support.hosts_world import HostsWorld

MOST: Final = 40
AT_ONCE: Final = 10
BROWSERS: Final = (
    "sh -c 'case $DISPLAY in :10[1-6]) exec chromium \"$0\" \"$@\";; esac;"
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
