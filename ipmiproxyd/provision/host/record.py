"""The record: what provisioning changed on this host, and what was there before.

``record.json`` has two members. ``changes`` are in the order in which they were made, each with

    kind, key   what was changed: together they name it (the kind also says who takes it back: undo.py)
    stage       of which stage it is
    tenants     the accounts that want it so. What several want is taken back with the last one
    …           what the kind needs: what was there before, above all

and ``tenants`` has, by the account, what a stage must know of all of them. A change is written down, and is on the
disk, before it is made: whoever finds it there must look whether it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time

from ipmiproxyd.provision.host import files
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Change = dict[str, Any]

FOLDER = "/var/lib/ipmiproxyd-agent"
FILE = f"{FOLDER}/record.json"
BOOTSTRAP = f"{FOLDER}/bootstrap"
VERSION = 1
BUSY_HINT = (
    "It may be your own earlier one: broken off, it ends by itself when its present step is done. "
    "Say the same line again in a minute or two."
)


class Record:
    """:param root: in front of all paths.
    :param account: on whose behalf changes are made and taken back.
    """

    def __init__(self, root: str, account: str) -> None:
        self._root, self.account = root, account
        self.changes: list[Change] = []
        self.tenants: dict[str, dict[str, Any]] = {}
        self.load()

    def load(self) -> None:
        """Raises FailedError where it cannot be understood: nothing may be changed then."""
        text = files.content_of(files.look(self._root, FILE))
        if not text:
            return
        try:
            kept = json.loads(text.decode("utf-8", "surrogateescape"))
            if kept["version"] != VERSION:
                raise FailedError("agent-outdated", f"{FILE} on the host is of another version of ipmiproxyd")
            self.changes, self.tenants = list(kept["changes"]), dict(kept["tenants"])
        except (ValueError, KeyError, TypeError) as error:
            raise FailedError(
                "internal", f"{FILE} on the host cannot be read: {error}", "It was changed by hand."
            ) from error

    def save(self) -> None:
        kept = {"version": VERSION, "changes": self.changes, "tenants": self.tenants}
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        files.put(
            self._root, FILE, files.new_file(text.encode("utf-8", "surrogateescape"), 0o600, os.geteuid(), os.getegid())
        )

    def find(self, kind: str, key: str) -> Change | None:
        return next((one for one in self.changes if (one["kind"], one["key"]) == (kind, key)), None)

    def begin(self, stage: str, kind: str, key: str, **facts: Any) -> Change:
        """Write a change down that is made now. What is there of it already, of an earlier run, is kept."""
        change = self.find(kind, key)
        if change is None:
            change = {"kind": kind, "key": key, "stage": stage, "tenants": [], **facts}
            self.changes.append(change)
        if self.account not in change["tenants"]:
            change["tenants"].append(self.account)
        self.save()
        return change

    def want(self, kind: str, key: str) -> None:
        """What is as it shall be, and was changed for somebody else: it is ours, too, from now on."""
        change = self.find(kind, key)
        if change and self.account not in change["tenants"]:
            self.begin(change["stage"], kind, key)

    def others(self) -> list[str]:
        """The other accounts that have a part in it."""
        return sorted({*self.tenants, *(one for change in self.changes for one in change["tenants"])} - {self.account})

    def drop(self, change: Change) -> None:
        """It was taken back. That this cannot be written down on a full disk keeps nothing from being taken back."""
        self.changes.remove(change)
        try:
            self.save()
        except OSError as error:
            if error.errno not in files.FULL:
                raise

    @property
    def is_empty(self) -> bool:
        return not self.changes and not self.tenants

    def clear(self) -> None:
        """Remove the file. Its folder goes with the lock."""
        files.put(self._root, FILE, files.MISSING)


@contextlib.contextmanager
def alone(root: str, make: bool) -> Iterator[None]:
    """Nobody else works on this host meanwhile. Raises FailedError "busy" where somebody does.

    :param make: make the record's folder if it is not there. It is removed in the end if nothing is in it.
    """
    folder = os.path.join(root, FOLDER.lstrip("/"))
    fd = -1
    while fd < 0:
        if make:
            with contextlib.suppress(FileExistsError):
                os.makedirs(folder, 0o700)
        try:
            fd = os.open(folder, files.FOLDER)
        except FileNotFoundError:
            if not make:
                break
            continue
        fd = _locked(fd, folder)
    try:
        yield
    finally:
        try:
            if make:
                with contextlib.suppress(OSError):  # the record is in it
                    os.rmdir(folder)
        finally:
            if fd >= 0:
                os.close(fd)


def _locked(fd: int, folder: str) -> int:
    """The same folder, locked; -1 if that was removed, closed then."""
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            raise FailedError("forbidden", f"{FOLDER} on the host belongs to somebody else")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.lexists(folder) and os.path.samestat(os.lstat(folder), os.fstat(fd)):
            return fd
    except BlockingIOError:
        words = f"Another run is at work on the host{_since(fd)}"
        os.close(fd)
        raise FailedError("busy", words, BUSY_HINT) from None
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def _since(fd: int) -> str:
    """Since when the process works that has the lock, in words; empty where that cannot be seen."""
    status = os.fstat(fd)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        with open("/proc/locks") as locks:
            pid = next(line.split()[4] for line in locks if " FLOCK " in line and line.split()[5] == place)
        with open(f"/proc/{pid}/stat") as stat_file, open("/proc/uptime") as uptime:
            begun = int(stat_file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
            seconds = float(uptime.read().split()[0]) - begun
    except (OSError, ValueError, LookupError, StopIteration):
        return ""
    return f", since {time.strftime('%H:%M:%S %Z', time.localtime(time.time() - seconds))} ({seconds:.0f} s ago)"
