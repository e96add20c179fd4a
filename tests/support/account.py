"""An ordinary account for tests that run as root."""

from __future__ import annotations

import pwd
import subprocess
from pathlib import Path
from typing import Final

NAME: Final = "ipmiproxyd-test"


def ordinary_account() -> pwd.struct_passwd:
    """The account; it is made where there is none yet, and stays."""

    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        options = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run(["useradd", *options, NAME], check=True, timeout=30)
        return pwd.getpwnam(NAME)


def python_as(account: pwd.struct_passwd, folder: Path, python: str = "/usr/bin/python3") -> str:
    """A program that runs Python as that account."""

    wrapper = folder / "python-as-account"
    options = f"--reuid={account.pw_uid} --regid={account.pw_gid} --clear-groups"
    wrapper.write_text(f'#!/bin/sh\nexec setpriv {options} {python} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)
