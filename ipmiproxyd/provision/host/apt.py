"""apt-get and dpkg: what is installed, what would be, and how far they are.

All is as this site has set it (mirrors, proxies, keys). The few options that are ours wait for somebody else's lock,
keep changed configuration files, and ask nobody.
"""

from __future__ import annotations

import os
import re
import subprocess
import time

from ipmiproxyd.provision.host.system import Done
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ipmiproxyd.provision.host.system import Host
    from ipmiproxyd.provision.host.work import Work

LIMIT = 3000.0  # seconds
LOCK_LIMIT = 300.0  # seconds for somebody else's apt
PAUSE = 0.2
KEEP_OLD = ("--force-confdef", "--force-confold")
OPTIONS = (
    *("-q", "-y", "-o", f"DPkg::Lock::Timeout={LOCK_LIMIT:.0f}", "-o", "APT::Keep-Downloaded-Packages=false"),
    *(word for option in KEEP_OLD for word in ("-o", f"Dpkg::Options::={option}")),
)
INSTALL = ("install", "--no-install-recommends", "--no-remove", "--fix-broken", "--")
# Where something was broken off, apt does nothing else before that.
REPAIR = ("install", "--no-install-recommends", "--fix-broken")
# systemd's packages, too, are "essential", if they come first.
REMOVE = ("remove", "--allow-remove-essential", "--")
# Not even apt's own caches are written.
LOOK_ONLY = ("-s", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "Debug::NoLocking=1")
FIELDS = ("Package", "Architecture", "db:Status-Status", "Pre-Depends", "Depends", "Provides")
GONE = ("not-installed", "config-files")


class Package:
    """One that dpkg knows. ``status`` is dpkg's word: installed, config-files, half-configured, …"""

    def __init__(self, status: str, needs: list[list[str]], provides: set[str]) -> None:
        self.status, self.needs, self.provides = status, needs, provides
        self.is_there = status not in GONE


def packages(host: Host) -> dict[str, Package]:
    """By their names; those of another architecture as ``name:architecture``."""
    native = host.must(["dpkg", "--print-architecture"]).strip()
    found = {}
    for line in host.must(["dpkg-query", "-W", "-f", "\t".join(f"${{{name}}}" for name in FIELDS) + "\n"]).splitlines():
        name, architecture, status, first, then, provides = line.split("\t")
        key = name if architecture in (native, "all", "") else f"{name}:{architecture}"
        needs = _alternatives(first) + _alternatives(then)
        found[key] = Package(status, needs, {name, *(one for group in _alternatives(provides) for one in group)})
    return found


def _alternatives(field: str) -> list[list[str]]:
    """The names of ``a (>= 1) | b:any, c``."""
    return [
        [re.split(r"[\s(:]", one.strip())[0] for one in group.split("|")] for group in field.split(",") if group.strip()
    ]


def is_interrupted(host: Host, known: dict[str, Package]) -> bool:
    """Whether dpkg was broken off here."""
    updates = host.path("/var/lib/dpkg/updates")
    odd = any(one.is_there and one.status != "installed" for one in known.values())
    return odd or (os.path.isdir(updates) and bool(os.listdir(updates)))


class Plan:
    """What apt would do: names of packages."""

    def __init__(self, output: str) -> None:
        lines = re.findall(r"^(Inst|Remv|Purg) (\S+)( \[)?", output, re.MULTILINE)
        self.new = [name for what, name, old in lines if what == "Inst" and not old]
        self.upgraded = [name for what, name, old in lines if what == "Inst" and old]
        self.removed = [name for what, name, _ in lines if what != "Inst"]


def plan(host: Host, argv: Sequence[str]) -> Plan:
    """Raises FailedError where apt sees no way."""
    done = host.run(["apt-get", *OPTIONS, *LOOK_ONLY, *argv])
    if done.status:
        raise FailedError(
            "packages-failed", f"apt-get sees no way to do it: {_complaints(done.output, done.words)}", HINT
        )
    return Plan(done.output)


HINT = "See what apt-get says on the host: its sources (apt-get update), its proxy, its disk."


def _complaints(output: str, otherwise: str = "") -> str:
    lines = [line.strip() for line in output.splitlines()]
    said = [line for line in lines if re.match(r"(E|Err):|dpkg: error|Err:\d+ ", line)]
    return " ".join(said[:3])[:400] or otherwise or " ".join(lines[-1:])[:300]


def update(work: Work) -> None:
    """Learn what there is. Where that fails, what was known before has to do."""
    limit = time.monotonic() + LOCK_LIMIT
    while (done := follow(work, ["apt-get", *OPTIONS, "update"], (0.0, 5.0))).status:
        if "lock" not in done.words or time.monotonic() > limit:
            work.teller.warning(f"apt-get update failed on the host: {done.words}")
            return
        time.sleep(1)


def do(work: Work, argv: Sequence[str], span: tuple[float, float] = (5.0, 100.0)) -> None:
    """Let apt change something. Raises FailedError."""
    done = follow(work, ["apt-get", *OPTIONS, *argv], span)
    if done.status:
        raise FailedError("packages-failed", f"apt-get failed on the host: {done.words}", HINT)


def follow(work: Work, argv: Sequence[str], span: tuple[float, float]) -> Done:
    """Run apt-get to its end, and tell how far it is. It writes to files, not to us: if we are killed it goes on."""
    status, output = os.memfd_create("status"), os.memfd_create("output")
    try:
        process = subprocess.Popen(
            [*argv[:1], "-o", f"APT::Status-Fd={status}", *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[status],
            env=work.host.environment(),
            cwd="/",
            start_new_session=True,
        )
        meter, limit = Meter(span), time.monotonic() + LIMIT
        while process.poll() is None:
            if time.monotonic() > limit:
                message = f"{argv[0]} does not get done on the host; it still runs there as process {process.pid}"
                raise FailedError("timeout", message, "See what it waits for.")
            meter.tell(work, status)
            time.sleep(PAUSE)
        text = _read_all(output)
        return Done(process.returncode, text, _complaints(text) if process.returncode else "")
    finally:
        os.close(status)
        os.close(output)


def _read_all(fd: int) -> str:
    parts, at = [], 0
    while data := os.pread(fd, 1 << 20, at):
        parts.append(data)
        at += len(data)
    return b"".join(parts).decode("utf-8", "replace")


class Meter:
    """Reads what apt tells of its progress: ``dlstatus:1:12.5:words``, ``pmstatus:package:40.0:words``."""

    def __init__(self, span: tuple[float, float]) -> None:
        self._first, self._last = span
        self._at, self._unread = 0, b""
        self._fetched = False

    def tell(self, work: Work, fd: int) -> None:
        data = os.pread(fd, 1 << 16, self._at)
        self._at += len(data)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for told in filter(None, map(self._parsed, lines[-1:])):
            work.teller.progress(work.stage, *told)

    def _parsed(self, line: bytes) -> tuple[float, str] | None:
        match = re.fullmatch(r"(dl|pm)status:[^:]*:([\d.]+):(.*)", line.decode("utf-8", "replace").strip())
        if not match:
            return None
        share = float(match[2]) / 100
        self._fetched = self._fetched or match[1] == "dl"
        if match[1] == "dl":
            share *= 0.4
        elif self._fetched:
            share = 0.4 + 0.6 * share
        return self._first + share * (self._last - self._first), match[3]


def names(found: Iterable[str], most: int = 20) -> str:
    """For people."""
    listed = sorted(found)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
