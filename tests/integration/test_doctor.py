"""The doctor, on real machines: each fault that it knows is made on purpose, and named by it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from tests.simulator.server import SimulatedServer
from tests.support import leftovers
from tests.support.hosts import JOBS
from tests.support.hosts_world import HostsWorld

SUPPORT = Path(__file__).resolve().parents[1] / "support"
FEW, CLOCK = SUPPORT / "few_namespaces.py", SUPPORT / "wrong_clock.c"
LISTEN = (
    "import os, socket, time; one = socket.create_server(('', 5917)); child = os.fork();"
    " print(child) if child else (os.closerange(0, 3), time.sleep(300))"
)
AWAY = ".away"


class DoctorWorld(HostsWorld):
    """One agent, with a real browser; displays as they usually are."""

    names: ClassVar[Sequence[str]] = ("east",)
    small: ClassVar[bool] = False
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"displays": {"range": "1-40"}}

    async def check(self, words: str = "trial=no", agent: str = "east") -> dict[str, list[dict[str, Any]]]:
        """Findings by what they are about."""

        found: dict[str, list[dict[str, Any]]] = {}
        for one in (await self.client.must(f"agent check name={agent} {words}"))["findings"]:
            found.setdefault(one["what"], []).append(one)
        return found

    def named(self, found: Mapping[str, Sequence[Mapping[str, Any]]], what: str, level: str, *words: str) -> None:
        """There is a finding about this with that level and these words; those of a fault tell what to do."""

        told = [f"{one['words']} {one['advice']}" for one in found[what] if one["level"] == level]
        self.assertTrue([one for one in told if all(part in one for part in words)], (what, found[what]))
        self.assertTrue(all(one["advice"] for one in found[what] if one["level"] == "fault"), found[what])

    @contextmanager
    def away(self, *paths: str) -> Iterator[None]:
        """These files are not there, and these folders are empty."""

        host = self.east.host
        for path in paths:
            is_folder = host.path(path).is_dir()
            host.run(*(("mount", "-t", "tmpfs", "none", path) if is_folder else ("mv", path, path + AWAY)))
        try:
            yield
        finally:
            for path in paths:
                is_folder = not host.path(path + AWAY).exists()
                host.run(*(("umount", path) if is_folder else ("mv", path + AWAY, path)))

    @contextmanager
    def wrong_clock(self) -> Iterator[None]:
        """Whatever starts there believes that it is an hour earlier."""

        library, preload = "/usr/lib/wrong_clock.so", self.east.host.path("/etc/ld.so.preload")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.east.host.path(library), CLOCK], check=True)
        preload.write_text(library)
        try:
            yield
        finally:
            preload.unlink()


class HostFaultTests(DoctorWorld):
    async def test_all(self) -> None:
        await self._all_is_well()
        await self._no_sandbox()
        await self._other_browsers()
        await self._broken_off()
        await self._what_is_missing()
        await self._what_others_left()
        await self._as_in_a_container()
        await self._no_namespaces()

    async def _all_is_well(self) -> None:
        found = await self.check("")
        self.assertEqual([one for group in found.values() for one in group if one["level"] != "ok"], [])
        for what, limit in (("trial-display", 10_000), ("trial-browser", 20_000)):
            (one,) = found[what]
            self.assertTrue(0 < one["ms"] < limit, one)
            self.assertIn("seen after", one["words"])
        self.named(found, "programs", "ok", "Xvnc 1.", "chromium 1", "bwrap 0.", "ipmitool 1.")
        await self.nothing_left()

    async def _no_sandbox(self) -> None:
        """Switched off where Debian's Chromium looks, and our settings do not tell."""

        setting = self.east.host.path("/etc/chromium.d/zz")
        setting.write_text('CHROMIUM_FLAGS="$CHROMIUM_FLAGS --no-sandbox"\n')
        found = await self.check("")
        self.named(found, "trial-browser", "fault", "runs without its sandbox: --no-sandbox", "/etc/chromium.d")
        setting.unlink()
        await self.nothing_left()

    async def _other_browsers(self) -> None:
        """One that is named is started, and its policies lie where it looks; with none, none is missed."""

        mine = {name.replace("-", "_"): value for name, value in self.east.settings().items()}
        mine |= {"host_key": ",".join(mine.pop("host_keys")), "jobs_name": "named", "name": "named"}
        line = " ".join(f"{name}={value}" for name, value in mine.items())
        await self.client.must(f"agent add {line} browser=google-chrome-stable")
        program = self.east.host.path("/usr/bin/google-chrome-stable")
        program.write_text("#!/bin/sh\ntest -s /etc/opt/chrome/policies/managed/panel.json && exec chromium \"$@\"\n")
        program.chmod(0o755)
        found = await self.check("", "named")
        self.named(found, "browser", "ok", "google-chrome-stable", "untested")
        self.named(found, "programs", "ok", "google-chrome-stable")
        self.named(found, "trial-browser", "ok", "google-chrome-stable after")
        program.unlink()
        await self.client.must("agent set name=named browser=none")
        with self.away("/usr/bin/chromium"):
            found = await self.check(agent="named")
        self.named(found, "browser", "ok", "None, as is set")
        self.assertEqual([one for group in found.values() for one in group if one["level"] != "ok"], [])
        refused = await self.client.ask("console open device=east1 agent=named type=panel")
        self.assertEqual((refused.code, "browser=chromium" in refused.body["hint"]), ("tool-missing", True))
        await self.client.must("agent remove name=named")
        self.east.host.run("rm", "-r", "/run/ipmiproxyd-jobs/named")
        await self.nothing_left()

    async def _broken_off(self) -> None:
        """Who asked hangs up in the middle of a trial."""

        client = await self.connect()
        client.ask("agent check name=east").addErrback(lambda _: None)
        while not client.progress or client.progress[-1]["stage"] != "trial-browser":
            await client.something()
        while not self.east.host.job_folders():
            await leftovers.pause(0.01)
        client.hang_up()
        await self.nothing_left()
        while (await self.agent_told("east"))["displays"]["in_use"]:
            await leftovers.pause(0.02)

    async def _what_is_missing(self) -> None:
        with self.away("/usr/bin/ipmitool", "/usr/lib/jvm", "/usr/share/fonts", "/usr/bin/chromium"):
            found = await self.check("")
            self.named(found, "programs", "fault", "ipmitool is gone", "power actions", "apt-get install --reinstall")
            self.named(found, "programs", "fault", "package chromium is installed: consoles in a browser")
            self.named(found, "java", "fault", "No Java is installed", "openjdk")
            self.named(found, "fonts", "fault", "no font", "fonts-dejavu-core")
            self.named(found, "trial-display", "ok", "seen")
            self.named(found, "trial-browser", "fault", "Chromium is not installed")
        with self.away("/usr/bin/Xvnc"):
            found = await self.check("")
            self.named(found, "programs", "fault", "Xvnc is gone", "--reinstall", "tigervnc-standalone-server")
            self.named(found, "trial-display", "fault", "Xvnc is not installed on the agent")
            self.named(found, "trial-browser", "fault", "Not tried")
            self.assertEqual([one["level"] for one in found["namespaces"] + found["clock"]], ["ok", "ok"])
        await self.nothing_left()

    async def _what_others_left(self) -> None:
        """And not a byte is free."""

        host = self.east.host
        host.run("sh", "-c", "userdel easydcim_vnc_3; exec useradd --system --no-create-home easydcim_vnc_3")
        lock, lost = host.path("/tmp/.X5-lock"), host.path(f"{JOBS}/main/lost")
        lock.write_text("     99999\n")
        lost.mkdir()
        state: dict[str, Any] = {"id": "lost", "state": "running", "keeper": "someboot:99999:1", "display": 9}
        state |= {"user": "", "reason": "", "code": "", "vnc": "unix", "door": "", "stages": [], "ready": True}
        lost.joinpath("state.json").write_text(json.dumps(state | {"uid": 0}))
        user = "easydcim_vnc_1"  # whom a trial has made
        host.run("sh", "-c", f"setpriv --reuid {user} --clear-groups sleep 300 >/dev/null 2>&1 &")
        rules = host.path("/etc/ipmiproxyd-agent.nft")
        rules.touch()
        keys = [f"{options}ssh-ed25519 {68 * 'A'} {name}" for options, name in (("restrict,pty ", "a"), ("", "b@desk"))]
        host.path("/home/ipmiproxyd/.ssh/authorized_keys").write_text("\n".join(keys))
        listener = host.run("python3", "-c", LISTEN).strip()
        with host.full_disks():
            found = await self.check("")
        host.run("kill", listener)
        self.named(found, "disk", "fault", f"{JOBS}/main (jobs) is full")
        self.named(found, "disk", "fault", "(home) is full")
        self.named(found, "trial-display", "fault", "disk is full: 0 KiB are free at /run/", "df -h")
        self.named(found, "users", "warning", "easydcim_vnc_3", "userdel")
        self.named(found, "x-locks", "warning", "/tmp/.X5-lock", "rm ")
        self.named(found, "leftovers", "warning", "1 of easydcim_vnc_1")
        self.named(found, "leftovers", "warning", "keepers", "lost")
        self.named(found, "firewall", "warning", "Something listens at the VNC port 5917", "ss -tlnp")
        self.named(found, "firewall", "warning", "seem not to be in force", "nft -f")
        self.named(found, "key", "warning", "more than is needed: b@desk.", "restrict,port-forwarding")
        await self._cleared_away()
        drop = "iifname != lo tcp dport 5901-6000 drop;"
        host.run("nft", f"table inet ipmiproxyd_agent {{ chain in {{ type filter hook input priority 0; {drop} }}; }}")
        with self.wrong_clock():
            found = await self.check()
        self.named(found, "firewall", "ok", "only root there can tell", "nobody reaches these ports")
        self.named(found, "clock", "warning", " s behind ours", "NTP")
        told = re.search(r"is (\d+) s behind", found["clock"][0]["words"])
        self.assertTrue(told and 3570 < int(told[1]) <= 3600, found["clock"])
        rules.unlink()
        lock.unlink()

    async def _cleared_away(self) -> None:
        """What is ours, and not what somebody else's user of such a name has."""

        host = self.east.host
        host.run("sh", "-c", "setpriv --reuid easydcim_vnc_3 --clear-groups sleep 300 >/dev/null 2>&1 &")
        found = await self.check("trial=no fix=yes")
        self.named(found, "fix", "ok", "job lost: The job's keeper was killed", "display 1: what easydcim_vnc_1 ")
        self.named(found, "leftovers", "ok", "Nothing is left")
        self.assertEqual([one.uid for one in host.processes() if "sleep 300" in one.command], [host.user_of(3)])
        for pid in host.here(host.user_of(3)):
            leftovers.kill(pid)
        self.assertNotIn("fix", await self.check("trial=no fix=yes"))

    async def _as_in_a_container(self) -> None:
        """Settings of the network that can only be read, and a program that cannot be executed; then no whole /proc,
        and a /run that is everybody's."""

        host = self.east.host
        host.run("mount", "-o", "remount,bind,ro", "/proc/sys/net")
        host.run("chmod", "0", "/usr/bin/chromium")
        found = await self.check("")
        host.run("chmod", "755", "/usr/bin/chromium")
        self.named(found, "programs", "fault", "chromium is there (/usr/bin/chromium), but cannot be executed")
        self.named(found, "namespaces", "fault", "/proc/sys/net is read-only", "container")
        self.named(found, "trial-display", "fault", "vendor=generic", "the agent has it read-only", "container")
        self.named(found, "trial-display", "ok", "seen")
        self.named(found, "trial-browser", "fault", "Chromium is on the agent, but cannot be executed")
        host.run("sh", "-c", "umount -l /mnt/whole/proc; chmod 1777 /run")
        found = await self.check("trial=no")
        host.run("sh", "-c", "mount -t proc proc /mnt/whole/proc && mount -o remount,bind,rw /proc/sys/net")
        self.named(found, "namespaces", "fault", "no /proc of their own", "container")
        self.named(found, "runner", "fault", "may write in /run on the agent (mode 1777)", "chmod go-w /run")
        host.run("chmod", "755", "/run")

    async def _no_namespaces(self) -> None:
        """None at all; and enough for a console's fence, and not for Chromium's sandbox in it."""

        host = self.east.host
        host.path("/few_namespaces.py").write_text(FEW.read_text())
        host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start")  # of this host's own network
        for number in (0, 3):
            await host.sshd.stop()
            host.cut()
            host.sshd.within = ("/usr/bin/python3", "/few_namespaces.py", str(number))
            await host.sshd.start(self)
            while (await self.client.ask("agent check name=east trial=no")).code == "agent-unreachable":
                await leftovers.pause(0.1)  # a connection that was begun meanwhile was refused
            found = await self.check("")
            if number == 0:
                self.named(found, "namespaces", "fault", "No space left", "user.max_user_namespaces=")
                self.named(found, "trial-display", "fault", "Consoles cannot be fenced in")
            else:
                self.named(found, "trial-display", "ok", "seen")
                self.named(found, "trial-browser", "fault", "Chromium has no sandbox", "max_user_namespaces")


class BmcFaultTests(DoctorWorld):
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)
    personality: ClassVar[str] = "supermicro"

    async def test_all(self) -> None:
        found = await self.check("trial=no device=east1")
        for one in found["bmc-ports"] + found["bmc-panel"] + found["bmc-vendor"] + found["bmc-ipmi"]:
            self.assertEqual(one["level"], "ok", one)
        self.named(found, "bmc-vendor", "ok", "Supermicro")
        self.named(found, "bmc-ipmi", "ok", "cipher suite 3")
        self.named(found, "bmc-console-ports", "warning", "Closed just now", ":5900, ")

        old = self.east.server(2, personality="supermicro")
        old.panel.settings = dataclasses.replace(old.panel.settings, tls="legacy")
        await old.start()
        await self.client.must(self.add_device("east2", old))
        await self.client.must("device set name=east2 password=wrong vendor=ilo")
        found = await self.check("trial=no device=east2")
        self.named(found, "bmc-panel", "warning", "nothing newer than TLS 1.1", "bridge")
        self.named(found, "bmc-vendor", "warning", "Supermicro", "vendor=ilo")
        self.named(found, "bmc-ipmi", "fault", "password")
        await self._another_key(old)

        await self.client.must("device set name=east1 web_trust=ca vnc=10.78.1.12:5999")
        found = await self.check("trial=no device=east1")
        self.named(found, "bmc-panel", "fault", "Nobody vouches for the certificate", "web_trust=pin")
        self.named(found, "bmc-vendor", "warning", "as its certificate is refused")
        self.named(found, "bmc-ports", "fault", "Nothing listens at 10.78.1.12:5999 (vnc=)")
        await self.client.must("device set name=east1 web_trust=pin vnc=")

        drop = "chain out { type filter hook output priority 0; ip daddr 10.78.1.11 tcp dport 443 drop; };"
        self.east.host.run("nft", f"table inet wall {{ {drop} }}")
        found = await self.check("trial=no device=east1")
        self.named(found, "bmc-ports", "fault", "No answer from 10.78.1.11:443 (the panel)", "firewalls")
        self.named(found, "bmc-ipmi", "ok", "cipher suite 3")
        await old.stop()
        found = await self.check("trial=no device=east2")
        self.named(found, "bmc-ports", "fault", "Nothing listens at 10.78.1.12:443")
        self.named(found, "bmc-ipmi", "fault", "have not been tried again")
        await self._all_readable(old)

    async def _another_key(self, other: SimulatedServer) -> None:
        """A weak one, which another panel has, too."""

        panel = self.east.servers[1].panel
        for name in ("panel.key", "panel.crt"):
            shutil.copy(other.panel.folder / name, panel.folder / name)
        await panel.stop()
        panel.settings = dataclasses.replace(panel.settings, tls="weak")
        await panel.start()
        found = await self.check("trial=no device=east1")
        forget = "vendor forget device=east1 agent=east"
        self.named(found, "bmc-panel", "fault", "another certificate than before", f"ipmiproxyctl {forget}")
        self.named(found, "bmc-vendor", "warning", "as its certificate is refused")
        await self.client.must(forget)
        found = await self.check("trial=no device=east1")
        self.named(found, "bmc-panel", "warning", "TLS 1.2 or later, but with a weak key", "firmware")
        self.named(found, "bmc-panel", "warning", "the very same key as 10.78.1.12:443", "certificate of its own")
        self.named(found, "bmc-vendor", "ok", "Supermicro")

    async def _all_readable(self, server: SimulatedServer) -> None:
        """On the way to the panel, and to the BMC."""

        server.panel.settings = dataclasses.replace(server.panel.settings, tls="none")
        await server.start()
        words = f"web={server.panel.url} password={server.device().password.reveal()} interface=lan"
        await self.client.must(f"device set name=east2 {words}")
        found = await self.check("trial=no device=east2")
        self.named(found, "bmc-panel", "warning", "speaks plain HTTP", "Use https")
        self.named(found, "bmc-ipmi", "warning", "ipmitool works", "IPMI 1.5 encrypts nothing", "interface=lanplus")
