"""Runs on an agent when a connection to it is new: makes the folders, puts the small files there, and looks around. One
file, standard library only: it is handed to ``python3 -c`` by standard input.

Reads one JSON object and prints one: what was found, or ``{"failed": words}``.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]


def put(path: str, text: str) -> None:
    """A file with this content, replaced as a whole if it has another."""
    content = text.encode()
    try:
        with open(path, "rb") as file:
            if file.read() == content:
                return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.{os.getpid()}"
    with open(new, "wb") as file:
        file.write(content)
    os.replace(new, path)


def digest(path: str) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def loose(path: str) -> Object:
    """Where others than root could put another file in the place of this one: ``path``, ``mode`` and ``owner`` of the
    file, or of the topmost folder or link on the way to it; empty if they cannot. In a folder like /tmp nobody replaces
    what is root's."""
    for end in dict.fromkeys((path, os.path.realpath(path))):
        parts = end.rstrip("/").split("/")
        for place in ["/".join(parts[:count]) or "/" for count in range(1, len(parts) + 1)]:
            try:
                status = os.lstat(place)
            except OSError:
                break
            mode = stat.S_IMODE(status.st_mode)
            shared = stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX
            if status.st_uid or not (shared or not mode & 0o022 or stat.S_ISLNK(status.st_mode)):
                return {"path": place, "mode": f"{mode:o}", "owner": status.st_uid}
    return {}


def group_number(group: str) -> int:
    """Of a group's name or number; without one our own. Raises LookupError."""
    if not group:
        return os.getegid()
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise LookupError(f"there is no such group: {group}") from None


def house(folder: str) -> str:
    """A name of this folder that no other one has, on any host, by whatever path or address."""
    status = os.stat(folder)
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
        return f"{boot.read().strip()}:{status.st_dev}:{status.st_ino}"


def prepare(given: Object) -> Object:
    home = pwd.getpwuid(os.getuid()).pw_dir
    folder = given["folder"] or f"{home}/.ipmiproxyd"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in ("tools", "cache", "jobs"):
        os.makedirs(f"{folder}/{name}", mode=0o700, exist_ok=True)
    for path, text in given["files"].items():
        put(f"{folder}/tools/{path}", text)
    found: Object = {"folder": folder, "root": os.geteuid() == 0, "group": group_number(given["group"])}
    for name in ("runner", "watcher"):
        found[name] = f"{folder}/{name}-{hashlib.sha256(given[name].encode()).hexdigest()[:16]}.py"
        put(found[name], given[name])
    found["houses"] = [house(f"{folder}/jobs"), house("/run")]  # of jobs: without and with a runner that is root
    found["address"] = (os.environ.get("SSH_CONNECTION", "").split() + 4 * [""])[2]  # of this host, as it was reached
    found["loose"] = loose(given["installed"])
    return found | {"installed": digest(given["installed"]), "python": list(sys.version_info[:2])}


def main(given: Object) -> None:
    try:
        print(json.dumps(prepare(given)))
    except LookupError as error:
        print(json.dumps({"failed": str(error.args[0])}))
    except OSError as error:
        print(json.dumps({"failed": f"{error.filename}: {error.strerror}"}))
