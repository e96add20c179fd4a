"""A Debian whose process 1 is systemd, as a machine of its own, for tests that take long."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from twisted.trial.unittest import TestCase

from tests.support import leftovers
from tests.support.hosts import PATH
from tests.support.network_namespace import NetworkNamespace

RUN: Final = Path(__file__).with_name("root_run.sh")
LIMIT: Final = 900.0
BOOT_LIMIT: Final = 60.0
AUTHORITIES: Final = ("PIP_CERT", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Where a site has an authority of its own for certificates, these name its file."""
SEEN_AS: Final = "/srv/authorities.crt"
KERNEL: Final = (
    "fs/protected_symlinks",
    "fs/protected_regular",
    "fs/file-max",
    "kernel/pid_max",
    "kernel/core_pattern",
)
APART: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork")


class BootedRoot:
    """:param root: the Debian, as debootstrap makes it; it is not changed.
    :param work: a folder for what changes.
    :param folder: of this machine, is found there at ``place``.
    """

    def __init__(self, test: TestCase, root: Path, work: Path, folder: Path, place: str) -> None:
        self._test = test
        self._argv = ["sh", str(RUN), str(root), str(work), "panel", str(folder), place]
        self._work = work
        self._settings = kernel_settings()
        self._unshare: subprocess.Popen[bytes] | None = None
        self._group = control_groups() / f"ipx-{os.getpid()}"
        self._init = 0

    def before_boot(self, *argv: str) -> str:
        """What a program says there, as root, with this machine's network. It must succeed."""

        env = {"PATH": PATH, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
        command = [*APART, "--kill-child=KILL", "--propagation", "private", *self._argv, *argv]
        return _checked(command, {**env, **self._authorities()})

    def _authorities(self) -> Mapping[str, str]:
        found = [os.environ[name] for name in AUTHORITIES if os.environ.get(name)]
        if not found:
            return {}
        seen = self._work / "upper" / SEEN_AS[1:]
        seen.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found[0], seen)
        return dict.fromkeys(AUTHORITIES, SEEN_AS)

    def boot(self) -> None:
        """Returns when systemd has started all that it is to start."""

        self._group.mkdir()
        self._test.addCleanup(self.stop)
        join = f'echo $$ >{self._group}/cgroup.procs && exec "$@"'
        apart = [*APART, "--net", "--cgroup", "--kill-child=KILL", "--propagation", "private"]
        argv = ["sh", "-c", join, "sh", *apart, *self._argv, "boot"]
        log = (self._work / "boot.log").open("wb")
        with log:
            self._unshare = subprocess.Popen(argv, env={"PATH": PATH}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        limit = time.monotonic() + BOOT_LIMIT
        while not self._is_up():
            if self._unshare.poll() is not None or time.monotonic() > limit:
                raise AssertionError(f"systemd did not start: {(self._work / 'boot.log').read_text()}")
            time.sleep(0.1)
        self.run("systemctl", "is-system-running", "--wait")

    def _is_up(self) -> bool:
        assert self._unshare is not None
        for child in leftovers.children_of(self._unshare.pid):
            self._init = child
            return self.path("/run/systemd/private").exists()
        return False

    @property
    def init(self) -> int:
        """Its process 1, in this machine's numbers."""

        return self._init

    def path(self, path: str) -> Path:
        return Path(f"/proc/{self._init}/root{path}")

    def inside(self) -> list[str]:
        """In front of a command line: runs it there, as root."""

        return ["/usr/bin/nsenter", f"--target={self._init}", "--all", "--"]

    def run(self, *argv: str) -> str:
        """What a program says there once it is booted. It must succeed."""

        return _checked([*self.inside(), *argv], {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"})

    def network(self) -> NetworkNamespace:
        """Its own, to be closed."""

        return NetworkNamespace.of(self._init)

    def stop(self) -> None:
        """End all of it. Idempotent."""

        if self._unshare is not None:
            for child in leftovers.children_of(self._unshare.pid) if self._unshare.poll() is None else ():
                leftovers.kill(child)
            self._unshare.wait(30)
            self._unshare = None
            self._remove_group()
        self._test.assertEqual(kernel_settings(), self._settings)

    def _remove_group(self) -> None:
        limit = time.monotonic() + leftovers.PATIENCE
        while self._group.exists():
            for folder, _, _ in os.walk(self._group, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    if time.monotonic() > limit:
                        raise
                    time.sleep(0.05)  # the last process is on its way out


def kernel_settings() -> Mapping[str, str]:
    """Some of this machine's: it would notice a test that changes them."""

    return {name: Path("/proc/sys", name).read_text() for name in KERNEL}


def control_groups() -> Path:
    """Where version 2 of them is. Raises AssertionError where it is not."""

    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise AssertionError("systemd as process 1 needs control groups of version 2, and this machine has none mounted")


def _checked(argv: Sequence[str], env: Mapping[str, str]) -> str:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise AssertionError(f"{argv} ended with {done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout
