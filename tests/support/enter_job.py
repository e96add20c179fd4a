"""Runs a Python program inside a console, as its user: ``python3 -I -S enter_job.py PID UID GID PROGRAM``, as root.

``PID`` is a process of the console's sandbox. The program has standard input and output of whoever asks.
"""

from __future__ import annotations

import ctypes
import os
import sys

# The user namespace comes last: with it go the rights that the others need.
KINDS = ("net", "ipc", "uts", "pid", "mnt", "user")


def main(pid: str, uid: int, gid: int, program: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    for kind, descriptor in [(kind, os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)) for kind in KINDS]:
        if libc.setns(descriptor, 0) != 0:
            raise OSError(ctypes.get_errno(), f"the namespace {kind} cannot be entered")
        os.close(descriptor)
    child = os.fork()  # only a child is in the namespace of processes
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.chdir("/")
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.execve("/usr/bin/python3", ["python3", "-I", "-S", "-c", program], {"LANG": "C.UTF-8"})


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
