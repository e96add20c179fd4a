"""Packages are taken back: those that were not there before, unless somebody needs them now."""

from __future__ import annotations

import glob
import os

from ipmiproxyd.provision.host import apt, installing, made
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipmiproxyd.provision.host.apt import Package
    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.work import Work

SUDO_GROUPS = ("sudo", "admin")
"""Whose members may do all, as sudo comes."""


def undo(work: Work, change: Change) -> None:
    """With the users and files that they made."""
    if not work.dry_run:
        apt.forget_trial(work.host)
    installing.go_on(work, change)
    known = installing.complete(work, change["items"])
    if not work.dry_run:
        made.note(work, change)
    items = change["items"].items()
    ours = {name for name, item in items if name in known and known[name].status not in made.DONE[item["before"]]}
    used = _in_use(work, ours)
    for name, why in used.items():
        work.teller.warning(f"The package {name} stays: {why}")
    chosen = _chosen(work, change) | used.keys()
    gone = sorted(ours - chosen - needed(known, ours - chosen))
    made.note_programs(work, change, gone)
    if gone and work.tell(f"Packages are removed: {apt.names(gone)}"):
        _remove(work, change, gone, known)
    if left := {name for name in ours - used.keys() if name not in gone and known[name].is_there}:
        work.teller.warning(f"These packages are needed by others now, and stay: {apt.names(left)}")
    if not work.dry_run:
        known = apt.packages(work.host)
        made.remove(work, change, known)
        if not any(known[name].is_there for name in ours if name in known):
            made.remove_leftovers(work, change)
    if change["upgraded"]:
        work.teller.warning(f"These packages stay as new as they are: {apt.names(change['upgraded'])}")


def _chosen(work: Work, change: Change) -> set[str]:
    """What came as a need of something else, and which somebody has asked for since."""
    manual = set(work.host.must(["apt-mark", "showmanual"]).split())
    return {name for name, item in change["items"].items() if not item["named"] and name in manual}


def _in_use(work: Work, ours: set[str]) -> dict[str, str]:
    """What of ours somebody uses, and why we think so."""
    changed = apt.changed_configuration(work.host, ours & {"sudo", "nftables"})
    found = {name: f"somebody has changed {apt.names(paths)}" for name, paths in changed.items()}
    if "sudo" in ours and (why := _sudo_is_for(work)):
        found["sudo"] = why
    if "nftables" in ours and glob.glob(glob.escape(work.host.path("/etc/systemd/system")) + "/*/nftables.service"):
        found["nftables"] = "its service is enabled"
    return found


def _sudo_is_for(work: Work) -> str:
    """Whom else sudo lets in, as it comes."""
    users, groups = work.host.entries("passwd"), work.host.entries("group")
    for group in filter(groups.__contains__, SUDO_GROUPS):
        members = {*filter(None, groups[group][3].split(","))}
        if members := members | {name for name, entry in users.items() if entry[3] == groups[group][2]}:
            return f"the group {group} has members: {apt.names(members)}"
    folder = work.host.path("/etc/sudoers.d")
    rules = os.listdir(folder) if os.path.isdir(folder) else []
    ours = {os.path.basename(one["key"]) for one in work.record.changes if one["kind"] == "file"}
    # Those with a dot, and those that end in ~, do not count.
    if foreign := [name for name in rules if name not in {"README", *ours} and "." not in name and name[-1] != "~"]:
        return f"it has rules of others: {apt.names(foreign)}"
    return ""


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

    def done(now: dict[str, Package]) -> bool:
        return not any(now[name].is_there for name in there if name in now)

    if there:
        known = apt.do_ours(work, [*apt.REMOVE, *there], done, (0.0, 90.0))
    _purge(work, [name for name in gone if change["items"][name]["before"] == "absent"], known)


def _purge(work: Work, names: list[str], known: dict[str, Package]) -> None:
    """Their configuration, too, unless somebody has changed it. What was left before is left again."""
    names = [name for name in names if name in known and known[name].status == "config-files"]
    changed = apt.changed_configuration(work.host, names)
    for name, paths in changed.items():
        work.teller.warning(f"The configuration of {name} was changed by somebody, and is left: {apt.names(paths)}")
    purged = [name for name in names if name not in changed]
    if purged:
        done = work.host.run(["dpkg", "--purge", *purged], limit=apt.LIMIT)
        now = apt.packages(work.host)
        if done.status and any(now[name].status == "config-files" for name in purged if name in now):
            raise FailedError("packages-failed", f"dpkg --purge failed on the host: {done.words}", apt.HINT)
