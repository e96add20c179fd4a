"""What a process and all its children have used, from /proc."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """A process and all that descend from it. Nothing for 0."""

    waiting = [pid] if pid else []
    while waiting:
        one = waiting.pop()
        yield one
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                waiting += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except OSError:
            continue


def trees(pids: Iterable[int]) -> Iterator[int]:
    return itertools.chain.from_iterable(map(tree, pids))


def cpu_seconds(*pids: int) -> float:
    """Of those that are still there; the kernel counts in nanoseconds."""

    total = 0
    for one in trees(pids):
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                total += int(Path(f"/proc/{one}/task/{task}/schedstat").read_text().split()[0])
        except OSError:
            continue
    return total / 1e9


def cpu_of_the_dead(pid: int) -> float:
    """Of the process's children that have ended; the kernel counts in hundredths of a second."""

    if not pid:
        return 0.0
    return sum(_ticks(pid)[2:]) / _TICKS


def cpu_of_others() -> float:
    """Of all processes but this one and what descends from it."""

    ours = set(tree(os.getpid()))
    total = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in ours:
            with contextlib.suppress(OSError):
                total += sum(_ticks(int(name)))
    return total / _TICKS


def _ticks(pid: int) -> list[int]:
    """User, system; and both of the children that have ended."""

    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


def memory(*pids: int) -> int:
    """Bytes that are the processes' own: not files, and each shared page divided by those who share it."""

    total = 0
    for one in trees(pids):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss_Anon:"))
    return total
