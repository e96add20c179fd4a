"""apt-get and dpkg: what is installed, what would be, and how far they are.

All is as this site has set it in apt's own configuration (mirrors, proxies, keys). The few options that are ours wait
for somebody else's lock, keep changed configuration files, and ask nobody.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time

from ipmiproxyd.provision.host.system import Done
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

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
# Where packages are broken, older apts do nothing else before they are whole.
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
    found = {}
    for line in host.must(["dpkg-query", "-W", "-f", "\t".join(f"${{{name}}}" for name in FIELDS) + "\n"]).splitlines():
        name, architecture, status, first, then, provides = line.split("\t")
        needs = _alternatives(first) + _alternatives(then)
        provided = {name, *(one for group in _alternatives(provides) for one in group)}
        found[_key(host, name, architecture)] = Package(status, needs, provided)
    return found


def _key(host: Host, name: str, architecture: str) -> str:
    return name if architecture in (host.native, "all", "") else f"{name}:{architecture}"


def _alternatives(field: str) -> list[list[str]]:
    """The names of ``a (>= 1) | b:any, c``."""
    return [
        [re.split(r"[\s(:]", one.strip())[0] for one in group.split("|")] for group in field.split(",") if group.strip()
    ]


def odd(known: dict[str, Package]) -> set[str]:
    """What dpkg has begun and not completed."""
    return {name for name, one in known.items() if one.is_there and one.status != "installed"}


def is_interrupted(host: Host, known: dict[str, Package], ours: Collection[str]) -> bool:
    """Whether dpkg was broken off here, with packages of ours in its hands."""
    updates = host.path("/var/lib/dpkg/updates")
    return not odd(known).isdisjoint(ours) or (os.path.isdir(updates) and bool(os.listdir(updates)))


def settle(work: Work) -> None:
    """Wait until no apt or dpkg is at work, ours of an earlier run above all. Raises FailedError "busy"."""
    limit = time.monotonic() + LOCK_LIMIT
    while any(_is_locked(work.host.path(f"/var/lib/dpkg/{name}")) for name in ("lock-frontend", "lock")):
        if time.monotonic() > limit:
            raise FailedError("busy", "Another apt is at work on the host", "Wait until it has ended.")
        work.teller.progress(work.stage, 0.0, "Waiting for another apt, which is at work")
        time.sleep(PAUSE)


def _is_locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


# --- what packages have on the disk -----------------------------------------------------------------------------------


def info(host: Host, package: str, kind: str) -> str:
    """What dpkg keeps of a package that is there: its ``list`` of files, its ``postinst``; empty if there is none."""
    return host.read(info_path(host, package, kind)) or ""


def info_path(host: Host, package: str, kind: str) -> str:
    folder = "/var/lib/dpkg/info"
    name, _, other = package.partition(":")
    first = f"{folder}/{package}.{kind}"
    if other or host.exists(first):
        return first
    return f"{folder}/{name}:{host.native}.{kind}"


def changed_configuration(host: Host, wanted: Collection[str]) -> dict[str, list[str]]:
    """The files of these packages' configuration that are not as they came, by the package."""
    found: dict[str, list[str]] = {}
    for name, path, digest in [*_conffiles(host), *_by_ucf(host)]:
        if name in wanted and _digest(host.path(path)) not in ("", digest):
            found.setdefault(name, []).append(path)
    return found


def _conffiles(host: Host) -> Iterator[tuple[str, str, str]]:
    name = ""
    text = host.must(["dpkg-query", "-W", "-f", "=${Package}\t${Architecture}\n${Conffiles}\n"])
    for line in text.splitlines():
        if line.startswith("="):
            name = _key(host, *line[1:].split("\t"))
        elif match := re.fullmatch(r" (/.*) ([0-9a-f]{32})(?: [a-z-]+)*", line):
            yield name, match[1], match[2]


def _by_ucf(host: Host) -> Iterator[tuple[str, str, str]]:
    """Of another tool for the same purpose, which some packages use."""
    texts = [host.read(f"/var/lib/ucf/{name}") or "" for name in ("hashfile", "registry")]
    hashes, packages_of = ([line.split(maxsplit=1) for line in text.splitlines() if " " in line] for text in texts)
    digests = {path.strip(): digest for digest, path in hashes}
    for name, path in packages_of:
        yield name, path.strip(), digests.get(path.strip(), "")


def _digest(path: str) -> str:
    """As dpkg makes it; empty where there is no file."""
    try:
        with open(path, "rb") as file:
            return hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
    except OSError:
        return ""


# --- what apt does ----------------------------------------------------------------------------------------------------


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


def do_ours(
    work: Work, argv: Sequence[str], done: Callable[[dict[str, Package]], bool], span: tuple[float, float]
) -> dict[str, Package]:
    """As :func:`do`; where apt stumbles over packages of somebody else's, that is only told.

    :param done: whether all is done that was to be, as far as dpkg knows.
    :returns: what is installed now.
    """
    try:
        do(work, argv, span)
    except FailedError as error:
        known = packages(work.host)
        if error.code != "packages-failed" or not done(known):
            raise
        work.teller.warning(f"{error.message} (with packages that are not ours: {names(odd(known)) or 'unknown'})")
    return packages(work.host)


TRIAL = "/var/lib/apt/ipmiproxyd-trial"
TRIAL_LIMIT = 300.0  # seconds
NO_CACHES = LOOK_ONLY[1:]
ALONE = ("Dir::Etc::SourceParts=/dev/null", "Acquire::Languages=none", "APT::Update::Error-Mode=any")
SOURCE_HINT = "See repository=: a line as in sources.list, with a host that apt there reaches, and a key that it knows."


def try_source(work: Work, line: str) -> None:
    """See that apt can read a line for its sources and, but for a dry run, reach what it names. apt's own lists are not
    touched. Raises FailedError "bad-request"."""
    source = os.memfd_create("source")
    try:
        os.write(source, f"{line}\n".encode())
        settings, verb = [*ALONE, f"Dir::Etc::SourceList=/proc/{os.getpid()}/fd/{source}"], "indextargets"
        if not work.dry_run:
            work.teller.progress(work.stage, 0.0, "Trying the further source")
            forget_trial(work.host)
            os.makedirs(work.host.path(f"{TRIAL}/partial"))
            settings, verb = [*settings, f"Dir::State::Lists={TRIAL}"], "update"
        options = [word for setting in settings for word in ("-o", setting)]
        done = work.host.run(["apt-get", *NO_CACHES, *options, verb], limit=TRIAL_LIMIT)
    finally:
        os.close(source)
        if not work.dry_run:
            forget_trial(work.host)
    # What cannot be fetched is an error in newer versions of apt alone.
    if done.status or re.search(r"^(E:|W: (Failed to fetch|Some index files failed))", done.errors, re.MULTILINE):
        lines = re.findall(r"^(?:E: |W: (?=Failed))(.*?)(?: in list file /proc/.*)?$", done.errors, re.MULTILINE)
        said = " ".join(dict.fromkeys(lines))[:400] or done.words
        raise FailedError("bad-request", f"apt on the host cannot use repository=: {said}", SOURCE_HINT)


def forget_trial(host: Host) -> None:
    """Also of a run that was killed."""
    shutil.rmtree(host.path(TRIAL), ignore_errors=True)


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
