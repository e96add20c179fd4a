"""What packages of ours made at work, and leave behind: users, groups, and a few files.

Only what can be shown to be their doing counts. A user or a group is new since apt began, and one of their scripts, or
a file for systemd-sysusers, names it. A file came while apt was at work, and is as it was then.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time

from ipmiproxyd.provision.host import apt, files
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import Any

    from ipmiproxyd.provision.host.apt import Package
    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.system import Host
    from ipmiproxyd.provision.host.work import Work

NOTHING: Mapping[str, Any] = {"users": {}, "groups": {}, "leftovers": {}, "programs": [], "window": None}
LISTS = (("passwd", "users", "SYS_UID_MAX"), ("group", "groups", "SYS_GID_MAX"))
LEFTOVERS = (
    *("/etc/machine-id", "/etc/mtab", "/etc/default/locale", "/etc/vconsole.conf", "~root/.ssh"),
    *("/var/cache/private", "/var/lib/private", "/var/lib/systemd/coredump", "/var/lib/systemd/pstore"),
    *("/usr/share/fonts", "/usr/local/share/fonts"),
)
"""systemd's, and fontconfig's. ``~root`` is root's home there."""
DONE = {"absent": ("not-installed",), "config-files": apt.GONE}
"""dpkg's words for a package that is as it was before."""
EMPTY = ".uuid"
"""A file of fontconfig's, in folders that are empty otherwise."""
SLACK = 1.0  # seconds by which times of files may differ from the clock's
LAST_SCRIPT = 120.0  # seconds that a script may have worked, after dpkg had written its state
MAKERS = re.compile(r"\b(adduser|addgroup|useradd|groupadd|sysusers)\b")
SYSUSERS = re.compile(r"^(?:/usr)?/(?:etc|lib)/sysusers\.d/[^/]+\.conf$", re.MULTILINE)


def window(host: Host) -> dict[str, Any]:
    """What is there before apt begins."""
    _, _, _, _, _, home, *_ = host.entries("passwd").get("root", [""] * 6)
    paths = [path.replace("~root", home) for path in LEFTOVERS]
    absent = [path for path in paths if not host.exists(path)]
    return {**{file: sorted(host.entries(file)) for file, _, _ in LISTS}, "absent": absent, "since": time.time()}


def note(work: Work, change: Change) -> None:
    """apt has come to its end."""
    if change["window"]:
        _note(work, change, time.time() + SLACK)
        change["window"] = None
        work.record.save()


def note_until_broken_off(work: Work, change: Change) -> None:
    """apt did not come to its end, and goes on now: whatever came in between is somebody else's."""
    status = work.host.path("/var/lib/dpkg/status")
    _note(work, change, os.stat(status).st_mtime + LAST_SCRIPT)
    change["window"]["since"] = time.time()
    work.record.save()


def _note(work: Work, change: Change, until: float) -> None:
    words = {package: named_by(work.host, package) for package in change["items"]}
    for file, made, limit in LISTS:
        last = work.host.login_number(limit, 999)
        for name, entry in work.host.entries(file).items():
            packages = [package for package in words if name in words[package]]
            if packages and name not in change["window"][file] and entry[2].isdigit() and int(entry[2]) <= last:
                change[made][name] = {"number": int(entry[2]), "packages": packages}
    for path in change["window"]["absent"]:
        with contextlib.suppress(FileNotFoundError, FailedError):
            at = os.lstat(work.host.path(path)).st_ctime
            if change["window"]["since"] - SLACK <= at <= until:
                change["leftovers"].setdefault(path, files.digest(files.look(work.host.root, path)))


def named_by(host: Host, package: str) -> set[str]:
    """The names of users and groups that a package may make. Of its scripts it is all the words."""
    scripts = [apt.info(host, package, kind) for kind in ("preinst", "postinst")]
    lines = [line for script in scripts if MAKERS.search(script) for line in script.splitlines()]
    words = re.findall(r"[A-Za-z_][A-Za-z0-9_-]*", "\n".join(line for line in lines if line.strip()[:1] != "#"))
    for path in SYSUSERS.findall(apt.info(host, package, "list")):
        for line in (host.read(path) or "").splitlines():
            kind, *names = line.split()[:3] or [""]
            words += names[: {"u": 1, "g": 1, "m": 2}.get(kind[:1], 0)]
    return set(words)


# --- taking back ------------------------------------------------------------------------------------------------------


def note_programs(work: Work, change: Change, gone: Collection[str]) -> None:
    """Before packages go: what their users run of them, which nobody can tell afterwards."""
    uids = {one["number"] for one in change["users"].values()}
    seen = {work.host.program_of(pid) for pid in work.host.processes_of(uids)} - {""}
    if not seen or work.dry_run:
        return
    there = {path for name in gone for path in apt.info(work.host, name, "list").splitlines()}
    ours = {path for path in seen if not there.isdisjoint((path, path.replace("/usr/", "/", 1)))}
    change["programs"] = sorted({*change["programs"], *ours})
    work.record.save()


def remove(work: Work, change: Change, known: dict[str, Package]) -> None:
    """Users and groups whose packages are gone, unless somebody uses them.

    :param known: what dpkg knows now.
    """
    doubts = Doubts(work, change, known)
    for file, made, _ in LISTS:
        kind = made[:-1]
        for name, one in change[made].items():
            entry = work.host.entries(file).get(name)
            if entry is None or any(known[package].is_there for package in one["packages"] if package in known):
                continue
            if why := next(doubts.about(kind, name, entry), ""):
                work.teller.warning(f"The {kind} {name}, which a package had made, stays: {why}")
            elif work.tell(f"The {kind} {name}, which a package had made, is removed"):
                _remove(work, kind, name, file)


def _remove(work: Work, kind: str, name: str, file: str) -> None:
    # They refuse (8) where it has come into use in this moment.
    argv, fine = (["userdel", name], (6, 8, 12)) if kind == "user" else (["groupdel", name], (6, 8))
    work.host.change_users(argv, fine=fine)
    if name in work.host.entries(file):
        work.teller.warning(f"The {kind} {name} is in use, and stays")


class Doubts:
    """Why a user or a group is somebody else's, too."""

    def __init__(self, work: Work, change: Change, known: dict[str, Package]) -> None:
        self._work, self._change, self._known = work, change, known
        self._words = {name: named_by(work.host, name) for name, one in known.items() if one.is_there}

    def about(self, kind: str, name: str, entry: list[str]) -> Iterator[str]:
        """In words. Its processes are ended if they are of our packages alone."""
        one, items = self._change[f"{kind}s"][name], self._change["items"]
        if int(entry[2]) != one["number"]:
            yield "it has another number now"
        if others := [package for package in self._words if name in self._words[package]]:
            yield f"{apt.names(others)} may need it"
        left = [package for package in one["packages"] if package in self._known]
        if left := [package for package in left if self._known[package].status not in DONE[items[package]["before"]]]:
            yield f"the configuration of {apt.names(left)} is left"
        if kind == "group":
            users = self._work.host.entries("passwd").items()
            members = {*filter(None, entry[3].split(",")), *(user for user, its in users if its[3] == entry[2])}
            if members:
                yield f"it has members: {apt.names(members)}"
        elif not self._work.host.end_processes({one["number"]}, self._change["programs"]):
            yield "processes of somebody else's are its own"


def remove_leftovers(work: Work, change: Change) -> None:
    for path, digest in change["leftovers"].items():
        with contextlib.suppress(FileNotFoundError):
            now = files.look(work.host.root, path)
            if now["type"] != "missing" and not (files.digest(now) == digest and _gone(work.host.path(path))):
                work.teller.warning(f"{path} was changed by somebody since, and is left")


def _gone(path: str) -> bool:
    """Remove a file, or a folder with nothing in it that counts; False if something is in it."""
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
    elif all(set(there) <= {EMPTY} for _, _, there in os.walk(path)):
        shutil.rmtree(path)
    else:
        return False
    return True
