"""Runs a daemon as its units say, where systemd does not:  python3 as_unit.py SERVICE SOCKET

Its socket, user, limits and capabilities, environment and the way in which it tells that it is ready are those of
systemd; not so what is done with mounts. Says "ready" on standard output, and ends with the daemon. As root.
"""

from __future__ import annotations

import os
import pwd
import resource
import select
import shlex
import socket
import sys
import traceback
from pathlib import Path

NOTIFY = "/run/notify"


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in Path(unit).read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def listening(unit: dict[str, list[str]]) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    [path] = unit["ListenStream"]
    made.bind(path)
    owner = pwd.getpwnam(unit["SocketUser"][0])
    os.chown(path, owner.pw_uid, owner.pw_gid)
    os.chmod(path, int(unit["SocketMode"][0], 8))
    made.listen(int(unit["Backlog"][0]))
    return made


def start(service: dict[str, list[str]], control: socket.socket, name: str) -> None:
    """In the child: becomes the daemon."""

    user = pwd.getpwnam(service["User"][0])
    os.umask(int(service["UMask"][0], 8))
    files = min(int(service["LimitNOFILE"][0]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(control.fileno(), 3)
    os.set_inheritable(3, True)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        "LANG": "C.UTF-8",
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "NOTIFY_SOCKET": NOTIFY,
        "WATCHDOG_USEC": str(int(service["WatchdogSec"][0]) * 1_000_000),
        "WATCHDOG_PID": str(os.getpid()),
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": name,
    }
    given_up = [name for line in service["CapabilityBoundingSet"] for name in line.removeprefix("~").split()]
    bounds = ",".join(f"-{name.removeprefix('CAP_').lower()}" for name in given_up)
    as_user = [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--init-groups",
        f"--bounding-set={bounds}",
    ]
    os.chdir("/")
    os.execvpe("setpriv", [*as_user, *shlex.split(service["ExecStart"][0])], environment)


def main(service_file: str, socket_file: str) -> int:
    service, unit = settings(service_file), settings(socket_file)
    control = listening(unit)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(NOTIFY)
        os.chmod(NOTIFY, 0o777)
        pid = os.fork()
        if not pid:
            try:
                start(service, control, unit["FileDescriptorName"][0])
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(127)
        process = os.pidfd_open(pid)
        while notices in select.select([notices, process], [], [])[0]:
            if b"READY=1" in notices.recv(4096):
                print("ready", flush=True)
        _, ended = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(ended)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
