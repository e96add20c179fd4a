"""The engine: makes this host an agent, or takes that back. It runs as root, and nothing of it stays.

It is given a document and says lines of JSON::

    {"event":"stage","name":…,"text":…}  {"event":"progress","name":…,"percent":…,"text":…}
    {"event":"change","stage":…,"words":…}: what is changed next, or would be in a dry run
    {"event":"warning","words":…}
    {"event":"done","changed":[words, …],"facts":{…}}
    {"event":"failed","code":…,"message":…,"hint":…}

Each stage looks before it changes anything, and what it changes stands in the record first: it can be broken off
anywhere, and run again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys

from ipmiproxyd.provision.host import accounts, files, privileges, work
from ipmiproxyd.provision.host.record import Record, alone
from ipmiproxyd.provision.host.system import Host, System
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
RULES: dict[str, str] = {
    "verb": "provision|unprovision|update|look",
    "account": NAME,
    "public_key": KEYS,
    "python": PATH,
    "users": "auto|always|never",
    "prefix": r"[a-z_](?:[a-z0-9_-]{0,22}[a-z_-])?",
    "transport": "ssh|direct",
    "daemon_address": r"[0-9a-fA-F.:]*",
    "browser": r"[a-z0-9][a-z0-9+.-]*",
    "repository": r"(?:deb [^\n\0]+)?",
    "sudoers": r"[A-Za-z0-9_-]+",
}
"""What texts of the document have to look like: they get into files that root obeys."""


def checked(document: Object) -> Object:
    """The document, complete. Raises FailedError where it is not as it must be."""
    document = {"dry_run": False, "daemon_address": "", "packages": None, "force": False, **document}
    for name, rule in RULES.items():
        value = document.get(name)
        if not isinstance(value, str) or not re.fullmatch(rule, value):
            raise FailedError("bad-request", f"The document's {name} is not as it must be")
    runner = document.get("runner")
    if not isinstance(runner, dict) or not re.fullmatch(PATH, str(runner.get("path"))):
        raise FailedError("bad-request", "The document's runner is not as it must be")
    return document


# --- verbs ------------------------------------------------------------------------------------------------------------


def provision(it: Work) -> None:
    always: list[tuple[str, str, Callable[[Work], None]]] = [
        ("account", "The daemon's account", accounts.make_account),
        ("key", "The daemon's key", accounts.put_key),
    ]
    as_root: list[tuple[str, str, Callable[[Work], None]]] = [
        ("runner", "The runner", privileges.put_runner),
        ("sudo", "The rule for sudo", privileges.allow),
    ]
    for name, text, stage in always + (as_root if it.document["users"] != "never" else []):
        it.enter(name, text)
        stage(it)


def update(it: Work) -> None:
    it.enter("runner", "The runner")
    privileges.put_runner(it)
    it.enter("sudo", "The rule for sudo")
    privileges.allow(it)


UNDO: dict[str, Callable[[Work, Change], None]] = {
    "file": work.undo_file,
    "folder": work.undo_folder,
    "account": accounts.undo_account,
    "shell": accounts.undo_shell,
}


def unprovision(it: Work) -> None:
    """In reverse. What others want, too, stays."""
    record = it.record
    for change in record.changes[::-1]:
        if it.account not in change["tenants"]:
            continue
        if it.stage != change["stage"]:
            it.enter(change["stage"], f"Taking back: {change['stage']}")
        if len(change["tenants"]) > 1:
            if not it.dry_run:
                change["tenants"].remove(it.account)
                record.save()
            continue
        UNDO[change["kind"]](it, change)
        if not it.dry_run:
            record.drop(change)
    if not it.dry_run and it.account in record.tenants:
        del record.tenants[it.account]
        record.save()
    if not it.dry_run and record.is_empty:
        record.clear()


def look(_: Work) -> None:
    """The facts say all."""


VERBS: dict[str, Callable[[Work], None]] = {
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
        "provisioned": it.account in it.record.tenants,
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
        system = System(host)
        VERBS[document["verb"]](it)
        teller.say(event="done", changed=it.changed, facts=facts(it, system))


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
    except Exception as error:
        message = f"The engine failed on the host: {type(error).__name__}: {error}"
        teller.say(event="failed", code="internal", message=message, hint="")
    sys.exit(1)
