"""What agents/looking.py makes of things that other people of the agent have put there."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import looking

NOBODY = "4194305\n"
"""More than any process's number is."""
KEY = b"ssh-ed25519 " + 68 * b"A"
REAPED = """
import os, sys
from ipmiproxyd.agents import looking
looking.LOOKS = (looking.clock,)
looking.main({"limit": 5})
sys.stdout.flush()
try:
    os.waitpid(-1, os.WNOHANG)
    print("somebody is left")
except ChildProcessError:
    print("nobody is left")
"""


class LookingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)

    def test_locks_of_x_servers(self) -> None:
        """A pipe does not keep us, and nobody's words come into a command for root."""

        self.patch(looking, "TMP", str(self.folder))
        self.folder.joinpath("elsewhere").write_text(NOBODY)
        for name in (".X5-lock", ".X1;reboot;-lock", ".Xy-lock", ".X\N{ARABIC-INDIC DIGIT FIVE}-lock"):
            self.folder.joinpath(name).write_text(NOBODY)
        self.folder.joinpath(".X6-lock").write_text(f"{os.getpid()}\n")
        self.folder.joinpath(".X8-lock").symlink_to("elsewhere")
        self.folder.joinpath(".X9-lock").mkdir()
        os.mkfifo(self.folder / ".X7-lock")
        writer = os.open(self.folder / ".X7-lock", os.O_RDWR)
        self.addCleanup(os.close, writer)
        os.write(writer, NOBODY.encode())
        self.assertEqual(looking.x_locks({}), [{"path": f"{self.folder}/.X5-lock", "pid": int(NOBODY)}])

    def test_keys_with_comments_of_all_kinds(self) -> None:
        me = pwd.struct_passwd(("me", "x", os.geteuid(), 0, "", str(self.folder), "/bin/sh"))
        self.patch(pwd, "getpwuid", lambda _: me)
        self.folder.joinpath(".ssh").mkdir()
        lines = [b"restrict " + KEY + b" a", KEY + b" J\xfcrgen@desk"]
        self.folder.joinpath(".ssh", "authorized_keys").write_bytes(b"\n".join(lines) + b"\n")
        found = looking.account({"account": True})
        self.assertEqual((found["keys"], found["wide"]), (2, ["J\N{REPLACEMENT CHARACTER}rgen@desk"]))

    def sleeper(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_jobs_that_end_meanwhile(self) -> None:
        """The keeper's last word comes between two looks."""

        keeper, real = self.sleeper(), looking.identity
        state = {"state": "running", "keeper": real(keeper.pid)}
        path = self.folder / "job1" / "state.json"
        path.parent.mkdir()
        path.write_text(json.dumps(state))

        def ending(pid: int) -> str:
            keeper.kill()
            keeper.wait()
            path.write_text(json.dumps({**state, "state": "ended"}))
            return real(pid)

        given = {"jobs": str(self.folder)}
        self.assertEqual(looking.jobs(given), [])
        self.patch(looking, "identity", ending)
        self.assertEqual(looking.jobs(given), [])
        self.patch(looking, "identity", real)
        path.write_text(json.dumps(state))
        self.assertEqual(looking.jobs(given), ["job1"])

    def test_processes_that_end_meanwhile(self) -> None:
        """With their console, whose display is then nobody's."""

        process, real = self.sleeper(), looking.held
        me = pwd.struct_passwd(("x1", "x", os.geteuid(), 0, looking.GECOS, "/", looking.SHELL))
        self.patch(looking, "our_users", lambda _: {"x1": me})
        self.patch(glob, "glob", lambda _: [f"/proc/{process.pid}"])
        given = {"prefix": "x", "locks": str(self.folder)}
        self.assertEqual(looking.processes(given), {"x1": 1})
        with self.folder.joinpath("1.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertEqual(looking.processes(given), {})
        self.assertEqual(looking.processes(given), {"x1": 1})

        def ending() -> set[int]:
            process.kill()
            process.wait()
            return real()

        looks = iter((real, ending))
        self.patch(looking, "held", lambda: next(looks)())
        self.assertEqual(looking.processes(given), {})

    def test_programs_that_cannot_be_executed(self) -> None:
        closed = self.folder / "closed"
        closed.touch(mode=0o644)
        self.patch(os, "environ", {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"})
        found = looking.programs({"programs": ["closed", "no-such-program", "sh"]})
        self.assertEqual(found["missing"], ["closed", "no-such-program"])
        self.assertEqual(found["closed"], {"closed": str(closed)})

    def test_no_process_is_left(self) -> None:
        done = subprocess.run([sys.executable, "-c", REAPED], capture_output=True, text=True, timeout=30, check=True)
        told, left = done.stdout.splitlines()
        answer: Any = json.loads(told)
        self.assertIn("found", answer["clock"])
        self.assertEqual(left, "nobody is left")
