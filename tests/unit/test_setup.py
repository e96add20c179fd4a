"""``ipmiproxyctl setup`` in a tree of files. The machine itself: tests/integration/test_install.py."""

from __future__ import annotations

import io
import os
import pwd
import shutil
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents.ssh_keys import load_key
from ipmiproxyd.config import Settings
from ipmiproxyd.control.absent import start_command
from ipmiproxyd.ctl import main
from ipmiproxyd.model import Secret
from ipmiproxyd.options import DEFAULT_CONFIG
from ipmiproxyd.setup import packages
from ipmiproxyd.setup.advice import Advice
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.place import Installation, check_root_only, find_installation
from ipmiproxyd.setup.putting import KEY, KEYS
from ipmiproxyd.setup.running import Running
from ipmiproxyd.setup.shipped import ACCOUNT, CONFIG, SERVICE, SOCKET, SUDOERS, Shipped
from ipmiproxyd.setup.trouble import SetupError
from tests.support.scratch import scratch
from tests.support.setup_tree import INSTALLATION, PROGRAMS, ROOT, RUNNER, Tree, TreeTestCase


class PutTests(TreeTestCase):
    def test_all_is_where_it_belongs(self) -> None:
        self.put()
        home, shell = self.text("/etc/passwd").splitlines()[1].split(":")[5:]
        self.assertEqual((home, shell), ("/var/lib/ipmiproxyd", "/usr/sbin/nologin"))
        self.assertEqual(
            {path: self.tree.described(path) for path in (CONFIG, SERVICE, SOCKET, SUDOERS, "/etc/ipmiproxyd", KEYS)},
            {
                CONFIG: (0o644, "root"),
                SERVICE: (0o644, "root"),
                SOCKET: (0o644, "root"),
                SUDOERS: (0o440, "root"),
                "/etc/ipmiproxyd": (0o755, "root"),
                KEYS: (0o700, ACCOUNT),
            },
        )
        self.assertEqual(self.tree.described("/var/lib/ipmiproxyd"), (0o700, ACCOUNT))
        self.assertEqual(self.tree.described("/opt/ipmiproxyd/java"), (0o755, ACCOUNT))
        self.assertEqual(self.tree.described(KEY), (0o600, ACCOUNT))
        self.assertEqual(self.tree.described("/var/lib/ipmiproxyd-setup/record.json"), (0o600, "root"))
        self.assertFalse((self.root / "run").exists())
        self.assertEqual(os.readlink(self.root / "usr/local/bin/ipmiproxyctl"), str(PROGRAMS / "ipmiproxyctl"))

    def test_paths_are_those_of_the_installation(self) -> None:
        self.put()
        self.assertIn(f"\nExecStart={PROGRAMS}/ipmiproxyd --config {CONFIG}\n", self.text(SERVICE))
        rule = f"ipmiproxyd ALL=(root) NOPASSWD: /usr/bin/python3 -I -S {RUNNER}\n"
        self.assertTrue(self.text(SUDOERS).endswith(f"\n{rule}"))
        self.assertNotIn("/opt/ipmiproxyd/", self.text(SERVICE) + self.text(SUDOERS))

    def test_another_python_in_the_configuration(self) -> None:
        (self.root / CONFIG[1:]).write_text('[agent]\npython = "/opt/python/bin/python3"\n')
        self.put()
        self.assertIn(f"NOPASSWD: /opt/python/bin/python3 -I -S {RUNNER}\n", self.text(SUDOERS))

    def test_the_key_is_one(self) -> None:
        self.put()
        key = self.tree.path(KEY)
        self.assertEqual(load_key(str(key), Secret("")).type(), "Ed25519")
        kind, _, comment = self.tree.path(f"{KEY}.pub").read_text().split()
        self.assertEqual((kind, comment.partition("@")[0]), ("ssh-ed25519", "ipmiproxyd"))

    def test_a_second_run_changes_nothing_and_says_so(self) -> None:
        self.put()
        before = self.listing()
        self.assertEqual(self.put(), ["Nothing was changed."])
        self.assertEqual(self.listing(), before)

    def test_a_dry_run_tells_the_same_and_changes_nothing(self) -> None:
        before = self.listing()
        would = self.put(dry_run=True)
        self.assertEqual(self.listing(), before)
        did = [line.split(": ")[0] for line in self.put()]
        self.assertEqual([line.split(": would be ")[0] for line in would], did)
        self.assertEqual(self.put(dry_run=True), ["Nothing would be changed."])

    def test_what_got_lost_is_put_right(self) -> None:
        self.put()
        self.tree.path(SOCKET).unlink()
        self.tree.path(KEY).chmod(0o644)
        self.tree.path(KEYS).chmod(0o755)
        self.tree.path("/usr/local/bin/ipmiproxyd").unlink()
        key = self.text(KEY)
        changed = [line.split(": ")[0] for line in self.put()]
        self.assertEqual(changed, [SOCKET, KEYS, KEY, "/usr/local/bin/ipmiproxyd"])
        self.assertEqual(self.tree.described(KEY), (0o600, ACCOUNT))
        self.assertEqual(self.text(KEY), key)

    def test_an_update_elsewhere(self) -> None:
        self.put()
        self.put(Installation(Path("/srv/new/bin"), Path("/srv/new/runner.py"), ROOT, 0.0))
        self.assertIn("\nExecStart=/srv/new/bin/ipmiproxyd ", self.text(SERVICE))
        self.assertEqual(os.readlink(self.root / "usr/local/bin/ipmiproxyd"), "/srv/new/bin/ipmiproxyd")
        self.assertFalse(self.tree.path(f"{SERVICE}.old").exists())

    def test_without_sysusers(self) -> None:
        self.tree.without = {"systemd-sysusers"}
        argv: list[tuple[str, ...]] = []

        def run(*words: str, **_: object) -> str:
            argv.append(words)
            if words[0] == "useradd":
                (self.root / "etc/passwd").write_text("ipmiproxyd:x:990:990::/:/bin/false\n")
            return ""

        self.patch(self.tree, "run", run)
        self.put()
        [made] = [words for words in argv if words[0] == "useradd"]
        where = ["--prefix", str(self.root), "ipmiproxyd"]
        self.assertEqual(made[-4:], ("--user-group", *where))
        self.assertEqual(made[4:8], ("/var/lib/ipmiproxyd", "--shell", "/usr/sbin/nologin", "--comment"))

    def test_an_account_that_somebody_signs_in_as(self) -> None:
        with (self.root / "etc/passwd").open("a") as file:
            file.write(f"{ACCOUNT}:x:4711:4711::/home/ipmiproxyd:/bin/sh\n")
        before = self.listing()
        error = self.assertRaises(SetupError, self.put)
        self.assertIn("with the shell /bin/sh", error.message)
        self.assertEqual(self.listing(), before)

    def test_no_shell_is_bin_sh(self) -> None:
        with (self.root / "etc/passwd").open("a") as file:
            file.write(f"{ACCOUNT}:x:4711:4711::/home/ipmiproxyd:\n")
        self.assertIn("with the shell /bin/sh", self.assertRaises(SetupError, self.put).message)

    def test_a_state_folder_of_somebody_else(self) -> None:
        (self.root / CONFIG[1:]).write_text('[daemon]\nstate-dir = "/var/lib"\n')
        (self.root / "var/lib/dpkg").mkdir()
        before = self.listing()
        for dry_run in (True, False):
            error = self.assertRaises(SetupError, self.put, dry_run=dry_run)
            self.assertIn("The state folder /var/lib is there already, and is not the daemon's", error.message)
            self.assertEqual(self.listing(), before)

    def test_a_state_folder_that_was_brought_here(self) -> None:
        state = self.root / "var/lib/ipmiproxyd"
        state.mkdir()
        for name in ("ipmiproxyd.sqlite", "ipmiproxyd.sqlite-wal", "secrets.key", "mine"):
            (state / name).write_text(name)
        self.put()
        self.assertEqual(self.tree.described("/var/lib/ipmiproxyd"), (0o700, ACCOUNT))
        self.assertEqual(self.tree.described("/var/lib/ipmiproxyd/ipmiproxyd.sqlite-wal"), (0o600, ACCOUNT))
        self.assertEqual(self.tree.described("/var/lib/ipmiproxyd/mine"), (0o644, "root"))
        self.assertEqual(self.put(), ["Nothing was changed."])
        self.remove(purge=True)  # it was there before
        self.assertTrue((state / "secrets.key").exists())

    def test_what_is_closed_stays_closed(self) -> None:
        self.put()
        self.tree.path("/etc/ipmiproxyd").chmod(0o750)
        self.tree.path(SERVICE).chmod(0o600)
        self.assertEqual(self.put(), ["Nothing was changed."])
        self.assertEqual(self.tree.described("/etc/ipmiproxyd"), (0o750, "root"))

    def test_without_sudo_the_rest_is_made(self) -> None:
        self.tree.without = {"visudo"}
        said = self.put()
        self.assertIn(f"{SUDOERS}: not written, as sudo is not installed: run this again once it is", said)
        self.assertFalse(self.tree.path(SUDOERS).exists())
        self.tree.without = set()
        self.assertEqual(self.put(), [f"{SUDOERS}: written"])

    def test_a_rule_that_sudo_refuses_does_not_count(self) -> None:
        shipped = self.root / "shipped"
        shutil.copytree(ROOT / "etc", shipped / "etc")
        (shipped / "systemd").symlink_to(ROOT / "systemd")
        rule = shipped / "etc/sudoers.d/ipmiproxyd"
        rule.write_text(rule.read_text().replace("ALL=(root)", "ALL=(root"))
        error = self.assertRaises(SetupError, self.put, Installation(PROGRAMS, RUNNER, shipped, 0.0))
        self.assertIn("visudo", error.message)
        self.assertEqual(list((self.root / "etc/sudoers.d").iterdir()), [])

    def test_links_of_others_are_left(self) -> None:
        (self.root / "usr/local/bin/ipmiproxyd").write_text("mine")
        self.assertIn("/usr/local/bin/ipmiproxyd: left as it is", "\n".join(self.put()))
        self.assertEqual(self.text("/usr/local/bin/ipmiproxyd"), "mine")

    def test_a_link_does_not_lead_out_of_the_tree(self) -> None:
        (self.root / "opt").rmdir()
        (self.root / "opt").symlink_to("/opt")
        error = self.assertRaises(SetupError, self.put)
        self.assertIn("leads out of", error.message)

    def test_a_key_that_is_something_else(self) -> None:
        self.put()
        self.tree.path(KEY).unlink()
        self.tree.path(KEY).symlink_to("/etc/passwd")
        error = self.assertRaises(SetupError, self.put)
        self.assertIn(KEY, error.message)

    def test_what_comes_next(self) -> None:
        self.put()
        self.assertIn("Missing:", self.said)
        self.assertIn(f"    {packages.line_for(packages.missing(self.tree))}", "\n".join(self.said))
        self.assertIn(f"systemctl --root={self.root} enable ", "\n".join(self.said))
        (self.root / CONFIG[1:]).write_text("[relay]\nprots = 1\n")
        self.put()
        self.assertIn(f"{CONFIG}: relay.prots: there is no such setting", "\n".join(self.said))

    def test_the_names_are_those_of_the_files(self) -> None:
        self.assertEqual(Shipped(INSTALLATION, "/usr/bin/python3").account.name, ACCOUNT)
        self.assertEqual(CONFIG, DEFAULT_CONFIG)


class ConfigurationTests(TreeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.shipped = self.root / "shipped"
        shutil.copytree(ROOT / "etc", self.shipped / "etc")
        (self.shipped / "systemd").symlink_to(ROOT / "systemd")
        self.mine = self.root / CONFIG[1:]
        self.new = self.root / f"{CONFIG[1:]}.new"

    def ship(self, text: str) -> list[str]:
        """What is changed by an update that comes with this configuration file."""

        (self.shipped / "etc/ipmiproxyd.toml").write_text(text)
        return self.put(Installation(PROGRAMS, RUNNER, self.shipped, 0.0))

    def test_it_is_never_overwritten(self) -> None:
        self.assertIn(f"{CONFIG}: written", self.ship("# one\n"))
        self.mine.write_text("# mine\n")
        self.assertEqual(self.ship("# one\n"), ["Nothing was changed."])
        self.assertFalse(self.new.exists())
        self.assertEqual(self.ship("# two\n"), [f"{CONFIG}.new: written"])
        self.assertEqual((self.mine.read_text(), self.new.read_text()), ("# mine\n", "# two\n"))
        self.assertIn(f"Compare {CONFIG} with {CONFIG}.new", "\n".join(self.said))
        self.new.unlink()
        self.assertEqual(self.ship("# two\n"), ["Nothing was changed."])

    def test_also_one_that_nobody_has_changed(self) -> None:
        self.ship("# one\n")
        self.ship("# two\n")
        self.assertEqual((self.mine.read_text(), self.new.read_text()), ("# one\n", "# two\n"))

    def test_one_that_was_there_before(self) -> None:
        self.mine.write_text("# mine\n")
        self.assertIn(f"{CONFIG}.new: written", self.ship("# one\n"))
        self.assertEqual(self.mine.read_text(), "# mine\n")

    def test_once_it_is_taken_over_nothing_is_beside_it(self) -> None:
        self.ship("# one\n")
        self.ship("# two\n")
        self.mine.write_text("# two\n")
        self.assertEqual(self.ship("# two\n"), [f"{CONFIG}.new: removed"])


class FakeSystemd(Tree):
    """A tree whose systemd runs and is told things. ``told`` are systemctl's arguments."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.told: list[str] = []
        self.reload = "no"

    @property
    def runs_systemd(self) -> bool:
        return True

    def run(self, *argv: str, shown: bool = False, limit: float | None = 120.0) -> str:
        if argv[0] != "systemctl":
            return super().run(*argv, shown=shown, limit=limit)
        if argv[1] == "show":
            return f"{self.reload}\n\nno\n"
        self.told.append(" ".join(argv[1:]))
        return ""


class SystemdTests(TreeTestCase):
    UNITS = "ipmiproxyd.socket ipmiproxyd.service"

    def setUp(self) -> None:
        super().setUp()
        self.tree = self.systemd = FakeSystemd(self.root)

    def test_enabled_and_started_once(self) -> None:
        self.put()
        self.assertEqual(self.systemd.told, [f"enable {self.UNITS}", f"start {self.UNITS}"])
        self.assertEqual(self.put(), ["Nothing was changed."])
        self.assertEqual(len(self.systemd.told), 2)

    def test_units_that_are_others_now_are_read_again(self) -> None:
        self.put()
        self.systemd.told, self.systemd.reload = [], "yes"
        self.put(Installation(Path("/srv/new/bin"), RUNNER, ROOT, 0.0))
        self.assertEqual(self.systemd.told, ["daemon-reload"])

    def test_not_started_with_a_configuration_that_it_would_refuse(self) -> None:
        (self.root / CONFIG[1:]).write_text("[relay]\nprots = 1\n")
        self.put()
        self.assertEqual(self.systemd.told, [f"enable {self.UNITS}"])

    def test_removed(self) -> None:
        before = self.listing()
        self.put()
        self.systemd.told = []
        self.remove(purge=True)
        self.assertEqual(self.systemd.told, [f"disable --now {self.UNITS}", "daemon-reload"])
        self.assertEqual(self.listing(), before)


class RootOnlyTests(SynchronousTestCase):
    """The runner that sudo starts as root: nobody else may change it."""

    def setUp(self) -> None:
        self.top = scratch(self)
        self.runner = self.top / "opt" / "agents" / "runner.py"
        self.runner.parent.mkdir(parents=True)
        self.runner.write_text("")
        for part in (self.top, self.top / "opt", self.runner.parent, self.runner):
            part.chmod(0o755)

    def refused(self, path: Path | None = None, owner: int | None = None) -> str:
        """Why it is; empty if it is not."""

        try:
            check_root_only(path or self.runner, self.top, os.getuid() if owner is None else owner)
        except SetupError as error:
            return error.message
        return ""

    def test_nobody_else_can_write(self) -> None:
        self.assertEqual(self.refused(), "")

    def test_a_file_or_folder_that_others_can_write(self) -> None:
        for part in (self.runner, self.runner.parent, self.top / "opt", self.top):
            for mode in (0o775, 0o757, 0o1777):
                part.chmod(mode)
                self.assertIn(f"{part} ", self.refused())
            part.chmod(0o755)

    def test_another_owner(self) -> None:
        self.assertIn("does not belong to root", self.refused(owner=os.getuid() + 1))

    def test_by_way_of_a_link(self) -> None:
        (self.top / "free").mkdir(mode=0o755)
        link = self.top / "runner"
        link.symlink_to("free/../opt/agents/runner.py")
        self.assertEqual(self.refused(link), "")
        (self.top / "free").chmod(0o777)
        self.assertIn(f"{self.top}/free ", self.refused(link))
        link.unlink()
        link.symlink_to(self.top / "opt/agents/runner.py")
        self.assertEqual(self.refused(link), "")
        self.runner.parent.chmod(0o777)
        self.assertIn("agents ", self.refused(link))

    def test_links_in_a_circle(self) -> None:
        (self.top / "a").symlink_to("b")
        (self.top / "b").symlink_to("a")
        self.assertIn("symbolic links", self.refused(self.top / "a"))

    def test_it_is_not_there(self) -> None:
        self.runner.unlink()
        self.assertIn("No such file", self.refused())

    def test_where_the_daemon_cannot_see_it(self) -> None:
        for programs in ("/home/ann/bin", f"{pwd.getpwnam('root').pw_dir}/bin", "/tmp/bin", "/opt/with space/bin"):
            installation = Installation(Path(programs), RUNNER, ROOT, 0.0)
            self.assertIn(f"{programs}: ", self.assertRaises(SetupError, installation.check).message)


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.patch(os, "umask", lambda _: 0)

    def test_not_root(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        for words in ([], ["--dry-run"], ["--remove"], ["--root", "/tmp"]):
            self.assertEqual(main(["setup", *words]), 1)
        self.assertEqual(self.err.getvalue().splitlines()[0], "error: Only root can set up a machine.")

    def test_usage(self) -> None:
        for words in (["--purge"], ["--force"], ["--packages", "--remove"], ["--nonsense"], ["word"]):
            self.assertEqual(self.assertRaises(SystemExit, main, ["setup", *words]).code, 2)

    def test_no_such_root(self) -> None:
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(main(["setup", "--root", "/nonexistent"]), 1)
        self.assertEqual(self.err.getvalue(), "error: /nonexistent is not a folder.\n")

    def test_the_installation_is_found(self) -> None:
        found = find_installation()
        self.assertTrue((found.programs / "ipmiproxyctl").exists())
        self.assertEqual(found.runner, ROOT / "ipmiproxyd/agents/runner.py")
        self.assertTrue((found.shipped / "systemd/ipmiproxyd.service").is_file())


class RestartTests(SynchronousTestCase):
    """When a running daemon is told to be restarted."""

    def next(self, *, installed: float, started: float, consoles: int = 0) -> str:
        installation = Installation(PROGRAMS, RUNNER, ROOT, installed)
        running = Running(4711, consoles, started, Path("/nonexistent"))
        return "\n".join(Advice(Machine(), installation, Settings(), [], [], running).next())

    def test_it_is_older_than_what_is_installed(self) -> None:
        now = time.time()
        self.assertNotIn("restart", self.next(installed=now, started=now + 9))
        self.assertIn("(no console is open)", self.next(installed=now + 9, started=now))
        self.assertIn("(open consoles, which it closes: 3)", self.next(installed=now + 9, started=now, consoles=3))

    def test_it_does_not_answer(self) -> None:
        installation = Installation(PROGRAMS, RUNNER, ROOT, 0.0)
        told = "\n".join(Advice(Machine(), installation, Settings(), [], [], None, "It is silent.").next())
        self.assertIn("It is silent. Find out why: ", told)
        self.assertNotIn("runuser", told)


class PackagesTests(SynchronousTestCase):
    def test_the_list_is_also_that_of_the_sources(self) -> None:
        names = [package for _, package in packages.wanted()]
        self.assertEqual(names, list(dict.fromkeys(names)))
        self.assertIn(packages.LIST.name, (ROOT / ".ci/packages").read_text())

    def test_what_is_missing(self) -> None:
        root = scratch(self)
        names = [package for _, package in packages.wanted()]
        self.assertEqual(packages.missing(Machine(root)), names)
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/lib/jvm/java-21-x/lib").mkdir(parents=True)
        (root / "usr/lib/jvm/java-21-x/lib/libawt_xawt.so").write_text("")
        (root / "usr/bin/Xvnc").symlink_to("/etc/alternatives/Xvnc")
        there = {"default-jre", "tigervnc-standalone-server"}
        self.assertEqual(packages.missing(Machine(root)), [name for name in names if name not in there])


class StartWordsTests(SynchronousTestCase):
    def test_by_what_there_is(self) -> None:
        folder = scratch(self)
        nothing, unit = folder / "nothing", folder / "unit"
        unit.write_text("[Service]\nExecStart=/opt/x/bin/ipmiproxyd --config /etc/x\nUser=ipmiproxyd\n")
        self.assertEqual(start_command(nothing, folder), "")
        self.assertEqual(start_command(unit, nothing), "runuser -u ipmiproxyd -- /opt/x/bin/ipmiproxyd --config /etc/x")
        self.assertEqual(start_command(unit, folder), "systemctl start ipmiproxyd.socket ipmiproxyd.service")
