"""TCP ports for tests: what one process of tests is given, no other one is, and no connection takes it by chance."""

from __future__ import annotations

import fcntl
import os
import random
import socket
from typing import Final

FIRST: Final = 15_000
SIZE: Final = 600
AREAS: Final = 28
"""So they end below those that the kernel gives to connections, 32768 and up."""


class _Area:
    """Ports that are this process's until it ends, handed out in turn: it is long before one comes again."""

    def __init__(self) -> None:
        self._first = self._next = FIRST + SIZE * _claim()

    def take(self, count: int) -> range:
        for _ in range(2 * SIZE):
            if self._next + count > self._first + SIZE:
                self._next = self._first
            wanted = range(self._next, self._next + count)
            taken = [port for port in wanted if not _is_free(port)]
            self._next = (taken or wanted)[-1] + 1
            if not taken:
                return wanted
        raise AssertionError(f"no {count} ports are free together")


_areas: Final[dict[int, _Area]] = {}
"""By the process that they belong to."""


def free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens on, at any address."""

    pid = os.getpid()
    if pid not in _areas:
        _areas[pid] = _Area()
    return list(_areas[pid].take(count))


def port_range(count: int) -> str:
    """The same, as the configuration file writes it."""

    ports = free_ports(count)
    return f"{ports[0]}-{ports[-1]}"


def _claim() -> int:
    """The number of an area, held until this process ends."""

    for number in random.sample(range(AREAS), AREAS):
        path = f"/tmp/ipx-ports-{os.getuid()}-{number}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return number
    raise AssertionError("other tests have all the ports")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True).close()
    except OSError:
        return False
    return True
