"""The packages that an agent needs."""

from __future__ import annotations

import copy
import os

from ipmiproxyd.provision.host import apt, files, made, record, whole
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
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
PYTHON = "python"
"""Of a change of its own: what the bootstrap put here, which goes last of all."""
BOOTSTRAP_LIMIT = 1800.0  # seconds that a run of it may take


def wanted(work: Work, system: System) -> list[str]:
    """The document's own list, or what this system calls what an agent needs."""
    given, browser = work.document["packages"], work.document["browser"]
    if given is not None:
        return list(given)
    if browser not in (CHROMIUM, "none"):
        work.teller.warning(f"The browser {browser} is untested")
    return usual(system, browser)


def usual(system: System, browser: str) -> list[str]:
    """What this system calls what an agent needs."""
    if browser == CHROMIUM and system.id == "ubuntu":
        raise FailedError(
            "system-unsupported",
            f"The chromium of {system.name} is a snap, which does not run in a console's sandbox",
            "Say browser=none, or name another one that apt can have there (browser=google-chrome-stable, untested).",
        )
    return [*COMMON, system.java, *([] if browser == "none" else [browser])]


def install(work: Work, system: System) -> None:
    """Whatever is missing of them, by apt; and again, what is there and not whole."""
    add_repository(work)
    take_over_bootstrap(work)
    change, names = work.record.find("packages", KEY), wanted(work, system)
    go_on(work, change)
    ours = {*whole.with_parts(names), *((change["items"].keys() | {*change["upgraded"]}) if change else ())}
    known = complete(work, ours)
    missing = _lacking(known, names)
    if missing or apt.is_interrupted(work.host, known, ours):
        (_would if work.dry_run else _install)(work, missing, known, ours)
    else:
        if foreign := apt.odd(known):
            work.teller.warning(f"These packages, which are not ours, are not wholly installed: {apt.names(foreign)}")
        work.want("packages", KEY)
        if change and not work.dry_run:
            made.note(work, change)
    whole.put_right(work, names, ours)


def go_on(work: Work, change: Change | None) -> None:
    """Where a run was broken off: once its apt, which may be at work still, has ended."""
    if change and change["window"] and not work.dry_run:
        apt.settle(work)
        made.note_until_broken_off(work, change)


def complete(work: Work, ours: Collection[str]) -> dict[str, Package]:
    """What is installed, once dpkg is done with what it had begun."""
    known = apt.packages(work.host)
    if apt.is_interrupted(work.host, known, ours) and work.tell("dpkg, which was broken off, completes its work"):
        # What it cannot configure for want of others' packages, apt sees to.
        work.host.run(["dpkg", "--configure", "-a", *apt.KEEP_OLD], limit=apt.LIMIT)
        known = apt.packages(work.host)
    return known


def add_repository(work: Work) -> None:
    """It is tried first: a source that apt cannot read breaks apt for everybody."""
    line = work.document["repository"]
    if not line:
        return
    wanted_file = files.new_file(f"{line}\n".encode(), 0o644)
    if not files.same(files.look(work.host.root, SOURCES), wanted_file):
        apt.try_source(work, line)
    work.put(SOURCES, wanted_file, f"apt's source {SOURCES}")


def take_over_bootstrap(work: Work) -> None:
    """Python was put here for us, and what was there before is written down: ``ii  name`` for each."""
    text = work.host.read(record.BOOTSTRAP)
    if text is None or work.dry_run:
        return
    before = {line.split()[-1]: line[1:2] for line in text.splitlines()}
    known = apt.packages(work.host)
    new = {
        name
        for name in closure(known, "python3")
        if before.get(name.split(":")[0], "n") in ("c", "n", "") and _is_of_bootstrap(work, name)
    }
    if new:
        change = _begin(work, PYTHON)
        if work.document["verb"] == "provision":
            work.tell(f"Python, which was installed first: {apt.names(new)}")
        for name in sorted(new):
            was = "config-files" if before.get(name.split(":")[0]) == "c" else "absent"
            change["items"].setdefault(name, {"before": was, "named": name == "python3"})
        work.record.save()
    for end in ("", ".new", ".lock", ".runs"):
        files.put(work.host.root, record.BOOTSTRAP + end, files.MISSING)


def closure(known: dict[str, Package], name: str) -> set[str]:
    """A package that is there, and all that it may need of those that are."""
    found: set[str] = set()
    names = {name}
    while fresh := {one for one in known if known[one].is_there and known[one].provides & names} - found:
        found |= fresh
        names = {need for one in fresh for group in known[one].needs for need in group}
    return found


def _is_of_bootstrap(work: Work, name: str) -> bool:
    """Whether a package was laid down by one of its runs, whose times it wrote down, and not by somebody later."""
    try:
        at = os.stat(work.host.path(apt.info_path(work.host, name, "list"))).st_mtime
    except OSError:
        return False
    runs = map(int, filter(str.isdigit, (work.host.read(f"{record.BOOTSTRAP}.runs") or "").split()))
    return any(run - 1 <= at <= run + BOOTSTRAP_LIMIT for run in runs)


def _would(work: Work, missing: list[str], *_: object) -> None:
    if not missing:
        return
    words = f"Packages: {apt.names(missing)}"
    try:
        plan = apt.plan(work.host, [*apt.INSTALL, *missing])
    except FailedError:  # nothing is asked of the network in a dry run
        work.tell(f"{words} (and what they need, which apt does not know yet)")
    else:
        _check(missing, plan)
        work.tell(f"{words}: {len(plan.new)} with what they need")


def _check(missing: list[str], plan: apt.Plan, known: Collection[str] = ()) -> None:
    """apt takes a name that it does not know for a pattern, or for one to be removed (``name-``)."""
    if unknown := [name for name in missing if name not in (*plan.new, *plan.upgraded, *known)]:
        message = f"apt on the host has no package of this name: {apt.names(unknown)}"
        raise FailedError("bad-request", message, "See browser=, and apt's sources on the host (apt-cache policy).")


def _begin(work: Work, key: str) -> Change:
    work.prepare()
    facts: dict[str, Any] = {"items": {}, "upgraded": [], **made.NOTHING}
    return work.record.begin(work.stage, "packages", key, **copy.deepcopy(facts))


def _install(work: Work, missing: list[str], known: dict[str, Package], ours: set[str]) -> None:
    work.teller.progress(work.stage, 0.0, "Asking what there is")
    apt.update(work)
    if apt.is_interrupted(work.host, known, ours):
        plan = apt.plan(work.host, apt.REPAIR)
        if others := {*plan.removed} - ours:
            message = f"apt-get would remove others' packages to complete what was broken off: {apt.names(others)}"
            raise FailedError("packages-failed", message, "See what apt-get --fix-broken install says on the host.")
        known = _do(work, apt.REPAIR, plan, [], known, ours, (5.0, 20.0))
        missing = _lacking(known, missing)
    if missing:
        plan = apt.plan(work.host, [*apt.INSTALL, *missing])
        _check(missing, plan, {name for name, one in known.items() if one.is_there})
        work.tell(f"Packages: {apt.names(missing)}: {len(plan.new)} with what they need")
        known = _do(work, [*apt.INSTALL, *missing], plan, missing, known, ours, (20.0, 100.0))
    if left := _lacking(known, missing):
        raise FailedError("packages-failed", f"These packages are not installed: {apt.names(left)}", apt.HINT)


def _do(
    work: Work,
    argv: Sequence[str],
    plan: apt.Plan,
    missing: list[str],
    known: dict[str, Package],
    ours: set[str],
    span: tuple[float, float],
) -> dict[str, Package]:
    """What there is once apt has done it; it is on record before."""
    change = _begin(work, KEY)
    for name in plan.new:
        before = "config-files" if name in known and known[name].status == "config-files" else "absent"
        change["items"].setdefault(name, {"before": before, "named": name in missing})
    # Those of ours that were broken off look like upgrades.
    change["upgraded"] = sorted({*change["upgraded"], *plan.upgraded} - change["items"].keys())
    change["window"] = change["window"] or made.window(work.host)
    work.record.save()
    work.teller.go_on()
    ours = ours | change["items"].keys()

    def done(now: dict[str, Package]) -> bool:
        return not _lacking(now, missing) and apt.odd(now).isdisjoint(ours)

    now = apt.do_ours(work, argv, done, span)
    made.note(work, change)
    return now


def _lacking(known: dict[str, Package], names: list[str]) -> list[str]:
    return [name for name in names if name not in known or known[name].status != "installed"]
