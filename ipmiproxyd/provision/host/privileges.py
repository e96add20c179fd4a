"""The runner, and the rule by which the account starts it as root."""

from __future__ import annotations

import os

from ipmiproxyd.provision.host import files
from ipmiproxyd.provision.host.talk import FailedError
from ipmiproxyd.provision.host.work import folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipmiproxyd.provision.host.work import Work

RULE = """# Made by ipmiproxyd: lets its account start the runner as root, and nothing else.
Defaults:{account} !use_pty, !requiretty, !mail_badpass
{account} ALL=(root) NOPASSWD: {python} -I -S {runner}
"""
FIRST = "ipmiproxyd"
"""The account whose rule has the plain name."""


def put_runner(work: Work) -> None:
    runner = work.document["runner"]
    path = runner["path"]
    folder = os.path.dirname(path)
    for place in folders(folder):
        if (state := files.look(work.host.root, place))["type"] == "folder" and state["mode"] & 0o002:
            raise FailedError(
                "forbidden", f"Everybody may write to {place}, where the runner shall be", "Take that right away."
            )
    known = work.record.find("file", path)
    others = [one for one in known["tenants"] if one != work.account] if known else []
    words = f"The runner, version {runner['version']}: {path}"
    if work.put(path, files.new_file(runner["text"].encode(), 0o644), words) and others:
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
