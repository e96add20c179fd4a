"""What the engine of provisioning writes down and takes back, with real files below a scratch folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents.scripts import modules_input, script_argv
from ipmiproxyd.provision.engine import engine_texts
from ipmiproxyd.provision.host import (
    apt,
    files,
    firewall,
    installing,
    kernel,
    keys,
    made,
    main,
    privileges,
    record,
    removing,
    system,
    whole,
)
from ipmiproxyd.provision.host.apt import Package, Plan
from ipmiproxyd.provision.host.record import Record, alone
from ipmiproxyd.provision.host.system import Done, Host, System
from ipmiproxyd.provision.host.talk import FailedError, StoppedError, Teller
from ipmiproxyd.provision.host.work import Work

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtleQ daemon@panel"
DOCUMENT: Mapping[str, Any] = {
    "verb": "provision",
    "account": "ipmiproxyd",
    "public_key": KEY,
    "runner": {"path": "/usr/local/lib/ipmiproxyd/runner.py", "version": 2, "text": "the runner"},
    "python": "/usr/bin/python3",
    "users": "auto",
    "prefix": "easydcim_vnc_",
    "displays": [1, 2, 3],
    "transport": "ssh",
    "browser": "chromium",
    "repository": "",
    "sudoers": "ipmiproxyd-agent",
}
SUDOERS = "/etc/sudoers.d/ipmiproxyd-agent"
PASSWD = (
    "root:x:0:0::/root:/bin/sh\nipmiproxyd:x:{uid}:{gid}::/home/ipmiproxyd:/bin/sh\n"
    "east:x:{uid}:{gid}::/home/east:/bin/sh\n"
)


class KilledError(BaseException):
    """As if by SIGKILL."""


class ScratchHost(Host):
    """Its programs are told apart from their words alone, and do nothing."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.ran: list[list[str]] = []
        self.table = ""

    def run(self, argv: Any, given: str = "", limit: float = 0.0) -> Done:
        self.ran.append(list(argv))
        if argv[:2] == ["nft", "-f"]:
            self.table = given.partition("delete table")[2].partition("{")[2]
        return Done(argv[:2] == ["nft", "list"] and not self.table, self.table, "")


class Told(Teller):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[Mapping[str, Any]] = []

    def say(self, **event: Any) -> None:
        self.events.append(event)

    def words(self, kind: str) -> list[str]:
        return [event["words"] for event in self.events if event["event"] == kind]


class HostTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        for folder in ("etc/sudoers.d", "home/ipmiproxyd", "home/east", "usr/local/lib", "var/lib", "proc/sys/kernel"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "etc/passwd").write_text(PASSWD.format(uid=os.getuid(), gid=os.getgid()))
        self.host = ScratchHost(str(self.root))
        python = self.path(DOCUMENT["python"])
        python.parent.mkdir()
        python.touch(mode=0o755)
        self.told = Told()
        self.stages: tuple[Any, ...] = (
            keys.put_key,
            privileges.put_runner,
            privileges.allow,
            firewall.put,
            kernel.put,
        )

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def work(self, **more: Any) -> Work:
        """A run of its own, as a new process would begin it."""

        self.told = Told()
        document = main.checked({**DOCUMENT, **more})
        return Work(self.host, Record(self.host.root, document["account"]), self.told, document)

    def provision(self, **more: Any) -> list[str]:
        """The stages that concern files alone. Files in a root of one's own belong to whom runs the test."""

        with alone(self.host.root, make=not more.get("dry_run")):
            work = self.work(**more)
            for stage in self.stages:
                stage(work)
            return work.changed

    def unprovision(self, **more: Any) -> list[str]:
        with alone(self.host.root, make=True):
            work = self.work(**{"verb": "unprovision", **more})
            main.unprovision(work, None)  # type: ignore[arg-type]
            return work.changed

    def listing(self) -> Mapping[str, Any]:
        return {
            str(path.relative_to(self.root)): files.look(self.host.root, str(path.relative_to(self.root)))
            for path in sorted(self.root.rglob("*"))
        }

    def killed(self, point: int, run: Any) -> bool:
        """Whether it was, in front of its next step on the disk."""

        left = point

        def deadly(step: Any) -> Any:
            def stepped(*arguments: Any, **more: Any) -> Any:
                nonlocal left
                left -= 1
                if not left:
                    raise KilledError
                return step(*arguments, **more)

            return stepped

        steps = [
            self.patch(os, name, deadly(getattr(os, name))) for name in ("rename", "mkdir", "rmdir", "unlink", "fsync")
        ]
        try:
            run()
        except KilledError:
            return True
        finally:
            for step in steps:
                step.restore()
        return False


class OwnTestCase(HostTestCase):
    """What would be root's is the present user's."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "fsync", lambda _: None)
        self.patch(files, "new_file", lambda content, mode, *_, **__: OWN_FILE(content, mode, os.getuid(), os.getgid()))
        self.patch(files, "new_folder", lambda mode, *_, **__: OWN_FOLDER(mode, os.getuid(), os.getgid()))


class FileTests(OwnTestCase):
    def test_all_is_taken_back(self) -> None:
        before = self.listing()
        self.assertEqual(len(self.provision()), 14)
        self.assertEqual(self.provision(), [])
        self.assertEqual(self.path(DOCUMENT["runner"]["path"]).read_text(), "the runner")
        self.assertEqual(
            self.path("/home/ipmiproxyd/.ssh/authorized_keys").read_text(), f"restrict,port-forwarding {KEY}\n"
        )
        self.unprovision()
        self.assertEqual(self.listing(), before)
        self.assertEqual(self.unprovision(), [])
        self.assertEqual(self.listing(), before)

    def test_what_was_there_before_is_there_again(self) -> None:
        keys, runner = self.path("/home/ipmiproxyd/.ssh/authorized_keys"), self.path(DOCUMENT["runner"]["path"])
        for path, mode in ((keys, 0o640), (runner, 0o600)):
            path.parent.mkdir()
            path.write_text(f"ssh-rsa AAAA{mode}")
            path.chmod(mode)
        self.path(SUDOERS).symlink_to("../elsewhere")
        before = self.listing()
        self.provision()
        self.assertEqual(keys.read_text(), f"ssh-rsa AAAA416\nrestrict,port-forwarding {KEY}\n")
        self.assertEqual(keys.stat().st_mode & 0o777, 0o640)
        self.assertEqual(runner.stat().st_mode & 0o777, 0o644)
        self.unprovision()
        self.assertEqual(self.listing(), before)

    def test_a_dry_run_changes_nothing(self) -> None:
        before = self.listing()
        self.assertEqual(len(self.provision(dry_run=True)), 14)
        self.assertEqual(self.listing(), before)
        self.provision()
        there = self.listing()
        self.assertEqual(self.provision(dry_run=True), [])
        self.assertIn(f"{SUDOERS} is removed", self.unprovision(dry_run=True))
        self.assertEqual(self.listing(), there)

    def test_what_others_changed_is_left_and_told(self) -> None:
        self.provision()
        keys = self.path("/home/ipmiproxyd/.ssh/authorized_keys")
        keys.write_text(f"ssh-rsa AAAA another\n{keys.read_text()}")
        self.path(SUDOERS).unlink()
        self.path(SUDOERS).write_text("ours now")
        self.path("/usr/local/lib/ipmiproxyd/more").touch()
        self.unprovision()
        self.assertEqual(keys.read_text(), "ssh-rsa AAAA another\n")
        self.assertEqual(self.path(SUDOERS).read_text(), "ours now")
        words = self.told.words("warning")
        self.assertIn(f"{SUDOERS} was changed by somebody since, and is left", words)
        self.assertIn("/usr/local/lib/ipmiproxyd has files that are not ours, and is left", words)
        self.assertEqual(len(words), 3)
        self.assertFalse(self.path(record.FOLDER).exists())

    def test_a_new_runner_is_taken_back_to_none(self) -> None:
        before = self.listing()
        self.provision()
        newer = {**DOCUMENT["runner"], "text": "a newer one"}
        work = self.work(verb="update", runner=newer)
        main.update(work, None)  # type: ignore[arg-type]
        self.assertEqual(work.changed, ["The runner, version 2: /usr/local/lib/ipmiproxyd/runner.py"])
        self.assertEqual(self.told.words("warning"), [])
        self.unprovision()
        self.assertEqual(self.listing(), before)

    def test_a_runner_of_ours_that_others_may_change(self) -> None:
        runner = self.path(DOCUMENT["runner"]["path"])
        self.provision()
        runner.chmod(0o777)
        work = self.work(verb="update")
        main.update(work, None)  # type: ignore[arg-type]
        (words,) = work.changed
        self.assertIn("owner and mode are put right", words)
        self.assertIn("the mode 777", words)
        self.assertEqual(runner.stat().st_mode & 0o777, 0o644)
        runner.parent.chmod(0o777)
        runner.chmod(0o777)
        error = self.assertRaises(FailedError, main.update, self.work(verb="update"), None)
        self.assertIn(f"can change {os.path.dirname(DOCUMENT['runner']['path'])} ", error.message)

    def test_killed_anywhere_it_is_completed_or_taken_back(self) -> None:
        self.stages = self.stages[:2]
        before = self.listing()
        self.provision()
        complete = self.listing()
        self.unprovision()
        for then, wanted in ((self.provision, complete), (self.unprovision, before)):
            for point in range(1, 200):
                if not self.killed(point, self.provision):
                    break
                then()
                seen = {name: files.digest(state) for name, state in self.listing().items() if "record" not in name}
                there = {name: files.digest(state) for name, state in wanted.items() if "record" not in name}
                self.assertEqual(seen, there, f"at {point}")
                self.unprovision()
                self.assertEqual(self.listing(), before, f"at {point}")
            self.assertGreater(point, 25)
            self.unprovision()

    def test_killed_while_it_is_taken_back(self) -> None:
        self.stages = self.stages[:2]
        before = self.listing()
        for point in range(1, 200):
            self.provision()
            if not self.killed(point, self.unprovision):
                break
            self.unprovision()
            self.assertEqual(self.listing(), before, f"at {point}")
        self.assertGreater(point, 20)

    def test_what_two_want_goes_with_the_last(self) -> None:
        before = self.listing()
        self.provision()
        alone_there = self.path(firewall.RULES).read_text()
        self.provision(account="east", transport="direct", daemon_address="::ffff:192.0.2.7")
        self.assertIn("ip saddr 192.0.2.7 tcp dport { 5901-5903 } accept", self.path(firewall.RULES).read_text())
        self.assertTrue(self.path(f"{SUDOERS}-east").exists())
        self.assertEqual(self.provision(), [])
        self.unprovision(account="east")
        self.assertFalse(self.path(f"{SUDOERS}-east").exists())
        self.assertEqual(self.path(firewall.RULES).read_text(), alone_there)
        self.assertTrue(self.path(DOCUMENT["runner"]["path"]).exists())
        self.unprovision()
        self.assertEqual(self.listing(), before)

    def test_settings_of_the_kernel(self) -> None:
        clone = self.path("/proc/sys/kernel/unprivileged_userns_clone")
        armor = self.path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        clone.write_text("0\n")
        armor.write_text("0\n")
        words = self.provision()
        self.assertIn("kernel.unprivileged_userns_clone = 1", words)
        self.assertEqual((clone.read_text(), armor.read_text()), ("1\n", "0\n"))
        self.assertNotIn("apparmor", self.path(kernel.FILE).read_text())
        self.assertEqual(self.provision(), [])
        self.unprovision()
        self.assertEqual(clone.read_text(), "0\n")
        self.assertFalse(self.path(kernel.FILE).exists())

    def test_a_link_that_others_may_change_is_not_followed(self) -> None:
        self.path("/home/ipmiproxyd/.ssh").symlink_to("/etc")
        self.path("/home/ipmiproxyd").chmod(0o777)
        error = self.assertRaises(FailedError, self.provision)
        self.assertEqual(error.code, "forbidden")
        self.assertFalse(self.path("/etc/authorized_keys").exists())

    def test_a_rule_that_visudo_refuses_never_counts(self) -> None:
        self.patch(self.host, "run", lambda argv, *_: Done(argv[0] == "visudo", "", "syntax error"))
        error = self.assertRaises(FailedError, self.provision)
        self.assertIn("syntax error", error.message)
        self.assertFalse(self.path(SUDOERS).exists())


OWN_FILE, OWN_FOLDER = files.new_file, files.new_folder


class RecordTests(HostTestCase):
    def test_a_system_that_nobody_has_tried(self) -> None:
        """It is told before anything is done."""

        def killed(*_: Any) -> None:
            raise KilledError

        self.patch(installing, "install", killed)
        for text, count in (("ID=debian\nVERSION_ID=13\n", 0), ("ID=ubuntu\nVERSION_ID=24.04\n", 1)):
            self.assertRaises(KilledError, main.provision, self.work(users="never"), System.told(text))
            told = [words for words in self.told.words("warning") if "nobody has tried" in words]
            self.assertEqual(len(told), count, told)

    def test_one_at_a_time(self) -> None:
        with alone(self.host.root, make=True):
            for make in (True, False):
                error = self.assertRaises(FailedError, alone(self.host.root, make=make).__enter__)
                self.assertEqual(error.code, "busy")
        self.assertFalse(self.path(record.FOLDER).exists())
        with alone(self.host.root, make=False):
            self.assertFalse(self.path(record.FOLDER).exists())

    def test_a_record_that_nobody_understands(self) -> None:
        self.path(record.FOLDER).mkdir(mode=0o700)
        for text, code in (("{", "internal"), ('{"version": 9}', "agent-outdated"), ("[]", "internal")):
            self.path(record.FILE).write_text(text)
            self.assertEqual(self.assertRaises(FailedError, Record, self.host.root, "x").code, code)

    def test_it_is_for_root_alone(self) -> None:
        with alone(self.host.root, make=True):
            Record(self.host.root, "x").begin("stage", "kind", "key", before="an odd \udcff name")
            self.assertEqual(self.path(record.FILE).stat().st_mode & 0o777, 0o600)
            self.assertEqual(Record(self.host.root, "x").changes[0]["before"], "an odd \udcff name")


class PackageTests(SynchronousTestCase):
    def test_a_plan(self) -> None:
        output = (
            "NOTE: This is only a simulation!\nInst libc6 [2.36-9] (2.36-10 Debian:12/stable [amd64])\n"
            "Inst curl (7.88.1 Debian:12/stable [amd64])\nConf curl (7.88.1 Debian:12/stable [amd64])\nRemv old [1]\n"
        )
        plan = Plan(output)
        self.assertEqual((plan.new, plan.upgraded, plan.removed), (["curl"], ["libc6"], ["old"]))

    def test_what_others_need_stays(self) -> None:
        def package(*needs: list[str], provides: str = "") -> Package:
            return Package("installed", list(needs), {provides} if provides else set())

        known = {
            "guest": package(["lib"], ["mail", "base"]),
            "base": package(),
            "lib": package(["deep"], provides="lib"),
            "deep": package(provides="deep"),
            "postfix": package(provides="mail"),
            "exim": Package("config-files", [], {"mail"}),
            "curl": package(["lib"], provides="curl"),
        }
        known["base"].provides.add("base")
        ours = {"lib", "deep", "postfix", "curl"}
        self.assertEqual(removing.needed(known, ours), {"lib", "deep"})
        self.assertEqual(
            removing.needed({**known, "base": Package("config-files", [], {"base"})}, ours), ours - {"curl"}
        )

    def test_alternatives(self) -> None:
        self.assertEqual(apt._alternatives("a (>= 1) | b:any, c [amd64]"), [["a", "b"], ["c"]])
        self.assertEqual(apt._alternatives(""), [])

    def test_progress(self) -> None:
        meter = apt.Meter((5.0, 100.0))
        lines = (b"dlstatus:1:50.0:Retrieving file 1 of 2", b"pmstatus:curl:50.0:Unpacking curl", b"pmerror:x:1:no")
        told = [meter._parsed(line) for line in lines]
        self.assertEqual(told, [(24.0, "Retrieving file 1 of 2"), (71.5, "Unpacking curl"), None])

    def test_which_system(self) -> None:
        host = ScratchHost(self.mktemp())
        etc = Path(host.root, "etc")
        etc.mkdir(parents=True)
        for text, java in (
            ('ID=debian\nVERSION_ID="13"\n', "openjdk-21-jre"),
            ('ID=ubuntu\nVERSION_ID="24.04"\n', "openjdk-17-jre"),
            ("ID=fedora\nVERSION_ID=40\nPRETTY_NAME='Fedora Linux 40'\n", ""),
            ("", ""),
        ):
            (etc / "os-release").write_text(text)
            if java:
                self.assertEqual(System(host).java, java)
            else:
                error = self.assertRaises(FailedError, System, host)
                self.assertEqual(error.code, "system-unsupported")
        self.assertIn("an unknown system", error.message)


class UseTests(HostTestCase):
    """Who uses what of ours."""

    def setUp(self) -> None:
        super().setUp()
        for folder in ("etc/systemd/system", "var/lib/dpkg/info", "usr/lib/sysusers.d", "var/lib/ucf"):
            (self.root / folder).mkdir(parents=True)
        self.conffiles = ""
        self.patch(self.host, "run", lambda *_, **__: Done(0, self.conffiles, ""))

    def used(self) -> Mapping[str, str]:
        return removing._in_use(self.work(), {"sudo", "nftables", "curl"})

    def test_sudo_of_others(self) -> None:
        group = self.path("/etc/group")
        self.path("/etc/sudoers.d/README").touch()
        group.write_text("sudo:x:27:\n")
        self.assertEqual(self.used(), {})
        group.write_text("sudo:x:27:ada\n")
        self.assertEqual(self.used(), {"sudo": "the group sudo has members: ada"})
        group.write_text("sudo:x:27:\n")
        self.path("/etc/passwd").write_text("ada:x:1000:27::/home/ada:/bin/sh\n")
        self.assertEqual(self.used(), {"sudo": "the group sudo has members: ada"})
        group.unlink()
        self.path("/etc/sudoers.d/ada").touch()
        self.assertEqual(self.used(), {"sudo": "it has rules of others: ada"})

    def test_changed_configuration(self) -> None:
        path = self.path("/etc/nftables.conf")
        self.conffiles = f"=nftables\tall\n /etc/nftables.conf {hashlib.md5(b'1').hexdigest()} obsolete\n\n=curl\tall\n"
        self.assertEqual(self.used(), {})
        path.write_text("1")
        self.assertEqual(self.used(), {})
        path.write_text("2")
        self.assertEqual(self.used(), {"nftables": "somebody has changed /etc/nftables.conf"})
        self.path("/var/lib/ucf/hashfile").write_text(f"{hashlib.md5(b'1').hexdigest()}  /etc/nftables.conf\n")
        self.path("/var/lib/ucf/registry").write_text("curl /etc/nftables.conf\n")
        self.assertEqual(apt.changed_configuration(self.host, {"curl"}), {"curl": ["/etc/nftables.conf"]})
        path.unlink()
        wants = self.path("/etc/systemd/system/sysinit.target.wants")
        wants.mkdir()
        (wants / "nftables.service").symlink_to("/lib/systemd/system/nftables.service")
        self.assertEqual(self.used(), {"nftables": "its service is enabled"})

    def test_packages_that_are_not_whole(self) -> None:
        info = self.path("/var/lib/dpkg/info")
        paths = ("/usr/bin/a", "/usr/bin/b", "/usr/share/doc/a/gone", "/usr/lib/a.so", "/usr/sbin/c", "/usr/bin/gone")
        (info / "a-common.list").write_text("".join(f"{path}\n" for path in paths))
        for path, mode in (("/usr/bin/a", 0o755), ("/usr/bin/b", 0o744), ("/usr/lib/a.so", 0o644), ("/usr/sbin/c", 0)):
            self.path(path).parent.mkdir(exist_ok=True)
            self.path(path).touch()
            self.path(path).chmod(mode)
        self.assertEqual(whole.broken(self.host, ["a"]), {"a-common": ["/usr/bin/b", "/usr/bin/gone", "/usr/sbin/c"]})
        (info.parent / "statoverride").write_text("root sudo 744 /usr/bin/b\n")
        (info.parent / "diversions").write_text("/usr/bin/gone\n/usr/bin/gone.other\nother\n")
        self.assertEqual(whole.broken(self.host, ["a"]), {"a-common": ["/usr/sbin/c"]})

    def test_whom_a_package_names(self) -> None:
        info = self.path("/var/lib/dpkg/info")
        (info / "dbus.postinst").write_text('USER=messagebus\n# for backup\nadduser --system "$USER"\n')
        (info / "curl.postinst").write_text("echo games\n")
        (info / "udev.list").write_text("/usr/lib/sysusers.d\n/usr/lib/sysusers.d/udev.conf\n")
        self.path("/usr/lib/sysusers.d/udev.conf").write_text("# u no\ng input -\nu! tss - words\nm ada disk\n\n")
        self.assertTrue({"messagebus"} <= made.named_by(self.host, "dbus"))
        self.assertNotIn("backup", made.named_by(self.host, "dbus"))
        self.assertEqual(made.named_by(self.host, "curl"), set())
        self.assertEqual(made.named_by(self.host, "udev"), {"input", "tss", "ada", "disk"})

    def test_a_lock_that_somebody_keeps(self) -> None:
        self.patch(system, "LOCK_LIMIT", 0.0)
        self.path("/run").mkdir()
        self.path("/run/lock").touch()
        with self.host.locked("/run/lock"):
            error = self.assertRaises(FailedError, self.host.locked("/run/lock").__enter__)
        self.assertEqual(error.code, "busy")


class FirewallTests(SynchronousTestCase):
    def test_ports(self) -> None:
        self.assertEqual(firewall._ranges([5903, 5901, 5902, 5905, 5907, 5908]), ["5901-5903", "5905", "5907-5908"])

    def test_only_daemons_get_in(self) -> None:
        text = firewall.rules(
            {
                "east": {"ports": ["5901-6000"], "daemon": "192.0.2.7"},
                "west": {"ports": ["5901-6000"], "daemon": "2001:db8::7"},
                "north": {"ports": ["5901-6000"], "daemon": ""},
            }
        )
        self.assertIn("\t\tip saddr 192.0.2.7 tcp dport { 5901-6000 } accept\n", text)
        self.assertIn("\t\tip6 saddr 2001:db8::7 tcp dport { 5901-6000 } accept\n", text)
        self.assertEqual(text.count("drop"), 1)


class DocumentTests(SynchronousTestCase):
    def test_what_is_not_as_it_must_be(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"account": "root; reboot"},
            {"account": "x\n"},
            {"public_key": f'command="sh" {KEY}'},
            {"public_key": ""},
            {"python": "/usr/bin/python3, ALL"},
            {"repository": "deb http://x y\nz"},
            {"displays": [0]},
            {"displays": None},
            {"packages": ["-o=x"]},
            {"runner": {"path": "/usr/../etc/passwd"}},
            {"runner": None},
            {"sudoers": "a/b"},
            {"java_dir": "/opt/../etc"},
            {"java_dir": "opt"},
            {"transport": "direct", "daemon_address": "1.2.3.4; flush"},
            {"transport": "direct", "daemon_address": "1.2.3"},
        ]
        for more in wrong:
            error = self.assertRaises(FailedError, main.checked, {**DOCUMENT, **more})
            self.assertEqual(error.code, "bad-request", more)
        self.assertEqual(main.checked(dict(DOCUMENT))["packages"], None)


class StopTests(SynchronousTestCase):
    def test_nobody_reads_any_more(self) -> None:
        read, write = os.pipe()
        os.close(read)
        self.addCleanup(os.close, write)
        teller = Teller(write)
        teller.go_on()
        teller.stage("look", "x")
        self.assertRaises(StoppedError, teller.go_on)


class SentTests(SynchronousTestCase):
    """As it is sent: its modules find each other, and need nothing but Python."""

    def test_a_line_has_it_all(self) -> None:
        line = modules_input(engine_texts(), {**DOCUMENT, "verb": "nothing"})
        self.assertNotIn(b"\n", line)
        for given in (line, b"a password\n" + line):
            argv = script_argv(sys.executable)
            done = subprocess.run(argv, input=given, capture_output=True, timeout=30, check=False)
            self.assertEqual(done.stderr, b"")
            told = json.loads(done.stdout)
            self.assertEqual((told["event"], told["code"], done.returncode), ("failed", "bad-request", 1))
