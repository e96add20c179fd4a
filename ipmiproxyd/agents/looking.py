"""Looks around on an agent, for ``agent check``. One file, standard library only: it is handed to ``python3 -c`` by
standard input.

Reads one JSON object and prints one. Changes nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
WHERE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def is_there(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{WHERE}") is not None


def namespaces() -> str:
    """Why no user and network namespace can be made; empty if they can."""
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        os._exit(0 if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 else min(ctypes.get_errno(), 255))
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return os.strerror(number) if number > 0 else ""


def memory() -> int:
    """Bytes that are free for programs; -1 if nobody tells."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name == "MemAvailable":
                    return int(rest.split()[0]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return -1


def look(given: Object) -> Object:
    return {
        "missing": [program for program in given["programs"] if not is_there(program)],
        "namespaces": namespaces(),
        "memory": memory(),
        "python": list(sys.version_info[:3]),
        "time": time.time(),
    }


def main(given: Object) -> None:
    print(json.dumps(look(given)))
