"""What runs on agents has to work with the Pythons of Debian 11 to 13."""

from __future__ import annotations

import ast
import tomllib

import vermin
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import direct, scripts, ssh_checks
from ipmiproxyd.tools import java_files
from tests.unit.test_imports import ALONE, PACKAGE, ROOT, imported

OLDEST = ssh_checks.OLDEST_PYTHON
REMOVED = {
    "asynchat", "asyncore", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp", "lib2to3", "mailcap",
    "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "uu",
    "xdrlib",
}  # fmt: skip
"""Modules that Python 3.13 has no more."""

TEXTS = {
    "direct": direct._LISTEN,
    "scripts": scripts.LOAD,
    "ssh_checks": ssh_checks._LISTEN,
    "install": ssh_checks.INSTALL,
    "java_files": java_files._LOAD,
}
"""Programs for agents that have no file."""


def newer(source: str) -> list[str]:
    """What in a program is newer than the oldest Python that an agent may have: words of syntax, of the library, and
    of its arguments."""

    ast.parse(source, feature_version=OLDEST)
    config = vermin.Config()
    config.set_verbose(3)  # else it names nothing
    visitor = vermin.visit(source, config)
    least = visitor.minimum_versions()[1]
    return [] if not least or least <= OLDEST else visitor.output_text().splitlines()


class OldestPythonTests(SynchronousTestCase):
    def test_files(self) -> None:
        for file in ALONE:
            self.assertEqual(newer((PACKAGE / file).read_text()), [], file)

    def test_texts(self) -> None:
        for name, text in TEXTS.items():
            self.assertEqual(newer(text), [], name)

    def test_nothing_that_was_removed(self) -> None:
        for file in ALONE:
            names = {target.split(".")[0] for _, target in imported(PACKAGE / file, f"ipmiproxyd.{file}")}
            self.assertEqual(names & REMOVED, set(), file)

    def test_ruff_knows(self) -> None:
        told = tomllib.loads((ROOT / ".ruff.toml").read_text())["per-file-target-version"]
        version = "py{}{}".format(*OLDEST)
        known = [path for glob, target in told.items() if target == version for path in ROOT.glob(glob)]
        self.assertEqual({PACKAGE / file for file in ALONE}, set(known))

    def test_what_is_newer_is_seen(self) -> None:
        for source in (
            "zip([], [], strict=True)",
            "import binascii; binascii.a2b_base64('', strict_mode=True)",
            "import hashlib; hashlib.file_digest(None, 'sha256')",
            "from datetime import UTC",
        ):
            self.assertNotEqual(newer(source), [], source)
        self.assertRaises(SyntaxError, newer, "match 1:\n    case 1: pass")
