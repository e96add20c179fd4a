"""Where ipmiproxyd is installed, and whether a machine can be set up with it there."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

import ipmiproxyd
from ipmiproxyd.setup.trouble import SetupError

INSTALL: Final = "Install it where only root can write: make install puts it into /opt/ipmiproxyd."
HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108
"""Folders of which the unit shows the daemon nothing, or another one (ProtectHome=, PrivateTmp=)."""
MOST_LINKS: Final = 40

_PLAIN: Final = re.compile(r"/[A-Za-z0-9_./+-]+")
"""Paths that need no quotes, neither for systemd nor for sudo."""


@dataclass(frozen=True)
class Installation:
    """:ivar programs: the folder of ``ipmiproxyd`` and ``ipmiproxyctl``.
    :ivar runner: the file that sudo starts as root, by the name under which the daemon knows it.
    :ivar shipped: the folder that holds ``etc`` and ``systemd``.
    :ivar installed_at: when it was installed, as ``time.time()``; 0.0 if that is not known.
    """

    programs: Path
    runner: Path
    shipped: Path
    installed_at: float

    def check(self) -> None:
        """Raises SetupError where the unit could not start it, or somebody but root could change the runner."""

        for path in (self.programs, self.runner, Path(os.path.realpath(sys.executable))):
            for folder in HIDDEN:
                if path.is_relative_to(folder):
                    raise SetupError(f"{path}: the daemon does not see what is below {folder}.", INSTALL)
            if not _PLAIN.fullmatch(str(path)):
                raise SetupError(f"{path}: only letters, digits and _ . / + - may stand in this path.", INSTALL)
        check_root_only(self.runner)
        if not self.runner.stat().st_mode & stat.S_IROTH:
            raise SetupError(f"The daemon's user may not read {self.runner}.", f"chmod -R go+rX {self.programs.parent}")


def find_installation() -> Installation:
    """The one that this program belongs to. Raises SetupError."""

    package = Path(ipmiproxyd.__file__).parent
    for one in distributions(name="ipmiproxyd"):
        places = {file.name: Path(os.path.normpath(file.locate())) for file in one.files or []}
        if "ipmiproxyctl" in places and places["ipmiproxyctl"].exists():
            break
    else:
        raise SetupError("ipmiproxyd is not installed here, only unpacked.", INSTALL)
    configuration = places.get("ipmiproxyd.toml", package.parent / "etc" / "ipmiproxyd.toml")
    if not configuration.is_file():
        raise SetupError("The configuration file that belongs to ipmiproxyd is missing here.", INSTALL)
    listed = places.get("RECORD")
    return Installation(
        programs=places["ipmiproxyctl"].parent,
        runner=package / "agents" / "runner.py",
        shipped=configuration.parent.parent,
        installed_at=listed.stat().st_mtime if listed is not None and listed.is_file() else 0.0,
    )


def check_root_only(path: Path, top: Path = Path("/"), owner: int = 0) -> None:
    """Raises SetupError if anybody but root could change a file, put another in its place, or in that of a folder
    above it.

    :param top: from here on it is looked at; for tests, with another owner.
    """

    for part in _parts(path, top):
        try:
            status = part.lstat()
        except OSError as error:
            raise SetupError(f"{part}: {error.strerror}.", INSTALL) from None
        words = f"{part} would be started as root, or is on the way to what would"
        if status.st_uid != owner:
            raise SetupError(f"{words}, and does not belong to root.", INSTALL)
        # With an access control list these bits are the most that it gives to anybody.
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022:
            raise SetupError(f"{words}, and others than root can write there.", f"chmod go-w {part}, or: {INSTALL}")


def _parts(path: Path, top: Path) -> Iterator[Path]:
    """A path and all above it, also of what symbolic links on the way lead to."""

    yield top
    here, left, links = top, list(path.relative_to(top).parts), 0
    while left:
        part = left.pop(0)
        here = here.parent if part == ".." else here / part
        yield here
        if here.is_symlink():
            links += 1
            if links > MOST_LINKS:
                raise SetupError(f"{path}: symbolic links that lead to one another.", INSTALL)
            target = Path(os.readlink(here))
            absolute = target.is_absolute()
            here = top if absolute else here.parent
            left = [*(target.relative_to(top) if absolute else target).parts, *left]
