"""A job, as far as it needs no root: its sandbox, behind its fence, and the watch over its start. One file, standard
library only: it comes to the agent as text, and a keeper (runner.py) starts it as the console's own user.

    python3 -I -S /proc/self/fd/NUMBER VNC CALLER KEEPER < given

VNC is the folder of the display's sockets, CALLER the number of the Unix user who asks for jobs. Standard input holds
one JSON object, and is emptied, since that may hold secrets:

    display, programs, files, library, cache, java, reach, start_timeout     as the daemon's JobSpec has them
    log                                                                      bytes that its log may have
    listen                                                                   the address of the display's port, or empty
    inside, fence                                                            programs: inside.py and fence.py

It tells its keeper on standard output, in lines of JSON:

    {"stage":name,"last":bool}     a program is ready
    {"over":code,"message":…}      why the job has ended, or comes to nothing

Standard error is the job's log, a file; of what is too much for it the last part is kept. This process
stays as the forwarder of the fence, out of the sandbox's reach. It ends with the sandbox, and the sandbox with it; and
with KEEPER, its parent.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import re
import resource
import signal
import socket
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]

HOME, RUN, TMP, SHM = "/home/console", "/run/console", "/tmp", "/dev/shm"  # noqa: S108 (inside the sandbox)
LIBRARY = RUN + "/library"  # there too
POLICIES = {  # there too; what else is in the folder below /etc or /opt is hidden
    "chromium-policy": "/etc/chromium/policies/managed",
    "chrome-policy": "/etc/opt/chrome/policies/managed",
    "edge-policy": "/etc/opt/edge/policies/managed",
    "brave-policy": "/etc/brave/policies/managed",
}
PLACES = {"home": HOME, "library": LIBRARY, **POLICIES}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CGROUPS = "/sys/fs/cgroup"
VNC_PORT = 5900  # + display number
FILES_LIMIT = 8192  # of each process
LIBRARY_LIMIT = 192 << 20  # bytes of all a job's files from the cache
LAST_LIMIT, EVENT_LIMIT, TMPFS_LIMIT, SMALL_TMPFS_LIMIT = 1 << 16, 1 << 16, 1 << 29, 1 << 24  # bytes
READABLE = 1  # of epoll
HOST_NAME = r"(?!-)[A-Za-z0-9._-]{1,253}"


class OverError(Exception):
    """The job comes to nothing. ``code`` is a stable word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def tell(**event: Any) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


# --- files -----------------------------------------------------------------------------------------------------------


def memory_file(content: bytes) -> int:
    fd = os.memfd_create("box")
    with open(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def content(file: Object) -> bytes:
    """Of a file that was given."""
    if file["encoding"] == "utf-8":
        return bytes(file["text"].encode())
    try:
        return base64.b64decode(file["text"], validate=True)
    except ValueError as error:
        raise OverError("job-failed", f"The file {file['name']} is not in base64") from error


def library(folder: str, wanted: list[Object]) -> list[tuple[int, str]]:
    """Copies of files from the agent's cache, in memory, and their places. The cache belongs to somebody else: a file
    counts only if it is a plain one of the cache's owner, without other names, and has the content that is wanted."""
    if not wanted:
        return []
    import hashlib  # most jobs have none

    found, left = [], LIBRARY_LIMIT
    never_by_a_link = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # It may be passed, not listed.
        cache = os.open(folder, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError as error:
        raise OverError("job-failed", f"The agent's cache cannot be read: {error.strerror}") from error
    for entry in wanted:
        try:
            fd = os.open(entry["sha256"], never_by_a_link | os.O_NONBLOCK, dir_fd=cache)
            with open(fd, "rb", buffering=0) as file:
                status = os.fstat(fd)
                own = status.st_uid == os.fstat(cache).st_uid and status.st_nlink == 1
                if not stat.S_ISREG(status.st_mode) or not own or status.st_size > left:
                    raise OverError("job-failed", f"The file {entry['name']} in the agent's cache is none for a job")
                data = file.read(left + 1)
        except OSError as error:
            problem = f"The file {entry['name']} is not in the agent's cache: {error.strerror}"
            raise OverError("job-failed", problem) from error
        left -= len(data)
        if left < 0 or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise OverError("job-failed", f"The file {entry['name']} in the agent's cache is not what it was")
        found.append((memory_file(data), f"{LIBRARY}/{entry['name']}"))
    os.close(cache)
    return found


def check_java(folder: str, caller: int) -> None:
    """Raises OverError unless only root, and who asks for jobs, can change what is in a folder with a Java, and this
    user can read it."""
    own = f"{folder}/".startswith((f"{HOME}/", f"{RUN}/", "/proc/", "/dev/", "/sys/"))
    if own or os.path.realpath(folder) != folder or not os.path.isdir(folder):
        raise OverError("tool-missing", f"There is no Java in {folder} on the agent, or it is closed to its displays")
    while folder != "/":
        status = os.stat(folder)
        safe = not status.st_mode & 0o022 or status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, caller) or not safe:
            raise OverError("tool-missing", f"{folder} on the agent can be changed by others: no Java of a job's")
        if not os.access(folder, os.X_OK):
            raise OverError("tool-missing", f"{folder} on the agent is closed to the displays' users: chmod o+x it")
        folder = os.path.dirname(folder)


def is_32_bit(java: str) -> bool:
    """Whether a Java is a program of 32 bits."""
    with contextlib.suppress(OSError), open(f"{java}/bin/java", "rb") as file:
        return file.read(5) == b"\x7fELF\1"
    return False


def hosts(reach: list[Object]) -> str:
    """All the names that mean something inside."""
    lines = ["127.0.0.1 localhost console", "::1 localhost"]
    for entry in reach:
        lines += [f"{entry['address']} {name}" for name in entry["names"] if re.fullmatch(HOST_NAME, name)]
    return "".join(f"{line}\n" for line in lines)


def memory_limit_met(display: int) -> int:
    """Bytes that the control group of a display allows, if the kernel has killed a program in it for the lack of
    memory; else 0."""
    for folder, events, limit in (
        (f"{CGROUPS}/ipmiproxyd/{display}", "memory.events", "memory.max"),
        (f"{CGROUPS}/memory/ipmiproxyd/{display}", "memory.oom_control", "memory.limit_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            with open(f"{folder}/{events}", encoding="ascii") as file:
                killed = re.search(r"^oom_kill [1-9]", file.read(), re.MULTILINE)
            with open(f"{folder}/{limit}", encoding="ascii") as file:
                return int(file.read()) if killed else 0
    return 0


# --- the sandbox -----------------------------------------------------------------------------------------------------


def knows_sizes(bwrap: str) -> bool:
    """Whether this bubblewrap limits what it keeps in memory: that of Debian 11 cannot, and there the display's control
    group does alone. Its text is looked into, since a run of it would take longer."""
    with open(bwrap, "rb") as file:
        return b"--size" in file.read()


def etc_folder(path: str) -> str:
    """The folder right below /etc that a path is in."""
    return "/".join(path.split("/")[:3])


def hides(place: str, path: str, files: list[tuple[int, str]]) -> bool:
    """Whether a job has a folder of policies of its own: that of Chromium always, others with files in them."""
    own = place == "chromium-policy" or any(name.startswith(f"{path}/") for _, name in files)
    return own and os.path.isdir(etc_folder(path))


def check_policies(place: str) -> None:
    """Raises OverError where a file cannot lie where its browser reads it: that would run without its lock-down."""
    folder = etc_folder(PLACES[place])
    if place in POLICIES and not os.path.isdir(folder):
        if place == "chromium-policy":
            raise OverError("tool-missing", "Chromium is not installed on the agent: it has no folder /etc/chromium")
        problem = f"The browser's policies have no place on the agent: there, as root: mkdir -m 755 {folder}"
        raise OverError("tool-missing", problem)


def sandbox(
    vnc: str, files: list[tuple[int, str]], python: str, java: str, others: tuple[int, int, int], *, sizes: bool
) -> list[str]:
    """bubblewrap's arguments. ``files``: descriptors and the places of their contents; ``others``: those of /etc/hosts,
    of an empty file, and of a filter for system calls, or -1. ``sizes``: it :func:`knows_sizes`. inside.py gives the
    folders their modes: not every bubblewrap can."""
    limit, small = ((["--size", str(size)] if sizes else []) for size in (TMPFS_LIMIT, SMALL_TMPFS_LIMIT))
    args = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "console"]
    args += ["--new-session", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    for path in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc"):
        if os.path.islink(path):
            args += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            args += ["--ro-bind", path, path]
    args += ["--seccomp", str(others[2])] if others[2] >= 0 else []
    for fd, path in zip(others[:2], ("/etc/hosts", os.path.realpath("/etc/resolv.conf"))):
        # What lies elsewhere is not in the sandbox at all.
        if path.startswith(("/etc/", "/usr/")) and os.path.isfile(path) and not os.path.islink(path):
            args += ["--ro-bind-data", str(fd), path]
    args += ["--proc", "/proc", "--dev", "/dev", *limit, "--tmpfs", SHM, "--remount-ro", "/dev"]
    args += [*small, "--tmpfs", "/run", *small, "--tmpfs", "/var", "--dir", RUN]
    args += [*limit, "--tmpfs", HOME, "--bind", vnc, f"{RUN}/vnc"]
    args += [*limit, "--tmpfs", TMP, "--dir", f"{TMP}/.X11-unix"]
    args += ["--ro-bind-try", "/var/cache/fontconfig", "/var/cache/fontconfig"]
    managed = [path for place, path in POLICIES.items() if hides(place, path, files)]
    hidden = dict.fromkeys(map(etc_folder, managed))
    args += [word for folder in hidden for word in ("--tmpfs", folder)]
    args += [word for path in managed for word in ("--dir", path)]
    args += [*limit, "--tmpfs", LIBRARY]
    for fd, place in files:
        args += ["--file", str(fd), place]
    args += [word for folder in (LIBRARY, *hidden) for word in ("--remount-ro", folder)]
    args += ["--ro-bind", java, java] if java and not java.startswith(("/usr/", "/opt/")) else []
    args += ["--remount-ro", "/"]
    return [*args, "--chdir", HOME, "--", python, "-I", "-S", f"{RUN}/inside.py"]


class Box:
    """One job. ``fence``: the module of that name."""

    def __init__(self, given: Object, vnc: str, caller: int, fence: Any) -> None:
        self.given, self.vnc, self.caller, self.fence = given, vnc, caller, fence
        self.display = given["display"]
        self.names = [program["name"] for program in given["programs"]]
        self.ready, self.ended, self.unread, self.said, self.log_limit = 0, False, b"", b"", given["log"]
        self.loop = fence.Loop()
        self.forwarder = fence.Forwarder(self.loop)

    def arguments(self) -> tuple[str, list[str], list[int]]:
        """bubblewrap, its arguments, and the descriptors that it needs, the first for its standard input."""
        given = self.given
        there = [path for folder in PATH.split(":") if os.path.isfile(path := f"{folder}/bwrap")]
        bwrap = next((path for path in there if os.access(path, os.X_OK)), None)
        if not bwrap:
            how = f"is on the agent ({there[0]}), but cannot be executed" if there else "is not installed on the agent"
            raise OverError("tool-missing", f"bubblewrap (bwrap) {how}")
        for file in given["files"]:
            check_policies(file["place"])
        if not (python := os.path.realpath(sys.executable)).startswith(("/usr/", "/opt/")):
            raise OverError("tool-missing", f"The agent's Python must be under /usr or /opt, not {python}")
        if given["java"]:
            check_java(given["java"], self.caller)
        files = [(memory_file(given["inside"].encode()), f"{RUN}/inside.py")]
        files += library(given["cache"], given["library"])
        files += [(memory_file(content(file)), f"{PLACES[file['place']]}/{file['name']}") for file in given["files"]]
        told = {name: given[name] for name in ("display", "programs")}
        told["locked"] = self.caller != os.geteuid()  # then a keeper that is root takes the folder of sockets
        document = memory_file(json.dumps(told).encode())
        calls = self.fence.socket_filter(other_calls=bool(given["java"]) and is_32_bit(given["java"]))
        others = (memory_file(hosts(given["reach"]).encode()), memory_file(b""), memory_file(calls) if calls else -1)
        argv = sandbox(self.vnc, files, python, given["java"], others, sizes=knows_sizes(bwrap))
        return bwrap, argv, [document, *(fd for fd in others if fd >= 0), *(fd for fd, _ in files)]

    def run(self) -> None:
        """Live through the job."""
        fence = self.fence.Fence(self.given["reach"])
        bwrap, argv, files = self.arguments()
        if self.given["listen"]:
            self.listen_outside(self.given["listen"])
        self.limit, me = self.given["start_timeout"], os.getpid()
        del self.given
        mine, other = socket.socketpair()
        (events, events_in), (log, log_in) = os.pipe(), os.pipe()
        if not os.fork():
            try:
                self.fence.die_with(me)
                for number, fd in enumerate((files[0], events_in, log_in)):
                    os.dup2(fd, number)
                for fd in files[1:]:
                    os.set_inheritable(fd, True)
                if listeners := fence.enter():
                    socket.send_fds(other, [b"."], [listener.fileno() for listener in listeners])
                self.fence.die_with(me)  # a change of namespaces may have undone it
                os.execve(bwrap, argv, {"PATH": PATH, "LANG": "C.UTF-8"})  # noqa: S606
            except (OverError, self.fence.FenceError) as error:
                tell(event="over", code=error.code, message=error.message)
            except BaseException as error:
                tell(event="over", code="job-failed", message=f"{type(error).__name__}: {error}")
            finally:
                os._exit(127)
        for fd in (*files, events_in, log_in):
            os.close(fd)
        other.close()
        self.loop.watch(events, READABLE, lambda _: self.heard(events))
        self.loop.watch(log, READABLE, lambda _: self.note(log))
        self.loop.moments[self] = (time.monotonic() + self.limit, self.late)
        self.loop.watch(mine.fileno(), READABLE, lambda _: self.take(mine, fence.dials))
        self.loop.run()
        os.set_blocking(log, False)
        with contextlib.suppress(BlockingIOError):
            self.note(log)
        if not self.ended:
            last = (self.said.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
            self.over("job-failed", f"The sandbox ended: {last}")

    def listen_outside(self, address: str) -> None:
        """The display's port on the agent. Whoever comes there takes no place of the programs' own connections."""
        port = VNC_PORT + self.given["display"]
        try:
            listener = self.fence.listen(address, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OverError("no-free-display", f"Port {port} is in use on the agent") from None
            problem = f"Port {port} cannot be had at {address} of the agent: {error.strerror}"
            raise OverError("job-failed", problem) from None
        self.fence.Forwarder(self.loop).serve(listener, self.fence.dial_socket(f"{self.vnc}/socket"))

    def take(self, channel: socket.socket, dials: list[Any]) -> None:
        """Serve the sockets that the fence has made; none come if there are none, or it has failed."""
        _, fds, _, _ = socket.recv_fds(channel, 1, len(dials))
        for fd, dial in zip(fds, dials):
            self.forwarder.serve(socket.socket(fileno=fd), dial)
        self.loop.close(channel)

    # --- what process 1 tells -----------------------------------------------------------------------------------------

    def heard(self, events: int) -> None:
        """Lines of inside.py."""
        data = os.read(events, 1 << 16)
        if not data or len(self.unread) > EVENT_LIMIT:
            self.loop.over = True
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "over":
                self.over(event["code"], str(event["message"]))
            elif self.ready < len(self.names):
                self.ready += 1
                tell(stage=self.names[self.ready - 1], last=self.ready == len(self.names))
                if self.ready == len(self.names):
                    self.loop.moments.pop(self, None)

    def over(self, code: str, message: str) -> None:
        if not self.ended:
            full = memory_limit_met(self.display) if code == "job-failed" and self.caller != os.geteuid() else 0
            said = f"The console ran out of its memory ({full >> 20} MiB): " if full else ""
            tell(over=code, message=said + message)
        self.ended = True

    def late(self) -> None:
        self.over("timeout", f"{self.names[self.ready]} was not ready within {self.limit:g} s")
        self.loop.over = True

    def note(self, log: int) -> None:
        """Keep the programs' output in the log file; once that is full, the last half of it."""
        if not (data := os.read(log, 1 << 16)):
            self.loop.watch(log, 0, lambda _: None)
            return
        self.said = (self.said + data)[-LAST_LIMIT:]
        with contextlib.suppress(OSError):  # a full disk ends no console
            size, half = os.fstat(2).st_size, self.log_limit // 2
            if size + len(data) > self.log_limit:
                data = (os.pread(2, half, max(0, size - half)) + data)[-half:]
                os.ftruncate(2, 0)
            os.write(2, data)


def load(text: str) -> Any:
    """The module that a program's text makes."""
    import types

    module = types.ModuleType("fence")
    exec(compile(text, "fence.py", "exec"), module.__dict__)  # noqa: S102 (the daemon's own, like this file)
    return module


def main(vnc: str, caller: str, keeper: str) -> None:
    os.close(int(sys.argv[0].rpartition("/")[2]))  # this program's own text
    given = json.load(sys.stdin)
    os.ftruncate(0, 0)
    os.umask(0o022)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = min(FILES_LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # RLIM_INFINITY is never that of files
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    fence = load(given.pop("fence"))
    try:
        fence.die_with(int(keeper))
        fence.harden()
        Box(given, vnc, int(caller), fence).run()
    except (OverError, fence.FenceError) as error:
        tell(over=error.code, message=error.message)
    except Exception as error:
        tell(over="job-failed", message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
