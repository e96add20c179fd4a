"""The agent's firewall where systemd is process 1: whatever becomes of nftables.service, it stays in force."""

from __future__ import annotations

import json
import subprocess
from typing import Any, ClassVar, Final

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents.scripts import modules_input, script_argv
from ipmiproxyd.provision.engine import engine_texts
from ipmiproxyd.provision.host import kernel
from tests.support.booted import BootedRoot
from tests.support.hosts import PATH
from tests.support.roots import Debian
from tests.support.scratch import scratch
from tests.unit.test_engine import DOCUMENT

INSTALL: Final = """
set -e
apt-get -q update >&2
apt-get -q -y install --no-install-recommends systemd systemd-sysv dbus python3 nftables sudo >&2
"""
LIMIT: Final = 120.0


class BootedTests(TestCase):
    timeout: ClassVar[float] = 900

    async def setUp(self) -> None:  # type: ignore[override]
        debian = Debian("bookworm")
        await deferToThread(debian.make, [])
        folder = scratch(self)
        (folder / "none").mkdir()
        self.root = BootedRoot(self, debian.root, folder / "root", folder / "none", "/srv/none")
        await deferToThread(self.root.before_boot, "sh", "-c", INSTALL)
        await deferToThread(self.root.boot)

    def engine(self, verb: str) -> dict[str, Any]:
        modules = dict(engine_texts())
        modules[kernel.__name__] += "\nSETTINGS.clear()\n"  # they are this machine's
        given = modules_input(modules, {**DOCUMENT, "packages": [], "browser": "none", "verb": verb})
        argv = [*self.root.inside(), *script_argv("/usr/bin/python3")]
        env = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        done = subprocess.run(argv, input=given, capture_output=True, env=env, timeout=LIMIT, check=False)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([one for one in told if one["event"] == "warning"], [], done.stderr)
        self.assertEqual(told[-1]["event"], "done", told[-1])
        last: dict[str, Any] = told[-1]
        return last

    def is_in_force(self) -> None:
        self.assertIn("tcp dport 5901-5903 drop", self.root.run("nft", "list", "ruleset"))

    def test_nftables_service(self) -> None:
        self.engine("provision")
        self.is_in_force()
        for words in ("enable --now", "reload", "restart", "stop", "start", "reload-or-restart", "disable --now"):
            self.root.run("systemctl", *words.split(), "nftables")
            self.is_in_force()
        self.root.path("/etc/nftables.conf").write_text("flush ruleset\nthis is no rule\n")
        for word in ("start", "reload"):
            self.root.run("sh", "-c", f"! systemctl {word} nftables")
            self.is_in_force()
        self.assertEqual(self.engine("provision")["changed"], [])
        self.engine("unprovision")
        self.assertNotIn("ipmiproxyd", self.root.run("nft", "list", "ruleset"))
        self.assertNotIn("ipmiproxyd", self.root.run("systemctl", "cat", "nftables"))
        self.assertEqual(self.root.run("systemctl", "--failed", "--no-legend").split()[1:2], ["nftables.service"])
