"""The engine of provisioning on a host of its own, with real apt, dpkg, useradd, visudo and nft.

The host has no packages, as far as its dpkg knows, and apt knows those that the test has made.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
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
find /usr/local /var -maxdepth 3 -xdev -printf '%p %y %m %U %G %l\\n' | grep -v '^/var/\\(lib/xkb\\|tmp\\)/' | sort
find /etc /home /run /srv -printf '%p %y %m %U %G %l\\n' |
    grep -v '^/etc/[a-z]*\\(-\\|+\\|[.]lock\\|[.][0-9]*\\) ' | sort
cat /etc/passwd /etc/group /etc/shadow /etc/gshadow
find /etc /home /run -type f ! -name '*[-+]' ! -name '*.lock' ! -name '*.[0-9]*' -exec sha256sum {} + | sort
dpkg-query -W -f '${Package} ${Status} ${Version}\\n'
nft list ruleset
"""
GATE = "/run/gate"
TOOL = "/usr/bin/tiny-tool"


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
        tiny_packages.build(repository, "tiny-tool", needs="tiny-lib", files={"/etc/tiny-tool.conf": "1", TOOL: "1"})
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
        self.assertEqual(len(self.must("provision", dry_run=True)), 14)
        self.taken_back()

        # The power fails while dpkg is at work; then the engine is killed in front of each change.
        self.host.run("mkfifo", GATE)
        told = self.engine("provision", kill_at=("progress", "Configuring tiny-lib", 1))
        self.assertEqual(told[-1]["event"], "progress", told[-1])
        self.host.run("sh", "-c", "kill -KILL -1")
        self.host.run("rm", GATE)
        self.assertGreater(self.until_done("provision"), 8)
        self.assertEqual(self.must("provision"), [])
        self.is_provisioned()
        self.is_made_whole()

        there = self.listing()
        self.assertIn("Packages are removed: remnant, tiny-lib, tiny-tool", self.must("unprovision", dry_run=True))
        self.assertEqual(self.listing(), there)
        self.assertGreater(self.until_done("unprovision"), 8)
        self.taken_back()
        self.assertEqual(self.must("unprovision"), [])
        self.taken_back()

    def is_made_whole(self) -> None:
        """What somebody took away from a package comes with it again."""

        for harm in (("chmod", "0", TOOL), ("rm", TOOL)):
            self.host.run(*harm)
            (words,) = self.must("provision")
            self.assertIn(f": tiny-tool ({TOOL})", words)
            self.assertEqual(self.host.run("stat", "-c", "%a", TOOL), "755\n")
        self.host.run("chmod", "0", TOOL)
        self.host.run("mv", REPOSITORY, f"{REPOSITORY}.away")
        told = self.engine("provision", repository="")
        self.assertEqual(told[-1]["event"], "done", told[-1])
        words = " ".join(event["words"] for event in told if event["event"] == "warning")
        self.assertIn("Say: apt-get install --reinstall tiny-tool", words)
        self.host.run("mv", f"{REPOSITORY}.away", REPOSITORY)

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
            limit = threading.Timer(LIMIT, first.kill)
            limit.start()
            try:
                assert first.stdin
                assert first.stdout
                first.stdin.write(self.input("provision"))
                first.stdin.close()
                self.assertTrue(any(b"Configuring tiny-lib" in line for line in first.stdout), "it ended")
                busy = self.engine("provision")[-1]
                self.assertEqual(busy["code"], "busy")
                self.assertRegex(busy["message"], r"host, since \d\d:\d\d:\d\d \S+ \(\d+ s ago\)$")
                first.stdout.close()
                self.host.run("timeout", "10", "sh", "-c", f"echo >{GATE}")
                self.assertEqual(first.wait(LIMIT), 1)
            finally:
                limit.cancel()
                first.kill()
        self.host.run("rm", GATE)
        self.assertIn("tiny-tool install ok installed 1.0", self.listing())
        self.assertNotIn("ipmiproxyd:", self.host.run("cat", "/etc/passwd"))


class StrangersTests(EngineTestCase):
    """What is not shown to be ours is left, and told."""

    def warnings(self, told: list[dict[str, Any]]) -> list[str]:
        self.assertEqual(told[-1]["event"], "done", told[-1])
        return [event["words"] for event in told if event["event"] == "warning"]

    def runs(self, user: str, program: str) -> subprocess.Popen[bytes]:
        argv = [*self.host.inside(), "setpriv", f"--reuid={user}", "--clear-groups", "sh", "-c"]
        process = subprocess.Popen([*argv, f"echo up; exec {program} 100"], stdout=subprocess.PIPE)

        assert process.stdout
        # What it started there ends with the host.
        for end in (process.wait, process.stdout.close, process.kill):
            self.addCleanup(end)
        self.assertEqual(process.stdout.readline(), b"up\n")
        return process

    def test_what_came_while_apt_was_broken_off(self) -> None:
        self.host.run("mkfifo", GATE)
        self.engine("provision", kill_at=("progress", "Configuring tiny-lib", 1))
        self.host.run("sh", "-c", "kill -KILL -1")
        self.host.run("rm", GATE)
        self.host.run("touch", "-d", "1 hour ago", "/var/lib/dpkg/status")
        self.host.run("sh", "-c", "useradd --system --user-group pgsql9; echo LANG=C >/etc/default/locale")
        database = self.runs("pgsql9", "sleep")
        self.must("provision")
        self.host.run(
            "sh",
            "-c",
            "echo mine >>/etc/tiny-tool.conf; cp /bin/sleep /usr/share/tiny/lib; chmod 755 /usr/share/tiny/lib",
        )
        ours = self.runs("tiny", "/usr/share/tiny/lib")
        told = self.warnings(self.engine("unprovision"))
        self.assertEqual(
            told, ["The configuration of tiny-tool was changed by somebody, and is left: /etc/tiny-tool.conf"]
        )
        self.assertEqual(self.host.run("cat", "/etc/default/locale"), "LANG=C\n")
        self.assertEqual(ours.wait(10), -9)
        self.assertIsNone(database.poll())
        self.assertIn("pgsql9", self.host.run("id", "pgsql9"))
        self.assertNotIn("tiny:", self.host.run("cat", "/etc/passwd"))

        self.must("provision")
        foreign = self.runs("tiny", "sleep")
        told = self.warnings(self.engine("unprovision"))
        self.assertIn("The user tiny, which a package had made, stays: processes of somebody else's are its own", told)
        self.assertIsNone(foreign.poll())

    def test_an_apt_that_outlives_its_engine(self) -> None:
        self.host.run("mkfifo", GATE)
        self.engine("provision", kill_at=("progress", "Configuring tiny-lib", 1))
        with subprocess.Popen(self.argv(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second:
            assert second.stdin
            assert second.stdout
            second.stdin.write(self.input("provision"))
            second.stdin.close()
            while b"Waiting for another apt" not in (line := second.stdout.readline()):
                self.assertTrue(line)
            self.host.run("sh", "-c", f"echo >{GATE}; rm {GATE}")
            self.assertIn(b'"done"', second.stdout.read())
        self.must("unprovision")
        self.taken_back()

    def test_sources_names_and_broken_packages(self) -> None:
        sources = "deb foo", "deb file:/nothing ./"
        for more in ({"repository": line} for line in sources):
            self.assertEqual(self.engine("provision", **more)[-1]["code"], "bad-request", more)
        self.taken_back()
        for name in ("tiny.too", "tiny-tool-"):
            last = self.engine("provision", packages=["tiny-lib", name])[-1]
            self.assertEqual(last["code"], "bad-request", last)
        self.must("provision")
        self.assertEqual(self.must("provision", repository=""), [])
        repository = Path(self.mktemp())
        tiny_packages.build(repository, "broken", files={"/usr/share/tiny/b": "1"}, postinst="exit 1")
        shutil.copy(repository / "broken.deb", self.host.path("/srv/broken.deb"))
        self.host.run("sh", "-c", "dpkg -i /srv/broken.deb >/dev/null 2>&1 || :")
        (words,) = self.warnings(self.engine("provision"))
        self.assertEqual(words, "These packages, which are not ours, are not wholly installed: broken")
        (words,) = self.warnings(self.engine("unprovision"))
        self.assertIn("(with packages that are not ours: broken)", words)
        self.host.run("dpkg", "--purge", "broken")
        self.host.run("rm", "/srv/broken.deb")
        self.taken_back()

    def test_python_goes_last(self) -> None:
        """As if the bootstrap had installed it. It is broken off there, and somebody's package comes in between."""

        repository = Path(self.mktemp())
        tiny_packages.build(repository, "python3", needs="tiny-lib", files={"/usr/share/tiny/python": "1"})
        shutil.copy(repository / "python3.deb", self.host.path("/srv/python3.deb"))
        folder = "/var/lib/ipmiproxyd-agent"
        put = f"dpkg -i {REPOSITORY}/tiny-lib.deb /srv/python3.deb; dpkg -i {REPOSITORY}/guest.deb"
        put += "; rm /srv/python3.deb; apt-mark auto tiny-lib"
        listed = "dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n'"
        self.host.run(
            "sh",
            "-ec",
            f"mkdir -m 700 {folder}; {listed} >{folder}/bootstrap; date +%s >{folder}/bootstrap.runs; {put}",
        )
        self.must("provision")
        self.host.run("dpkg", "--purge", "guest")
        told = self.engine("unprovision", kill_at=("change", "removed: python3", 1))
        self.assertEqual(told[-1]["words"], "Packages are removed: python3, tiny-lib")
        record = json.loads(self.host.path(f"{folder}/record.json").read_text())
        self.assertEqual([(one["kind"], one["key"]) for one in record["changes"]], [("packages", "python")])
        self.assertFalse(self.host.path("/etc/sudoers.d/ipmiproxyd-agent").exists())
        self.must("unprovision")
        self.host.run("userdel", "tiny")  # nobody was looking when it was made
        self.taken_back()
