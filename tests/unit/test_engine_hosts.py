"""What the engine of provisioning does on a host that others have been at, with real files below a scratch folder."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from ipmiproxyd.provision.host import accounts, files, firewall, jobs, keys, main, privileges, record
from ipmiproxyd.provision.host.system import Host
from ipmiproxyd.provision.host.talk import FailedError
from tests.unit.test_engine import DOCUMENT, KEY, PASSWD, OwnTestCase

KEYS = "/home/ipmiproxyd/.ssh/authorized_keys"
OURS = f"restrict,port-forwarding {KEY}\n"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG90aGVy"
ADMINS = "ssh-rsa AAAA admin\n"


class KeyTests(OwnTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stages = (keys.put_key,)
        self.keys = self.path(KEYS)
        self.keys.parent.mkdir(mode=0o700)

    def provisioned(self, before: str, **more: Any) -> str:
        self.keys.write_text(before)
        self.provision(**more)
        return self.keys.read_text()

    def test_others_add_keys_later(self) -> None:
        self.provisioned(ADMINS)
        self.provisioned(f"{ADMINS}ssh-rsa NEW admin")
        self.unprovision()
        self.assertEqual(self.keys.read_text(), f"{ADMINS}ssh-rsa NEW admin\n")

    def test_others_add_keys_to_what_was_ours_alone(self) -> None:
        self.provision()
        self.provisioned(f"{self.keys.read_text()}{ADMINS}", public_key=OTHER)
        self.provision(public_key=KEY)
        self.unprovision()
        self.assertEqual(self.keys.read_text(), ADMINS)
        self.keys.unlink()
        self.provision()
        self.provisioned(f"{OURS}{ADMINS}", public_key=OTHER)
        self.keys.write_text(self.keys.read_text().replace(ADMINS, ""))
        self.unprovision()
        self.assertFalse(self.keys.exists())

    def test_the_key_changes(self) -> None:
        other = f"restrict,port-forwarding {OTHER}\n"
        self.assertEqual(self.provisioned(ADMINS), ADMINS + OURS)
        self.assertEqual(self.provisioned(self.keys.read_text(), jobs_name="two"), ADMINS + OURS)
        self.provision(public_key=OTHER, jobs_name="two")
        self.assertEqual(self.keys.read_text(), ADMINS + OURS + other)
        self.provision(public_key=OTHER)
        self.assertEqual(self.keys.read_text(), ADMINS + other)
        self.assertEqual(self.provision(public_key=OTHER), [])
        self.unprovision()
        self.assertEqual(self.keys.read_text(), ADMINS)

    def test_which_lines_count(self) -> None:
        blob = " ".join(KEY.split()[:2])
        for before, added, warned in (
            (f"# disabled: {KEY}\n", True, False),
            (f"{KEY}\n", True, True),
            (f'from="10.0.0.0/8, 192.0.2.1" {blob}\n', False, True),
            (f'from="10.0.0.1",Restrict {blob} by hand\n', False, False),
            (f'command="echo \\"{blob}\\"" {OTHER}\n', True, False),
            (f"restrict,port-forwarding {blob}\n", False, False),
            (OURS, False, False),
        ):
            self.assertEqual(self.provisioned(before), before + (OURS if added else ""))
            self.assertEqual(len(self.told.words("warning")), warned, before)
            self.assertEqual(self.provision(), [])
            self.unprovision()
            self.assertEqual(self.keys.read_text(), before)

    def test_by_hand_it_is_the_same(self) -> None:
        """As docs/agents.md has it for whoever sees to it himself."""

        page = Path(__file__).resolve().parents[2] / "docs/agents.md"
        place = "~ipmiproxyd/.ssh/authorized_keys"
        (line,) = [line for line in page.read_text().splitlines() if line.endswith(f" agents.pub >> {place}")]
        (self.root / "agents.pub").write_text(f"{KEY}\n")
        subprocess.run(["sh", "-ec", line.replace(place, str(self.keys.resolve()))], cwd=self.root, check=True)
        self.assertEqual(self.keys.read_text(), OURS)

    def test_what_the_account_puts_in_the_way(self) -> None:
        (self.keys.parent / ".authorized_keys.ipmiproxyd-new").mkdir()
        (self.keys.parent / ".authorized_keys.ipmiproxyd-new/x").touch()
        self.provision()
        self.assertEqual(self.keys.read_text(), OURS)
        self.assertEqual(os.listdir(self.keys.parent), ["authorized_keys"])
        self.keys.unlink()
        self.keys.mkdir()
        self.unprovision()
        (warning,) = self.told.words("warning")
        self.assertIn("changed by somebody", warning)
        self.keys.rmdir()
        self.keys.parent.rmdir()
        self.keys.parent.symlink_to("elsewhere")
        (self.root / "home/ipmiproxyd/elsewhere").mkdir()
        error = self.assertRaises(FailedError, self.provision)
        self.assertIn("/home/ipmiproxyd/.ssh on the host is no folder", error.message)

    def test_a_pipe_is_not_waited_for(self) -> None:
        self.keys.write_text(ADMINS)
        real = os.open

        def late(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if path == "authorized_keys":
                self.assertTrue(flags & os.O_NONBLOCK)
                self.keys.unlink()
                os.mkfifo(self.keys)
            return real(path, flags, *more, **named)

        self.patch(os, "open", late)
        self.assertEqual(self.assertRaises(FailedError, files.look, self.host.root, KEYS).code, "forbidden")


class AccountTests(OwnTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stages = (accounts.make_account,)
        self.path("/etc/passwd").write_text(PASSWD.format(uid=54321, gid=os.getgid()))
        self.home = self.path("/home/ipmiproxyd")

    def test_no_home(self) -> None:
        self.home.rmdir()
        error = self.assertRaises(FailedError, self.provision)
        self.assertEqual(error.code, "forbidden")
        self.assertIn("/home/ipmiproxyd is not there", error.message)
        self.assertTrue(error.hint)

    def test_somebody_elses_home(self) -> None:
        self.patch(os, "geteuid", lambda: 4711)
        if self.home.stat().st_uid == 0:
            os.chown(self.home, 54322, -1)
        error = self.assertRaises(FailedError, accounts.make_account, self.work())
        self.assertIn("belongs to somebody else", error.message)
        self.path("/etc/passwd").write_text(PASSWD.splitlines()[0])
        error = self.assertRaises(FailedError, accounts.make_account, self.work())
        self.assertIn("no account ipmiproxyd", error.message)

    def test_one_that_the_administrator_changed(self) -> None:
        """It has another group, and another home."""

        with record.alone(self.host.root, make=True):
            made = self.work()
            made.record.begin("account", "account", "ipmiproxyd", home="/home/ipmiproxyd", home_was=False, made=True)
        self.path("/etc/passwd").write_text(PASSWD.format(uid=54321, gid=1).replace("/home/ipmi", "/srv/ipmi"))
        self.path("/srv/ipmiproxyd").mkdir(parents=True)
        self.assertEqual(self.provision(), [])
        self.assertEqual(self.host.ran, [])

    def test_traces_of_one_that_was_there(self) -> None:
        """Nothing but its key is changed: what the daemon leaves in its home, and in folder=, goes all the same."""

        self.stages = (accounts.make_account, keys.put_key)
        before = self.listing()
        self.provision(folder="/home/ipmiproxyd/of/tools")
        self.path("/home/ipmiproxyd/of/tools/jobs").mkdir(parents=True)
        self.unprovision()
        self.assertFalse(self.path("/home/ipmiproxyd/of/tools").exists())
        self.path("/home/ipmiproxyd/of").rmdir()
        self.provision()
        self.path("/home/ipmiproxyd/.ipmiproxyd/tools").mkdir(parents=True)
        self.unprovision()
        self.assertEqual(self.listing(), before)


class PlaceTests(OwnTestCase):
    def refused(self, **more: Any) -> FailedError:
        error: FailedError = self.assertRaises(FailedError, privileges.check_places, self.work(**more))
        self.assertEqual(error.code, "forbidden")
        return error

    def test_what_root_starts_is_roots(self) -> None:
        privileges.check_places(self.work())
        home = "/home/ipmiproxyd"
        self.path(home).chmod(0o777)
        self.assertIn(home, self.refused(runner={**DOCUMENT["runner"], "path": f"{home}/lib/runner.py"}).message)
        self.assertIn("runner=", self.refused(runner={**DOCUMENT["runner"], "path": f"{home}/lib/runner.py"}).hint)
        python = f"{home}/bin/python3"
        self.path(python).parent.mkdir()
        self.path(python).symlink_to("/usr/bin/python3")
        self.assertIn(home, self.refused(python=python).message)
        self.path(home).chmod(0o755)
        privileges.check_places(self.work(python=python))
        self.path("/usr/bin/python3").chmod(0o757)
        self.assertIn("/usr/bin/python3 on the host", self.refused(python=python).message)

    def test_whose_group_it_is(self) -> None:
        place = "/usr/local/lib"
        gid = self.path(place).stat().st_gid
        self.path(place).chmod(0o2775)
        group = self.path("/etc/group")
        users = PASSWD.format(uid=os.getuid(), gid=gid + 1)
        self.path("/etc/passwd").write_text(users)
        group.write_text(f"staff:x:{gid}:\n")
        privileges.check_places(self.work())
        group.write_text(f"staff:x:{gid}:ada\n")
        self.assertIn(place, self.refused().message)
        group.write_text(f"staff:x:{gid}:\n")
        self.path("/etc/passwd").write_text(f"{users}ada:x:1000:{gid}::/home/ada:/bin/sh\n")
        self.assertIn(place, self.refused().message)


class JobTests(OwnTestCase):
    def job(self, name: str, keeper: str) -> Path:
        folder = self.path(f"{jobs.JOBS}/{name}/job1")
        folder.mkdir(parents=True)
        (folder.parent / "alive").touch(0o644)
        (folder / "state.json").write_text(f'{{"keeper": "{keeper}"}}')
        self.path(f"{jobs.CACHE}/{name}").mkdir(parents=True, mode=0o711)
        return folder

    def keeper(self) -> str:
        proc = self.path("/proc/sys/kernel/random")
        proc.mkdir()
        (proc / "boot_id").write_text("b00t\n")
        self.path("/proc/7").mkdir()
        self.path("/proc/7/stat").write_text(f"7 (python3) S {'0 ' * 18}99 0\n")
        return "b00t:7:99"

    def test_two_daemons(self) -> None:
        self.provision(jobs_name="main")
        self.provision(account="east", jobs_name="east")
        theirs, ours = self.job("east", self.keeper()), self.job("main", "b00t:7:98")
        self.unprovision(jobs_name="main")
        self.assertFalse(ours.parent.exists())
        self.assertTrue(theirs.exists())
        self.assertEqual(os.listdir(self.path(jobs.CACHE)), ["east"])
        leave = {"account": "east", "jobs_name": "east"}
        error = self.assertRaises(FailedError, self.unprovision, **leave)
        self.assertEqual(error.code, "in-use")
        self.path("/proc/7/stat").unlink()
        self.unprovision(**leave)
        self.assertFalse(self.path(jobs.JOBS).exists())

    def test_whose_jobs_they_are(self) -> None:
        self.path("/etc/passwd").write_text(PASSWD.format(uid=os.getuid(), gid=1).replace(":x:", ":x:7", 2))
        self.job("main", "")
        self.assertEqual(jobs.own(self.work()), [])
        self.assertEqual(len(jobs.own(self.work(account="east"))), 2)


class LockTests(OwnTestCase):
    def test_locks_that_nobody_has(self) -> None:
        """A lock whose owner's number is another process's now is no lock, nor is a dead one's; the owner's own is."""

        def lock(name: str, owner: object, made: float) -> Path:
            path = self.path(f"/etc/{name}.lock")
            path.write_text(f"{owner}")
            os.utime(path, (made, made))
            return path

        now, uptime, ticks = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), os.sysconf("SC_CLK_TCK")
        begun = int((uptime - 5) * ticks)
        for pid, state in ((7, "S"), (9, "Z")):
            self.path(f"/proc/{pid}").mkdir()
            self.path(f"/proc/{pid}/stat").write_text(f"{pid} (a) b) {state} {'0 ' * 18}{begun} 0\n")
        stale = [lock("passwd", 7, now - 8), lock("subgid", "7\0", now - 9e5), lock("subuid", 9, now)]
        kept = [lock("group", 7, now - 5), lock("shadow", 8, now - 8), lock("gshadow", "", now - 8)]
        Host(str(self.root)).drop_stale_locks()
        self.assertEqual([path.exists() for path in (*stale, *kept)], [False] * 3 + [True] * 3)


class FirewallTests(OwnTestCase):
    def test_who_else_listens(self) -> None:
        lines = [
            ("tcp", "00000000:170E", "0A", 54321),  # 5902
            ("tcp", "0100007F:170D", "0A", 54321),  # 5901, for the host alone
            ("tcp", "00000000:170F", "01", 54321),  # a connection
            ("tcp6", "00000000000000000000000000000000:170F", "0A", os.getuid()),  # the account's own
            ("tcp6", f"{'0' * 24}01000000:170D", "0A", 54321),
        ]
        self.path("/proc/net").mkdir()
        for name in ("tcp", "tcp6"):
            text = "head\n" + "".join(
                f" 0: {local} 0:0 {state} 0:0 00:0 0 {uid} 0 1\n" for kind, local, state, uid in lines if kind == name
            )
            self.path(f"/proc/net/{name}").write_text(text)
        self.stages = (firewall.put,)
        self.provision()
        (warning,) = self.told.words("warning")
        self.assertIn("any more: 5902.", warning)


class FullTests(OwnTestCase):
    def test_a_full_disk(self) -> None:
        told = main.of_the_system(OSError(errno.ENOSPC, "No space left on device"))
        self.assertEqual((told["code"], bool(told["hint"])), ("agent-full", True))
        self.assertEqual(main.of_the_system(OSError(errno.EIO, "x"))["code"], "internal")

    def test_what_is_taken_back_needs_no_room(self) -> None:
        before = self.listing()
        self.provision()
        room = 0

        def full(folder: int, name: str, state: files.State) -> None:
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            put(folder, name, state)

        put = files._put_file
        self.patch(files, "_put_file", full)
        self.assertRaises(OSError, self.unprovision)
        self.assertFalse(self.path(DOCUMENT["runner"]["path"]).exists())
        self.assertFalse(self.path(KEYS).exists())
        room = 1
        self.unprovision()
        self.assertEqual(self.listing(), before)
