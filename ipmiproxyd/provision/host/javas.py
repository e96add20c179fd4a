"""The folder into which ``java install`` unpacks Javas: the account's, so that it needs no further rights for that."""

from __future__ import annotations

import os

from ipmiproxyd.provision.host import apt, files
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.work import Work

MODE = 0o755
"""The users of displays run what is in it, and the account alone changes it."""


def put_folder(work: Work) -> None:
    """It has one owner. One that was there before, or is another daemon's, is left as it is."""
    path = "/" + work.document["java_dir"].strip("/")
    entry = work.host.entries("passwd").get(work.account)
    uid, gid = (int(entry[2]), int(entry[3])) if entry else (-1, -1)  # in a dry run
    known, now = work.record.find("javas", path), files.look(work.host.root, path)
    if known and work.account not in known["tenants"]:
        _not_ours(work, path, known["tenants"][0])
    elif now["type"] not in ("missing", "folder") or (now["type"] == "folder" and not known):
        _look_at(work, path, uid)
    else:
        work.make_way(os.path.dirname(path))
        wanted = files.new_folder(MODE, uid, gid)
        if not files.same(now, wanted) and (
            change := work.begin(f"The folder for Javas: {path}", "javas", path, owners=[])
        ):
            change["owners"] = sorted({*change["owners"], uid})
            work.record.save()
            files.put(work.host.root, path, wanted)


def _look_at(work: Work, path: str, uid: int) -> None:
    """Where it was there before, somebody may have made it for the account."""
    try:
        status = os.stat(work.host.path(path))
    except OSError:
        _not_ours(work, path, "nobody")
        return
    if status.st_uid != uid:
        names = {int(entry[2]): name for name, entry in work.host.entries("passwd").items()}
        _not_ours(work, path, names.get(status.st_uid, f"the user {status.st_uid}"))
    elif status.st_mode & MODE != MODE:
        work.teller.warning(f"{path} on the host is closed to the users of displays: say chmod {MODE:o} {path} there")


def _not_ours(work: Work, path: str, owner: str) -> None:
    hint = "let [java] dir of the daemon be another folder"
    if owner == "root" and os.path.isdir(work.host.path(path)) and not os.listdir(work.host.path(path)):
        hint = f"say chown {work.account} {path} there, or {hint}"
    words = f"{path} on the host belongs to {owner}, and is left: java install cannot unpack into it"
    work.teller.warning(f"{words}. To have it do so, {hint}")


def undo_folder(work: Work, change: Change) -> None:
    """With what the account has put there. What others have stays, and the folder is root's then."""
    path, root = change["key"], work.host.root
    if files.look(root, path)["type"] != "folder":
        return
    passwd = work.host.entries("passwd")  # an account's number of former times may be somebody else's
    entries = _entries(work, path)
    numbers = {*change["owners"]} - {int(entry[2]) for name, entry in passwd.items() if name != work.account}
    ours = [name for name in sorted(entries) if entries[name] in numbers]
    others = entries.keys() - set(ours)
    if javas := apt.names(name for name in ours if not name.startswith(".")):
        words = f"Of {path} is removed: {javas}" if others else f"{path} is removed, with {javas}"
    else:
        words = f"{path} belongs to root" if others else f"{path} is removed"
    if work.tell(words):
        _remove(work, path, numbers)
    if others:
        work.teller.warning(f"{path} has files that are not ours, and is left: {apt.names(others)}")


def _entries(work: Work, path: str) -> dict[str, int]:
    """What is in a folder, and whose it is."""
    with os.scandir(work.host.path(path)) as found:
        return {entry.name: entry.stat(follow_symlinks=False).st_uid for entry in found}


def _remove(work: Work, path: str, numbers: set[int]) -> None:
    root = work.host.root
    files.put(root, path, files.new_folder(MODE))  # nothing more comes in
    # An account that goes, too, may be unpacking one just now.
    entry = work.host.entries("passwd").get(work.account)
    if work.record.find("account", work.account) and entry and not work.host.end_processes({int(entry[2])}):
        raise FailedError("in-use", f"Processes of {work.account} on the host do not end")
    for name, uid in _entries(work, path).items():
        if uid in numbers:
            files.remove(root, f"{path}/{name}")
    if not _entries(work, path):
        files.put(root, path, files.MISSING)
