"""The packages that an agent needs."""

from __future__ import annotations

import contextlib
import os
import shutil

from ipmiproxyd.provision.host import apt, files, record
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ipmiproxyd.provision.host.apt import Package
    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.system import System
    from ipmiproxyd.provision.host.work import Work

COMMON = (
    "tigervnc-standalone-server",
    "openbox",
    "xauth",
    "fonts-dejavu-core",
    "bubblewrap",
    "nftables",
    "curl",
    "ipmitool",
    "sudo",
    "passwd",
)
CHROMIUM = "chromium"
SOURCES = "/etc/apt/sources.list.d/ipmiproxyd.list"
KEY = "apt"
LEFTOVERS = (
    *("/etc/machine-id", "/etc/mtab", "/etc/default/locale", "/etc/vconsole.conf", "/root/.ssh"),
    *("/var/cache/private", "/var/lib/private", "/var/lib/systemd/coredump", "/var/lib/systemd/pstore"),
    *("/usr/share/fonts", "/usr/local/share/fonts"),
)
"""What packages make at work, and do not take with them: systemd's, and fontconfig's."""
EMPTY = ".uuid"
"""A file of fontconfig's, in folders that are empty otherwise."""


def wanted(work: Work, system: System) -> list[str]:
    """The document's own list, or what this system calls what an agent needs."""
    given, browser = work.document["packages"], work.document["browser"]
    if given is not None:
        return list(given)
    if browser == CHROMIUM and system.id == "ubuntu":
        raise FailedError(
            "system-unsupported",
            f"The chromium of {system.name} is a snap, which does not run in a console's sandbox",
            "Name a browser that is a package of apt's (browser=PACKAGE, untested), or none (browser=none).",
        )
    if browser not in (CHROMIUM, "none"):
        work.teller.warning(f"The browser {browser} is untested")
    python = ["python3"] if work.document["python"] == "/usr/bin/python3" else []
    return [*COMMON, *python, system.java, *([] if browser == "none" else [browser])]


def install(work: Work, system: System) -> None:
    """Whatever is missing of them, by apt."""
    add_repository(work)
    take_over_bootstrap(work)
    known, names = complete(work), wanted(work, system)
    change = work.record.find("packages", KEY)
    if change and not work.dry_run:
        note_users(work, change)
    interrupted = apt.is_interrupted(work.host, known)
    missing = [name for name in names if name not in known or known[name].status != "installed"]
    if not missing and not interrupted:
        work.want("packages", KEY)
    elif work.dry_run:
        _would(work, missing)
    else:
        _install(work, missing, known)


def complete(work: Work) -> dict[str, Package]:
    """What is installed, once dpkg is done with what it had begun."""
    known = apt.packages(work.host)
    if apt.is_interrupted(work.host, known) and work.tell("dpkg, which was broken off, completes its work"):
        work.host.run(["dpkg", "--configure", "-a", *apt.KEEP_OLD], limit=apt.LIMIT)
        if apt.is_interrupted(work.host, apt.packages(work.host)):
            repair(work)
        known = apt.packages(work.host)
    return known


def repair(work: Work) -> None:
    """What is half unpacked, or lacks what it needs, is completed by apt, or goes again if it is ours."""
    apt.update(work)
    plan, change = apt.plan(work.host, apt.REPAIR), work.record.find("packages", KEY)
    ours = change["items"] if change else {}
    if others := set(plan.removed) - set(ours):
        message = f"apt-get cannot complete what was broken off without others' packages: {apt.names(others)}"
        raise FailedError("packages-failed", message, "See what apt-get --fix-broken install says on the host.")
    if change:
        for name in plan.new:
            ours.setdefault(name, {"before": "absent", "named": False})
        work.record.save()
    work.teller.go_on()
    apt.do(work, apt.REPAIR, (0.0, 5.0))


def add_repository(work: Work) -> None:
    if line := work.document["repository"]:
        work.put(SOURCES, files.new_file(f"{line}\n".encode(), 0o644), f"apt's source {SOURCES}")


def take_over_bootstrap(work: Work) -> None:
    """Python was put here for us, and what was there before is written down: ``ii  name`` for each."""
    text = work.host.read(record.BOOTSTRAP)
    if text is None or work.dry_run:
        return
    before = {line.split()[-1] for line in text.splitlines() if line[1:2] not in ("c", "n", "")}
    new = [name for name, one in apt.packages(work.host).items() if one.is_there and name.split(":")[0] not in before]
    if new:
        change = _begin(work, f"Python, which was installed first: {apt.names(new)}")
        for name in new:
            change["items"].setdefault(name, {"before": "absent", "named": name == "python3"})
        work.record.save()
    for path in (record.BOOTSTRAP, f"{record.BOOTSTRAP}.new", f"{record.BOOTSTRAP}.lock"):
        files.put(work.host.root, path, files.MISSING)


def _would(work: Work, missing: list[str]) -> None:
    words = f"Packages: {apt.names(missing)}"
    try:
        plan = apt.plan(work.host, [*apt.INSTALL, *missing])
    except FailedError:  # nothing is asked of the network in a dry run
        work.tell(f"{words} (and what they need, which apt does not know yet)")
    else:
        work.tell(f"{words}: {len(plan.new)} with what they need")


def _begin(work: Work, words: str) -> Change:
    work.prepare()
    facts: dict[str, Any] = {"items": {}, "upgraded": [], "users": [], "groups": [], "window": None}
    absent = [path for path in LEFTOVERS if not work.host.exists(path)]
    change = work.record.begin(work.stage, "packages", KEY, **facts, leftovers=absent)
    if work.document["verb"] == "provision":
        work.tell(words)
    return change


def _install(work: Work, missing: list[str], known: dict[str, Package]) -> None:
    work.teller.progress(work.stage, 0.0, "Asking what there is")
    apt.update(work)
    plan = apt.plan(work.host, [*apt.INSTALL, *missing])
    change = _begin(work, f"Packages: {apt.names(missing)}: {len(plan.new)} with what they need")
    for name in plan.new:
        before = "config-files" if name in known and known[name].status == "config-files" else "absent"
        change["items"].setdefault(name, {"before": before, "named": name in missing})
    # Those of ours that were broken off look like upgrades.
    change["upgraded"] = sorted({*change["upgraded"], *plan.upgraded} - change["items"].keys())
    change["window"] = {file: sorted(work.host.entries(file)) for file in ("passwd", "group")}
    work.record.save()
    work.teller.go_on()
    apt.do(work, [*apt.INSTALL, *missing])
    note_users(work, change)
    now = apt.packages(work.host)
    if left := [name for name in missing if name not in now or now[name].status != "installed"]:
        raise FailedError("packages-failed", f"These packages are not installed: {apt.names(left)}", apt.HINT)


def note_users(work: Work, change: Change) -> None:
    """The users and groups of the system's that are new since apt began were made by the packages."""
    if work.dry_run or not (window := change["window"]):
        return
    for file, made, limit in (("passwd", "users", "SYS_UID_MAX"), ("group", "groups", "SYS_GID_MAX")):
        last = work.host.login_number(limit, 999)
        there = {name for name, entry in work.host.entries(file).items() if int(entry[2]) <= last}
        change[made] = sorted({*change[made], *(there - set(window[file]))})
    change["window"] = None
    work.record.save()


# --- taking back ------------------------------------------------------------------------------------------------------


def undo(work: Work, change: Change) -> None:
    """What was not there before goes, unless somebody else's packages need it now."""
    known = complete(work)
    note_users(work, change)
    done = {"absent": ("not-installed",), "config-files": apt.GONE}
    items = change["items"].items()
    ours = {name for name, item in items if name in known and known[name].status not in done[item["before"]]}
    chosen = _chosen(work, change)
    gone = sorted(ours - chosen - needed(known, ours - chosen))
    if gone and work.tell(f"Packages are removed: {apt.names(gone)}"):
        _remove(work, change, gone, known)
    if left := {name for name in ours if name not in gone and known[name].is_there}:
        work.teller.warning(f"These packages are needed by others now, and stay: {apt.names(left)}")
    elif not work.dry_run:
        remove_users(work, change)
        for path in change["leftovers"]:
            remove_leftover(work.host.path(path))
    if change["upgraded"]:
        work.teller.warning(f"These packages stay as new as they are: {apt.names(change['upgraded'])}")


def _chosen(work: Work, change: Change) -> set[str]:
    """What came as a need of something else, and which somebody has asked for since."""
    manual = set(work.host.must(["apt-mark", "showmanual"]).split())
    return {name for name, item in change["items"].items() if not item["named"] and name in manual}


def needed(known: dict[str, Package], ours: set[str]) -> set[str]:
    """Which of ours the other packages that are there depend on, themselves or by others of ours."""
    there = {name for name, one in known.items() if one.is_there}
    staying = there - ours
    fresh = staying
    while fresh:
        has = {name for one in staying for name in known[one].provides}
        wanted_names = {
            name for one in fresh for group in known[one].needs if not has.intersection(group) for name in group
        }
        fresh = {name for name in there - staying if known[name].provides & wanted_names}
        staying = staying | fresh
    return staying & ours


def _remove(work: Work, change: Change, gone: list[str], known: dict[str, Package]) -> None:
    there = [name for name in gone if known[name].is_there]
    plan = apt.plan(work.host, [*apt.REMOVE, *there]) if there else apt.Plan("")
    if plan.new or plan.upgraded or not set(plan.removed) <= set(gone):
        more = apt.names({*plan.new, *plan.upgraded, *plan.removed} - set(gone))
        work.teller.warning(f"The packages stay, as apt would change others with them: {more}")
        return
    if there:
        apt.do(work, [*apt.REMOVE, *there], (0.0, 90.0))
    # Where only configuration files were left before, they are left again.
    purged = [name for name in gone if change["items"][name]["before"] == "absent"]
    purged = [
        name for name in purged if name in (now := apt.packages(work.host)) and now[name].status == "config-files"
    ]
    if purged:
        done = work.host.run(["dpkg", "--purge", *purged], limit=apt.LIMIT)
        if done.status:
            raise FailedError("packages-failed", f"dpkg --purge failed on the host: {done.words}", apt.HINT)


def remove_users(work: Work, change: Change) -> None:
    """Those whom our packages made; packages leave them behind."""
    for name in change["users"]:
        if entry := work.host.entries("passwd").get(name):
            work.host.end_processes({int(entry[2])})
            if work.tell(f"The user {name}, whom a package had made, is removed"):
                work.host.change_users(["userdel", name], fine=(6, 12))
    for name in change["groups"]:
        if name in work.host.entries("group") and work.tell(f"The group {name}, which a package had made, is removed"):
            work.host.change_users(["groupdel", name], fine=(6,))


def remove_leftover(path: str) -> None:
    """A file, or a folder with nothing in it that counts."""
    if not os.path.isdir(path) or os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    elif all(set(files_there) <= {EMPTY} for _, _, files_there in os.walk(path)):
        shutil.rmtree(path)
