"""The runner: starts and ends jobs on an agent. It does what needs root for that, and nothing else. One file, standard
library only, for ``python3 -I -S runner.py < document``, as root, through ``sudo -n``, or as an ordinary user. The
document (``DOCUMENTS``) and the answers are lines of JSON:

    hello   {"event":"hello","user":…,"own_users":bool,"jobs":folder,"cache":folder for files of jobs, or ""}
    start   {"event":"begun"} once the job has a keeper; the rest stands in its ``state.json``. Idempotent by job id
    stop    {"event":"stopped"} once nothing of the job is left; a job of that id that comes later is refused
    sweep   {"event":"swept","removed":[words, …]}: of jobs without a keeper, and on displays that nobody has
    FAILED = {"event":"failed","code":…,"message":…,"hint":…}, exit status 1: the answer of any verb

A job is one *box*: a program that comes as text, is never looked at here, and only ever runs as the display's own Unix
user (box.py). A *keeper*, detached from whoever asked, owns the job: its folder ``<jobs>/<id>`` with ``state.json``,
``log`` and ``vnc/``, its display's lock, its Unix user, its memory. The end of the box, or of the keeper, is the end of
all. Without a sign of life in ``<jobs>/alive``, which belongs to whoever asks, a keeper ends its job (watcher.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import resource
import select
import signal
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    Object = dict[str, Any]

VERSION = 2  # of the documents: a daemon with another one is refused
JOBS, CACHE = "/run/ipmiproxyd-jobs", "/var/cache/ipmiproxyd"  # of a runner that is root
LOCKS, BOOT = "/run/ipmiproxyd-displays", "/proc/sys/kernel/random/boot_id"  # both are those of all who ask
GECOS, SHELL = "ipmiproxyd console display", "/usr/sbin/nologin"  # mark these users as ours
CGROUPS, PATH = "/sys/fs/cgroup", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CODES = ("tool-missing", "no-free-display", "timeout")  # that a box may end with, beside job-failed
DOCUMENT_LIMIT, EVENT_LIMIT, STAGES_LIMIT, LEAST_DISK = 1 << 23, 1 << 16, 16, 256  # bytes; bytes; KiB at the end
PATIENCE, TOMBSTONE_AGE = 10.0, 3600.0  # seconds
THREADS_LIMIT, USERS_LIMIT = 4096, 400  # of a job whose user is its own; of all users of ours: the system's run out
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, CLONE_NEWNS, MS_BIND, MS_REC_PRIVATE = 36, 38, 0x20000, 0x1000, 0x44000


class RefusedError(Exception):
    """What was asked for is not done, or not any more. ``code`` is a stable word; ``hint`` tells what to do."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code, self.message, self.hint = code, message, hint


# The document: a rule is a pattern for a text, or a pair of numbers (floats if the first is one).
ID = r"(?!(?:alive|tombstones|displays|lock)\Z)[A-Za-z0-9][A-Za-z0-9_-]{0,47}"
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"
FOLDER = r"(?:/(?!\.{1,2}(?:/|\Z))[^/\0\n]{1,100})+"
TEXT = r"[^\0\ud800-\udfff]{0,8388608}"
COMMON = {"verb": "[a-z]+", "version": (1, 1 << 30), "jobs": f"{NAME}|{FOLDER}"}
COMMON |= {"prefix": "[a-z_](?:[a-z0-9_-]{0,22}[a-z_-])?", "group": (0, 2**32 - 2)}  # else x1 and 2 were x and 12
JOB = {"id": ID, "display": (1, 999), "vnc": "unix|tcp|direct", "door": "|door", "lease": (0.1, 7 * 86400)}
JOB |= {"memory": (1 << 20, 1 << 44), "least_free": (0, 1 << 44), "box": TEXT, "given": TEXT}
DOCUMENTS: Object = {"hello": COMMON, "start": COMMON | JOB, "stop": COMMON | {"id": ID}, "sweep": COMMON}


def parse(line: bytes) -> Object:
    """Raises RefusedError unless the document is as the rules say, to the last member."""
    try:
        version = (document := json.loads(line.decode()))["version"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise RefusedError("bad-request", "The document is no JSON object in UTF-8 with a version") from error
    if type(version) is int and version != VERSION:
        raise RefusedError("agent-outdated", f"The runner speaks version {VERSION}, the daemon {version}")
    rules = DOCUMENTS.get(str(document.get("verb")), {})
    if document.keys() != rules.keys():
        raise RefusedError("bad-request", "The document has no verb that the runner knows, or not its members")
    for name, rule in rules.items():
        value = document[name]
        kinds = (str,) if isinstance(rule, str) else (int, type(rule[0]))
        if type(value) not in kinds or not (re.fullmatch(rule, value) if str in kinds else rule[0] <= value <= rule[1]):
            raise RefusedError("bad-request", f"{name} is not as it must be")
    return dict(document)


def identity(pid: int) -> str:
    """A name that no other process ever has; empty if the process has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else f"{read(BOOT).strip()}:{pid}:{int(fields[19])}"
    return ""


def end_process(name: str, number: int) -> bool:
    """Signal exactly the process of this :func:`identity`, and wait for its end; False if it goes on."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid := int(name.split(":")[1]))
        if identity(pid) == name:
            signal.pidfd_send_signal(fd, number)
            return bool(select.select([fd], [], [], PATIENCE)[0])
    return True


def living() -> dict[int, set[int]]:
    """The living processes of each user; 0 for those in containers, which have other users by our numbers."""
    found, ours = dict[int, set[int]](), read("/proc/self/uid_map")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            status = read(f"/proc/{pid}/status")
            if match := re.search(r"(?s)\nState:\s+[^ZX].*\nUid:([^\n]+).*\nNSpid:\s+\d+(\t\d+)?", status):
                boxed = match[2] and read(f"/proc/{pid}/uid_map") == ours
                for uid in map(int, match[1].split()):
                    found.setdefault(uid, set()).add(0 if boxed else int(pid))
    return found


def end_user(uid: int) -> None:
    """Kill every process of a Unix user of ours: by one call, which none outruns, as somebody whom none can stop."""
    last = max(int(low) + int(size) - 1 for low, _, size in map(str.split, read("/proc/self/uid_map").splitlines()))
    for _ in range(int(PATIENCE / 0.005)):
        there = living().get(uid, set())
        if not (child := os.fork()):
            try:
                os.setresuid(last, uid, last)
                for pid in there - {0} if 0 in there else (-1,):  # that one would end a container's, too
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                os._exit(0)
            finally:
                os._exit(1)
        if not os.waitpid(child, 0)[1] and living().get(uid, {0}) == {0}:  # another one like it may have killed it
            return
        time.sleep(0.005)
    raise RefusedError("internal", f"Processes of the Unix user {uid} do not end")


def system_call(name: str, *arguments: int | bytes | None) -> None:
    import ctypes  # costs more than it should, and hello and stop can do without
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), f"{name} failed")


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text)


def remove(*paths: str) -> None:
    """Remove files, and folders with all that is in them, however deep; nothing there is fine."""
    if os.waitpid(os.posix_spawnp("rm", ["rm", "-rf", "--", *paths], {"PATH": PATH}), 0)[1]:
        raise RefusedError("internal", f"{paths[0]} on the agent could not be removed")


def hold(path: str, *, wait: bool = True) -> IO[bytes]:
    """An exclusive lock, held while the file is open. Raises BlockingIOError where it is not to wait for another."""
    file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "ab")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    return file


class ControlGroup:
    """Limits of a display's programs, where we may make control groups: one of version 2, or two of version 1."""

    def __init__(self, display: int) -> None:
        self.unified = os.path.exists(f"{CGROUPS}/cgroup.controllers")
        kinds = ("",) if self.unified else ("/memory", "/pids")
        self.folders = [f"{CGROUPS}{kind}/ipmiproxyd/{display}" for kind in kinds]

    def make(self, memory: int) -> None:
        values = {"memory.max": memory, "memory.swap.max": 0, "memory.limit_in_bytes": memory}
        values |= {"memory.memsw.limit_in_bytes": memory, "pids.max": THREADS_LIMIT}
        for folder in self.folders:
            with contextlib.suppress(OSError):
                os.makedirs(folder, exist_ok=True)
                for path in (os.path.dirname(folder), folder):
                    os.chmod(path, 0o755)  # noqa: S103 (the box looks whether its memory was used up)
                for above in (CGROUPS, os.path.dirname(folder)) if self.unified else ():
                    write(f"{above}/cgroup.subtree_control", "+memory +pids")
                for name, value in values.items():
                    if os.path.exists(f"{folder}/{name}"):
                        write(f"{folder}/{name}", str(value))

    def remove(self) -> None:
        limit = time.monotonic() + PATIENCE
        while (left := list(filter(os.path.isdir, self.folders))) and time.monotonic() < limit:
            for folder in left:
                with contextlib.suppress(OSError):  # the last process is on its way out
                    os.rmdir(folder)
            time.sleep(0.005)


def caller() -> int:
    """The user who asks, by sudo or directly."""
    return os.geteuid() or int(os.environ.get("SUDO_UID", 0))


def add_user(name: str) -> None:  # wholly, whoever is to stop meanwhile: half a user would be of no use to anybody
    argv = f"useradd --system --user-group --no-create-home --home-dir /nonexistent --shell {SHELL} --comment".split()
    if os.waitpid(os.posix_spawnp("useradd", [*argv, GECOS, name], {"PATH": PATH}, setsigmask=[signal.SIGTERM]), 0)[1]:
        raise RefusedError("agent-unreachable", f"useradd could not make the Unix user {name} on the agent")


def our_users() -> dict[str, pwd.struct_passwd]:
    """The displays' Unix users, of all who ask."""
    found = {one.pw_name: one for one in pwd.getpwall() if one.pw_uid and one.pw_gid}
    return {name: one for name, one in found.items() if (one.pw_gecos.rstrip(","), one.pw_shell) == (GECOS, SHELL)}


def make_folder(path: str, mode: int, owner: int, group: int) -> None:
    """Unless it is there. Raises RefusedError where it is somebody else's, or others can change it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    status = os.lstat(path)
    if status.st_mode == stat.S_IFDIR | 0o700 and status.st_uid in (os.geteuid(), owner):  # new, or only half made
        os.chown(path, owner, group)
        os.chmod(path, mode)
        status = os.lstat(path)
    if status.st_uid != owner or not stat.S_ISDIR(status.st_mode):
        raise RefusedError("agent-unreachable", f"{path} is no folder of the user {owner}", f"See there: ls -ld {path}")
    if status.st_mode & 0o022:
        problem = f"Others than its owner may write in {path} on the agent (mode {status.st_mode & 0o7777:o})"
        raise RefusedError("agent-unreachable", problem, f"As root there: chmod go-w {path}")


class Site:
    """Where jobs are kept, and as whom they run. Root keeps them by a name, where it always does; others anywhere."""

    def __init__(self, jobs: str, prefix: str, group: int) -> None:
        self.own_users, self.prefix, self.group, self.me = os.geteuid() == 0, prefix, group, str(os.geteuid())
        with contextlib.suppress(KeyError):
            self.me = pwd.getpwuid(os.geteuid()).pw_name
        if self.own_users == jobs.startswith("/"):
            raise RefusedError("bad-request", "For root the jobs have a name, and for anybody else a folder")
        self.jobs = f"{JOBS}/{jobs}" if self.own_users else jobs
        self.cache = f"{CACHE}/{jobs}" if self.own_users else ""
        self.tombstones, self.locks = f"{self.jobs}/tombstones", LOCKS if self.own_users else f"{jobs}/displays"

    def prepare(self) -> None:
        """Make the folders. Raises RefusedError where they are somebody else's, or others can change them."""
        me, group = os.geteuid(), self.group if self.own_users else -1
        if self.own_users:
            asks = pwd.getpwuid(caller())
            groups = {int(os.environ.get("SUDO_GID", asks.pw_gid)), *os.getgrouplist(asks.pw_name, asks.pw_gid)}
            if asks.pw_uid and group not in groups:
                raise RefusedError("bad-request", f"{asks.pw_name} is not in the group {group} on the agent")
            for path in ("/run", JOBS, LOCKS, f"{LOCKS}/vnc", "/var/cache", CACHE):
                make_folder(path, 0o700 if path in ("/run", "/var/cache") else 0o711, 0, -1)
        make_folder(self.jobs, 0o2750 if self.own_users else 0o700, me, group)
        os.chown(self.jobs, -1, group)  # another one, perhaps, than when it was made
        for path in (self.tombstones, self.locks):
            make_folder(path, 0o700, me, -1)
        with hold(f"{self.jobs}/lock"):
            # The jobs' name is that user's who made it, as long as one of these is there, and not only half made.
            found = map(os.lstat, filter(os.path.lexists, (alive := f"{self.jobs}/alive", self.cache)))
            if any(status.st_uid != caller() and status.st_mode & 0o777 != 0o700 for status in found):
                raise RefusedError("agent-unreachable", f"{alive} or {self.cache} on the agent is somebody else's")
            if not os.path.lexists(alive):
                write(new := f"{self.jobs}/.alive", "")
                os.chown(new, caller(), -1)
                os.rename(new, alive)
            if self.cache:
                make_folder(self.cache, 0o711, caller(), -1)

    def state(self, job: str) -> Object | None:
        for _ in range(2):  # a keeper that is gone may have had its last word after the first look
            try:
                with open(os.open(f"{self.jobs}/{job}/state.json", os.O_RDONLY | os.O_NOFOLLOW)) as file:
                    state: Object = json.load(file)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if state["state"] == "ended" or identity(int(state["keeper"].split(":")[1])) == state["keeper"]:
                return state
        return state | {"state": "lost", "code": "job-failed", "reason": "The job's keeper was killed"}

    def console_user(self, display: int) -> tuple[str, int, int]:
        """Name, uid and gid of the Unix user that a display runs as; makes the user where there is none yet."""
        if not self.own_users:
            return self.me, os.geteuid(), os.getegid()
        name = f"{self.prefix}{display}"
        with hold(f"{LOCKS}/users.lock"):  # useradd refuses to run twice at once
            try:
                pwd.getpwnam(name)
            except KeyError:
                if len(our_users()) >= USERS_LIMIT:
                    raise RefusedError("no-free-display", "The agent has no more Unix users for displays") from None
                add_user(name)
        if not (entry := our_users().get(name)):
            raise RefusedError("no-free-display", f"The Unix user {name} on the agent was not made by ipmiproxyd")
        return name, entry.pw_uid, entry.pw_gid

    def empty_display(self, display: int, uid: int) -> None:
        """End what still runs on a display whose lock is held, and remove what held it."""
        if uid in {entry.pw_uid for entry in our_users().values()}:
            end_user(uid)
            ControlGroup(display).remove()

    def free(self, display: int) -> Iterator[int]:
        """The display, held meanwhile, unless somebody has it: whoever has it made sure of being alone."""
        with contextlib.suppress(BlockingIOError), hold(f"{self.locks}/{display}.lock", wait=False):
            yield display

    def haunted(self) -> Iterator[tuple[int, pwd.struct_passwd]]:
        """Displays that nobody has, each held meanwhile, of which there is something all the same; and their users."""
        alive = living()
        for name, user in our_users().items():
            number = int(name[len(self.prefix) :]) if re.fullmatch(f"{self.prefix}[0-9]+", name) else 0
            if number and (alive.get(user.pw_uid, {0}) != {0} or any(map(os.path.isdir, ControlGroup(number).folders))):
                yield from ((display, user) for display in self.free(number))

    def clear(self, state: Object) -> None:
        """End what is left of a job whose keeper has ended, and remove its folder."""
        for display in self.free(state["display"]):
            self.empty_display(display, state["uid"])
        self.forget(state["id"])

    def forget(self, job: str) -> None:
        remove(f"{self.jobs}/{job}", f"{self.jobs}/.{job}")


class Keeper:
    """Owns one job from its folder to its end. A process of its own, for which nobody waits."""

    def __init__(self, site: Site, job: Object, begun: float) -> None:
        self.site, self.job, self.begun, self.folder = site, job, begun, f"{site.jobs}/{job['id']}"
        self.display, self.vnc, self.pid, self.asks = job["display"], f"{self.folder}/vnc", os.getpid(), caller()
        self.state: Object = {"state": "starting", "ready": False, "stages": [], "user": "", "uid": 0}
        self.state |= {name: job.get(name, "") for name in ("id", "display", "vnc", "door", "code", "reason")}
        self.end, self.box = RefusedError("job-failed", "The sandbox ended"), 0
        self.lock: IO[bytes] | None = None  # of the display

    def run(self, starting: IO[bytes]) -> None:
        """Live through the job, with nothing of whoever asked. Every way out gives back everything. SIGTERM: stop."""
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        self.stopped, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # SIGTERM breaks nothing off: see serve()
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        write("/proc/self/oom_score_adj", "200")
        for limit in (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE) if self.site.own_users else ():
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # not that of whoever asked
        system_call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            self.state["keeper"] = identity(self.pid)
            self.save()
            starting.close()
            self.acquire()
            self.serve(self.spawn())
        except RefusedError as end:
            self.end = end
        except Exception as error:
            self.end = RefusedError("internal", f"The job's keeper failed: {type(error).__name__}: {error}")
        self.finish()

    def save(self) -> None:
        """Replace the state as a whole, by way of a new file. The jobs' group may read it."""
        new = f"{self.site.jobs}/.{self.job['id']}"
        write(new, json.dumps(self.state))
        os.chmod(new, 0o640)
        os.replace(new, f"{self.folder}/state.json")

    def acquire(self) -> None:
        for _ in range(20):  # whoever clears away what was left of it has it for a moment
            with contextlib.suppress(BlockingIOError):
                self.lock = hold(f"{self.site.locks}/{self.display}.lock", wait=False)
                break
            time.sleep(0.02)
        else:
            raise RefusedError("no-free-display", f"Display {self.display} is in use on the agent")
        self.state["user"], self.uid, self.gid = self.site.console_user(self.display)
        os.mkdir(self.vnc, 0o700)
        if self.site.own_users:
            self.state["uid"] = self.uid
            self.save()  # from now on there is something to empty
            self.site.empty_display(self.display, self.uid)
            ControlGroup(self.display).make(self.job["memory"])
            os.chown(self.vnc, self.uid, self.site.group)
            os.chmod(self.vnc, 0o2710)  # noqa: S103 (the agent's group must reach the socket)

    def spawn(self) -> int:
        """Start the box; returns where it tells its events. What it prints goes to the log."""
        program, given = os.memfd_create("box", 0), os.memfd_create("given")  # the box inherits the first one
        os.pwrite(program, self.job.pop("box").encode(), 0)
        os.pwrite(given, self.job.pop("given").encode(), 0)
        log = os.open(f"{self.folder}/log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        events, tell = os.pipe()
        self.box = os.fork()
        if not self.box:
            try:
                for number, fd in enumerate((given, tell, log)):
                    os.dup2(fd, number)
                argv = [f"/proc/self/fd/{program}", self.descend(), str(self.asks), str(self.pid)]
                os.execve(sys.executable, [sys.executable, "-I", "-S", *argv], {"PATH": PATH, "LANG": "C.UTF-8"})  # noqa: S606
            except BaseException as error:
                os.write(1, json.dumps({"over": "job-failed", "message": f"No sandbox: {error}"}).encode() + b"\n")
            finally:
                os._exit(127)
        for fd in (program, given, log, tell):
            os.close(fd)
        return events

    def descend(self) -> str:
        """In the child: become the console's user, with limits; returns the vnc folder's path for the box."""
        system_call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if not self.site.own_users:
            return self.vnc
        for group in ControlGroup(self.display).folders:
            with contextlib.suppress(OSError):
                write(f"{group}/cgroup.procs", "0")
        resource.setrlimit(resource.RLIMIT_NPROC, (THREADS_LIMIT, THREADS_LIMIT))
        # The user may not pass the folders above vnc/: a mount in a namespace of our own puts it where he may.
        system_call("unshare", CLONE_NEWNS)
        system_call("mount", None, b"/", None, MS_REC_PRIVATE, None)
        system_call("mount", self.vnc.encode(), (vnc := f"{LOCKS}/vnc").encode(), None, MS_BIND, None)
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        return vnc

    def serve(self, events: int) -> None:
        """Until the box has ended; raises RefusedError where the keeper must end it, also as its folder was removed."""
        site, unread, lease = self.site, b"", self.job["lease"]
        while os.path.exists(self.folder) and (left := max(self.begun, last_sign(site)) + lease - time.monotonic()) > 0:
            ready = select.select([events, self.stopped], [], [], left)[0]
            if self.stopped in ready:
                raise RefusedError("cancelled", "The job was stopped")
            if not ready:
                continue
            if not (data := os.read(events, 4096)):
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                self.told(json.loads(line))
            if len(unread) > EVENT_LIMIT or len(self.state["stages"]) > STAGES_LIMIT:
                raise RefusedError("job-failed", "The sandbox does not speak as it must")
        raise RefusedError("job-failed", f"There was no sign of life from the daemon for {lease:g} s")

    def told(self, event: Object) -> None:
        """What the box tells is believed only as far as it concerns its own job: a program may speak for it."""
        if "over" in event:
            self.end = RefusedError(event["over"] if event["over"] in CODES else "job-failed", words(event["message"]))
        elif self.state["state"] == "starting":
            if not self.state["stages"] and self.site.own_users:
                # The display is there. What runs from now on could put anything else in the place of its socket.
                os.chown(self.vnc, 0, self.site.group)
                os.chmod(self.vnc, 0o711)  # noqa: S103 (the agent's group must reach the socket, and the box)
            self.state["stages"].append([words(event["stage"]), round(1000 * (time.monotonic() - self.begun))])
            if event["last"]:
                self.state |= {"state": "running", "ready": True}
            self.save()

    def finish(self) -> None:
        """End every process, then give back the rest. What remains is ``state.json``, for whoever asks why."""
        try:
            if self.box:
                os.kill(self.box, signal.SIGKILL)  # before it becomes the console's user, if it has not yet
            self.site.empty_display(self.display, self.state["uid"])
            self.end_children()
            if self.lock:
                self.lock.close()
            remove(self.vnc, f"{self.folder}/log")
            if self.end.code == "cancelled":
                return self.site.forget(self.job["id"])
        except RefusedError as problem:
            self.end.message += f" ({problem.message})"
        self.state |= {"state": "ended", "code": self.end.code, "reason": self.end.message}
        return self.save()

    def end_children(self) -> None:
        """All that are left, and theirs: a process whose parent ends becomes ours."""
        limit = time.monotonic() + PATIENCE
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < limit:
                for pid in read(f"/proc/self/task/{self.pid}/children").split():
                    os.kill(int(pid), signal.SIGKILL)
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                time.sleep(0.002)
            raise RefusedError("internal", "Processes of the job do not end")


def last_sign(site: Site) -> float:
    with contextlib.suppress(FileNotFoundError, ValueError), open(os.open(f"{site.jobs}/alive", os.O_NOFOLLOW)) as file:
        return sign if (sign := float(file.read(64))) <= time.monotonic() else 0.0
    return 0.0


def words(message: object) -> str:
    """A program's text as one short printable line."""
    return "".join(letter if letter.isprintable() else " " for letter in str(message)[:300]).strip()


def say(**event: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        os.write(1, json.dumps(event).encode() + b"\n")


def hello(site: Site, _: Object) -> None:
    say(event="hello", user=site.me, own_users=site.own_users, jobs=site.jobs, cache=site.cache)


def start(site: Site, document: Object) -> None:
    begun, folder = time.monotonic(), f"{site.jobs}/{document['id']}"
    if len(f"{folder}/vnc/socket".encode()) > 107:
        raise RefusedError("bad-request", "The jobs folder's path is too long for a UNIX socket in it")
    with hold(f"{site.jobs}/lock") as lock:
        if os.path.exists(f"{site.tombstones}/{document['id']}"):
            raise RefusedError("cancelled", "The job was stopped before it started")
        if (state := site.state(document["id"])) and state["code"] == "no-free-display":
            site.clear(state)  # it had come to nothing: now it may have another display
        if not os.path.exists(folder):
            ram = int(read("/proc/meminfo").split("MemAvailable:")[1].split()[0]) << 10
            kb = (disk := os.statvfs(site.jobs)).f_bavail * disk.f_frsize >> 10
            if ram < document["least_free"]:
                raise RefusedError("agent-full", f"The agent has only {ram >> 20} MiB of memory left")
            if kb < LEAST_DISK:
                problem = f"The agent's disk is full: {kb} KiB are free at {site.jobs}"
                raise RefusedError("agent-full", problem, f"Make room there: df -h {site.jobs}")
            os.mkdir(folder)
            os.chmod(folder, 0o750 if site.own_users else 0o700)
            if not os.fork():
                try:
                    Keeper(site, document, begun).run(lock)
                finally:
                    os._exit(0)
    with hold(f"{site.jobs}/lock"):  # the keeper has a share in it until its state is there
        if not os.path.exists(f"{folder}/state.json"):
            raise RefusedError("job-failed", "The job was stopped, or its keeper has ended, before it began")
        say(event="begun")


def stop(site: Site, document: Object) -> None:
    job = document["id"]
    with hold(f"{site.jobs}/lock"):
        state = site.state(job)
        with contextlib.suppress(OSError) if state else contextlib.nullcontext():  # a full disk keeps no job alive
            write(f"{site.tombstones}/{job}", "")  # a start may still be on its way, also of a job that was here before
        if not state:
            site.forget(job)  # of a start that was killed before it had a keeper
        for entry in os.scandir(site.tombstones):
            if time.time() > entry.stat().st_mtime + TOMBSTONE_AGE:
                os.unlink(entry)
    if state and not end_process(state["keeper"], signal.SIGTERM) and not end_process(state["keeper"], signal.SIGKILL):
        raise RefusedError("internal", f"The keeper of job {job} does not end")
    with hold(f"{site.jobs}/lock"):
        if state := site.state(job):
            site.clear(state)
    say(event="stopped")


def sweep(site: Site, _: Object) -> None:
    removed = []
    with hold(f"{site.jobs}/lock"):
        names = {name.removeprefix(".") for name in os.listdir(site.jobs)}  # .ID is half a state
        for job in sorted(name for name in names if re.fullmatch(ID, name)):
            state = site.state(job) or {"state": "lost", "reason": "it never started, or is gone"}
            if state["state"] in ("ended", "lost"):
                try:
                    site.clear(state) if "id" in state else site.forget(job)
                    removed.append(f"job {job}: {state['reason']}")
                except RefusedError as problem:
                    removed.append(f"job {job}: not yet: {problem.message}")
    for display, user in site.haunted() if site.own_users else ():
        try:
            site.empty_display(display, user.pw_uid)
            removed.append(f"display {display}: what {user.pw_name} still had, without a job")
        except RefusedError as problem:
            removed.append(f"display {display}: not yet: {problem.message}")
    say(event="swept", removed=removed)


def main() -> int:
    os.umask(0o077)
    os.closerange(3, 1 << 16)  # of whoever asks, and none of a job's
    try:
        document = parse(sys.stdin.buffer.readline(DOCUMENT_LIMIT))
        site = Site(document["jobs"], document["prefix"], document["group"])
        site.prepare()
        {"hello": hello, "start": start, "stop": stop, "sweep": sweep}[document["verb"]](site, document)
        return 0
    except RefusedError as refusal:
        say(event="failed", code=refusal.code, message=refusal.message, hint=refusal.hint)
    except Exception as error:
        say(event="failed", code="internal", message=f"The runner failed: {type(error).__name__}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
