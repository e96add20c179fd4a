"""Real Debians as agent hosts, for tests that take long: made by debootstrap, once for all tests on this machine.

Below ``CACHE`` each release has a *root*, which nobody changes, and *packages*, which its hosts install from. A host
sees the root with all that changes in memory, and no network but those that the test gives it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twisted.trial.unittest import TestCase

from tests.support.bare import ROOTS_HOME
from tests.support.hosts import PATH, SSH_FOLDER, AgentHost, HostSshd

CACHE: Final = Path("/var/cache/ipmiproxyd-tests")
MIRROR: Final = "http://deb.debian.org/debian"
FETCH: Final = Path(__file__).with_name("root_fetch.sh")
LIMIT: Final = 600.0
"""Seconds for a root, and for packages, when they are made."""

# Whatever is mounted or started meanwhile ends with it.
_APART: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL")

_STOCK: Final = """
ListenAddress {address}:{port}
HostKey {folder}/host_key
PidFile none
LogLevel VERBOSE
Include /etc/ssh/sshd_config
"""


@dataclass(frozen=True)
class Debian:
    """A release of Debian, as the smallest root in which an sshd runs. Blocks: for threads.

    :param suite: its name.
    """

    suite: str

    @property
    def root(self) -> Path:
        return CACHE / self.suite / "root"

    @property
    def packages(self) -> Path:
        """What the host of a test sees as its only source of packages."""

        return CACHE / self.suite / "packages"

    def make(self, packages: Sequence[str]) -> None:
        """See to it that the root is there, and these packages with all that they need. Needs the network where they
        are not."""

        with _alone(self.suite):
            if not self.root.exists():
                self._bootstrap()
            self._fetch(packages)

    def _bootstrap(self) -> None:
        new = Path(tempfile.mkdtemp(prefix=f".{self.suite}-", dir=CACHE))
        try:
            options = ["--variant=minbase", "--include=openssh-server"]
            _run([*_APART, "debootstrap", *options, self.suite, str(new), MIRROR])
            shutil.rmtree(new / "var/cache/apt/archives")
            (new / "var/cache/apt/archives/partial").mkdir(parents=True)
            new.chmod(0o755)
            self.packages.mkdir(parents=True, exist_ok=True)
            new.rename(self.root)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _fetch(self, names: Sequence[str]) -> None:
        folder = self.packages
        told = folder / "fetched"
        fetched = set(told.read_text().split()) if told.exists() else set()
        if fetched >= set(names):
            return
        (folder / "partial").mkdir(exist_ok=True)
        _run([*_APART, "sh", str(FETCH), str(self.root), str(folder), *sorted({*names, *fetched})])
        listing = subprocess.run(
            ["dpkg-scanpackages", "--multiversion", "."], cwd=folder, capture_output=True, check=True, timeout=LIMIT
        )
        _replace(folder / "Packages", listing.stdout)
        _replace(told, "\n".join({*names, *fetched}).encode())


class RootHost(AgentHost):
    """A host that has never seen anything of ours: its root's key is the one that the test has, as is its host key."""

    def __init__(self, debian: Debian, test: TestCase, name: str, number: int, keys: Path) -> None:
        self._debian = debian
        super().__init__(test, name, number, keys)

    def make_sshd(self, keys: Path) -> HostSshd:
        return StockSshd(self, keys)

    def below(self) -> Sequence[str]:
        return str(self._debian.root), str(self._debian.packages)

    def install(self) -> None:
        self.sshd.put_keys()


class StockSshd(HostSshd):
    """With the configuration that Debian gives it. ``authorized_keys`` are root's."""

    configuration = _STOCK

    def put_keys(self) -> None:
        super().put_keys()
        keys = self.host.path(f"{ROOTS_HOME}/.ssh/authorized_keys")
        shutil.copy(self.folder / "authorized_keys", keys)
        keys.chmod(0o600)
        self.host.path(f"{SSH_FOLDER}/host_key").chmod(0o600)


@contextmanager
def _alone(suite: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{suite}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(argv: Sequence[str]) -> None:
    env = {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
    env |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}")
    new.write_bytes(content)
    new.replace(path)
