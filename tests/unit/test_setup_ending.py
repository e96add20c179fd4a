"""``ipmiproxyctl setup --remove``: what is in use is not removed, and what does not answer counts as running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from ipmiproxyd.agents import runner
from ipmiproxyd.control import talk
from ipmiproxyd.setup import ending, using
from ipmiproxyd.setup.command import Setup
from ipmiproxyd.setup.running import find_running
from ipmiproxyd.setup.shipped import ACCOUNT, CONFIG
from ipmiproxyd.setup.trouble import SetupError
from tests.support.scratch import scratch
from tests.support.setup_tree import Tree, TreeTestCase

HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(600)
"""
NOBODY = 4_000_000_000 + os.getpid()
"""A number that no user has."""


class LiveTree(Tree):
    """As if it were the machine itself, whose account has a number that nobody has. Its programs are not run."""

    uid = NOBODY

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.is_live = True

    @property
    def runs_systemd(self) -> bool:
        return False

    def account(self, name: str) -> tuple[int, int] | None:
        return (self.uid, self.uid) if name == ACCOUNT else None

    def run(self, *argv: str, shown: bool = False, limit: float | None = 120.0) -> str:
        raise AssertionError(argv)


class InUseTestCase(TreeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(ending, "LAST_BREATH", 0.2)
        self.patch(runner, "JOBS", str(scratch(self)))  # not this machine's
        self.put()
        self.before = self.listing()

    def forced(self, *, dry_run: bool = False) -> list[str]:
        self.said = []
        Setup(self.tree, self.said.append, dry_run=dry_run).remove(purge=True, force=True)
        return self.said

    def refused(self) -> str:
        """Why it is, and nothing was changed."""

        error = self.assertRaises(SetupError, self.remove, purge=True)
        self.assertEqual(self.listing(), self.before)
        return str(error.message)

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Something that tells in a line that it is there."""

        process = subprocess.Popen([sys.executable, "-I", "-S", *argv], stdout=subprocess.PIPE)

        def end() -> None:
            process.kill()
            process.wait()

        self.addCleanup(end)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        process.stdout.readline()
        return process


class DaemonTests(InUseTestCase):
    def test_a_daemon_that_stands_still(self) -> None:
        lock = self.tree.path("/var/lib/ipmiproxyd/lock")
        lock.write_text("")
        self.before = self.listing()
        daemon = self.start("-c", HOLDER, str(lock))
        os.kill(daemon.pid, signal.SIGSTOP)
        self.assertEqual(
            self.refused(),
            f"A daemon (process {daemon.pid}) has /var/lib/ipmiproxyd open, and does not answer.",
        )
        self.tree.path(CONFIG).write_text("[daemon]\nstate_dir = 1\n")  # where it is is recorded, too
        self.before = self.listing()
        self.assertIn("does not answer", self.refused())
        would = self.forced(dry_run=True)
        self.assertIn(f"process {daemon.pid}, which had /var/lib/ipmiproxyd: would be ended", would)
        self.assertIsNone(daemon.poll())
        self.assertIn(f"process {daemon.pid}, which had /var/lib/ipmiproxyd: ended", self.forced())
        self.assertEqual(daemon.wait(), -signal.SIGKILL)
        self.assertFalse(lock.exists())

    def test_somebody_at_the_socket_who_says_nothing(self) -> None:
        self.patch(talk, "_GREETING_TIMEOUT", 0.05)
        live = LiveTree(self.root)
        path = scratch(self) / "socket"
        self.assertIsNone(find_running(live, path))
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(path))
            self.assertIsNone(find_running(live, path))
            silent.listen(9)
            self.tree = live
            self.tree.path(CONFIG).write_text(f'[control]\nsocket = "{path}"\n')
            self.before = self.listing()
            self.assertIn("does not answer: The daemon has said nothing", self.refused())
            # It cannot be known whose it is.
            self.assertIn("does not answer", self.assertRaises(SetupError, self.forced).message)
            self.assertEqual(self.listing(), self.before)

    def test_something_else_of_its_user(self) -> None:
        self.patch(LiveTree, "uid", os.getuid())
        self.patch(using, "processes_of", lambda uid: {4711: 1} if uid == os.getuid() else {})
        self.patch(ending, "_end", self.fail)
        self.tree = LiveTree(self.root)
        self.assertEqual(self.refused(), "The user ipmiproxyd still runs something: process 4711.")
        kept = self.tree.path("/var/lib/ipmiproxyd-setup/record.json")
        kept.write_text(kept.read_text().replace('"account": true', '"account": false'))
        self.before = self.listing()
        self.assertIn("still runs something", self.assertRaises(SetupError, self.forced).message)
        self.assertEqual(self.listing(), self.before)

    def test_processes_of_a_user(self) -> None:
        child = self.start("-c", "import time; print(flush=True); time.sleep(600)")
        self.assertEqual(using.processes_of(os.getuid())[child.pid], os.getpid())
        self.assertIn(child.pid, using.below(os.getpid(), using.processes_of(os.getuid())))
        self.assertNotIn(child.pid, using.processes_of(NOBODY))


class JobsTests(InUseTestCase):
    """Consoles outlive their daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.tree = LiveTree(self.root)
        jobs = scratch(self)
        self.patch(runner, "JOBS", str(jobs))
        self.patch(runner, "LOCKS", str(jobs / "none"))
        (jobs / "main").mkdir()
        (jobs / "main/alive").write_text("")
        self.patch(LiveTree, "uid", os.getuid())
        self.patch(using, "processes_of", lambda _: {})
        self.jobs = jobs / "main"

    def job(self, name: str, **members: object) -> None:
        (self.jobs / name).mkdir()
        state = {"id": name, "state": "running", "display": 7, "uid": 0, "keeper": runner.identity(os.getpid())}
        (self.jobs / name / "state.json").write_text(json.dumps({**state, **members}))

    def test_a_console_is_open(self) -> None:
        self.job("c1")
        self.job("c2", state="ended")
        self.job("c3", keeper=f"{runner.identity(os.getpid())}0")
        (self.jobs / "c4").mkdir()
        self.assertEqual([job.id for job in using.running_jobs("main", 1)], ["c1"])
        self.assertEqual(self.refused(), "1 console is open.")
        asked: list[tuple[object, ...]] = []

        def ask(*words: object, **members: str) -> None:
            asked.append((*words, members))
            (self.jobs / "c1/state.json").unlink(missing_ok=True)

        self.patch(using, "ask_runner", ask)
        self.patch(Setup, "_end", lambda _: None)
        self.patch(ending.Ending, "_check", self.fail_unless_ended)
        self.assertRaises(InterruptedError, self.forced)
        owner = (os.getuid(), os.getuid())
        self.assertEqual(asked, [("stop", "main", owner, {"id": "c1"}), ("sweep", "main", owner, {})])

    def fail_unless_ended(self, _: object = None) -> None:
        self.assertEqual(using.running_jobs("main", 1), [])
        raise InterruptedError

    def test_of_somebody_else(self) -> None:
        """Whose name is the same."""

        self.patch(LiveTree, "uid", NOBODY)
        self.jobs.rename(self.jobs.with_name("ipmiproxyd"))
        self.jobs = self.jobs.with_name("ipmiproxyd")
        self.job("c1")
        self.assertEqual(self.refused(), "1 console is open.")
        self.patch(using, "ask_runner", self.fail)
        self.assertIn("Consoles are still open", self.assertRaises(SetupError, self.forced).message)
        self.assertEqual(self.listing(), self.before)
        self.assertTrue((self.jobs / "c1").exists())

    def test_a_state_that_cannot_be_read(self) -> None:
        self.job("c1")
        (self.jobs / "c1/state.json").write_text("{")
        self.assertEqual(self.refused(), "1 console is open.")
