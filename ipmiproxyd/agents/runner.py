"""The runner: starts, watches and ends jobs on an agent. One file, standard library only.

    python3 -I -S runner.py < document        as root, through ``sudo -n``, or as an ordinary user

The document is one line of JSON; ``DOCUMENTS`` below is its grammar. Answers are lines of JSON on standard output:

    hello   {"event":"hello","user":…,"own_users":bool}
    start   {"event":"stage","name":…,"ms":…} …, then {"event":"running","job":JOB} or FAILED.  Idempotent by job id
    list    {"event":"jobs","jobs":[JOB, …]}
    watch   {"event":"alive"} now and then, {"event":"ended","job":JOB}; runs until its standard input is closed.
            Whoever watches answers each "alive" with an empty line, and that is the sign of life without which
            keepers end their jobs: a connection may be dead long before its end is noticed
    stop    {"event":"stopped"} once nothing of the job is left; a job of that id that comes later is refused
    sweep   {"event":"swept","removed":[words, …]}
    FAILED = {"event":"failed","code":…,"message":…}, exit status 1: the answer of any verb

A job is one bubblewrap sandbox. A *keeper*, detached from whoever asked, owns it: its folder ``<jobs>/<id>`` with
``state.json``, ``log`` and ``vnc/``, its display's lock, its Unix user. Process 1 of the sandbox is the program that
came as ``inside`` (inside.py); it starts the others. The end of any of them, or of the keeper, is the end of all.
"""

from __future__ import annotations

import binascii
import contextlib
import fcntl
import json
import os
import pwd
import re
import resource
import select
import signal
import socket
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Object = dict[str, Any]

HOME, RUN, TMP, SHM = "/home/console", "/run/console", "/tmp", "/dev/shm"  # noqa: S108 (inside the sandbox)
LIBRARY = RUN + "/library"  # there too
POLICIES = "/etc/chromium/policies/managed"  # there too
LOCKS = "/run/ipmiproxyd-displays"  # machine-wide, for displays with Unix users of their own
MARK = ".ipmiproxyd"  # in a folder of jobs, so that nothing else is taken for one
GECOS = "ipmiproxyd console display"  # marks these users as ours
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VNC_PORT = 5900  # + display number
LIBRARY_LIMIT = 192 << 20  # bytes of all a job's files from the cache
DOCUMENT_LIMIT, LOG_LIMIT, TMPFS_LIMIT, SMALL_TMPFS_LIMIT = 1 << 22, 1 << 16, 1 << 29, 1 << 24  # bytes
PATIENCE, TOMBSTONE_AGE, BEAT = 10.0, 3600.0, 30.0  # seconds
FILES_LIMIT, THREADS_LIMIT = 8192, 4096  # of a job; threads only where its user is its own
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, CLONE_NEWNS, MS_BIND, MS_REC_PRIVATE = 1, 36, 0x20000, 0x1000, 0x44000
IN_MOVED_FROM = 0x40
SIGNALS = (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT)


class RefusedError(Exception):
    """What was asked for is not done, or not any more. ``code`` is a stable word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


# --- the document ----------------------------------------------------------------------------------------------------

# A rule is a pattern for a text, a pair of numbers (floats if the first is one), [rule, least, most] for a list, or a
# dict.
TEXT = r"[^\0\ud800-\udfff]{0,262144}"
ID = r"(?!(?:alive|tombstones|displays|lock)\Z)[A-Za-z0-9][A-Za-z0-9_-]{0,47}"
FILE_NAME = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,64}"
FOLDER = r"(?:/(?!\.{1,2}(?:/|\Z))[^/\0\n]{1,100})+"
FILE = {
    "place": "home|chromium-policy|library",
    "name": rf"(?:{FILE_NAME}/){{0,6}}{FILE_NAME}",
    "text": TEXT,
    "encoding": "utf-8|base64",
}
LEASE = (0.1, 7 * 86400)
PROGRAM = {
    "name": r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,31}",
    "argv": [TEXT, 1, 200],
    "ready": "display|told|started|window",
    "env": [r"[A-Za-z_][A-Za-z0-9_]{0,63}=[^\0\ud800-\udfff]{0,8192}", 0, 32],
    "stdin": TEXT,
    "door": "|door",
}
JOB = {
    "id": ID,
    "display": (1, 999),
    "vnc": "unix|tcp",
    "programs": [PROGRAM, 0, 16],
    "files": [FILE, 0, 32],
    "library": [{"sha256": "[0-9a-f]{64}", "name": FILE_NAME}, 0, 128],
    "cache": FOLDER,
    "java": f"|{FOLDER}",
    "lease": LEASE,
    "start_timeout": (0.1, 600),
    "inside": TEXT,
}
OWNER = {"users": "auto|always|never", "prefix": "[a-z_][a-z0-9_-]{0,23}", "group": (0, 2**32 - 2)}
COMMON = {"verb": "[a-z]+", "jobs": FOLDER, "owner": OWNER}
DOCUMENTS: Object = {"hello": {}, "list": {}, "sweep": {}}
DOCUMENTS |= {"start": {"job": JOB}, "watch": {"lease": LEASE}, "stop": {"id": ID}}


def check(rule: Any, value: Any, where: str) -> None:
    """Raises RefusedError ``bad-request`` unless the value is as the rule says, to the last member."""
    if isinstance(rule, str):
        good = isinstance(value, str) and re.fullmatch(rule, value)
    elif isinstance(rule, tuple):
        good = type(value) in (int, type(rule[0])) and rule[0] <= value <= rule[1]
    elif isinstance(rule, list):
        good = isinstance(value, list) and rule[1] <= len(value) <= rule[2]
    else:
        good = isinstance(value, dict) and value.keys() == rule.keys()
    if not good:
        raise RefusedError("bad-request", f"{where} is not as it must be")
    if isinstance(rule, list):
        for index, item in enumerate(value):
            check(rule[0], item, f"{where}[{index}]")
    elif isinstance(rule, dict):
        for name, member in rule.items():
            check(member, value[name], f"{where}.{name}")


def parse(line: bytes) -> Object:
    try:
        document = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise RefusedError("bad-request", "The document is not JSON in UTF-8") from error
    verb = document.get("verb") if isinstance(document, dict) else None
    if not isinstance(verb, str) or verb not in DOCUMENTS:
        raise RefusedError("bad-request", "The document has no verb that the runner knows")
    check(COMMON | DOCUMENTS[verb], document, "document")
    if verb == "start":
        for file in document["job"]["files"]:
            content(file)
    return dict(document)


# --- processes -------------------------------------------------------------------------------------------------------


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identity(pid: int) -> str:
    """A name that no other process ever has; empty if the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file, open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            fields = file.read().rpartition(b")")[2].split()
            return "" if fields[0] in (b"Z", b"X") else f"{boot.read().strip()}:{pid}:{int(fields[19])}"
    except (FileNotFoundError, ProcessLookupError):
        return ""


def open_process(name: str) -> int | None:
    """A pidfd of exactly the process of this :func:`identity`; None if it has ended. Who asks closes it."""
    if not name:
        return None
    pid = int(name.split(":")[1])
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if identity(pid) == name:
        return fd
    os.close(fd)
    return None


def end_process(name: str, number: int) -> bool:
    """Signal a process and wait for its end; False if it goes on."""
    if (fd := open_process(name)) is None:
        return True
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)
        return bool(readable([fd], PATIENCE))
    finally:
        os.close(fd)


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def processes(uid: int) -> list[int]:
    """The living processes of a user."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{name}/status", "rb") as file:
            match = re.search(rb"\nState:\s+[^ZX].*\nUid:([^\n]+)", file.read(), re.DOTALL)
            if match and uid in map(int, match[1].split()):
                found.append(int(name))
    return found


def end_user(uid: int) -> None:
    """Kill every process of a Unix user of ours, by one system call for all, so that none can outrun it."""
    limit = boottime() + PATIENCE
    while processes(uid):
        if not (child := os.fork()):
            try:
                os.setresuid(uid, uid, uid)
                os.kill(-1, signal.SIGKILL)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        if boottime() > limit:
            raise RefusedError("internal", f"Processes of the Unix user {uid} do not end")
        time.sleep(0.005)


def readable(fds: list[int], timeout: float | None) -> list[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout is None else max(0, timeout * 1000 + 1))]


# --- files -----------------------------------------------------------------------------------------------------------


def write_file(path: str, new: str, content: str) -> None:
    """Replace a file as a whole, by way of a new one."""
    with open(new, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
    os.replace(new, path)


def remove(path: str) -> None:
    """Remove a file, or a folder with all that is in it, however deep; nothing there is fine."""
    if os.path.isdir(path) and not os.path.islink(path):
        if os.waitpid(os.posix_spawnp("rm", ["rm", "-rf", "--", path], {"PATH": PATH}), 0)[1]:
            raise RefusedError("internal", f"{path} on the agent could not be removed")
    elif os.path.lexists(path):
        os.unlink(path)


def is_safe(folder: os.stat_result, trusted: set[int]) -> bool:
    """Whether nobody but these users can change what lies in a folder (in a sticky one: what lies there already)."""
    return folder.st_uid in trusted and (not folder.st_mode & 0o022 or bool(folder.st_mode & stat.S_ISVTX))


class Lock:
    """An exclusive lock on a file. :meth:`close` lets go of it, :meth:`release` removes the file too."""

    def __init__(self, path: str, *, wait: bool = True) -> None:
        self.path = path
        while True:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if os.fstat(self.fd).st_nlink:
                    return
                os.close(self.fd)  # its last owner removed it meanwhile: take the new one
            except BlockingIOError:
                os.close(self.fd)
                raise

    def release(self) -> None:
        os.unlink(self.path)
        self.close()

    def close(self) -> None:
        os.close(self.fd)


class Site:
    """The jobs root and the owner settings of a document: where jobs are kept and as whom they run."""

    def __init__(self, jobs: str, owner: Object) -> None:
        root = os.geteuid() == 0
        if owner["users"] == "always" and not root:
            raise RefusedError("agent-unreachable", "Unix users of their own for displays need root or sudo")
        if owner["users"] == "never" and root:
            raise RefusedError("agent-unreachable", "A console never runs as root: displays need users of their own")
        self.jobs, self.own_users, self.prefix, self.group = jobs, root, owner["prefix"], owner["group"]
        self.locks, self.tombstones = LOCKS if self.own_users else f"{jobs}/displays", f"{jobs}/tombstones"

    def prepare(self) -> None:
        """Make the folders. Raises RefusedError where they are somebody else's.

        As root, the jobs' folder is what a document names: it has to be one that only root could have put there, and
        that was made, or found empty, by a runner before."""
        if self.own_users:
            self.check_way(self.jobs)
        passable = 0o711 if self.own_users else 0o700
        folders = {self.jobs: passable, self.locks: passable, f"{self.locks}/vnc": passable, self.tombstones: 0o700}
        for path, mode in folders.items():
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, mode)
            status = os.lstat(path)
            if status.st_uid != os.geteuid() or status.st_mode & 0o170022 != 0o40000:
                raise RefusedError("agent-unreachable", f"The folder {path} on the agent does not belong to the runner")
            if path == self.jobs and not os.path.lexists(f"{path}/{MARK}"):
                if os.listdir(path):
                    raise RefusedError("agent-unreachable", f"{path} on the agent is no folder of jobs")
                with contextlib.suppress(FileExistsError), open(f"{path}/{MARK}", "x", encoding="ascii"):
                    pass

    def check_way(self, path: str) -> None:
        """Raises RefusedError if anybody but root can change what ``path`` leads to."""
        while (path := os.path.dirname(path)) != "/":
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                raise RefusedError("agent-unreachable", f"There is no folder {path} on the agent") from None
            if not stat.S_ISDIR(status.st_mode) or not is_safe(status, {0}):
                raise RefusedError("agent-unreachable", f"{path} on the agent is not in root's hands alone")

    def lock(self) -> contextlib.closing[Lock]:
        """Held while a job appears or while it is decided what is to go."""
        return contextlib.closing(Lock(f"{self.jobs}/lock"))

    def state(self, job: str) -> Object | None:
        try:
            with open(os.open(f"{self.jobs}/{job}/state.json", os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
                state: Object = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if state["state"] != "ended" and identity(int(state["keeper"].split(":")[1])) != state["keeper"]:
            state |= {"state": "lost", "code": "job-failed", "reason": "The job's keeper was killed"}
        return state

    def ids(self) -> list[str]:
        folders = [entry.name for entry in os.scandir(self.jobs) if entry.is_dir(follow_symlinks=False)]
        return sorted(name for name in folders if re.fullmatch(ID, name))

    def hold_display(self, display: int) -> Lock:
        try:
            return Lock(f"{self.locks}/{display}.lock", wait=False)
        except BlockingIOError:
            raise RefusedError("no-free-display", f"Display {display} is in use on the agent") from None

    def console_user(self, display: int) -> tuple[str, int, int]:
        """Name, uid and gid of the Unix user that a display runs as; makes the user where there is none yet."""
        if not self.own_users:
            return user_name(), os.geteuid(), os.getegid()
        name = f"{self.prefix}{display}"
        with contextlib.closing(Lock(f"{LOCKS}/users.lock")):  # useradd refuses to run twice at once
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                add_user(name)
                entry = pwd.getpwnam(name)
        if entry.pw_gecos.rstrip(",") != GECOS or not entry.pw_uid or not entry.pw_gid:
            raise RefusedError("no-free-display", f"The Unix user {name} on the agent was not made by ipmiproxyd")
        return name, entry.pw_uid, entry.pw_gid

    def clear(self, state: Object) -> None:
        """End what is left of a job whose keeper has ended, and remove its folder."""
        if [name for name in state["processes"] if not end_process(name, signal.SIGKILL)]:
            raise RefusedError("internal", f"A process of job {state['id']} does not end")
        with contextlib.suppress(BlockingIOError):  # a new owner of the display made sure that it was alone
            lock = Lock(f"{self.locks}/{state['display']}.lock", wait=False)
            if state["uid"]:
                end_user(state["uid"])
            lock.release()
        remove(f"{self.jobs}/{state['id']}")
        remove(f"{self.jobs}/.{state['id']}")


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def add_user(name: str) -> None:
    argv = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    argv += ["--shell", "/usr/sbin/nologin", "--comment", GECOS, name]
    try:
        status = os.waitpid(os.posix_spawnp("useradd", argv, {"PATH": PATH}), 0)[1]
    except FileNotFoundError:
        raise RefusedError("tool-missing", "useradd is not installed on the agent") from None
    if status:
        raise RefusedError("agent-unreachable", f"useradd could not make the Unix user {name} on the agent")


# --- the keeper ------------------------------------------------------------------------------------------------------


def memory_file(content: bytes) -> int:
    fd = os.memfd_create("runner")
    with open(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def content(file: Object) -> bytes:
    """Of a file of the document."""
    if file["encoding"] == "utf-8":
        return bytes(file["text"].encode())
    try:
        return binascii.a2b_base64(file["text"], strict_mode=True)
    except ValueError as error:
        raise RefusedError("bad-request", f"The file {file['name']} is not in base64") from error


def library(folder: str, wanted: list[Object]) -> list[tuple[int, str]]:
    """Copies of files from the agent's cache, in memory, and their places. The cache belongs to somebody else: a file
    counts only if it is a plain one of the cache's owner, without other names, and has the content that is wanted."""
    if not wanted:
        return []
    import hashlib  # most jobs have none

    found, left = [], LIBRARY_LIMIT
    never_by_a_link = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        cache = os.open(folder, never_by_a_link | os.O_DIRECTORY)
    except OSError as error:
        raise RefusedError("job-failed", f"The agent's cache cannot be read: {error.strerror}") from error
    for entry in wanted:
        try:
            fd = os.open(entry["sha256"], never_by_a_link | os.O_NONBLOCK, dir_fd=cache)
            with open(fd, "rb", buffering=0) as file:
                status = os.fstat(fd)
                own = status.st_uid == os.fstat(cache).st_uid and status.st_nlink == 1
                if not stat.S_ISREG(status.st_mode) or not own or status.st_size > left:
                    raise RefusedError("job-failed", f"The file {entry['name']} in the agent's cache is none for a job")
                data = file.read(left + 1)
        except OSError as error:
            problem = f"The file {entry['name']} is not in the agent's cache: {error.strerror}"
            raise RefusedError("job-failed", problem) from error
        left -= len(data)
        if left < 0 or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise RefusedError("job-failed", f"The file {entry['name']} in the agent's cache is not what it was")
        found.append((memory_file(data), f"{LIBRARY}/{entry['name']}"))
    os.close(cache)
    return found


def check_java(folder: str) -> None:
    """Raises RefusedError unless only root, and who asks for jobs, can change what is in a folder with a Java, and the
    displays' users can read it."""
    trusted = {0, os.geteuid(), int(os.environ.get("SUDO_UID", os.geteuid()))}
    own = f"{folder}/".startswith((f"{HOME}/", f"{RUN}/", "/proc/", "/dev/", "/sys/"))
    if own or os.path.realpath(folder) != folder or not os.path.isdir(folder):
        raise RefusedError("tool-missing", f"There is no Java in {folder} on the agent")
    while folder != "/":
        status = os.stat(folder)
        if not is_safe(status, trusted):
            raise RefusedError("tool-missing", f"{folder} on the agent can be changed by others: no Java of a job's")
        if os.geteuid() == 0 and not status.st_mode & 0o001:
            raise RefusedError("tool-missing", f"{folder} on the agent is closed to the displays' users: chmod o+x it")
        folder = os.path.dirname(folder)


def system_call(name: str, *arguments: int | bytes | None) -> int:
    import ctypes  # costs more than it should, and hello, list and stop can do without

    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name} failed")
    return result


def sandbox(vnc: str, files: list[tuple[int, str]], python: str, java: str) -> list[str]:
    """bubblewrap's arguments. ``files``: descriptors and the places of their contents."""
    limit, small = str(TMPFS_LIMIT), str(SMALL_TMPFS_LIMIT)
    args = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "console"]
    args += ["--new-session", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    for path in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc"):
        if os.path.islink(path):
            args += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            args += ["--ro-bind", path, path]
    args += ["--proc", "/proc", "--dev", "/dev", "--size", limit, "--perms", "1777", "--tmpfs", SHM]
    args += ["--remount-ro", "/dev", "--size", small, "--tmpfs", "/run", "--size", small, "--tmpfs", "/var"]
    args += ["--perms", "0700", "--dir", RUN]
    args += ["--perms", "0700", "--size", limit, "--tmpfs", HOME, "--bind", vnc, f"{RUN}/vnc"]
    args += ["--perms", "1777", "--size", limit, "--tmpfs", TMP]
    args += ["--perms", "1777", "--dir", f"{TMP}/.X11-unix"]
    for path in ("/var/cache/fontconfig", os.path.realpath("/etc/resolv.conf")):
        args += [] if path.startswith("/etc/") else ["--ro-bind-try", path, path]
    chromium = os.path.isdir("/etc/chromium")
    args += ["--tmpfs", "/etc/chromium", "--dir", POLICIES] if chromium else []
    args += ["--perms", "0755", "--size", limit, "--tmpfs", LIBRARY]
    for fd, place in files:
        args += ["--perms", "0444", "--file", str(fd), place]
    args += ["--remount-ro", LIBRARY, *(["--remount-ro", "/etc/chromium"] if chromium else [])]
    args += ["--ro-bind", java, java] if java and not java.startswith(("/usr/", "/opt/")) else []
    return [*args, "--chdir", HOME, "--", python, "-I", "-S", f"{RUN}/inside.py"]


class Keeper:
    """Owns one job from its folder to its end. A process of its own, for which nobody waits."""

    def __init__(self, site: Site, job: Object, begun: float) -> None:
        self.site, self.job, self.begun, self.folder = site, job, begun, f"{site.jobs}/{job['id']}"
        tcp = {"tcp": ["127.0.0.1", VNC_PORT + job["display"]]}
        vnc = tcp if job["vnc"] == "tcp" else {"unix": f"{self.folder}/vnc/socket"}
        door = f"{self.folder}/vnc/door" if any(program["door"] for program in job["programs"]) else ""
        self.state: Object = {"id": job["id"], "display": job["display"], "vnc": vnc, "door": door}
        self.state |= {"user": "", "uid": 0, "processes": []}
        self.state |= {"state": "starting", "ready": False, "stages": [], "code": "", "reason": ""}
        self.display: Lock | None = None
        self.end, self.log, self.log_size = RefusedError("job-failed", ""), b"", 0

    def run(self, lock: Lock) -> None:
        """Live through the job. Every way out gives back everything."""
        system_call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self.pid = os.getpid()
        self.state["keeper"] = identity(self.pid)
        self.save()
        lock.close()
        try:
            self.acquire()
            self.serve(*self.spawn())
        except RefusedError as end:
            self.end = end
        except Exception as error:
            self.end = RefusedError("internal", f"The job's keeper failed: {type(error).__name__}: {error}")
        self.finish()

    def save(self) -> None:
        write_file(f"{self.folder}/state.json", f"{self.site.jobs}/.{self.job['id']}", json.dumps(self.state))

    def acquire(self) -> None:
        site, display, vnc = self.site, self.job["display"], f"{self.folder}/vnc"
        self.display = site.hold_display(display)
        self.state["user"], self.uid, self.gid = site.console_user(display)
        os.mkdir(vnc, 0o700)
        if site.own_users:
            self.state["uid"] = self.uid
            end_user(self.uid)
            os.chown(vnc, self.uid, site.group)
            os.chmod(vnc, 0o2710)  # noqa: S103 (the agent's group must reach the socket)
        if self.job["vnc"] == "tcp":
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", VNC_PORT + display))
                except OSError:
                    raise RefusedError("no-free-display", f"Port {VNC_PORT + display} is in use on the agent") from None

    def spawn(self) -> tuple[int, int]:
        """Start bubblewrap; returns where process 1 tells its events, and where all output arrives."""
        bwrap = next((path for folder in PATH.split(":") if os.access(path := f"{folder}/bwrap", os.X_OK)), None)
        if not bwrap:
            raise RefusedError("tool-missing", "bubblewrap (bwrap) is not installed on the agent")
        if any(file["place"] == "chromium-policy" for file in self.job["files"]) and not os.path.isdir("/etc/chromium"):
            raise RefusedError("tool-missing", "Chromium is not installed on the agent: it has no folder /etc/chromium")
        if not (python := os.path.realpath(sys.executable)).startswith(("/usr/", "/opt/")):
            raise RefusedError("tool-missing", f"The agent's Python must be under /usr or /opt, not {python}")
        if self.job["java"]:
            check_java(self.job["java"])
        places = {"home": HOME, "chromium-policy": POLICIES, "library": LIBRARY}
        files = [(memory_file(self.job["inside"].encode()), f"{RUN}/inside.py")]
        files += library(self.job["cache"], self.job["library"])
        files += [(memory_file(content(file)), f"{places[file['place']]}/{file['name']}") for file in self.job["files"]]
        told = {"display": self.job["display"], "programs": self.job["programs"]}
        document = memory_file(json.dumps(told).encode())
        for program in self.job["programs"]:
            del program["stdin"]
        (events, events_in), (log, log_in) = os.pipe(), os.pipe()
        if not (child := os.fork()):
            try:
                for number, fd in enumerate((document, events_in, log_in)):
                    os.dup2(fd, number)
                for fd, _ in files:
                    os.set_inheritable(fd, True)
                args = sandbox(self.descend(), files, python, self.job["java"])
                os.execve(bwrap, args, {"PATH": PATH, "LANG": "C.UTF-8"})  # noqa: S606
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(127)
        for fd in (document, events_in, log_in, *(fd for fd, _ in files)):
            os.close(fd)
        self.child, self.state["processes"] = child, [identity(child)]
        self.save()
        return events, log

    def descend(self) -> str:
        """In the child: become the console's user, with limits; returns the vnc folder's path for bubblewrap."""
        vnc = f"{self.folder}/vnc"
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        set_oom_score(500)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_LIMIT, FILES_LIMIT))
        if self.site.own_users:
            resource.setrlimit(resource.RLIMIT_NPROC, (THREADS_LIMIT, THREADS_LIMIT))
            # The user may not pass the folders above vnc/: a mount in a namespace of our own puts it where he may.
            system_call("unshare", CLONE_NEWNS)
            system_call("mount", None, b"/", None, MS_REC_PRIVATE, None)
            system_call("mount", vnc.encode(), f"{LOCKS}/vnc".encode(), None, MS_BIND, None)
            vnc = f"{LOCKS}/vnc"
            os.setgroups([])
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        system_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self.pid:
            raise RuntimeError("the keeper has ended")
        return vnc

    def serve(self, events: int, log: int) -> None:
        """Until the sandbox has ended; raises RefusedError where the keeper must end it."""
        self.log_fd = os.open(f"{self.folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        unread = {events: b"", log: b""}
        while events in unread:
            for fd in readable([self.woken, *unread], self.time_left()):
                data = os.read(fd, 65536)
                if fd == self.woken:
                    if signal.SIGTERM in data:
                        raise RefusedError("cancelled", "The job was stopped")
                elif not data:
                    del unread[fd]
                elif fd == log:
                    self.note(data)
                else:
                    *lines, unread[fd] = (unread[fd] + data).split(b"\n")
                    for line in lines:
                        self.event(json.loads(line))
                    if len(unread[fd]) > LOG_LIMIT:
                        raise RefusedError("job-failed", "The sandbox does not speak as it must")
        if not self.end.message:
            last = (self.log.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
            raise RefusedError("job-failed", f"The sandbox ended: {words(last)}")

    def time_left(self) -> float:
        """Seconds until the next limit; raises RefusedError when one is over."""
        starting, lease = self.state["state"] == "starting", self.job["lease"]
        limit = self.begun + self.job["start_timeout"] if starting else max(self.begun, last_sign(self.site)) + lease
        if (left := float(limit - boottime())) > 0:
            return left
        if starting:
            name = self.job["programs"][len(self.state["stages"])]["name"]
            raise RefusedError("timeout", f"{name} was not ready within {self.job['start_timeout']:g} s")
        raise RefusedError("job-failed", f"There was no sign of life from the daemon for {lease:g} s")

    def note(self, data: bytes) -> None:
        """Keep the programs' last output in the log file."""
        self.log, self.log_size = (self.log + data)[-LOG_LIMIT:], self.log_size + len(data)
        if self.log_size > 2 * LOG_LIMIT:
            os.ftruncate(self.log_fd, 0)
            data, self.log_size = self.log, len(self.log)
        os.write(self.log_fd, data)

    def event(self, event: Object) -> None:
        """What process 1 tells is believed only as far as it concerns its own job: a program may speak for it."""
        stages, programs = self.state["stages"], self.job["programs"]
        if event["event"] == "over":
            code = "tool-missing" if event["code"] == "tool-missing" else "job-failed"
            self.end = RefusedError(code, words(str(event["message"])))
        elif self.state["state"] == "starting":
            if not stages and self.site.own_users:
                # The display is there. What runs from now on could put anything else in the place of its socket.
                os.chown(f"{self.folder}/vnc", 0, self.site.group)
                os.chmod(f"{self.folder}/vnc", 0o710)  # noqa: S103 (the agent's group must reach the socket)
            stages.append([programs[len(stages)]["name"], round(1000 * (boottime() - self.begun))])
            if len(stages) == len(programs):
                self.state |= {"state": "running", "ready": True}
            self.state["processes"] = [identity(pid) for pid in (self.child, *children(self.child))]
            self.save()

    def finish(self) -> None:
        """End every process, then give back the rest. What remains is ``state.json``, for whoever asks why."""
        limit, alive = boottime() + PATIENCE, True
        while alive and boottime() < limit:
            for pid in children(self.pid):
                os.kill(pid, signal.SIGKILL)
            if readable([self.woken], 0.05):
                os.read(self.woken, 4096)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                alive = False
        if alive:
            self.end = RefusedError("internal", f"Processes of the job do not end. {self.end.message}")
        elif self.display:
            if self.state["uid"]:
                end_user(self.state["uid"])
            self.display.release()
        self.state |= {"state": "ended", "code": self.end.code, "reason": self.end.message}
        try:
            remove(f"{self.folder}/vnc")
            remove(f"{self.folder}/log")
            if self.end.code == "cancelled":
                return remove(self.folder)
        except RefusedError as problem:
            self.state["reason"] += f" ({problem.message})"
        return self.save()


def set_oom_score(score: int) -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(score))


def last_sign(site: Site) -> float:
    try:
        with open(f"{site.jobs}/alive", encoding="ascii") as file:
            return min(float(file.read()), boottime())
    except FileNotFoundError:
        return 0.0


def words(message: str) -> str:
    """A program's text as one short printable line."""
    return "".join(letter if letter.isprintable() else " " for letter in message[:300]).strip()


# --- the verbs -------------------------------------------------------------------------------------------------------


def say(**event: Any) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def public(state: Object) -> Object:
    """A job as it is told to others."""
    job = {name: state[name] for name in ("id", "display", "vnc", "user", "reason")}
    running = state["state"] in ("starting", "running")
    return job | {"door": state.get("door", ""), "running": running}  # none in a state of an earlier runner


def hello(site: Site, _: Object) -> None:
    say(event="hello", user=user_name(), own_users=site.own_users)


def start(site: Site, document: Object) -> None:
    begun, job, changes = boottime(), document["job"], changes_in(site)
    folder = f"{site.jobs}/{job['id']}"
    if len(f"{folder}/vnc/socket".encode()) > 107:
        raise RefusedError("bad-request", "The jobs folder's path is too long for a UNIX socket in it")
    with site.lock() as lock:
        if os.path.exists(f"{site.tombstones}/{job['id']}"):
            raise RefusedError("cancelled", "The job was stopped before it started")
        if (state := site.state(job["id"])) and state["code"] == "no-free-display":
            site.clear(state)  # it had come to nothing: now it may have another display
        if not os.path.exists(folder):
            os.mkdir(folder, 0o711 if site.own_users else 0o700)
            if not os.fork():
                detach(Keeper(site, job, begun), lock)
            os.wait()
    with site.lock():  # the keeper has a share in it until its state is there
        state, keeper, told = site.state(job["id"]), None, 0
    while state:
        for name, ms in state["stages"][told:]:
            say(event="stage", name=name, ms=ms)
        told = len(state["stages"])
        if state["state"] == "running":
            return say(event="running", job=public(state))
        if state["state"] != "starting":
            raise RefusedError(state["code"], state["reason"])
        keeper = keeper or open_process(state["keeper"])
        if changes in readable([changes, *([keeper] if keeper else [])], None):
            os.read(changes, 65536)
        state = site.state(job["id"])
    raise RefusedError("cancelled", "The job was stopped")


def detach(keeper: Keeper, lock: Lock) -> NoReturn:
    """In a child: leave the session of whoever asked, with nothing of theirs, and be the keeper in a child again."""
    try:
        os.setsid()
        if not os.fork():
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            for fd in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, lock.fd}:
                with contextlib.suppress(OSError):  # the listing's own
                    os.close(fd)
            set_oom_score(200)
            keeper.run(lock)
    finally:
        os._exit(0)


def changes_in(site: Site) -> int:
    """A descriptor that becomes readable when a job's state has changed."""
    fd = system_call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)
    system_call("inotify_add_watch", fd, site.jobs.encode(), IN_MOVED_FROM)
    return fd


def list_jobs(site: Site, _: Object) -> None:
    say(event="jobs", jobs=[public(state) for job in site.ids() if (state := site.state(job))])


def watch(site: Site, document: Object) -> None:
    changes, next_beat = changes_in(site), 0.0
    told: dict[str, str] = {}  # by job: its keeper, for a job that was refused its display may be started again
    keepers: dict[int, str] = {}
    answered = True
    while True:
        if boottime() >= next_beat:
            next_beat = boottime() + min(document["lease"] / 10, BEAT)
            if answered:
                write_file(f"{site.jobs}/alive", f"{site.jobs}/.alive", str(boottime()))
            answered = False
            say(event="alive")
        jobs = set(site.ids())
        told = {job: keeper for job, keeper in told.items() if job in jobs}
        for job in jobs - set(keepers.values()):
            state = site.state(job)
            if not state or told.get(job) == state["keeper"]:
                continue
            if (process := open_process(state["keeper"])) is not None:
                keepers[process] = job
            elif state := site.state(job):
                told[job] = state["keeper"]
                if state["ready"]:
                    say(event="ended", job=public(state))
        for fd in readable([0, changes, *keepers], next_beat - boottime()):
            if keepers.pop(fd, None):
                os.close(fd)
            elif not os.read(fd, 65536):
                return
            elif fd == 0:
                answered = True


def stop(site: Site, document: Object) -> None:
    job = document["id"]
    with site.lock():
        bury_tombstones(site)
        with open(f"{site.tombstones}/{job}", "wb"):
            pass  # a start may still be on its way, also of a job that was here before
        if not (state := site.state(job)):
            remove(f"{site.jobs}/{job}")  # of a start that was killed before it had a keeper
    if state and not end_process(state["keeper"], signal.SIGTERM) and not end_process(state["keeper"], signal.SIGKILL):
        raise RefusedError("internal", f"The keeper of job {job} does not end")
    with site.lock():
        if state := site.state(job):
            site.clear(state)
    say(event="stopped")


def bury_tombstones(site: Site) -> list[str]:
    old = [entry for entry in os.scandir(site.tombstones) if time.time() > entry.stat().st_mtime + TOMBSTONE_AGE]
    for entry in old:
        remove(entry.path)
    return [f"tombstone of job {entry.name}" for entry in old]


def sweep(site: Site, _: Object) -> None:
    removed = []
    with site.lock():
        for job in site.ids():
            state = site.state(job)
            if state and state["state"] not in ("ended", "lost"):
                continue
            try:
                if state:
                    site.clear(state)
                remove(f"{site.jobs}/{job}")
            except RefusedError as problem:
                removed.append(f"job {job}: not yet: {problem.message}")
            else:
                removed.append(f"job {job}: {state['reason'] if state else 'it never started'}")
        removed += bury_tombstones(site)
        for name in os.listdir(site.locks):
            with contextlib.suppress(BlockingIOError):
                if re.fullmatch(r"[0-9]+\.lock", name):
                    Lock(f"{site.locks}/{name}", wait=False).release()
                    removed.append(f"lock of display {name.removesuffix('.lock')}")
    say(event="swept", removed=removed)


VERBS = {"hello": hello, "start": start, "list": list_jobs, "watch": watch, "stop": stop, "sweep": sweep}


def main() -> int:
    line = b""
    os.umask(0o022)
    try:
        while b"\n" not in line and (more := os.read(0, 65536)):
            line += more
            if len(line) > DOCUMENT_LIMIT:
                raise RefusedError("bad-request", "The document is too long")
        document = parse(line)
        site = Site(document["jobs"], document["owner"])
        site.prepare()
        VERBS[document["verb"]](site, document)
        return 0
    except BrokenPipeError:
        return 1  # whoever asked is gone
    except RefusedError as refusal:
        say(event="failed", code=refusal.code, message=refusal.message)
    except Exception as error:
        say(event="failed", code="internal", message=f"The runner failed: {type(error).__name__}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
