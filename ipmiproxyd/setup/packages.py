"""The Debian packages that are used, and those that are missing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.trouble import SetupError

LIST: Final = Path(__file__).with_name("packages.txt")
TRIES: Final = 5
"""Of ``apt-get update``, whose lock has no time limit of its own."""
PAUSE: Final = 5.0
APT: Final = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300")


def wanted() -> Iterator[tuple[str, str]]:
    """What shows that a package is there, and its name."""

    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            sign, package = line.split()
            yield sign, package


def missing(machine: Machine) -> list[str]:
    """The names of the packages that are not there."""

    return [package for sign, package in wanted() if not _is_there(machine, sign)]


def _is_there(machine: Machine, sign: str) -> bool:
    if sign.startswith("/"):
        return any(machine.root.glob(sign.lstrip("/")))
    folders = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
    return any(os.path.lexists(machine.root / folder / sign) for folder in folders)


def line_for(packages: Sequence[str]) -> str:
    """What installs them."""

    return f"apt-get install --no-install-recommends {' '.join(packages)}"


def install(machine: Machine, packages: Sequence[str]) -> None:
    """By apt, as whose words are shown. Raises SetupError."""

    if not machine.is_live:
        raise SetupError("--packages is for the machine itself, and not for another root.")
    if machine.program("apt-get") is None:
        raise SetupError("There is no apt-get here: --packages is for Debian.")
    for left in reversed(range(TRIES)):
        try:
            machine.run(*APT, "update", shown=True, limit=None)
            break
        except SetupError:
            if not left:
                raise
            time.sleep(PAUSE)
    machine.run(*APT, "install", "--no-install-recommends", *packages, shown=True, limit=None)
    if still := [name for name in missing(machine) if name in packages]:
        raise SetupError(f"Installed, and still not found: {' '.join(still)}.")
