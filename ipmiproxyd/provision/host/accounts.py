"""The account by which the daemon comes, and the Unix users of displays."""

from __future__ import annotations

import os
import re
import shutil
import stat

from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.work import Work

SHELL = "/bin/sh"
NO_SHELLS = ("nologin", "false")
# As the runner makes and knows them.
DISPLAY_GECOS, DISPLAY_SHELL = "ipmiproxyd console display", "/usr/sbin/nologin"
RUNNERS_LOCK = "/run/ipmiproxyd-displays/users.lock"
USERS_LIMIT = 400
TOOLS_FOLDER = ".ipmiproxyd"


# --- the account ------------------------------------------------------------------------------------------------------


def make_account(work: Work) -> None:
    entry, name = work.host.entries("passwd").get(work.account), work.account
    known = work.record.find("account", name)
    if entry is not None and int(entry[2]) == 0:
        raise FailedError("forbidden", f"{name} is root on the host", "Name an ordinary account: user=ipmiproxyd.")
    if work.document["folder"]:
        work.left_behind(work.document["folder"])
    if entry is None or (known and not known.get("made") and not _is_complete(work, name)):
        _add_account(work, f"/home/{name}")
        return
    if known and not known.get("made") and not work.dry_run:
        known["made"] = True
        work.record.save()
    check_home(work, entry)
    if os.path.basename(entry[6]) in NO_SHELLS:
        if work.begin(f"The account {name} gets the shell {SHELL}", "shell", name, before=entry[6]):
            work.host.change_users(["usermod", "--shell", SHELL, name])
    else:
        work.want("account", name)
    if not known:
        work.left_behind(f"{entry[5]}/{TOOLS_FOLDER}")


def check_home(work: Work, entry: list[str]) -> None:
    """Without a home of its own no account is let in by a key."""
    name, uid, home = entry[0], int(entry[2]), entry[5]
    try:
        status = os.stat(work.host.path(home))
    except OSError:
        hint = f"Make it on the host (mkhomedir_helper {name}), or name another account: user=."
        raise FailedError("forbidden", f"The account {name} has no home: {home} is not there", hint) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (uid, 0, os.geteuid()):
        hint = f"Say chown {name} {home} on the host, if it is to be its own, or name another account: user=."
        raise FailedError("forbidden", f"The home of {name}, {home}, belongs to somebody else", hint)
    if status.st_mode & 0o022:
        work.teller.warning(f"Others may write to {home}: sshd lets nobody in by a key there (chmod go-w {home})")


def _is_complete(work: Work, name: str) -> bool:
    """Whether useradd came to its end, as far as can be seen."""
    entry = work.host.entries("passwd").get(name)
    there = entry is not None and work.host.exists(entry[5]) and name in work.host.entries("shadow")
    return there and name in work.host.entries("group")


def _add_account(work: Work, home: str) -> None:
    name = work.account
    group = name in work.host.entries("group")
    there, known = work.host.exists(home), work.record.find("account", name)
    if there and (not known or known.get("made")):
        hint = f"Move it away; or make the account yourself, and say chown {name} {home}."
        raise FailedError("forbidden", f"{home} is there on the host, but no account {name}", hint)
    change = work.begin(
        f"The account {name} with the folder {home}", "account", name, home=home, home_was=there, group_was=group
    )
    if change is None:
        return
    if not change["group_was"]:
        work.host.change_users(["userdel", name], fine=(6, 12))  # of a run that was killed
        work.host.change_users(["groupdel", name], fine=(6,))
    own = ["--gid", name] if change["group_was"] else ["--user-group"]
    argv = ["useradd", "--system", *own, "--create-home", "--home-dir", home, "--shell", SHELL]
    # No password opens it, which is not the same as a locked account: some configurations of sshd keep that out.
    argv += ["--key", "HOME_MODE=0700", "--password", "*", "--comment", "ipmiproxyd", name]
    work.host.change_users(argv)
    if there:  # of a run that was killed; useradd leaves it alone
        own = work.host.entries("passwd")[name]
        os.chown(work.host.path(home), int(own[2]), int(own[3]), follow_symlinks=False)
    change["made"] = True
    work.record.save()


def undo_account(work: Work, change: Change) -> None:
    """With its processes and its folder."""
    name, entry = change["key"], work.host.entries("passwd").get(change["key"])
    groups = work.host.entries("group")
    if entry is None and (change["group_was"] or name not in groups) and not _is_left(work, change):
        return
    if not work.tell(f"The account {name} is removed"):
        return
    if entry is not None:
        if not work.host.end_processes({int(entry[2])}):
            raise FailedError("in-use", f"Processes of {name} on the host do not end")
        work.host.change_users(["userdel", "--force", name], fine=(6, 12))
    left = work.host.entries("group")
    if change["group_was"] and name not in left and name in groups:
        work.host.change_users(["groupadd", "--gid", groups[name][2], name])
    elif not change["group_was"] and name in left:
        work.host.change_users(["groupdel", name], fine=(6,))
    if _is_left(work, change):
        shutil.rmtree(work.host.path(change["home"]))


def _is_left(work: Work, change: Change) -> bool:
    return not change["home_was"] and work.host.exists(change["home"])


def undo_shell(work: Work, change: Change) -> None:
    name = change["key"]
    entry = work.host.entries("passwd").get(name)
    if entry and entry[6] == SHELL and work.tell(f"The account {name} has its shell {change['before']} again"):
        work.host.change_users(["usermod", "--shell", change["before"], name])


# --- the users of displays --------------------------------------------------------------------------------------------


def display_uids(work: Work) -> set[int]:
    """Of all users that are marked as ours, whoever made them."""
    return {int(entry[2]) for entry in work.host.entries("passwd").values() if _is_marked(entry)} - {0}


def _is_marked(entry: list[str]) -> bool:
    return (entry[4].rstrip(","), entry[6]) == (DISPLAY_GECOS, DISPLAY_SHELL)


def make_displays(work: Work) -> None:
    """One for each display, as the runner would make it once it needs it."""
    prefix, users = work.document["prefix"], work.host.entries("passwd")
    names = [f"{prefix}{number}" for number in work.document["displays"]]
    foreign = [name for name in names if name in users and not _is_marked(users[name])]
    if foreign:
        listed = ", ".join(foreign[:10])
        work.teller.warning(
            f"Not made by ipmiproxyd, and left as they are: the users {listed}. Their displays stay unused"
        )
    marked = {name for name, entry in users.items() if _is_marked(entry)}
    complete = marked & set(work.host.entries("shadow"))
    groups = {entry[2] for entry in work.host.entries("group").values()}
    missing = [name for name in names if name not in foreign and not (name in complete and users[name][3] in groups)]
    if len(marked.union(missing)) > USERS_LIMIT:
        work.teller.warning(f"There may be {USERS_LIMIT} users of displays, and no more")
        missing = missing[: max(USERS_LIMIT - len(marked), 0)]
    if not missing:
        work.want("displays", prefix)
        return
    before = sorted(name for name in marked if name.startswith(prefix))
    words = f"{len(missing)} Unix users for displays: {missing[0]} to {missing[-1]}"
    if len(missing) == 1:
        words = f"A Unix user for a display: {missing[0]}"
    if work.begin(words, "displays", prefix, before=before) is None:
        return
    for done, name in enumerate(missing):
        work.teller.go_on()
        work.teller.progress(work.stage, 100 * done / len(missing), f"The user {name}")
        with work.host.locked(RUNNERS_LOCK):
            _make_display(work, name)


def _make_display(work: Work, name: str) -> None:
    if name in work.host.entries("shadow"):
        return  # the runner was quicker
    if name in work.host.entries("passwd") or name in work.host.entries("group"):  # of a run that was killed
        work.host.change_users(["userdel", name], fine=(6, 12))
        work.host.change_users(["groupdel", name], fine=(6,))
    argv = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    argv += ["--shell", DISPLAY_SHELL, "--comment", DISPLAY_GECOS, name]
    work.host.change_users(argv)


def undo_displays(work: Work, change: Change) -> None:
    """Of all that carry the prefix and our mark, whoever made them since."""
    users = work.host.entries("passwd")
    pattern = re.compile(re.escape(change["key"]) + "[0-9]+")
    ours = {name: int(entry[2]) for name, entry in users.items() if _is_marked(entry) and pattern.fullmatch(name)}
    gone = sorted(set(ours) - set(change["before"]))
    if not gone or not work.tell(f"{len(gone)} Unix users of displays are removed"):
        return
    if not work.host.end_processes({ours[name] for name in gone}):
        raise FailedError("in-use", "Processes of displays on the host do not end")
    for done, name in enumerate(gone):
        work.teller.go_on()
        work.teller.progress(work.stage, 100 * done / len(gone), f"The user {name}")
        work.host.change_users(["userdel", name], fine=(6, 12))
        if name in work.host.entries("group"):
            work.host.change_users(["groupdel", name], fine=(6,))
