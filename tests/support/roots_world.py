"""The daemon on a panel host, and one location whose agent host is a real Debian that has never seen an agent."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from twisted.internet.threads import deferToThread

from ipmiproxyd.provision.host import installing, system
from tests.simulator.bmc import BmcUser
from tests.simulator.server import SimulatedPanel
from tests.support import leftovers
from tests.support.hosts import Hosts
from tests.support.hosts_world import HostsWorld
from tests.support.roots import Debian, RootHost
from tests.support.wire_client import Reply

PASSWORD = "s3cret-&+/=x"
VERSIONS = {"bullseye": "11", "bookworm": "12", "trixie": "13"}
LIMIT = 200.0
"""Seconds for one run of provisioning, with others at work on this machine."""


class RootsWorld(HostsWorld):
    """The daemon knows of no agent there yet. There are three servers, whose panels are of these kinds.

    :cvar suite: the Debian release.
    """

    timeout: ClassVar[float] = 900
    suite: ClassVar[str]
    names: ClassVar[Sequence[str]] = ("east",)
    small: ClassVar[bool] = False
    users: ClassVar[Sequence[BmcUser]] = (BmcUser("ADMIN", PASSWORD),)
    personality: ClassVar[str] = "supermicro"
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"displays": {"range": "101-120"}}

    async def make_hosts(self) -> Hosts:
        debian = Debian(self.suite)
        java = system.SYSTEMS["debian", VERSIONS[self.suite]]
        await deferToThread(debian.make, [*installing.COMMON, installing.CHROMIUM, java, "python3"])
        return Hosts(self, self.folder, self.names, functools.partial(RootHost, debian))

    def agents(self) -> Mapping[str, Any]:
        return {}

    async def another_panel(self, number: int, kind: str, *, old: bool = False) -> SimulatedPanel:
        """Device ``eastNUMBER`` with a panel of this kind.

        :param old: it speaks TLS 1.0 and nothing else.
        """

        if number > len(self.east.servers) + 1:
            raise ValueError(number)
        if number > 2:
            self.east.namespace.ip(f"address add {self.east.bmc_address(number)}/24 dev agent0")
        server = self.east.server(number, users=self.users, personality=kind)
        server.panel.settings = dataclasses.replace(server.panel.settings, tls="legacy" if old else "modern")
        await server.start()
        await self.client.must(self.add_device(server.name, server))
        return server.panel

    def provision(self, verb: str = "provision", **words: str) -> str:
        sshd = self.east.host.sshd
        given = {"host": self.east.address, "key": str(sshd.folder / "key"), "host_key": sshd.host_key}
        told = {**(given if verb == "provision" else {}), **words}
        return f"agent {verb} name=east " + " ".join(f"{name}={shlex.quote(value)}" for name, value in told.items())

    async def provisioned(self, verb: str = "provision", **words: str) -> Reply:
        """Of one that succeeds. A run that was left behind is waited for."""

        while (reply := await self.client.ask(self.provision(verb, **words), LIMIT)).code == "busy":
            await leftovers.pause(0.5)
        self.assertEqual(reply.code, "", reply.body)
        return reply
