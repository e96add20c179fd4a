"""Ordinary accounts for tests that run as root."""

from __future__ import annotations

import fcntl
import os
import pwd
import subprocess
from pathlib import Path
from typing import Final

NAME: Final = "ipmiproxyd-test"


def ordinary_account() -> pwd.struct_passwd:
    """One that nobody logs in as."""

    return made_account(NAME, "/usr/sbin/nologin")


def made_account(name: str, shell: str) -> pwd.struct_passwd:
    """The account; it is made where there is none yet, and stays."""

    with open(f"/tmp/ipx-accounts-{os.getuid()}", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests beside this one want it, too
        try:
            return pwd.getpwnam(name)
        except KeyError:
            options = ["--system", "--user-group", "--no-create-home", "--shell", shell, "--password", "*"]
            subprocess.run(["useradd", *options, name], check=True, timeout=30)
            return pwd.getpwnam(name)


def python_as(account: pwd.struct_passwd, folder: Path, python: str = "/usr/bin/python3") -> str:
    """A program that runs Python as that account."""

    wrapper = folder / "python-as-account"
    options = f"--reuid={account.pw_uid} --regid={account.pw_gid} --clear-groups"
    wrapper.write_text(f'#!/bin/sh\nexec setpriv {options} {python} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)
