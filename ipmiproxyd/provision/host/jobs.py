"""What the runner keeps of one daemon's consoles, where several daemons may have theirs."""

from __future__ import annotations

import json
import os
import time

from ipmiproxyd.provision.host import files
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipmiproxyd.provision.host.system import Host
    from ipmiproxyd.provision.host.work import Work

# As the runner has them.
JOBS, CACHE = "/run/ipmiproxyd-jobs", "/var/cache/ipmiproxyd"
HALF_MADE = 0o700
PATIENCE = 5.0  # seconds for keepers that have something to do yet


def own(work: Work) -> list[str]:
    """The folders of the document's ``jobs_name``, if they are the account's, or nobody's any more."""
    name = work.document["jobs_name"]
    folders = [f"{JOBS}/{name}", f"{CACHE}/{name}"]
    owners = set()
    for path in (f"{JOBS}/{name}/alive", f"{CACHE}/{name}"):
        if work.host.exists(path):
            status = os.lstat(work.host.path(path))
            owners |= {status.st_uid} if status.st_mode & 0o777 != HALF_MADE else set()
    users = {user: int(entry[2]) for user, entry in work.host.entries("passwd").items()}
    foreign = owners & set(users.values()) - {users.get(work.account)}
    return [path for path in folders if work.host.exists(path)] if owners and not foreign else []


def refuse_in_use(work: Work) -> None:
    if any(is_at_work(work.host, path) for path in own(work)):
        raise FailedError("in-use", "Consoles are open on the host", "Close them first, or say it with force=yes.")


def is_at_work(host: Host, folder: str) -> bool:
    """Whether a job in it has its keeper."""
    try:
        names = os.listdir(host.path(folder))
    except OSError:
        return False
    return any(_lives(host, host.read(f"{folder}/{name}/state.json") or "{}") for name in names)


def _lives(host: Host, state: str) -> bool:
    try:
        boot, pid, begun = json.loads(state)["keeper"].split(":")
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    fields = (host.read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    this_boot = (host.read("/proc/sys/kernel/random/boot_id") or "").strip()
    return len(fields) > 19 and fields[0] not in "ZX" and (boot, begun) == (this_boot, fields[19])


def remove(work: Work) -> None:
    """Quietly: nobody asked for them."""
    if work.dry_run:
        return
    limit = time.monotonic() + PATIENCE
    for path in own(work):
        while (at_work := is_at_work(work.host, path)) and time.monotonic() < limit:
            time.sleep(0.05)
        if at_work:
            work.teller.warning(f"Consoles in {path} are at work yet, and it is left")
        else:
            files.remove(work.host.root, path)
