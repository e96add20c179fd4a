"""Runs a program in a user namespace of its own, in which all users are who they are, and which lets each of them make
only so many user namespaces: python3 few_namespaces.py NUMBER PROGRAM ARGUMENT …

Run as root; nothing of it concerns who is outside.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWUSER = 0x10000000
SETTING = "/mnt/whole/proc/sys/user/max_user_namespaces"  # of this user namespace; a host's /proc/sys is read-only
EVERYBODY = f"0 0 {2**32 - 1}"


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def main(number: str, argv: list[str]) -> None:
    me = os.getpid()
    made, tell = os.pipe()
    helper = os.fork()
    if helper == 0:  # who is outside may say who is who inside
        try:
            os.close(tell)
            os.read(made, 1)
            for name in ("uid_map", "gid_map"):
                write(f"/proc/{me}/{name}", EVERYBODY)
        except OSError as error:
            sys.exit(str(error))
        finally:
            os._exit(0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    os.close(tell)
    os.waitpid(helper, 0)
    write(SETTING, number)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
