"""The daemon on a panel host, with agents over SSH in two locations: each a machine of its own (see hosts.py)."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults

from tests.support import leftovers
from tests.support.daemon import DaemonProcess
from tests.support.hosts import Hosts, Location
from tests.support.scratch import scratch
from tests.support.world import SMALL_PROGRAM, World

PORTS = (6081, 6200)


class HostsWorld(World):
    """Locations ``east`` and ``west``, their agents of the same names, and devices ``east1``, … as started.

    :cvar names: of the locations; with one alone, that is east and west.
    :cvar bmcs: the servers of which the BMC alone runs, without a panel: a location and its number.
    :cvar panels: those of which both run.
    :cvar small: the browser is a small program; for what does not depend on it.
    """

    timeout: ClassVar[float] = 90
    names: ClassVar[Sequence[str]] = ("east", "west")
    small: ClassVar[bool] = True
    lease: ClassVar[str] = "60s"
    bmcs: ClassVar[Sequence[tuple[str, int]]] = ()
    panels: ClassVar[Sequence[tuple[str, int]]] = ()

    async def _prepare(self) -> None:
        self.folder = scratch(self)
        self.folder.chmod(0o711)
        self.hosts = await self.make_hosts()
        self.reactor = self.hosts.reactor
        await self.hosts.start()
        for name, number in self.panels:
            await self.hosts[name].server(number, users=self.users, personality=self.personality).start()
        for name, number in self.bmcs:
            await self.hosts[name].server(number).bmc.start()
        self.daemon = DaemonProcess(self.folder / "d", self._settings(), spawner=self.hosts.reactor)
        self.addCleanup(self.daemon.stop)
        await self.daemon.start()
        self.client = await self.connect()
        for name, number in (*self.panels, *self.bmcs):
            server = self.hosts[name].servers[number]
            await self.client.must(self.add_device(server.name, server))

    async def make_hosts(self) -> Hosts:
        return Hosts(self, self.folder, self.names)

    def agents(self) -> Mapping[str, Any]:
        """Those of the daemon's configuration."""

        return {name: one.settings() for name, one in self.hosts.locations.items()}

    @property
    def east(self) -> Location:
        return self.hosts["east"]

    @property
    def west(self) -> Location:
        return self.hosts[self.names[-1]]

    def _settings(self) -> Mapping[str, Mapping[str, Any]]:
        mine: dict[str, dict[str, Any]] = {
            "relay": {"ports": f"{PORTS[0]}-{PORTS[1]}"},
            "agent": {"lease": self.lease},
            "agents": dict(self.agents()),
        }
        if self.small:
            mine["panel"] = {"chromium": SMALL_PROGRAM}
        for section, values in self.settings.items():
            mine.setdefault(section, {}).update(values)
        return mine

    # --- asking -------------------------------------------------------------------------------------------------------

    async def agent_told(self, name: str) -> Mapping[str, Any]:
        """What ``agent list`` tells of an agent."""

        agents = (await self.client.must("agent list"))["agents"]
        told: Mapping[str, Any] = next(agent for agent in agents if agent["name"] == name)
        return told

    async def power(self, location: Location, number: int = 1) -> tuple[str, str]:
        """Ask for a server's power by its location's agent: the code and what was said, "" and "on" or "off"."""

        line = f"power status device={location.name}{number} agent={location.name}"
        reply = await self.client.ask(line)
        return reply.code, reply.body.get("message") or reply.body["power"]

    async def until_power(self, location: Location, limit: float = 20.0) -> float:
        """Until the agent is at work again; seconds that it took."""

        begun = time.monotonic()
        while (answer := await self.power(location))[0]:
            if time.monotonic() - begun > limit:
                raise AssertionError(f"the agent {location.name} does not come back: {answer}")
            await leftovers.pause(0.1)
        return time.monotonic() - begun

    async def open_at_once(self, names: Sequence[str], words: str = "") -> list[dict[str, Any]]:
        """New consoles, each to the first server of a location by its agent."""

        lines = [f"device={name}1 agent={name} existing=new {words}" for name in names]
        clients = [await self.connect() for _ in lines]
        opening = [self.opened(line, client) for line, client in zip(lines, clients, strict=True)]
        opened: list[dict[str, Any]] = await gatherResults([Deferred.fromCoroutine(one) for one in opening])
        return opened

    # --- nothing is left ----------------------------------------------------------------------------------------------

    async def nothing_left(self, *_: Any) -> None:
        """Neither on the agents that run, nor with the daemon."""

        self.assertEqual((await self.client.must("console list"))["consoles"], [])
        await leftovers.until_none(self.ledger)
        await leftovers.until_none(self.relay_ports_open)
        for location in self.hosts.locations.values():
            await location.host.is_clean()

    def ledger(self) -> list[str]:
        """What the daemon still has to give back."""

        database = self.daemon.folder / "state" / "ipmiproxyd.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            return [key for (key,) in opened.execute("SELECT key FROM documents WHERE kind = 'ledger'")]

    def relay_ports_open(self) -> list[str]:
        """Relay ports that somebody listens on, on the panel host."""

        listening = self.hosts.panel.run(["ss", "-HOntl"]).splitlines()
        ports = [line.split()[3].rpartition(":")[2] for line in listening]
        return [port for port in ports if PORTS[0] <= int(port) <= PORTS[1]]
