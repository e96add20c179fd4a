"""Displays that are reached at their ports, across a network, between machines of their own."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint

from ipmiproxyd.agents.sandbox import HOME
from ipmiproxyd.errors import BadCertificate, BmcAuth, BmcUnsupported
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Secret
from ipmiproxyd.relay.backend import Backend, connect
from ipmiproxyd.tools.guard import CERTIFICATE, KEY, SIGN_IN
from tests.support.hosts_world import HostsWorld
from tests.support.vnc_servers import shown_password

CLOCK: Any = reactor
RULE = "type filter hook input priority 0; tcp dport 5901-6900 reject with tcp reset;"


class DirectWorld(HostsWorld):
    """``host``: the agent's address."""

    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)
    host: ClassVar[str] = "10.77.1.2"

    def _settings(self) -> Mapping[str, Mapping[str, Any]]:
        mine = super()._settings()
        return {**mine, "agents": {"east": {**mine["agents"]["east"], "host": self.host, "transport": "direct"}}}


class DirectTests(DirectWorld):
    async def test_console(self) -> None:
        opened = await self.opened("device=east1 agent=east")
        viewer = await self.use(opened["url"])
        display = (await self.show(opened["console"]))["display"]
        self.port = 5900 + display
        open_to_others = [one for one in self.east.host.listening() if not one.split()[1].startswith(("127.", "[::1]"))]
        self.assertEqual(open_to_others, ["tcp 0.0.0.0:22", f"tcp {self.east.address}:{self.port}", "tcp [::]:22"])
        ways = ["ss", "-HOnt", "state", "established", f"dport = :{self.port}"]
        self.assertEqual(len(self.hosts.panel.run(ways).splitlines()), 1)

        files = self._files(display)
        password = shown_password(files[SIGN_IN])
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(files[CERTIFICATE].decode())).hexdigest()
        (await self.sign_in(password, fingerprint)).close()
        for kind, wrong in (
            (BmcUnsupported, ("", "")),
            (BmcUnsupported, (password, "")),
            (BmcAuth, (password[::-1], fingerprint)),
            (BadCertificate, (password, fingerprint[::-1])),
        ):
            await self.assertFailure(Deferred.fromCoroutine(self.sign_in(*wrong)), kind)
        for secret in (password, files[KEY].decode().splitlines()[1]):
            self.assert_unseen(secret)
            self.assertNotIn(secret, self.east.host.path((await self.show(opened["console"]))["log"]).read_text())

        await self.close(opened["console"])
        await viewer.is_closed()
        await self.nothing_left()
        self.assertEqual(await self.hosts.probe([("tcp", self.east.address, self.port)]), ["ECONNREFUSED"])

    def _files(self, display: int) -> Mapping[str, bytes]:
        """Those of the guard, as only this agent's root sees them."""

        uid = self.east.host.user_of(display)
        root = next(root for pid in self.east.host.here(uid) if (root := _home(pid)).joinpath(KEY).is_file())
        return {name: (root / name).read_bytes() for name in (CERTIFICATE, KEY, SIGN_IN)}

    async def sign_in(self, password: str, fingerprint: str) -> Backend:
        """From the panel host."""

        endpoint = TCP4ClientEndpoint(self.hosts.reactor, self.east.address, self.port)
        backend: Backend = await connect(VncServer(endpoint, "", Secret(password), fingerprint), CLOCK)
        return backend


class FirewallTests(DirectWorld):
    """An agent that is reached by IPv6."""

    host = "fd77:1::2"
    small = False

    async def test_firewall(self) -> None:
        checked = await self.client.must("agent check name=east")
        self.assertEqual(checked["problems"], [])
        (found,) = [one for one in checked["findings"] if one["what"] == "direct"]
        trials = [one["level"] for one in checked["findings"] if one["what"].startswith("trial")]
        self.assertEqual(trials, ["ok", "ok"])
        self.assertEqual((found["level"], found["words"].split()[-4:-3]), ("ok", ["tried"]), found)
        opened = await self.opened("device=east1 agent=east")
        await self.use(opened["url"])
        display = (await self.show(opened["console"]))["display"]
        self.assertIn(f"tcp [{self.host}]:{5900 + display}", self.east.host.listening())
        await self.close(opened["console"])
        self.east.host.run("nft", f"table inet wall {{ chain in {{ {RULE} }}; }}")
        (problem,) = (await self.client.must("agent check name=east trial=no"))["problems"]
        self.assertIn(f"[{self.host}]:{found['words'].split()[-3]}", problem)
        refused = await self.open("device=east1 agent=east")
        self.assertEqual(refused.code, "agent-unreachable", refused)
        self.assertIn("transport=ssh", refused.body["hint"])
        await self.nothing_left()


def _home(pid: int) -> Path:
    return Path(f"/proc/{pid}/root").joinpath(HOME.lstrip("/"))
