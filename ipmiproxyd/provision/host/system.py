"""The host as the engine finds it: its files below a root, its programs, its processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import time

from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIMIT = 120.0  # seconds that a short program may take
PATIENCE = 5.0  # seconds for processes to end
LOCK_LIMIT = 20.0  # seconds for another one's lock on the list of users
USERS_FILES = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
AT_ONCE = 0.1  # seconds that a process's beginning may seem to be later than it was
LOCK_HINT = "See who has it (fuser -v), and run the command again."


class Done:
    """How a program ended. ``words`` is the last line that it said, ``all_words`` all of them."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status, self.output, self.errors = status, output, errors
        lines = [line.strip() for line in (errors.strip() or output.strip()).splitlines()]
        self.words = lines[-1][:300] if lines else f"status {status}"
        self.all_words = "; ".join(lines)[:300] or self.words


class Host:
    """:param root: in front of all paths; programs are started for "/" only."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._native = ""

    @property
    def native(self) -> str:
        """The architecture, in dpkg's words."""
        self._native = self._native or self.must(["dpkg", "--print-architecture"]).strip()
        return self._native

    def path(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def read(self, path: str) -> str | None:
        """A file's text; None where there is none, or it cannot be read."""
        try:
            with open(self.path(path), encoding="utf-8", errors="surrogateescape") as file:
                return file.read()
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.path(path))

    def which(self, program: str) -> str:
        """The path of a program; empty if it is not there."""
        return shutil.which(program, path=PATH) or ""

    def environment(self) -> Mapping[str, str]:
        """For programs: as we were started, in no language but the one that we read.

        We come with no environment of this site's. What it set for apt (its proxies above all) is in apt's own
        configuration.
        """
        fixed = {"PATH": PATH, "LC_ALL": "C.UTF-8", "LANGUAGE": "C", "DEBIAN_FRONTEND": "noninteractive"}
        fixed |= {"APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_SUSPEND": "1", "UCF_FORCE_CONFFOLD": "1"}
        # sudo's package is not removed as long as root has no password.
        return {**os.environ, **fixed, "SUDO_FORCE_REMOVE": "yes"}

    def run(self, argv: Sequence[str], given: str = "", limit: float = LIMIT) -> Done:
        """Run a short program to its end. Raises FailedError where it is not there or takes too long."""
        if self.root != "/":
            raise FailedError("internal", f"{argv[0]} would not stay below {self.root}")
        try:
            done = subprocess.run(
                list(argv),
                input=given,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=self.environment(),
                cwd="/",
                start_new_session=True,
                timeout=limit,
                check=False,
            )
        except OSError as error:
            raise FailedError("tool-missing", f"{argv[0]} cannot be started: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            raise FailedError("timeout", f"{argv[0]} did not end within {limit:g} s") from None
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, argv: Sequence[str], given: str = "", limit: float = LIMIT) -> str:
        """The output of a program that has to succeed."""
        done = self.run(argv, given, limit)
        if done.status:
            raise FailedError("agent-unreachable", f"{argv[0]} failed: {done.words}")
        return done.output

    def change_users(self, argv: Sequence[str], fine: Sequence[int] = ()) -> None:
        """useradd and its relatives, which refuse to run while another one does: they are asked again."""
        limit = time.monotonic() + LOCK_LIMIT
        while (done := self.run(argv)).status not in (0, *fine):
            if "lock" not in done.words or time.monotonic() > limit:
                raise FailedError("agent-unreachable", f"{argv[0]} failed: {done.all_words}")
            self.drop_stale_locks()
            time.sleep(0.2)

    def drop_stale_locks(self) -> None:
        """Those of useradd and its relatives whose owner was killed, and never buried; or whose host lost its power,
        and its number is another process's since. The tools look for the number alone, and would refuse to run."""
        begin = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        for name in USERS_FILES:
            lock = f"/etc/{name}.lock"
            with contextlib.suppress(FileNotFoundError, ValueError):
                made = os.lstat(self.path(lock)).st_mtime
                owner = int((self.read(lock) or "").strip("\0\n "))
                fields = (self.read(f"/proc/{owner}/stat") or "").rpartition(")")[2].split()
                if not fields:
                    continue  # the tools see that themselves
                begun = begin + int(fields[19]) / os.sysconf("SC_CLK_TCK")
                if fields[0] in ("Z", "X") or begun > made + AT_ONCE:
                    os.unlink(self.path(lock))

    # --- users and groups: read from the files, as the tools that change them do --------------------------------------

    def entries(self, file: str) -> dict[str, list[str]]:
        """The lines of /etc/passwd or /etc/group, by name."""
        lines = (self.read(f"/etc/{file}") or "").splitlines()
        return {fields[0]: fields for fields in (line.split(":") for line in lines) if len(fields) > 3}

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[None]:
        """Nobody else has the lock of this file, if it is there. Raises FailedError "busy" where somebody keeps it."""
        try:
            fd = os.open(self.path(path), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield
            return
        try:
            _lock(fd, path)
            yield
        finally:
            os.close(fd)

    def login_number(self, name: str, otherwise: int) -> int:
        """A number that /etc/login.defs sets."""
        match = re.search(rf"^{name}\s+(\d+)", self.read("/etc/login.defs") or "", re.MULTILINE)
        return int(match[1]) if match else otherwise

    def processes_of(self, uids: set[int]) -> dict[int, int]:
        """Process number to user, of all that live; not those of containers, which have other users by our numbers."""
        found = {}
        for name in filter(str.isdigit, os.listdir(self.path("/proc"))):
            status = self.read(f"/proc/{name}/status") or ""
            match = re.search(r"\nState:\s+[^ZX].*\nUid:([^\n]+)", status, re.DOTALL)
            for uid in uids.intersection(map(int, match[1].split())) if match else ():
                if not self.in_container(name):
                    found[int(name)] = uid
        return found

    def in_container(self, pid: str) -> bool:
        """Whether a process is in a container that has no numbers of users of its own."""
        there, here = (self.path(f"/proc/{one}/ns") for one in (pid, "self"))
        try:
            users, pids = (os.path.samefile(f"{there}/{kind}", f"{here}/{kind}") for kind in ("user", "pid"))
            return users and not pids
        except OSError:
            return False

    def ancestors(self) -> set[int]:
        """Ourselves, and whoever started us."""
        found, pid = set(), os.getpid()
        while pid > 0 and pid not in found:
            found.add(pid)
            match = re.search(r"\nPPid:\s+(\d+)", self.read(f"/proc/{pid}/status") or "")
            pid = int(match[1]) if match else 0
        return found

    def program_of(self, pid: int) -> str:
        """The path of the file that a process runs, also if that is removed; empty if it cannot be seen."""
        try:
            return os.readlink(self.path(f"/proc/{pid}/exe")).replace(" (deleted)", "")
        except OSError:
            return ""

    def end_processes(self, uids: set[int], programs: Collection[str] | None = None) -> bool:
        """End all processes of these users, but for those that lead to us; False if some go on.

        :param programs: where one of them runs anything else, none is ended.
        """
        limit, spared = time.monotonic() + PATIENCE, self.ancestors()
        while left := [pid for pid in self.processes_of(uids) if pid not in spared]:
            # One that has just ended shows no program any more.
            foreign = programs is not None and not {self.program_of(pid) for pid in left} <= {"", *programs}
            if foreign or time.monotonic() > limit:
                return False
            for pid in left:
                self._end(pid, uids)
            select.select([], [], [], 0.02)
        return True

    def _end(self, pid: int, uids: set[int]) -> None:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if pid in self.processes_of(uids):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        except OSError:
            pass
        finally:
            os.close(fd)


def _lock(fd: int, path: str) -> None:
    limit = time.monotonic() + LOCK_LIMIT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > limit:
                raise FailedError("busy", f"Somebody on the host does not let go of {path}", LOCK_HINT) from None
        time.sleep(0.05)


# --- which system it is -----------------------------------------------------------------------------------------------

SYSTEMS = {
    ("debian", "11"): "openjdk-17-jre",
    ("debian", "12"): "openjdk-17-jre",
    ("debian", "13"): "openjdk-21-jre",
    ("ubuntu", "22.04"): "openjdk-17-jre",
    ("ubuntu", "24.04"): "openjdk-17-jre",
}
"""Systems that can become agents, with the Java that each brings."""
KNOWN = "Debian 11, 12 and 13, Ubuntu 22.04 and 24.04"
UNTRIED = ("ubuntu",)
"""Those of them that this was written for, and that nobody has tried yet."""


class System:
    """What /etc/os-release says. Raises FailedError for a system that cannot become an agent."""

    def __init__(self, host: Host) -> None:
        self._read(host.read("/etc/os-release") or host.read("/usr/lib/os-release") or "")

    @classmethod
    def told(cls, text: str) -> System:
        """By that file's text."""
        system = cls.__new__(cls)
        system._read(text)
        return system

    def _read(self, text: str) -> None:
        lines = text.splitlines()
        fields = {name: value.strip().strip("\"'") for name, _, value in (line.partition("=") for line in lines)}
        self.id, self.version = fields.get("ID", ""), fields.get("VERSION_ID", "")
        self.name = fields.get("PRETTY_NAME") or " ".join(filter(None, [self.id, self.version])) or "an unknown system"
        if (self.id, self.version) not in SYSTEMS:
            raise FailedError(
                "system-unsupported",
                f"The host runs {self.name}, which cannot be made an agent",
                f"Known are {KNOWN}. Any other Linux can be set up by hand.",
            )
        self.java = SYSTEMS[self.id, self.version]
