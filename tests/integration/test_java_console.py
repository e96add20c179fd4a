"""Java consoles on the whole daemon: a vendor's simulated panel, a real Java, a real display."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.simulator.bmc import BmcUser
from tests.support.world import World

PASSWORD = "s3cret-&+/=x"


class JavaWorld(World):
    timeout: ClassVar[float] = 90
    users = (BmcUser("ADMIN", PASSWORD),)
    personality = "supermicro"

    async def recorded(self, kind: str) -> dict[str, Any]:
        return await self.server.panel.recorded(kind, limit=20.0)

    def count(self, kind: str, **more: Any) -> int:
        return sum(1 for event in self.server.panel.record(kind) if more.items() <= event.items())


class SupermicroTests(JavaWorld):
    async def test_from_the_command_to_the_key(self) -> None:
        opened = await self.opened("device=node1 type=java")
        await self.recorded("kvm-connected")
        await self.use(opened["url"])
        key = await self.recorded("kvm-key")
        self.assertEqual(key["char"], "a")
        self.assertEqual((self.count("sign-in", ok=True), self.count("sign-out")), (1, 0))
        self.assert_unseen(PASSWORD)
        await self.close(opened["console"])
        await self.nothing_left()
        self.assertEqual((self.count("sign-in", ok=True), self.count("sign-out")), (1, 1))
