"""The engine: makes this host an agent, or takes that back. It runs as root, and nothing of it stays.

It is given a document (``DOCUMENT``, and what ``RULES`` name) and says lines of JSON::

    {"event":"stage","name":…,"text":…}  {"event":"progress","name":…,"percent":…,"text":…}
    {"event":"change","stage":…,"words":…}: what is changed next, or would be in a dry run
    {"event":"warning","words":…}
    {"event":"done","changed":[words, …],"facts":{…}}
    {"event":"failed","code":…,"message":…,"hint":…}

Each stage looks before it changes anything, and what it changes stands in the record first: it can be broken off
anywhere, and run again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import sys

from ipmiproxyd.provision.host import (
    accounts,
    files,
    firewall,
    installing,
    javas,
    jobs,
    kernel,
    keys,
    privileges,
    removing,
    work,
)
from ipmiproxyd.provision.host.record import Record, alone
from ipmiproxyd.provision.host.system import UNTRIED, Host, System
from ipmiproxyd.provision.host.talk import FailedError, StoppedError, Teller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ipmiproxyd.provision.host.record import Change
    from ipmiproxyd.provision.host.work import Object, Work

NAME = r"[a-z_][a-z0-9_-]{0,31}"
PATH = r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.+-]{1,100})+"
KEYS = r"(?:(?:ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/=]+(?: [^\n\0]*)?\n*)+"
DOCUMENT: Object = {
    "dry_run": False,  # nothing at all is changed, and what would be is told
    "daemon_address": "",  # from where the daemon comes, for transport "direct"
    "displays": [],  # the numbers of displays
    "packages": None,  # their names; None: what this system calls what an agent needs
    "folder": "",  # of the account's, if it is not the usual one
    "force": False,  # unprovision: also while consoles are open
    "java_dir": "",  # where Javas are installed; "": nowhere
    "jobs_name": "main",  # of the runner's folders for this daemon
    "runner": {},  # its "path", "version" and "text"
}
RULES: dict[str, str] = {
    "verb": "provision|unprovision|update|look",
    "account": NAME,
    "public_key": KEYS,
    "python": PATH,
    "users": "auto|always|never",
    "prefix": r"[a-z_](?:[a-z0-9_-]{0,22}[a-z_-])?",
    "transport": "ssh|direct",
    "browser": r"[a-z0-9][a-z0-9+.-]*",
    "folder": r"(?:/[^\n\0]+)?",
    "java_dir": r"(?:(?:/+(?!\.{1,2}(?:/|\Z))[^/\n\0]+)+)?",
    "jobs_name": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}",
    "repository": r"(?:deb [^\n\0]+)?",
    "sudoers": r"[A-Za-z0-9_-]+",
}
"""What texts of the document have to look like: they get into files that root obeys."""


def checked(document: Object) -> Object:
    """The document, complete. Raises FailedError where it is not as it must be."""
    document = {**DOCUMENT, **document}
    for name, rule in RULES.items():
        value = document.get(name)
        if not isinstance(value, str) or not re.fullmatch(rule, value):
            raise FailedError("bad-request", f"The document's {name} is not as it must be")
    runner = document.get("runner")
    if not isinstance(runner, dict) or not re.fullmatch(PATH, str(runner.get("path"))):
        raise FailedError("bad-request", "The document's runner is not as it must be")
    if not isinstance(document["displays"], list) or not all(
        type(one) is int and 0 < one < 1000 for one in document["displays"]
    ):
        raise FailedError("bad-request", "The document's displays are not as they must be")
    packages = document["packages"]
    if packages is not None and not all(re.fullmatch(RULES["browser"], str(one)) for one in packages):
        raise FailedError("bad-request", "The document's packages are not as they must be")
    try:
        firewall.facts(document)
    except ValueError:
        raise FailedError("bad-request", "The document's daemon_address is no address") from None
    return document


# --- verbs -----------------------------------------------------------------------------------------------------------


def provision(it: Work, system: System) -> None:
    if system.id in UNTRIED:
        it.teller.warning(f"Agents are written for {system.name}, and nobody has tried them on it yet")
    as_root = it.document["users"] != "never"
    if as_root:
        privileges.check_places(it)
    stages: list[tuple[str, str, bool, Callable[[Work], None]]] = [
        ("packages", "The packages", True, lambda work: installing.install(work, system)),
        ("account", "The daemon's account", True, accounts.make_account),
        ("key", "The daemon's key", True, keys.put_key),
        ("java", "The folder for Javas", bool(it.document["java_dir"]), javas.put_folder),
        ("users", "The users of displays", as_root, accounts.make_displays),
        ("runner", "The runner", as_root, privileges.put_runner),
        ("sudo", "The rule for sudo", as_root, privileges.allow),
        ("firewall", "The firewall", True, firewall.put),
        ("kernel", "The kernel's settings", True, kernel.put),
    ]
    for name, text, wanted, stage in stages:
        if wanted:
            it.enter(name, text)
            stage(it)


def update(it: Work, _: System) -> None:
    if it.document["users"] != "never":
        privileges.check_places(it)
        it.enter("runner", "The runner")
        privileges.put_runner(it)
        it.enter("sudo", "The rule for sudo")
        privileges.allow(it)


UNDO: dict[str, Callable[[Work, Change], None]] = {
    "file": work.undo_file,
    "folder": work.undo_folder,
    "traces": work.undo_traces,
    "packages": removing.undo,
    "account": accounts.undo_account,
    "shell": accounts.undo_shell,
    "javas": javas.undo_folder,
    "displays": accounts.undo_displays,
    "table": firewall.undo_table,
    "units": firewall.undo_units,
    "sysctl": kernel.undo_setting,
}


def unprovision(it: Work, _: System) -> None:
    """In reverse, but for :func:`rank`. What others want, too, stays."""
    record = it.record
    installing.take_over_bootstrap(it)
    if (traces := record.find("traces", work.HOST)) and (others := record.others()):
        traces["tenants"] = sorted({*others, *traces["tenants"]})
    mine = [change for change in record.changes if it.account in change["tenants"]]
    nobodys = [change for change in mine if len(change["tenants"]) == 1]
    if not it.document["force"]:
        jobs.refuse_in_use(it)
        if any(change["kind"] == "displays" for change in nobodys):
            refuse_in_use(it)
    backwards = mine[::-1]
    for change in sorted(backwards, key=rank):
        if it.stage != change["stage"]:
            it.enter(change["stage"], f"Taking back: {change['stage']}")
        if change in nobodys:
            undo(it, change)
    jobs.remove(it)
    if not it.dry_run:
        leave(it)


def undo(it: Work, change: Change) -> None:
    try:
        UNDO[change["kind"]](it, change)
    except FailedError as error:
        # Somebody put something else in its place: that keeps nothing else from being taken back.
        if error.code != "forbidden":
            raise
        it.teller.warning(f"{change['key']} is left: {error.message}")
    if not it.dry_run:
        it.record.drop(change)


def rank(change: Change) -> int:
    """apt's further source goes first, and last of all Python, if the bootstrap installed it. Where this is broken off,
    the bootstrap can install it again, and the record has nothing else left to be taken back."""
    if (change["kind"], change["key"]) == ("packages", installing.PYTHON):
        return 2
    return 0 if (change["kind"], change["key"]) == ("file", installing.SOURCES) else 1


def refuse_in_use(it: Work) -> None:
    if it.host.processes_of(accounts.display_uids(it)):
        raise FailedError("in-use", "Consoles are open on the host", "Close them first, or say it with force=yes.")


def leave(it: Work) -> None:
    """What others want, too, is theirs alone from now on."""
    record = it.record
    for change in record.changes:
        if it.account in change["tenants"]:
            change["tenants"].remove(it.account)
    record.tenants.pop(it.account, None)
    record.save()
    if record.is_empty:
        record.clear()
    elif record.tenants:
        record.account = min(record.tenants)
        it.enter("firewall", "The firewall")
        firewall.apply(it, record.tenants)


def look(_: Work, __: System) -> None:
    """The facts say all."""


VERBS: dict[str, Callable[[Work, System], None]] = {
    "provision": provision,
    "unprovision": unprovision,
    "update": update,
    "look": look,
}


# --- from the start to the end ----------------------------------------------------------------------------------------


def facts(it: Work, system: System) -> Object:
    entry = it.host.entries("passwd").get(it.account)
    runner = files.look(it.host.root, it.document["runner"]["path"])
    return {
        "system": system.name,
        "id": system.id,
        "version": system.version,
        "python": platform.python_version(),
        "account": bool(entry),
        "home": entry[5] if entry else "",
        "runner": hashlib.sha256(files.content_of(runner)).hexdigest() if runner["type"] == "file" else "",
        "provisioned": any(it.account in change["tenants"] for change in it.record.changes),
        "tenants": sorted(it.record.tenants),
    }


def run(given: Object, teller: Teller, host: Host) -> None:
    document = checked(given)
    if os.geteuid():
        raise FailedError(
            "forbidden", "The engine has to be root on the host", "Name an account with sudo, or root: as=."
        )
    changes = document["verb"] != "look" and not document["dry_run"]
    with alone(host.root, make=changes):
        it = work.Work(host, Record(host.root, document["account"]), teller, document)
        it.enter("look", "Looking at the host")
        if changes:
            host.drop_stale_locks()
        system = System(host)
        VERBS[document["verb"]](it, system)
        teller.say(event="done", changed=it.changed, facts=facts(it, system))


FULL = "Free some there, and say the same line again."


def of_the_system(error: OSError) -> Object:
    """How a failed call of the system is told."""
    if error.errno in files.FULL:
        return {"code": "agent-full", "message": "No space is left on the host's disk", "hint": FULL}
    if error.errno == errno.EROFS:
        hint = "Look at its disk (dmesg, mount), and say the same line again."
        return {"code": "agent-full", "message": "The host's disk can only be read", "hint": hint}
    message = f"The engine failed on the host: {type(error).__name__}: {error}"
    return {"code": "internal", "message": message, "hint": ""}


def main(given: Object) -> Any:
    os.umask(0o022)
    os.chdir("/")
    teller = Teller()
    teller.keep_going()
    try:
        run(given, teller, Host())
        return None
    except StoppedError:
        sys.exit(1)
    except FailedError as error:
        teller.say(event="failed", code=error.code, message=error.message, hint=error.hint)
    except OSError as error:
        teller.say(event="failed", **of_the_system(error))
    except Exception as error:
        message = f"The engine failed on the host: {type(error).__name__}: {error}"
        teller.say(event="failed", code="internal", message=message, hint="")
    sys.exit(1)
