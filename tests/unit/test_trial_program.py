"""What a trial console's page makes of the browser's processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.doctor import trial_program

RENDERER = ("/usr/lib/chromium/chromium", "--type=renderer", "--lang=en-US")


class SandboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proc = Path(self.mktemp())
        self.process("self", ("python3",), "5", 1)
        self.process("5", ("python3",), "5", 1)
        self.process("7", ("/usr/lib/chromium/chromium", "--kiosk"), "7", 1)

    def process(self, pid: str, argv: Sequence[str], spaces: str, filters: int | None, gap: str = "\0") -> None:
        folder = self.proc / pid
        folder.mkdir(parents=True, exist_ok=True)
        counted = "" if filters is None else f"Seccomp_filters:\t{filters}\n"
        folder.joinpath("status").write_text(f"Name:\tx\nNSpid:\t{spaces}\nSeccomp:\t2\n{counted}")
        folder.joinpath("cmdline").write_text(gap.join((*argv, "")))

    def unsafe(self) -> str:
        return trial_program.unsafe(str(self.proc))

    def test_a_sandbox(self) -> None:
        self.process("9", RENDERER, "9\t3", 2, gap=" ")
        self.proc.joinpath("8").mkdir()  # whose process has just ended
        self.assertEqual(self.unsafe(), "")
        self.process("6", RENDERER, "6\t4", 1)  # one that has just begun
        self.assertEqual(self.unsafe(), "")

    def test_none(self) -> None:
        """Neither the console's own filter of system calls nor its namespace is the browser's sandbox."""

        self.assertIn("no process of its own", self.unsafe())
        for spaces, filters in (("9\t3", 1), ("9", 2)):
            self.process("9", RENDERER, spaces, filters)
            self.assertIn("not confined", self.unsafe())
        self.process("9", RENDERER, "9\t3", 2)
        self.process("7", ("/usr/lib/chromium/chromium", "--no-sandbox", "--kiosk"), "7", 1)
        self.assertIn("--no-sandbox", self.unsafe())

    def test_an_old_kernel(self) -> None:
        """It does not count filters."""

        self.process("self", ("python3",), "5", None)
        self.process("9", RENDERER, "9\t3", None)
        self.assertEqual(self.unsafe(), "")
