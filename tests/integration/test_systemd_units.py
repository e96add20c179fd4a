"""The files for systemd and sudo, as their own programs read them, and as the sandboxes need them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.config import Settings
from ipmiproxyd.control.listen import PASSED_NAME
from ipmiproxyd.provision.host import firewall
from tests.support.scratch import scratch

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "systemd"
NFTABLES = Path("/lib/systemd/system/nftables.service")  # Debian's
SUDOERS = ROOT / "etc" / "sudoers.d" / "ipmiproxyd"

# systemd.exec(5): in a unit with User= each of these switches set-user-ID programs, and so sudo, off.
IMPLY_NO_NEW_PRIVILEGES = [
    "SystemCallFilter",
    "SystemCallArchitectures",
    "SystemCallLog",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "PrivateDevices",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "DynamicUser",
]

# bubblewrap cannot mount /proc, or make its namespaces, behind these.
BREAK_SANDBOXES = ["ProtectProc", "ProcSubset", "PrivateUsers", "RestrictFileSystems", "RootDirectory", "RootImage"]

# What the runner needs of root: its folders' owners, the displays' users, their processes, mounts.
RUNNER_NEEDS = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_RESOURCE",
    "CAP_AUDIT_WRITE",
]


def directives(unit: Path) -> dict[str, list[str]]:
    """The settings of a unit file, without its comments; a name may stand there more than once."""

    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


class Tools:
    """Runs a program and gives what it said."""

    @staticmethod
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which(argv[0], path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        if program is None:
            raise AssertionError(f"{argv[0]} is not installed")
        return subprocess.run([program, *argv[1:]], capture_output=True, text=True, timeout=30, check=False)


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.service = directives(SYSTEMD / "ipmiproxyd.service")
        self.socket = directives(SYSTEMD / "ipmiproxyd.socket")

    def verify(self, change: str = "", to: str = "") -> str:
        """What systemd-analyze has to say. Its exit status tells nothing: it is 0 for an unknown directive too."""

        folder = scratch(self)
        for name in ("ipmiproxyd.service", "ipmiproxyd.socket"):
            text = (SYSTEMD / name).read_text()
            self.assertTrue(name.endswith(".socket") or change in text)
            # The program is not installed where the tests run.
            (folder / name).write_text(text.replace("/opt/ipmiproxyd/bin/ipmiproxyd", "/bin/true").replace(change, to))
        units = [str(path) for path in folder.iterdir()]
        return Tools.run("systemd-analyze", "verify", "--man=no", *units).stderr

    def test_systemd_has_nothing_to_say(self) -> None:
        self.assertEqual(self.verify(), "")

    def test_it_would_tell_of_a_mistake(self) -> None:
        self.assertIn("WatchdogSecs", self.verify("WatchdogSec=", "WatchdogSecs="))

    def test_sudo_is_not_switched_off(self) -> None:
        self.assertEqual(self.service["NoNewPrivileges"], ["no"])
        self.assertEqual([name for name in IMPLY_NO_NEW_PRIVILEGES if name in self.service], [])

    def test_each_that_would_is_named_with_the_reason(self) -> None:
        text = (SYSTEMD / "ipmiproxyd.service").read_text()
        self.assertEqual([name for name in IMPLY_NO_NEW_PRIVILEGES if f"{name}=" not in text], [])

    def test_sandboxes_can_be_made(self) -> None:
        self.assertEqual([name for name in BREAK_SANDBOXES if name in self.service], [])

    def test_the_runner_keeps_what_it_needs_of_root(self) -> None:
        for line in self.service["CapabilityBoundingSet"]:
            self.assertEqual(line[0], "~")
            self.assertEqual(set(line[1:].split()) & set(RUNNER_NEEDS), set())

    def test_the_runner_can_make_users(self) -> None:
        self.assertEqual(self.service["ProtectSystem"], ["true"])

    def test_consoles_survive(self) -> None:
        self.assertEqual(self.service["KillMode"], ["process"])
        self.assertEqual(self.service["OOMPolicy"], ["continue"])
        self.assertEqual(self.service["RuntimeDirectoryPreserve"], ["yes"])
        self.assertNotIn("RemoveIPC", self.service)

    def test_paths_and_names_are_the_defaults(self) -> None:
        settings = Settings()
        self.assertEqual(
            [f"/run/{name}" for name in self.service["RuntimeDirectory"]], [str(settings.daemon.runtime_dir)]
        )
        self.assertEqual(
            [f"/var/lib/{name}" for name in self.service["StateDirectory"]], [str(settings.daemon.state_dir)]
        )
        self.assertEqual(self.socket["ListenStream"], [str(settings.control.socket)])
        self.assertEqual(int(self.socket["SocketMode"][0], 8), settings.control.mode)
        self.assertEqual(self.socket["FileDescriptorName"], [PASSED_NAME])

    def test_readiness_and_the_watchdog(self) -> None:
        self.assertEqual(self.service["Type"], ["notify"])
        self.assertGreaterEqual(int(self.service["WatchdogSec"][0]), 20)


class AgentUnitTests(SynchronousTestCase):
    """What ``agent provision`` puts on a host."""

    def verify(self, change: str = "", to: str = "") -> str:
        """Of the firewall's unit, and of the file beside the one of nftables."""

        folder = scratch(self)
        beside = folder / Path(firewall.DROP_IN).relative_to(firewall.UNITS)
        beside.parent.mkdir()
        beside.write_text(firewall.AFTERWARDS.replace(change, to))
        (folder / firewall.UNIT_NAME).write_text(firewall.UNIT.replace(change, to))
        shutil.copy(NFTABLES, folder)
        units = [str(folder / name) for name in (firewall.UNIT_NAME, NFTABLES.name)]
        return Tools.run("systemd-analyze", "verify", "--man=no", *units).stderr

    def test_systemd_has_nothing_to_say(self) -> None:
        self.assertEqual(self.verify(), "")

    def test_it_would_tell_of_a_mistake(self) -> None:
        self.assertIn("Befores", self.verify("Before=", "Befores="))
        self.assertIn("ExecStopPosts", self.verify("ExecStopPost=", "ExecStopPosts="))


class UsersAndFoldersTests(SynchronousTestCase):
    def test_the_user(self) -> None:
        root = scratch(self)
        (root / "etc").mkdir()
        done = Tools.run("systemd-sysusers", f"--root={root}", str(SYSTEMD / "sysusers.d" / "ipmiproxyd.conf"))
        self.assertEqual(done.returncode, 0, done.stderr)
        name, _, uid, _, _, home, shell = (root / "etc" / "passwd").read_text().strip().split(":")
        self.assertEqual((name, home, shell), ("ipmiproxyd", str(Settings().daemon.state_dir), "/usr/sbin/nologin"))
        self.assertIn(f"ipmiproxyd:x:{uid}:", (root / "etc" / "group").read_text())

    def test_the_folder(self) -> None:
        # As a user of the alternative root whom only this test's own user can be, so that nobody needs to be root.
        root = scratch(self)
        (root / "etc").mkdir()
        (root / "etc" / "passwd").write_text(f"ipmiproxyd:x:{os.getuid()}:{os.getgid()}::/:/bin/false\n")
        (root / "etc" / "group").write_text(f"ipmiproxyd:x:{os.getgid()}:\n")
        conf = str(SYSTEMD / "tmpfiles.d" / "ipmiproxyd.conf")
        done = Tools.run("systemd-tmpfiles", f"--root={root}", "--create", conf)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for folder in ("run/ipmiproxyd", "opt/ipmiproxyd/java"):
            self.assertEqual((root / folder).stat().st_mode & 0o7777, 0o755)


class SudoersTests(SynchronousTestCase):
    def test_sudo_reads_it(self) -> None:
        done = Tools.run("visudo", "-c", "-f", str(SUDOERS))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_it_allows_the_runner_and_nothing_else(self) -> None:
        [rule] = [line for line in SUDOERS.read_text().splitlines() if line and not line.startswith(("#", "Defaults"))]
        who, command = rule.split(" NOPASSWD: ")
        self.assertEqual(who, "ipmiproxyd ALL=(root)")
        python, *options, runner = shlex.split(command)
        self.assertEqual((python, options), (Settings().agent.python, ["-I", "-S"]))
        self.assertTrue(runner.endswith("/site-packages/ipmiproxyd/agents/runner.py"))
        self.assertFalse(set("*?[!,") & set(command))
