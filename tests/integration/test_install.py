"""``make install`` on a machine that never saw ipmiproxyd: from there to a BMC's power, and back."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents import runner
from tests.simulator.bmc import ADMIN, SimulatedBmc
from tests.simulator.process import Child, the_reactor
from tests.support import leftovers
from tests.support.bare import ROOTS_HOME, BareHost
from tests.support.hosts import PATH, REPOSITORY
from tests.support.network_namespace import NetworkNamespace, ReactorIn
from tests.support.scratch import scratch
from tests.support.wheel import build_wheel, copy_sources

AS_UNIT: Final = Path(__file__).resolve().parents[1] / "support" / "as_unit.py"
SOURCES, LIBRARIES, WHEELS = "/srv/sources", "/srv/libraries", "/srv/wheels"
PREFIX: Final = "/opt/ipmiproxyd"
UNITS: Final = ("/etc/systemd/system/ipmiproxyd.service", "/etc/systemd/system/ipmiproxyd.socket")
START_JOB: Final = f"""
import json, os, pwd, subprocess, sys
user = pwd.getpwnam("ipmiproxyd")
document = {{"verb": "start", "version": {runner.VERSION}, "jobs": "ipmiproxyd", "prefix": "easydcim_vnc_"}}
document |= {{"group": user.pw_gid, "id": "job1", "display": 1, "vnc": "unix", "door": "", "lease": 900.0}}
document |= {{"memory": 1 << 28, "least_free": 0, "box": "import time; time.sleep(600)", "given": ""}}
asks = {{"PATH": "{PATH}", "SUDO_UID": str(user.pw_uid), "SUDO_GID": str(user.pw_gid)}}
argv = [sys.executable, "{SOURCES}/ipmiproxyd/agents/runner.py"]
done = subprocess.run(argv, input=json.dumps(document), env=asks, text=True, capture_output=True, check=True)
print(done.stdout)
"""
RUNNING: Final = f"""
{PREFIX}/bin/python -c 'import time; time.sleep(60)' &
{SOURCES}/.ci/remove-environment {PREFIX} && echo removed
kill $!
"""
LISTING: Final = r"""
find /etc /opt /usr/local/bin /run -xdev -path '/opt/?*/?*/?*' -prune -o -printf '%y %m %u:%g %p %l\n'
find /var/lib /var/cache -xdev -maxdepth 1 -printf '%y %m %u:%g %p %l\n'
cd /etc && sha256sum passwd group shadow gshadow sudoers
"""


class Panel(BareHost):
    """It finds the packages of these tests, and no ipmiproxyd."""

    def install(self) -> None:
        super().install()
        remains = [PREFIX, "/usr/local/bin/ipmiproxyctl", "/usr/local/bin/ipmiproxyd", *UNITS]
        state = ["/etc/ipmiproxyd", "/etc/ipmiproxyd.toml", "/var/lib/ipmiproxyd", "/var/lib/ipmiproxyd-setup"]
        # It would take a number that a display's user has on this machine, whose processes the kernel ends by number
        # alone, here as there. useradd keeps to those of the host. (tests/soak/test_install.py has it.)
        self.run("rm", "-rf", *remains, *state, "/usr/bin/systemd-sysusers")
        self.run("ip", "link", "set", "lo", "up")


class InstallTests(TestCase):
    timeout = 240

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = scratch(self)
        copy_sources(self.folder / "sources")
        wheel = await build_wheel(self.folder, self.folder / "sources")
        shown = {
            REPOSITORY: SOURCES,
            Path(sysconfig.get_path("purelib")): LIBRARIES,
            wheel.parent: WHEELS,
        }
        self.wheel = f"{WHEELS}/{wheel.name}"
        self.host = Panel(self, "panel", 0, self.folder / "keys", shown=shown)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.host.stop()))
        await self.host.start()

    async def run_there(self, *argv: str, status: int = 0) -> str:
        """What a program said, as root on the host."""

        environment = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "PIP_NO_INDEX": "1"}
        out, err, ended = await getProcessOutputAndValue(
            "/usr/bin/nsenter", [*self.host.inside()[1:], *argv], environment
        )
        said = str((out + err).decode())
        self.assertEqual(ended, status, f"{argv}\n{said}")
        return said

    async def make(self, *words: str) -> str:
        return await self.run_there("make", "--no-print-directory", "-C", SOURCES, *words)

    async def environment(self) -> None:
        """A virtual environment at PREFIX that finds the packages of these tests: there is no network. They are for a
        Python as that of these tests."""

        await self.run_there("/usr/bin/python3", "-m", "venv", "--without-pip", PREFIX)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.host.path(f"{PREFIX}/lib/{version}/site-packages/here.pth").write_text(f"{LIBRARIES}\n")

    async def start_daemon(self) -> Child:
        """As the unit would."""

        ready: Deferred[None] = Deferred()
        child = Child(lambda line: ready.callback(None) if line == "ready" else None)
        child.when_ended().addCallback(lambda _: None if ready.called else ready.cancel())
        argv = [*self.host.inside(), "/usr/bin/python3", "-c", AS_UNIT.read_text(), *UNITS]
        the_reactor().spawnProcess(child, argv[0], argv, env={"PATH": PATH})
        try:
            await ready.addTimeout(90.0, IReactorTime(reactor))
        except Exception as error:
            raise AssertionError(f"{error!r}; {child.output!r}; {self.host.processes()}") from error
        return child

    async def bmc(self) -> SimulatedBmc:
        namespace = NetworkNamespace.of(self.host.init)
        self.addCleanup(namespace.close)
        inside: Any = ReactorIn(reactor, namespace)
        bmc = SimulatedBmc(self.folder / "bmc", address="127.0.0.1", port=623, reactor=inside)
        self.addCleanup(bmc.stop)
        await bmc.start()
        return bmc

    async def test_from_nothing_to_power_and_back(self) -> None:
        await self.environment()
        before = self.host.run("sh", "-c", LISTING)
        await self.where_it_cannot_be()
        said = await self.make("install", f"WHEEL={self.wheel}")
        self.assertIn("user ipmiproxyd: made", said)
        self.assertIn("\nWhat next:\n", said)
        self.assertNotIn("\nMissing:\n", said)
        self.assertEqual(await self.run_there("systemd-analyze", "verify", "--man=no", *UNITS), "")

        said = await self.run_there("ipmiproxyctl", "daemon", "status", status=1)
        self.assertIn("error: No ipmiproxyd runs here", said)
        self.assertIn(f"runuser -u ipmiproxyd -- {PREFIX}/bin/ipmiproxyd", said)

        daemon = await self.start_daemon()
        bmc = await self.bmc()
        said = await self.run_there("ipmiproxyctl", "daemon", "status")
        self.assertIn("easydcim_vnc_", said)
        password = self.host.path("/srv/password")
        password.write_text(f"{ADMIN.password}\n")
        device = ("name=node1", f"address={bmc.address}", f"port={bmc.port}", f"username={ADMIN.name}", "cipher=3")
        await self.run_there("ipmiproxyctl", "device", "add", *device, "password=@/srv/password")
        self.assertIn("power: off", await self.run_there("ipmiproxyctl", "power", "status", "device=node1"))
        password.unlink()

        again = await self.make("install", f"WHEEL={self.wheel}")
        self.assertEqual(again.splitlines()[0], "Nothing was changed.", again)
        self.assertNotIn("restart", again)
        await self.and_back(daemon)
        await self.environment()
        self.assertEqual(_difference(before, self.host.run("sh", "-c", LISTING)), "")

    async def and_back(self, daemon: Child) -> None:
        """Nothing is removed while it is in use."""

        self.assertIn("begun", self.host.run("/usr/bin/python3", "-c", START_JOB))
        log = self.host.path(f"{runner.JOBS}/ipmiproxyd/job1/log")  # the last file that a job's keeper makes
        await leftovers.until_none(lambda: not log.exists())
        everything = self.host.run("sh", "-c", LISTING)
        for words in (("--purge",), ("--dry-run",)):
            said = await self.run_there("ipmiproxyctl", "setup", "--remove", *words, status=1)
            self.assertIn("error: 1 console is open.", said)
        self.assertEqual(self.host.run("sh", "-c", LISTING), everything)
        said = await self.run_there("ipmiproxyctl", "setup", "--remove", "--force")
        self.assertRegex(said, r"the daemon \(process \d+\): stopped")
        self.assertIn("console job1: ended", said)
        await daemon.when_ended()
        self.assertEqual(self.host.console_processes(), {})
        self.assertIn(f"{PREFIX}: left, as process ", await self.run_there("sh", "-c", RUNNING))
        await self.make("uninstall")
        self.assertFalse(self.host.path(PREFIX).exists())
        # The sources are there still.
        said = await self.make("uninstall", "PURGE=yes")
        self.assertIn("user easydcim_vnc_1: removed", said)

    async def where_it_cannot_be(self) -> None:
        self.host.run("install", "-d", "-o", "1234", "/srv/mine")
        for prefix in ("/opt/a b", "/home/x", f"/opt/..{ROOTS_HOME}/x", "/srv/mine/x", "opt"):
            said = await self.run_there(
                "make", "-C", SOURCES, "install", f"PREFIX={prefix}", f"WHEEL={self.wheel}", status=2
            )
            self.assertIn("PREFIX", said)
        places = ("/opt/a b", "/home/x", f"{ROOTS_HOME}/x", "/srv/mine/x")
        made = [path for path in places if self.host.path(path).exists()]
        self.assertEqual(made, [])


def _difference(before: str, after: str) -> str:
    old, new = set(before.splitlines()), set(after.splitlines())
    own = re.compile(r"/etc/(\.pwd\.lock|(passwd|group|shadow|gshadow|subuid|subgid)-)|/run/(notify|systemd)\b")
    changed = [f"- {line}" for line in old - new] + [f"+ {line}" for line in new - old]
    return "\n".join(line for line in sorted(changed) if not own.search(f"{line} "))
