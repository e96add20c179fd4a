"""A Debian 12 as it comes: ``make install`` alone leads from a fresh clone to a running daemon, and, where systemd is
process 1, the units to one that is started, watched and started again, with a panel in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar, Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.simulator.bmc import ADMIN
from tests.simulator.server import SimulatedServer
from tests.support import leftovers
from tests.support.booted import BootedRoot, control_groups
from tests.support.network_namespace import NetworkNamespace, ReactorIn
from tests.support.roots import Debian
from tests.support.scratch import scratch

ROOT: Final = Path(__file__).resolve().parents[2]
CLONE, PLACE = "/usr/src/ipmiproxyd", "/srv/clone"
HERE, BMC = "10.78.9.1", "10.78.9.11"
GROUP: Final = "[Socket]\nSocketGroup=www-data\n"
UNITS: Final = "ipmiproxyd.socket ipmiproxyd.service"
SAVED: Final = f"""
set -e
ipmiproxyctl device add name=saved address=192.0.2.1 username=a password=@/etc/hostname
systemctl stop {UNITS}
(umask 077 && tar -C / -czf /var/backups/ipmiproxyd.tar.gz var/lib/ipmiproxyd etc/ipmiproxyd etc/ipmiproxyd.toml)
rm -r /var/lib/ipmiproxyd /etc/ipmiproxyd
tar -C / -xzf /var/backups/ipmiproxyd.tar.gz
rm /var/backups/ipmiproxyd.tar.gz
ipmiproxyctl setup >&2
systemctl start {UNITS}
ipmiproxyctl device list
ipmiproxyctl device remove name=saved
"""
WATCHDOG: Final = "[Service]\nWatchdogSec=4\n"
INSTALL: Final = f"""
set -e
apt-get -q update >&2
apt-get -q -y install --no-install-recommends make procps systemd systemd-sysv dbus >&2
cp -R {PLACE} {CLONE}
touch /srv/begun
cd {CLONE}
make install
echo --- again
make install
echo --- another Python
rm /opt/ipmiproxyd/bin/python*
make install
echo "written: $(find {CLONE} -newer /srv/begun)"
"""
BY_HAND: Final = """
set -e
[ "${1-}" != without-sudo ] || mv /etc/sudoers.d/ipmiproxyd /srv/rule
told=$(ipmiproxyctl daemon status 2>&1 | sed -n 's/^hint: Start it, as root: \\(runuser .*\\)\\. If .*/\\1/p')
$told >/tmp/log 2>&1 &
until ipmiproxyctl daemon status 2>/dev/null; do kill -0 $! || { cat /tmp/log >&2; exit 1; }; sleep 0.1; done
ipmiproxyctl daemon stop
wait
[ "${1-}" != without-sudo ] || mv /srv/rule /etc/sudoers.d/ipmiproxyd
"""


class BareDebianTests(TestCase):
    timeout: ClassVar[float] = 1500

    async def setUp(self) -> None:  # type: ignore[override]
        control_groups()  # rather now than after all the rest
        debian = Debian("bookworm")
        await deferToThread(debian.make, [])
        self.folder = scratch(self)
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, self.folder / "clone"], check=True, timeout=60)
        work = self.folder / "root"
        self.root = BootedRoot(self, debian.root, work, self.folder / "clone", PLACE)

    async def test_from_a_clone_to_a_console_and_back(self) -> None:
        said = await self.there("sh", "-c", INSTALL)
        first, _, more = said.partition("--- again\n")
        second, _, third = more.partition("--- another Python\n")
        self.assertIn("Nothing was changed.", third.splitlines())
        self.assertTrue(third.endswith("\nwritten: \n"), third)
        self.assertIn("user ipmiproxyd: made", first)
        self.assertIn("What next:", first)
        self.assertNotIn("Missing:", first)
        self.assertEqual(second.splitlines()[0], "Nothing was changed.")
        self.assertIn("easydcim_vnc_", await self.there("sh", "-c", f"ipmiproxyctl setup\n{BY_HAND}"))
        said = await self.there("sh", "-c", f"ipmiproxyctl setup\n{BY_HAND}", "sh", "without-sudo")
        self.assertNotIn("easydcim_vnc_", said)

        await deferToThread(self.root.boot)
        await self.under_systemd()
        await self.console()
        await self.run_there("make", "-C", CLONE, "uninstall", "PURGE=yes")
        units = await self.run_there("sh", "-c", "systemctl list-unit-files --no-legend 'ipmiproxyd.*' || :")
        self.assertEqual(units, "")
        self.root.stop()
        after = await self.there("sh", "-c", LISTING)
        self.assertEqual([line for line in after.splitlines() if "ipmiproxy" in line or "easydcim" in line], [])

    async def there(self, *argv: str) -> str:
        said: str = await deferToThread(self.root.before_boot, *argv)
        return said

    async def run_there(self, *argv: str) -> str:
        said: str = await deferToThread(self.root.run, *argv)
        return said

    async def pid(self) -> int:
        return int(await self.run_there("systemctl", "show", "--property=MainPID", "--value", "ipmiproxyd.service"))

    async def another_pid(self, old: int) -> None:
        """Wait until systemd has started it again."""

        for _ in range(300):
            state = await self.run_there("systemctl", "show", "--property=ActiveState", "--value", "ipmiproxyd.service")
            if state.strip() == "active" and await self.pid() not in (0, old):
                return
            await leftovers.pause(0.1)
        raise AssertionError(f"it was not started again; {await self.run_there('journalctl', '-u', 'ipmiproxyd')}")

    async def under_systemd(self) -> None:
        said = await self.run_there("ipmiproxyctl", "setup")
        self.assertEqual(
            said.splitlines()[:2], ["ipmiproxyd: enabled: it starts with the machine", "ipmiproxyd: started"]
        )
        self.assertEqual((await self.run_there("ipmiproxyctl", "setup")).splitlines()[0], "Nothing was changed.")
        self.assertIn("easydcim_vnc_", await self.run_there("ipmiproxyctl", "daemon", "status"))

        await self.run_there("systemctl", "stop", "ipmiproxyd.service")
        self.assertEqual(await self.pid(), 0)
        self.assertIn("version: ", await self.run_there("ipmiproxyctl", "daemon", "status"))

        old = await self.pid()
        await self.run_there("kill", "-KILL", str(old))
        await self.another_pid(old)

        folder = self.root.path("/etc/systemd/system/ipmiproxyd.service.d")
        folder.mkdir()
        (folder / "watchdog.conf").write_text(WATCHDOG)
        await self.run_there("systemctl", "daemon-reload")
        await self.run_there("systemctl", "restart", "ipmiproxyd")
        old = await self.pid()
        await self.run_there("kill", "-STOP", str(old))
        await self.another_pid(old)
        shutil.rmtree(folder)
        await self.run_there("systemctl", "daemon-reload")
        await self.run_there("systemctl", "restart", "ipmiproxyd")

        folder = self.root.path("/etc/systemd/system/ipmiproxyd.socket.d")
        folder.mkdir()
        (folder / "override.conf").write_text(GROUP)
        await self.run_there("systemctl", "daemon-reload")
        await self.run_there("systemctl", "stop", *UNITS.split())
        await self.run_there("systemctl", "start", *UNITS.split())
        said = await self.run_there("stat", "-c", "%U:%G %a", "/run/ipmiproxyd/control.sock")
        self.assertEqual(said, "ipmiproxyd:www-data 660\n")
        self.assertIn("saved", await self.run_there("sh", "-c", SAVED))
        shutil.rmtree(folder)

    async def console(self) -> None:
        """A panel in Chromium, under the unit's hardening; a restart closes it."""

        server = await self.server()
        password = self.root.path("/srv/password")
        password.write_text(f"{ADMIN.password}\n")
        device = ("name=node1", f"address={BMC}", f"username={ADMIN.name}", "password=@/srv/password", "cipher=3")
        await self.run_there("ipmiproxyctl", "device", "add", *device, f"web={server.panel.url}")
        self.assertIn("power: off", await self.run_there("ipmiproxyctl", "power", "status", "device=node1"))
        said = await self.run_there("ipmiproxyctl", "console", "open", "device=node1", "type=panel")
        self.assertRegex(said, r"url: http://panel:60\d\d/#t=")
        self.assertIn("chromium", await self.run_there("ps", "-u", "easydcim_vnc_1", "-o", "args"))
        await server.panel.recorded("request")
        refused = await deferToThread(self.refused, "ipmiproxyctl", "setup", "--remove")
        self.assertIn("1 console is open", refused)
        await self.run_there("systemctl", "restart", "ipmiproxyd")
        self.assertIn("no consoles", await self.run_there("ipmiproxyctl", "console", "list"))
        self.assertEqual(await self.run_there("sh", "-c", "ps -u easydcim_vnc_1 -o args= || :"), "")

    def refused(self, *argv: str) -> str:
        done = subprocess.run([*self.root.inside(), *argv], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        return done.stderr

    async def server(self) -> SimulatedServer:
        """On a cable of its own."""

        bmcs = NetworkNamespace.make()
        self.addCleanup(bmcs.close)
        there = self.root.network()
        try:
            there.ip(
                f"link add bmc0 type veth peer name agent0 netns {bmcs.path}",
                f"address add {HERE}/24 dev bmc0",
                "link set bmc0 up",
            )
        finally:
            there.close()
        bmcs.ip(f"address add {BMC}/24 dev agent0", "link set agent0 up")
        inside: Any = ReactorIn(reactor, bmcs)
        server = SimulatedServer(self.folder / "node1", address=BMC, bmc_port=623, web_port=443, reactor=inside)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        await server.start()
        return server


LISTING: Final = r"""
find /etc /opt /usr/local /var/lib /var/cache ~root -xdev -printf '%p\n'
cut -d: -f1 /etc/passwd /etc/group
"""
