"""The engine of provisioning on a host of its own, with real apt, dpkg, useradd, visudo and nft.

The host has no packages, as far as its dpkg knows, and apt knows those that the test has made.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents.scripts import modules_input, script_argv
from ipmiproxyd.provision.engine import engine_texts
from tests.support import tiny_packages
from tests.support.hosts import AgentHost

PYTHON = "/usr/bin/python3"
LIMIT = 60.0
REPOSITORY = "/srv/repository"
DOCUMENT: Mapping[str, Any] = {
    "account": "ipmiproxyd",
    "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtleQ daemon@panel",
    "runner": {"path": "/usr/local/lib/ipmiproxyd/runner.py", "version": 2, "text": "print('the runner')\n"},
    "python": PYTHON,
    "users": "auto",
    "prefix": "easydcim_vnc_",
    "displays": [1, 2, 3],
    "transport": "ssh",
    "browser": "none",
    "repository": f"deb [trusted=yes] file:{REPOSITORY} ./",
    "sudoers": "ipmiproxyd-agent",
    "packages": ["tiny-tool", "remnant"],
}
# Ends the engine at the n-th event of a kind, in whose words a word is.
KILLER = """
import os, signal
from ipmiproxyd.provision.host import main as engine
from ipmiproxyd.provision.host import talk

def main(given):
    kind, word, left = given.pop("kill_at")
    say = talk.Teller.say
    def deadly(self, **event):
        nonlocal left
        say(self, **event)
        left -= event["event"] == kind and word in str(event)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    talk.Teller.say = deadly
    engine.main(given)
"""
# A host with nothing of ours, whose dpkg knows of no package.
BARE = f"""
sed -i '/^ipmiproxyd:/d' /etc/passwd /etc/group /etc/shadow /etc/gshadow
rm -rf /home/ipmiproxyd /usr/local/lib/ipmiproxyd /etc/sudoers.d/* /etc/apt/sources.list /etc/apt/sources.list.d/*
for folder in /etc/apt/apt.conf.d /var/lib/dpkg /var/lib/apt /var/cache/apt /srv; do
    mount -t tmpfs -o mode=755 tmpfs $folder
done
mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers /var/lib/dpkg/alternatives
mkdir -p /var/lib/apt/lists/partial /var/cache/apt/archives/partial {REPOSITORY}
touch /var/lib/dpkg/status /var/lib/dpkg/available
"""
LISTING = """
find /usr/local /var /root -maxdepth 3 -xdev -printf '%p %y %m %U %G %l\\n' | sort
find /etc /home /run /srv -printf '%p %y %m %U %G %l\\n' | grep -v '^/etc/[a-z]*- ' | sort
cat /etc/passwd /etc/group /etc/shadow /etc/gshadow
find /etc /home /run -type f ! -name '*-' -exec sha256sum {} + | sort
dpkg-query -W -f '${Package} ${Status} ${Version}\\n'
nft list ruleset
"""
GATE = "/run/gate"


class EngineTestCase(TestCase):
    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]
        folder = Path(self.mktemp()).resolve()
        self.host = AgentHost(self, "bare", 3, folder / "keys")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.host.stop()))
        await self.host.start()
        self.host.run("sh", "-ec", BARE)
        repository = folder / "repository"
        waits = f"if [ -p {GATE} ]; then read line <{GATE}; fi"
        user = "id tiny >/dev/null 2>&1 || useradd --system --user-group --no-create-home tiny"
        tiny_packages.build(repository, "tiny-lib", files={"/usr/share/tiny/lib": "1"}, postinst=f"{waits}\n{user}")
        tiny_packages.build(repository, "tiny-tool", needs="tiny-lib", files={"/etc/tiny-tool.conf": "1"})
        tiny_packages.build(repository, "remnant", files={"/etc/remnant.conf": "1"})
        tiny_packages.build(repository, "guest", needs="tiny-lib | nobody")
        shutil.copytree(repository, self.host.path(REPOSITORY), dirs_exist_ok=True)
        self.host.run("sh", "-ec", f"dpkg -i {REPOSITORY}/remnant.deb && dpkg -r remnant")
        self.before = self.listing()

    def listing(self) -> list[str]:
        return self.host.run("sh", "-ec", LISTING).splitlines()

    def input(self, verb: str, kill_at: Sequence[Any] = (), **more: Any) -> bytes:
        modules = dict(engine_texts())
        if kill_at:
            modules["ipmiproxyd.provision.host.killer"] = KILLER
            more["kill_at"] = kill_at
        return modules_input(modules, {**DOCUMENT, "verb": verb, **more})

    def argv(self) -> list[str]:
        return [*self.host.inside(), *script_argv(PYTHON)]

    def engine(self, verb: str, **more: Any) -> list[dict[str, Any]]:
        """What it tells, from the start to the end."""

        given = self.input(verb, **more)
        done = subprocess.run(self.argv(), input=given, capture_output=True, timeout=LIMIT, check=False)
        self.assertEqual(done.stderr, b"")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def must(self, verb: str, **more: Any) -> list[str]:
        """What it changed."""

        last = self.engine(verb, **more)[-1]
        self.assertEqual(last["event"], "done", last)
        changed: list[str] = last["changed"]
        return changed

    def taken_back(self) -> None:
        now = self.listing()
        self.assertEqual([line for line in now if line not in self.before], [])
        self.assertEqual([line for line in self.before if line not in now], [])

    def until_done(self, verb: str) -> int:
        """Run it, killed each time in front of its second change, until there is none; how often that was."""

        for times in range(50):
            if self.engine(verb, kill_at=("change", "", 2))[-1]["event"] == "done":
                return times
        self.fail(f"it does not come to its end: {self.engine(verb, kill_at=('change', '', 2))}")


class KilledTests(EngineTestCase):
    def test_it_is_completed_and_taken_back(self) -> None:
        self.assertEqual(len(self.must("provision", dry_run=True)), 12)
        self.taken_back()

        # The power fails while dpkg is at work; then the engine is killed in front of each change.
        self.host.run("mkfifo", GATE)
        told = self.engine("provision", kill_at=("progress", "Configuring tiny-lib", 1))
        self.assertEqual(told[-1]["event"], "progress")
        self.host.run("sh", "-c", "kill -KILL -1")
        self.host.run("rm", GATE)
        self.assertGreater(self.until_done("provision"), 8)
        self.assertEqual(self.must("provision"), [])
        self.is_provisioned()

        self.assertGreater(self.until_done("unprovision"), 8)
        self.taken_back()
        self.assertEqual(self.must("unprovision"), [])
        self.taken_back()

    def is_provisioned(self) -> None:
        self.host.run("visudo", "-c")
        allowed = self.host.run(
            "sudo", "-n", "-u", "ipmiproxyd", "sudo", "-n", PYTHON, "-I", "-S", DOCUMENT["runner"]["path"]
        )
        self.assertEqual(allowed, "the runner\n")
        self.assertIn("tcp dport 5901-5903 drop", self.host.run("nft", "list", "table", "inet", "ipmiproxyd_agent"))
        self.host.run("id", "easydcim_vnc_3")
        self.assertEqual(self.host.run("dpkg", "--audit"), "")


class OthersTests(EngineTestCase):
    def test_others_of_the_same_host(self) -> None:
        """Another daemon has an account there, too; somebody's package needs one of ours; nobody reads any more."""

        self.nobody_reads()
        self.must("provision")
        east = self.must("provision", account="east", transport="direct", daemon_address="192.0.2.7")
        self.assertEqual(len(east), 6)
        self.assertIn("ip saddr 192.0.2.7", self.host.run("nft", "list", "ruleset"))
        self.must("unprovision")
        self.host.run("visudo", "-c")
        self.assertIn("ip saddr 192.0.2.7", self.host.run("nft", "list", "ruleset"))
        self.host.run("id", "easydcim_vnc_3")
        self.host.run("apt-get", "-qq", "-y", "install", "guest")

        stays = ("sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
        self.host.run("setpriv", "--reuid=easydcim_vnc_3", "--clear-groups", *stays)
        self.assertEqual(self.engine("unprovision", account="east")[-1]["code"], "in-use")
        told = self.engine("unprovision", account="east", force=True)
        self.assertEqual(told[-1]["event"], "done")
        (warning,) = [event["words"] for event in told if event["event"] == "warning"]
        self.assertEqual(warning, "These packages are needed by others now, and stay: tiny-lib")
        self.host.run("dpkg", "--purge", "guest", "tiny-lib")
        self.host.run("userdel", "tiny")
        self.taken_back()

    def nobody_reads(self) -> None:
        """The step that was begun is done, and no further one begun; meanwhile nobody else comes in."""

        self.host.run("mkfifo", GATE)
        with subprocess.Popen(self.argv(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
            assert first.stdin
            assert first.stdout
            first.stdin.write(self.input("provision"))
            first.stdin.close()
            while b"Configuring tiny-lib" not in first.stdout.readline():
                pass
            self.assertEqual(self.engine("provision")[-1]["code"], "busy")
            first.stdout.close()
            self.host.run("sh", "-c", f"echo >{GATE}")
            self.assertEqual(first.wait(LIMIT), 1)
        self.host.run("rm", GATE)
        self.assertIn("tiny-tool install ok installed 1.0", self.listing())
        self.assertNotIn("ipmiproxyd:", self.host.run("cat", "/etc/passwd"))
