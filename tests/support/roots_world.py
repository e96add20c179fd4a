"""The daemon on a panel host, and one location whose agent host is a real Debian that has never seen an agent."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar

from twisted.internet.threads import deferToThread

from tests.simulator.bmc import BmcUser
from tests.support.hosts import Hosts
from tests.support.hosts_world import HostsWorld
from tests.support.roots import Debian, RootHost

PASSWORD = "s3cret-&+/=x"


class RootsWorld(HostsWorld):
    """The daemon knows of no agent there yet.

    :cvar suite: the Debian release.
    :cvar packages: what can be installed there, with all that it needs.
    """

    suite: ClassVar[str]
    packages: ClassVar[Sequence[str]] = ()
    timeout: ClassVar[float] = 300
    names: ClassVar[Sequence[str]] = ("east",)
    bare: ClassVar[bool] = True
    small: ClassVar[bool] = False
    personality = "supermicro"
    users = (BmcUser("ADMIN", PASSWORD),)
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)

    async def make_hosts(self) -> Hosts:
        debian = Debian(self.suite)
        await deferToThread(debian.make, self.packages)
        return Hosts(self, self.folder, self.names, functools.partial(RootHost, debian))
