"""What is in use of what setup has made: by a daemon, by its consoles, and by whatever else its user runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipmiproxyd.agents import runner
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.trouble import SetupError

LOCK: Final = "lock"
"""In a state folder: a daemon holds it as long as it lives."""
RUNNER_LIMIT: Final = 60.0


@dataclass(frozen=True)
class Job:
    """A console's, kept by the runner.

    :ivar jobs: the name of the folder that it is in.
    :ivar owner: the number of the user whom the folder belongs to.
    """

    jobs: str
    id: str
    owner: int


def is_held(lock: Path) -> bool:
    """Whether somebody has this lock."""

    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def held(machine: Machine, folders: Iterable[str]) -> dict[str, list[int]]:
    """The state folders that a daemon has, and the processes that have them; none where these cannot be seen."""

    found = {folder: machine.path(f"{folder}/{LOCK}") for folder in dict.fromkeys(folders)}
    return {folder: sorted(_having(lock)) for folder, lock in found.items() if is_held(lock)}


def _having(file: Path) -> Iterator[int]:
    """The processes that have a file open."""

    wanted = file.stat()
    for pid in _processes():
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.path.samestat(entry.stat(), wanted):
                        yield pid
                        break


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def processes_of(uid: int) -> dict[int, int]:
    """A user's processes, and their parents. In containers the number is another user's."""

    found, here = {}, os.readlink("/proc/self/ns/pid")
    for pid in _processes():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_bytes()
            told = re.search(rb"\nState:\s+[^ZX].*\nPPid:\s+(\d+)\n.*\nUid:\s+(\d+)\s", status, re.DOTALL)
            if told and int(told[2]) == uid and os.readlink(f"/proc/{pid}/ns/pid") == here:
                found[pid] = int(told[1])
    return found


def below(pid: int, parents: Mapping[int, int]) -> set[int]:
    """A process, and all that it has started."""

    found, more = set[int](), {pid}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in more} - found
    return found


# --- what the runner keeps --------------------------------------------------------------------------------------------


def jobs_folders() -> dict[str, int]:
    """Those of all daemons that have jobs here, by root's runner: their names, and the users whose they are."""

    found = {}
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(runner.JOBS)):
            with contextlib.suppress(OSError):
                found[name] = os.lstat(f"{runner.JOBS}/{name}/alive").st_uid
    return found


def running_jobs(name: str, owner: int) -> list[Job]:
    """Those of a folder of which anything lives."""

    site = runner.Site(name, "", 0)
    ids = [one for one in sorted(os.listdir(site.jobs)) if re.fullmatch(runner.ID, one)]
    return [Job(name, one, owner) for one in ids if _lives(site, one)]


def _lives(site: runner.Site, job: str) -> bool:
    try:
        state = site.state(job)
        if state is None:
            return False
        if state["state"] not in ("ended", "lost"):
            return True
        # What a killed keeper has left; unless another one has the display now.
        return not is_held(Path(f"{site.locks}/{state['display']}.lock")) and _is_left(state["uid"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return True  # it cannot be known


def _is_left(uid: int) -> bool:
    return uid in {one.pw_uid for one in runner.our_users().values()} and uid in runner.living()


def ask_runner(verb: str, name: str, owner: tuple[int, int], **members: str) -> None:
    """Have it do something with a user's jobs. Raises SetupError."""

    common = {"verb": verb, "version": runner.VERSION, "jobs": name, "prefix": "easydcim_vnc_", "group": owner[1]}
    argv = [sys.executable, "-I", "-S", runner.__file__]
    environment = {"PATH": runner.PATH, "SUDO_UID": str(owner[0]), "SUDO_GID": str(owner[1])}
    line = json.dumps({**common, **members}) + "\n"
    try:
        done = subprocess.run(
            argv, input=line, env=environment, capture_output=True, text=True, timeout=RUNNER_LIMIT, check=False
        )
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        raise SetupError(f"The runner could not be told to {verb} consoles.") from None
    if told.get("event") == "failed":
        raise SetupError(f"The runner could not {verb} consoles: {told.get('message')}")


def is_in_use(folder: Path) -> bool:
    """Whether a display of these locks has somebody."""

    return any(is_held(path) for path in folder.glob("*.lock"))


def owner_of(path: Path) -> int | None:
    """Whose folder it is; None if there is none."""

    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_uid if stat.S_ISDIR(status.st_mode) else None
