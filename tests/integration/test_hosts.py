"""Panel host, agents and BMC networks as machines of their own: what works, and what can be reached from where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults

from tests.simulator.bmc import HELLO, BmcUser
from tests.support.hosts_world import HostsWorld
from tests.support.vnc_servers import VncServers

PASSWORD = "s3cret-&+/=x"
AT_ONCE = 8


class WorkTests(HostsWorld):
    """Each kind of work once, by an agent that is another machine."""

    small = False
    personality = "supermicro"
    users = (BmcUser("ADMIN", PASSWORD),)
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)
    bmcs: ClassVar[Sequence[tuple[str, int]]] = (("west", 1),)

    async def test_work(self) -> None:
        await self.client.must("power on device=east1 agent=east wait=10s")
        self.assertEqual(await self.power(self.east), ("", "on"))
        self.assertEqual(await self.power(self.west), ("", "off"))
        server = VncServers(self, address=self.east.bmc_address(1), spawner=self.east.reactor)
        vnc = await server.xvnc("VncAuth", password="secret12", size="1280x1024")
        await self.client.must(f"device set name=east1 vnc={self.east.bmc_address(1)}:{vnc.port} vnc_password=secret12")
        opened = await gatherResults(
            [Deferred.fromCoroutine(self.opened_anew(f"type={kind}")) for kind in ("panel", "java", "vnc")]
        )
        commands = " ".join(self.east.host.console_processes().values())
        for program in ("Xvnc", "openbox", "chrom", "java"):
            self.assertIn(program, commands)
        events = self.east.servers[1].panel
        await events.recorded("kvm-connected", limit=20.0)
        for console in opened:
            await self.use(console["url"])
        self.assertEqual((await events.recorded("kvm-key", limit=20.0))["char"], "a")
        self.assert_unseen(PASSWORD)
        await self.client.must("console close device=east1")
        await self.nothing_left()

    async def opened_anew(self, words: str) -> dict[str, Any]:
        (console,) = await self.open_at_once(["east"], words)
        return console


class ReachTests(HostsWorld):
    """From outside there is an agent's sshd, and nothing else."""

    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)

    async def test_from_the_panel_host(self) -> None:
        await self.use((await self.opened("device=east1 agent=east"))["url"])
        open_to_others = [one for one in self.east.host.listening() if not one.split()[1].startswith(("127.", "[::1]"))]
        self.assertEqual(open_to_others, ["tcp 0.0.0.0:22", "tcp [::]:22"])
        scans = [("scan", self.east.address, 65535), ("scan", "fd77:1::2", 7000)]
        self.assertEqual(await self.hosts.probe(scans), [[22], [22]])

        bmc = self.east.bmc_address(1)
        targets = [("tcp", bmc, 443), ("udp", bmc, 623, HELLO.hex()), ("tcp", "fd78:1::11", 443)]
        self.assertEqual(await self.hosts.probe(targets), ["ENETUNREACH"] * 3)
        there = ("route add 10.78.1.0/24 via 10.77.1.2", "route add fd78:1::/64 via fd77:1::2")
        back = ("route add 10.77.1.0/24 via 10.78.1.1", "route add fd77:1::/64 via fd78:1::1")
        self.hosts.panel.ip(*there)
        self.east.namespace.ip(*back)
        for found in await self.hosts.probe(targets):
            self.assertIn(found, ("no answer", "EHOSTUNREACH", "ENETUNREACH"))


class ManyTests(HostsWorld):
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1), ("west", 1))

    async def test_many_over_one_connection(self) -> None:
        """And at the same time some on another agent."""

        names = ["east"] * AT_ONCE + ["west"] * 2
        consoles = await self.open_at_once(names)
        for console in consoles:
            await self.use(console["url"])
        for location in (self.east, self.west):
            self.assertEqual(len(location.host.connections()), 1)
            users = {one.uid for one in location.host.processes() if one.uid > location.host.first_uid}
            self.assertEqual(len(users), names.count(location.name))
        await gatherResults([self.client.ask(f"console close device={name}1") for name in ("east", "west")])
        await self.nothing_left()
