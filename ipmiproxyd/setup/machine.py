"""The machine that is set up: its files, accounts and programs. With another root, a tree of files that becomes one."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from ipmiproxyd.setup.trouble import SetupError

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAM_LIMIT: Final = 120.0
"""Seconds that a program may take, apart from apt."""


class Machine:
    """:param root: where its files are.
    :ivar is_live: it is the one that this runs on, and not a tree of files.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root.resolve()
        self.is_live = self.root == Path("/")

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def runs_systemd(self) -> bool:
        """systemd is its process 1, and can be told what to do."""

        return self.is_live and Path("/run/systemd/system").is_dir()

    def path(self, path: str) -> Path:
        """Where a file of it is found. Raises SetupError if that leads out of its root."""

        found = self.root / path.lstrip("/")
        if not found.parent.resolve().is_relative_to(self.root):
            raise SetupError(f"{found} leads out of {self.root} by a symbolic link.")
        return found

    def text(self, path: str) -> str | None:
        """What stands in a file; None if there is none."""

        try:
            return self.path(path).read_bytes().decode(errors="surrogateescape")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SetupError(f"{path} cannot be read: {error.strerror}.") from None

    def account(self, name: str) -> tuple[int, int] | None:
        """The numbers of a user and of its group; None if there is no such user."""

        fields = self._passwd(name)
        return (int(fields[2]), int(fields[3])) if fields else None

    def shell(self, name: str) -> str:
        """A user's; empty if there is no such user."""

        return (self._passwd(name) or [""])[-1]

    def _passwd(self, name: str) -> list[str]:
        """The user's line; empty if there is none."""

        if self.is_live:
            try:
                return [str(field) for field in pwd.getpwnam(name)]
            except KeyError:
                return []
        lines = ((line.strip().split(":")) for line in (self.text("/etc/passwd") or "").splitlines())
        return next((fields for fields in lines if fields[0] == name and len(fields) == 7), [])

    def program(self, name: str) -> str | None:
        """Where a program of this machine is."""

        return shutil.which(name, path=PATH)

    def run(self, *argv: str, shown: bool = False, limit: float | None = PROGRAM_LIMIT) -> str:
        """What a program says. With ``shown``, whoever called sees it. Raises SetupError if it fails."""

        environment = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        pipe = None if shown else subprocess.PIPE
        try:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                text=True,
                timeout=limit,
                check=False,
            )
        except FileNotFoundError:
            raise SetupError(f"{argv[0]} is not installed.") from None
        except subprocess.TimeoutExpired:
            raise SetupError(f"{argv[0]} has not ended within {limit:g} seconds.") from None
        if done.returncode:
            words = " ".join(((done.stderr or "") + (done.stdout or "")).split())
            raise SetupError(f"{' '.join(argv)} failed with status {done.returncode}{': ' if words else ''}{words}")
        return done.stdout or ""

    # --- changes ------------------------------------------------------------------------------------------------------

    def write(self, path: str, text: str, mode: int) -> None:
        """A file of root's, there as a whole or not at all."""

        target = self.path(path)
        # Neither sudo nor systemd reads a file with such a name.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix="~", dir=target.parent)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(text)
                file.flush()
                self.give(file.fileno(), (0, 0))
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.rename(name, target)
        except BaseException:
            os.unlink(name)
            raise

    def own(self, path: str, mode: int, owner: tuple[int, int]) -> None:
        """Give a folder, or a file, to somebody, with a mode. Symbolic links are not followed, nor hard links."""

        descriptor = self._opened(path)
        try:
            self.give(descriptor, owner)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def is_owned(self, path: str, mode: int, owner: tuple[int, int]) -> bool:
        """Whether :meth:`own` would change nothing."""

        descriptor = self._opened(path)
        try:
            return stat.S_IMODE(os.fstat(descriptor).st_mode) == mode and self.owner_of(descriptor) == owner
        finally:
            os.close(descriptor)

    def give(self, descriptor: int, owner: tuple[int, int]) -> None:
        """An open file to a user and a group."""

        os.fchown(descriptor, *owner)

    def owner_of(self, descriptor: int) -> tuple[int, int]:
        """User and group of an open file."""

        status = os.fstat(descriptor)
        return status.st_uid, status.st_gid

    def _opened(self, path: str) -> int:
        try:
            descriptor = os.open(self.path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(f"{path} is not what it should be: {error.strerror}.") from None
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
            return descriptor
        os.close(descriptor)
        raise SetupError(f"{path} is neither a folder nor an ordinary file of its own.")

    def write_for(self, path: str, text: bytes, mode: int, owner: tuple[int, int]) -> None:
        """A new file in a folder of somebody else's. Raises FileExistsError."""

        target = self.path(path)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(target.name, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(text)
                file.flush()
                self.give(file.fileno(), owner)
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
        finally:
            os.close(folder)
