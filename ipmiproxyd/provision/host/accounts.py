"""The account by which the daemon comes, its key, and the Unix users of displays."""

from __future__ import annotations

import os
import re
import shutil

from ipmiproxyd.provision.host import files
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.work import Work

SHELL = "/bin/sh"
NO_SHELLS = ("nologin", "false")
RESTRICTED = "restrict,port-forwarding"
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
    if entry is None or (known and not _is_complete(work, name)):
        _add_account(work, f"/home/{name}")
    elif os.path.basename(entry[6]) in NO_SHELLS:
        if work.begin(f"The account {name} gets the shell {SHELL}", "shell", name, before=entry[6]):
            work.host.change_users(["usermod", "--shell", SHELL, name])
    else:
        work.want("account", name)
    if entry is not None and not known and work.record.changes:
        work.left_behind(name, [f"{entry[5]}/{TOOLS_FOLDER}"])


def _is_complete(work: Work, name: str) -> bool:
    """Whether useradd came to its end."""
    entry = work.host.entries("passwd").get(name)
    there = entry is not None and work.host.exists(entry[5]) and name in work.host.entries("shadow")
    return there and name in work.host.entries("group")


def _add_account(work: Work, home: str) -> None:
    name = work.account
    group = name in work.host.entries("group")
    there = work.host.exists(home)
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


# --- its key ----------------------------------------------------------------------------------------------------------


def put_key(work: Work) -> None:
    """Let the daemon's key in, for nothing but commands and forwarding."""
    entry = work.host.entries("passwd").get(work.account)
    if entry is None:  # in a dry run
        work.tell(f"The daemon's key for the account {work.account}")
        return
    uid, gid, folder = int(entry[2]), int(entry[3]), f"{entry[5]}/.ssh"
    path = f"{folder}/authorized_keys"
    wanted = [f"{RESTRICTED} {key}" for key in work.document["public_key"].splitlines() if key.strip()]
    now = files.look(work.host.root, path)
    text = files.content_of(now).decode("utf-8", "surrogateescape")
    new = tuple(line for line in wanted if line.split()[2] not in text.split())
    work.folder(folder, files.new_folder(0o700, uid, gid))
    if not new:
        work.want("file", path)
        return
    before = text if text.endswith("\n") or not text else f"{text}\n"
    content = (before + "".join(f"{line}\n" for line in new)).encode("utf-8", "surrogateescape")
    mode, uid, gid = (now["mode"], now["uid"], now["gid"]) if now["type"] == "file" else (0o600, uid, gid)
    words = f"The daemon's key for the account {work.account}"
    _is_looked_for(work)
    work.put(path, files.new_file(content, mode, uid, gid), words, lines=new)


def _is_looked_for(work: Work) -> None:
    """sshd may have been told to look for keys elsewhere."""
    if not (sshd := work.host.which("sshd")):
        return
    done = work.host.run([sshd, "-T", "-C", f"user={work.account},host=localhost,addr=127.0.0.1"])
    match = re.search(r"^authorizedkeysfile (.*)$", done.output, re.MULTILINE)
    if match and not {".ssh/authorized_keys", "%h/.ssh/authorized_keys"} & set(match[1].split()):
        work.teller.warning(
            f"sshd looks for keys in {match[1]}, and not in ~/.ssh/authorized_keys, where the key is put"
        )


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
