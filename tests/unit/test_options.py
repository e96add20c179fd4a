"""The daemon's command line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd import __version__
from ipmiproxyd.main import main
from ipmiproxyd.options import DEFAULT_CONFIG, Options
from tests.support.scratch import scratch


class OptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.file = scratch(self) / "c.toml"

    def write(self, text: str) -> Path:
        self.file.write_text(text)
        return self.file

    def ended(self, *arguments: str) -> object:
        """The exit status with which parsing ended the process."""

        return self.assertRaises(SystemExit, Options().parseOptions, arguments).code

    def test_the_settings_of_the_file(self) -> None:
        options = Options()
        options.parseOptions(["--config", str(self.write('[log]\nlevel = "error"\n'))])
        self.assertEqual(options.settings.log.level, "error")
        self.assertEqual(self.out.getvalue() + self.err.getvalue(), "")

    def test_the_usual_place(self) -> None:
        self.assertEqual(Options()["config"], DEFAULT_CONFIG)

    def test_mistakes_are_printed_one_a_line(self) -> None:
        self.write('[log]\nlevel = "loud"\n[relay]\nprots = 1\n')
        for arguments in ([], ["--check-config"]):
            self.err.truncate(0)
            self.assertEqual(self.ended("-c", str(self.file), *arguments), 1)
            first, second = self.err.getvalue().strip("\0").splitlines()
            self.assertTrue(first.startswith(f"{self.file}: log.level: must be one of "), first)
            self.assertEqual(second, f"{self.file}: relay.prots: there is no such setting, did you mean ports?")
        self.assertEqual(self.out.getvalue(), "")

    def test_a_file_that_cannot_be_read(self) -> None:
        self.assertEqual(self.ended("-c", str(self.file)), 1)
        self.assertEqual(self.err.getvalue(), f"{self.file}: cannot be read: No such file or directory\n")

    def test_only_checked(self) -> None:
        self.assertEqual(self.ended("--check-config", "-c", str(self.write(""))), 0)
        self.assertEqual(self.out.getvalue(), f"configuration ok: {self.file}\n")

    def test_version(self) -> None:
        self.assertEqual(self.ended("--version"), 0)
        self.assertEqual(self.out.getvalue(), f"ipmiproxyd {__version__}\n")

    def test_an_unknown_option(self) -> None:
        self.assertRaises(UsageError, Options().parseOptions, ["--confg"])

    def test_the_command_says_it_in_a_line(self) -> None:
        self.assertEqual(main(["--confg"]), 2)
        self.assertEqual(self.err.getvalue(), "ipmiproxyd: option --confg not recognized. See ipmiproxyd --help.\n")

    def test_the_command_checks(self) -> None:
        self.assertEqual(self.assertRaises(SystemExit, main, ["--check-config", "-c", str(self.write(""))]).code, 0)
        self.assertEqual(self.out.getvalue(), f"configuration ok: {self.file}\n")
        self.assertEqual(self.assertRaises(SystemExit, main, ["-c", str(self.write("x = 1"))]).code, 1)

    def test_help_names_the_command_and_its_options_only(self) -> None:
        self.assertEqual(self.assertRaises(SystemExit, main, ["--help"]).code, 0)
        text = self.out.getvalue()
        self.assertTrue(text.startswith("Usage: ipmiproxyd [options]"), text)
        self.assertIn("--check-config", text)
        self.assertNotIn("twistd", text)
