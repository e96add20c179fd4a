"""Hosts that are no agents yet: nobody has prepared them but for an sshd, and the programs are there."""

from __future__ import annotations

import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.support.hosts import RUNNER, AgentHost, Hosts, HostSshd
from tests.support.hosts_world import HostsWorld

ROOTS_HOME: Final = pwd.getpwnam("root").pw_dir
"""There as here."""
OPT: Final = "/opt/ipmiproxyd"
"""Where Javas are, among others."""


class BareSshd(HostSshd):
    """Lets in whom each account's own authorized_keys names."""

    configuration = HostSshd.configuration.replace("{folder}/authorized_keys", ".ssh/authorized_keys")


class BareHost(AgentHost):
    def make_sshd(self, keys: Path) -> HostSshd:
        return BareSshd(self, keys)

    def install(self) -> None:
        self.run("userdel", "--remove", "ipmiproxyd")
        self.run("rm", "-rf", str(Path(RUNNER).parent), "/var/lib/ipmiproxyd-agent", f"{ROOTS_HOME}/.ssh", OPT)
        self.sshd.put_keys()

    def let_in(self, public: str, user: str = "root") -> None:
        home = ROOTS_HOME if user == "root" else f"/home/{user}"
        self.path(f"{home}/.ssh").mkdir(mode=0o755, parents=True)
        self.path(f"{home}/.ssh/authorized_keys").write_text(f"{public}\n")


class BareWorld(HostsWorld):
    """One such host, of which the daemon does not know.

    :ivar key: the daemon's own; ``public`` is its line for authorized_keys.
    """

    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"displays": {"range": "11-13"}}
    names: ClassVar[Sequence[str]] = ("east",)
    host: BareHost

    async def make_hosts(self) -> Hosts:
        return Hosts(self, self.folder, self.names, BareHost)

    def agents(self) -> Mapping[str, Any]:
        return {}

    async def _prepare(self) -> None:
        await super()._prepare()
        assert isinstance(self.east.host, BareHost)
        self.host = self.east.host
        self.key = self.host.sshd.folder / "key"
        self.public = self.key.with_suffix(".pub").read_text().strip()
