"""What a console may leave behind, and must not: processes, files, ports, processes of display users, X locks."""

from __future__ import annotations

import os
import pwd
import re
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

PATIENCE: Final = 10.0
"""Seconds that the kernel and the runner have for reaping."""


def processes_of(folder: Path) -> dict[int, str]:
    """Processes that have to do with a test's folder: by their command line, or by a mount from it (a job's sandbox
    has one). Pid → command line."""

    mark, top = os.fsencode(folder), folder
    while not os.path.ismount(top):
        top = top.parent
    mounted = b" /" + os.fsencode(folder.relative_to(top))
    found = {}
    for pid in _pids():
        command = read(f"/proc/{pid}/cmdline")
        if mark in command or mounted in read(f"/proc/{pid}/mountinfo"):
            found[pid] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
    return found


def sandboxed(folder: Path) -> dict[int, str]:
    """Those of :func:`processes_of` that run inside a job's sandbox."""

    mine = os.stat("/proc/self/ns/pid").st_ino
    inside = {}
    for pid, command in processes_of(folder).items():
        try:
            if os.stat(f"/proc/{pid}/ns/pid").st_ino != mine:
                inside[pid] = command
        except OSError:
            continue
    return inside


def display_users_processes(numbers: Iterable[int], prefix: str = "easydcim_vnc_") -> dict[int, str]:
    """Processes of the displays' Unix users."""

    uids = set()
    for number in numbers:
        try:
            uids.add(pwd.getpwnam(f"{prefix}{number}").pw_uid)
        except KeyError:
            continue
    found = {}
    for pid in _pids():
        try:
            if os.stat(f"/proc/{pid}").st_uid in uids:
                found[pid] = read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")[:200]
        except OSError:
            continue
    return found


def x_locks(first: int = 100, last: int = 1999) -> set[str]:
    """X locks and sockets of the machine itself, of displays ``first`` to ``last``: tests of other things have lower
    and higher ones."""

    found = [*Path("/tmp").glob(".X*-lock"), *Path("/tmp/.X11-unix").glob("X*")]
    return {str(path) for path in found if first <= int(re.sub(r"\D", "", path.name)) <= last}


def listening(first: int, last: int) -> set[int]:
    """TCP ports from ``first`` to ``last`` that somebody listens on."""

    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).decode().splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == "0A" and first <= port <= last:
                ports.add(port)
    return ports


def files_of(folder: Path) -> list[str]:
    """What lies in a jobs folder beyond what the runner always keeps there."""

    usual = {"alive", "watchers", "tombstones", "displays", "lock", ".ipmiproxyd"}
    if not folder.exists():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in usual)


async def until_none(look: object, patience: float = PATIENCE) -> None:
    """Wait until ``look()`` finds nothing; fail with what it finds."""

    assert callable(look)
    waited = 0.0
    while found := look():
        if waited >= patience:
            raise AssertionError(f"still there after {patience:g} s: {found}")
        await pause(0.05)
        waited += 0.05


async def pause(seconds: float) -> None:
    """Between two looks at something that tells nobody of its changes."""

    await deferLater(IReactorTime(reactor), seconds)


def kill(pid: int) -> None:
    """End a process found here; one that is gone meanwhile is fine."""

    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read(path: str | Path) -> bytes:
    """A file of /proc; nothing if its process has ended."""

    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def status(process: int | Path) -> dict[str, str]:
    """Of a process, or of the one that a folder of some /proc tells of; nothing if it has ended."""

    folder = process if isinstance(process, Path) else Path(f"/proc/{process}")
    lines = read(folder / "status").decode(errors="replace").splitlines()
    found = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {} if found.get("State", "X").startswith(("Z", "X")) else found


def children_of(pid: int) -> list[int]:
    """None of a process that is gone."""

    return [int(child) for child in read(f"/proc/{pid}/task/{pid}/children").split()]


def seen_in_processes(needle: bytes) -> list[str]:
    """Where a text stands in a command line or an environment of any process, apart from this one."""

    places = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        for name in ("cmdline", "environ"):
            if needle in read(f"/proc/{pid}/{name}"):
                places.append(f"/proc/{pid}/{name} {read(f'/proc/{pid}/comm').decode().strip()}")
    return places
