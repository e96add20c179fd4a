"""A small system's files, in which ``ipmiproxyctl setup`` can work."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.setup.command import Setup
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.place import Installation
from ipmiproxyd.setup.shipped import ACCOUNT
from tests.support.scratch import scratch

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path("/opt/elsewhere/bin")
RUNNER = Path("/opt/elsewhere/lib/python3.13/site-packages/ipmiproxyd/agents/runner.py")
INSTALLATION = Installation(PROGRAMS, RUNNER, ROOT, 0.0)
ACCOUNT_FILES = ("passwd", "group", "shadow", "gshadow")


class Tree(Machine):
    """A small system's files; whose they are, it only remembers, so that nobody has to be root."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.owners: dict[tuple[int, int], tuple[int, int]] = {}
        self.without: set[str] = set()

    def give(self, descriptor: int, owner: tuple[int, int]) -> None:
        self.owners[self._identity(descriptor)] = owner

    def owner_of(self, descriptor: int) -> tuple[int, int]:
        return self.owners.get(self._identity(descriptor), (0, 0))

    def _identity(self, file: int | Path) -> tuple[int, int]:
        status = os.stat(file)
        return status.st_dev, status.st_ino

    def program(self, name: str) -> str | None:
        return None if name in self.without else super().program(name)

    def described(self, path: str) -> tuple[int, str]:
        """A file's mode, and whose it is."""

        file = self.path(path)
        uid, gid = self.owners.get(self._identity(file), (0, 0))
        names = {(0, 0): "root", self.account(ACCOUNT): ACCOUNT}
        return stat.S_IMODE(file.stat().st_mode), names[uid, gid]


class TreeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = scratch(self)
        for folder in ("etc/systemd/system", "etc/sudoers.d", "var/lib", "usr/local/bin", "opt"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (self.root / "etc/group").write_text("root:x:0:\n")
        (self.root / "etc/shadow").write_text("root:*:19000::::::\n")
        (self.root / "etc/gshadow").write_text("root:*::\n")
        self.tree = Tree(self.root)
        self.said: list[str] = []

    def put(self, installation: Installation = INSTALLATION, *, dry_run: bool = False) -> list[str]:
        """What was changed."""

        self.said = []
        Setup(self.tree, self.said.append, dry_run=dry_run).put(installation)
        return self.said[: self.said.index("")] if "" in self.said else self.said

    def remove(self, *, purge: bool = False, dry_run: bool = False) -> list[str]:
        self.said = []
        Setup(self.tree, self.said.append, dry_run=dry_run).remove(purge=purge, force=False)
        return self.said

    def text(self, path: str) -> str:
        return self.tree.path(path).read_text()

    def listing(self) -> dict[str, str]:
        """All that is there, apart from the copies of old account files that the system's own programs make."""

        found = {}
        for path in sorted(self.root.rglob("*")):
            name = f"/{path.relative_to(self.root)}"
            if not (name.endswith("-") or name == "/etc/.pwd.lock"):
                found[name] = path.read_text() if path.is_file() else oct(path.lstat().st_mode)
        return found
