"""The runner, and the rule by which the account starts it as root."""

from __future__ import annotations

import errno
import os
import stat

from ipmiproxyd.provision.host import files
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipmiproxyd.provision.host.system import Host
    from ipmiproxyd.provision.host.work import Work

RULE = """# Made by ipmiproxyd: lets its account start the runner as root, and nothing else.
Defaults:{account} !use_pty, !requiretty, !mail_badpass
{account} ALL=(root) NOPASSWD: {python} -I -S {runner}
"""
FIRST = "ipmiproxyd"
"""The account whose rule has the plain name."""
STEPS = 200
"""Folders and links on the way to a file."""


def check_places(work: Work) -> None:
    """What the account starts as root has to be root's all the way. Raises FailedError. A runner that we put there is
    put right afterwards: of it the way to it counts alone."""
    for option, path in (("runner", work.document["runner"]["path"]), ("python", work.document["python"])):
        is_ours = option == "runner" and work.record.find("file", path)
        if place := others_can_change(work.host, os.path.dirname(path) if is_ours else path):
            raise FailedError(
                "forbidden",
                f"Others than root can change {place} on the host, and {path} shall be started as root",
                f"Say chown root:root {place}; chmod go-w {place} there, or name another path: {option}=.",
            )


def others_can_change(host: Host, path: str) -> str:
    """The first of all folders, links and files on the way that is not root's alone; empty if there is none. What is
    not there yet is going to be root's."""
    place, parts = "/", [*path.split("/")[::-1], "."]
    for _ in range(STEPS):
        if not parts:
            return ""
        place = os.path.normpath(os.path.join(place, parts.pop()))
        try:
            status = os.lstat(host.path(place))
        except OSError as error:
            return "" if error.errno == errno.ENOENT else place
        if status.st_uid not in (0, os.geteuid()):
            return place
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(host.path(place))
            parts += target.split("/")[::-1]
            place = "/" if target.startswith("/") else os.path.dirname(place)
        elif status.st_mode & 0o002 or (status.st_mode & 0o020 and not _is_nobodys(host, place, status.st_gid)):
            return place
    return path


def _is_nobodys(host: Host, path: str, gid: int) -> bool:
    """Whether nobody is in a group, as in ``staff``, whose the folders of /usr/local were; and it has no further
    rights for others, which look like the group's."""
    if "system.posix_acl_access" in os.listxattr(host.path(path)):
        return False
    users = [entry[0] for entry in host.entries("passwd").values() if entry[3] == str(gid)]
    groups = [entry for entry in host.entries("group").values() if entry[2] == str(gid)]
    users += [name for entry in groups for name in entry[3].split(",") if name]
    return len(groups) == 1 and set(users) <= {"root"}


def put_runner(work: Work) -> None:
    runner = work.document["runner"]
    path = runner["path"]
    known = work.record.find("file", path)
    others = [one for one in known["tenants"] if one != work.account] if known else []
    words, wanted = f"The runner, version {runner['version']}: {path}", files.new_file(runner["text"].encode(), 0o644)
    if (now := files.look(work.host.root, path))["type"] == "file" and files.digest(now) == files.digest(wanted):
        was = f"the owner was {now['uid']}:{now['gid']}, the mode {now['mode']:o}"
        words = f"The runner's owner and mode are put right ({was}): {path}"
    if work.put(path, wanted, words) and files.digest(now) != files.digest(wanted) and others:
        work.teller.warning(f"The runner is another one now for {', '.join(others)}, too: update those daemons")


def rule_path(work: Work) -> str:
    """Each account has a file of its own."""
    name = work.document["sudoers"]
    return f"/etc/sudoers.d/{name if work.account == FIRST else f'{name}-{work.account}'}"


def allow(work: Work) -> None:
    """A rule that visudo did not find good never counts: sudo would refuse everybody."""
    document = work.document
    text = RULE.format(account=work.account, python=document["python"], runner=document["runner"]["path"])
    path = rule_path(work)
    if not work.dry_run and not os.access(work.host.path(document["python"]), os.X_OK):
        raise FailedError(
            "tool-missing", f"{document['python']} is not there on the host", "Install it, or see python=."
        )
    wanted = files.new_file(text.encode(), 0o440)
    if not files.same(files.look(work.host.root, path), wanted) and not work.dry_run:
        check(work, text)
    if work.put(path, wanted, f"The account may start the runner as root: {path}"):
        _is_read(work)


def check(work: Work, text: str) -> None:
    done = work.host.run(["visudo", "-cf", "-"], text)
    if done.status:
        raise FailedError("internal", f"visudo does not take the rule for sudo: {done.words}")


def _is_read(work: Work) -> None:
    main = work.host.read("/etc/sudoers") or ""
    if main and not any(line.split()[:1] in (["@includedir"], ["#includedir"]) for line in main.splitlines()):
        work.teller.warning("/etc/sudoers does not include /etc/sudoers.d: the rule for the runner does not count")
