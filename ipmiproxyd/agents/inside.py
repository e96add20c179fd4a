"""Process 1 of a job's sandbox. One file, standard library only: the runner gets it in its document and bubblewrap
hands it in, so that it need not be on the agent.

Standard input holds one JSON object: ``display``, ``programs`` and ``locked``; it is emptied, since it may hold
secrets. Then this makes the display's secret, starts the programs one after the other, each once the one before is
ready, and tells on standard output, in lines of JSON:

    {"event":"stage"}                          the next program is ready
    {"event":"over","code":…,"message":…}      a program has ended, and with this process all the others do

With ``locked``, the folder of the display's socket is taken from us once the display is there, and nothing else runs
before that. Everything that the programs print goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Object = dict[str, Any]

HOME, RUN = "/home/console", "/run/console"
MODES = {HOME: 0o700, RUN: 0o700, "/tmp": 0o1777, "/tmp/.X11-unix": 0o1777, "/dev/shm": 0o1777}  # noqa: S108
XAUTHORITY, READY, VNC, DOOR = RUN + "/xauthority", RUN + "/ready", RUN + "/vnc", RUN + "/vnc/door"
X_SOCKET = "/tmp/.X11-unix/X{}"  # noqa: S108 (the sandbox has its own /tmp)
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
WINDOW_SIZE = 100  # pixels; smaller windows do not count as a program's window
LAST_WORDS = 50  # milliseconds in which those who end together are expected to end
DISPLAY_LIMIT = 1.0  # seconds in which a display that lives answers, and one that does not has ended
DISPLAY_FD, DOOR_FD = 3, 3
CLOSED, NOT_FOUND = 126, 127  # exit status of a program that is to start another one, and cannot, or does not find it
NOT_THERE, NO_RIGHT = "is not installed on the agent", "is on the agent, but cannot be executed"
COOKIE = b"MIT-MAGIC-COOKIE-1"
CHANGE_WINDOW_ATTRIBUTES, GET_WINDOW_ATTRIBUTES, GET_GEOMETRY, QUERY_TREE = 2, 3, 14, 15
EVENT_MASK, SUBSTRUCTURE_NOTIFY, INPUT_OUTPUT, VIEWABLE = 1 << 11, 1 << 19, 1, 2


class OverError(Exception):
    """The job is over. ``code`` is a stable word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def xauthority(display: int, cookie: bytes) -> bytes:
    """An Xauthority file with one entry: this display on any host (FamilyWild)."""
    parts = (b"", str(display).encode(), COOKIE, cookie)
    return struct.pack(">H", 0xFFFF) + b"".join(struct.pack(">H", len(part)) + part for part in parts)


def x_setup(cookie: bytes) -> bytes:
    """What an X client says first."""
    head = struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(COOKIE), len(cookie))
    return head + b"".join(part + bytes(-len(part) % 4) for part in (COOKIE, cookie))


def x_root(setup: bytes) -> int:
    """The first root window's id, from the server's answer without its first eight bytes."""
    vendor, formats = struct.unpack_from("<H", setup, 16)[0], setup[21]
    return int(struct.unpack_from("<I", setup, 32 + vendor + -vendor % 4 + 8 * formats)[0])


def obituary(name: str, status: int, output: bytes) -> str:
    """Why a program has ended, in plain words. ``status`` is negative for a signal, ``output`` what it said last; of a
    Java program's trace the line that names the cause."""
    if status < 0:
        said = f"{name} was killed by signal {-status}"
        with contextlib.suppress(ValueError):
            said += f" ({signal.Signals(-status).name})"
    else:
        said = f"{name} ended by itself (exit status {status})"
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if len(line.split()) > 1]
    lines = [line for line in lines if not line.startswith(("at ", "... "))]
    expected = status in (0, -signal.SIGTERM, -signal.SIGKILL)
    return said if expected or not lines else f"{said}: {lines[-1]}"


def readable(fds: list[int], timeout: float | None) -> list[int]:
    """Those that can be read; waits for ``timeout`` milliseconds, None for ever."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(timeout)]


def say(**event: Any) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


class Programs:
    """The programs of one job on one display."""

    def __init__(self, display: int) -> None:
        self.display, self.cookie = display, os.urandom(16)
        self.names: dict[int, str] = {}  # by process, in the order of their start
        self.outputs: dict[int, int] = {}  # by descriptor: whose output it is
        self.last: dict[int, bytes] = {}  # by process: the end of its output
        self.woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self, programs: list[Object], *, locked: bool) -> None:
        """Raises OverError in the end."""
        with open(XAUTHORITY, "xb") as file:
            file.write(xauthority(self.display, self.cookie))
        os.mkfifo(READY)
        self.ready = os.open(READY, os.O_RDWR)
        self.door = socket.socket(socket.AF_UNIX)
        if any(program["door"] for program in programs):
            # Now: once there is a display nothing more can be put into that folder.
            self.door.bind(DOOR)
            os.chmod(DOOR, 0o660)
            self.door.listen()
        for program in programs:
            self.start(program)
            say(event="stage")
            while locked and os.stat(VNC).st_uid == os.geteuid():
                if readable([self.woken], 1) and (ended := self.reap()):
                    self.obituary(ended)
        self.wait(-1)

    def start(self, program: Object) -> None:
        """Returns when the program is ready."""
        output, output_in = os.pipe()
        given, give = os.pipe()
        streams = {0: given, 1: output_in, 2: output_in}
        streams |= {DISPLAY_FD: self.ready} if program["ready"] == "display" else {}
        streams |= {DOOR_FD: self.door.fileno()} if program["door"] else {}
        env = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": HOME, "XDG_RUNTIME_DIR": RUN}
        env |= {"DISPLAY": f":{self.display}", "XAUTHORITY": XAUTHORITY}
        env |= dict(entry.split("=", 1) for entry in program["env"])
        actions = [(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in streams.items()]
        name, argv = program["name"], program["argv"]
        try:
            pid = os.posix_spawnp(argv[0], argv, env, file_actions=actions, setsigdef=[signal.SIGPIPE])
        except (FileNotFoundError, PermissionError) as error:
            how = NO_RIGHT if isinstance(error, PermissionError) else NOT_THERE
            raise OverError("tool-missing", f"{name} {how} ({argv[0]})") from error
        for fd in (output_in, given):
            os.close(fd)
        with contextlib.suppress(BrokenPipeError), open(give, "wb") as file:
            file.write(program.pop("stdin").encode())
        self.names[pid], self.outputs[output], self.last[pid] = name, pid, b""
        if program["ready"] == "window":
            self.await_window()
        elif program["ready"] != "started":
            self.await_line()

    def await_line(self) -> None:
        """Until the program has said a line. Xvnc writes its number and the new line apart, and may fail at neither."""
        said = b""
        while not said.endswith(b"\n"):
            self.wait(self.ready)
            said += os.read(self.ready, 64)

    def wait(self, wanted: int) -> None:
        """Until ``wanted`` can be read; never for -1. Raises OverError when a program has ended."""
        while True:
            ready = readable([self.woken, *self.outputs, *([wanted] if wanted >= 0 else [])], None)
            for output in [fd for fd in ready if fd in self.outputs]:
                self.pump(output)
            if self.woken in ready and (ended := self.reap()):
                self.obituary(ended)
            if wanted in ready:
                return

    def pump(self, output: int) -> None:
        """Pass on what a program has printed."""
        data, pid = os.read(output, 65536), self.outputs[output]
        self.last[pid] = (self.last[pid] + data)[-4096:]
        if data:
            os.write(2, data)
        else:
            del self.outputs[output]
            os.close(output)

    def reap(self) -> dict[int, int]:
        """Collect the processes that have ended, also those that others left behind; those of the programs, and how."""
        os.read(self.woken, 4096)
        ended = {}
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended[found[0]] = os.waitstatus_to_exitcode(found[1])
        return {pid: status for pid, status in ended.items() if pid in self.names}

    def obituary(self, ended: dict[int, int]) -> NoReturn:
        """Name the program that is to blame: a display takes its clients with it, and they may be quicker."""
        end = time.monotonic() + DISPLAY_LIMIT
        while time.monotonic() < end and readable([self.woken], LAST_WORDS):
            ended |= self.reap()
        if (display := next(iter(self.names))) not in ended:
            self.await_display(display, ended)
        while ready := [fd for fd in readable(list(self.outputs), 0) if self.outputs[fd] in ended]:
            self.pump(ready[0])
        pid = next(pid for pid in self.names if pid in ended)
        if ended[pid] == NOT_FOUND or (ended[pid] == CLOSED and not self.last[pid]):
            how = NOT_THERE if ended[pid] == NOT_FOUND else NO_RIGHT
            raise OverError("tool-missing", f"{self.names[pid]} {how}")
        raise OverError("job-failed", obituary(self.names[pid], ended[pid], self.last[pid]))

    def await_display(self, display: int, ended: dict[int, int]) -> None:
        """Until the display answers, or it has ended, too: its clients may be much quicker on a busy machine."""
        asked, end = [self.woken], time.monotonic() + DISPLAY_LIMIT
        with socket.socket(socket.AF_UNIX) as server:
            server.setblocking(False)
            with contextlib.suppress(OSError):
                server.connect(X_SOCKET.format(self.display))
                server.sendall(x_setup(self.cookie))
                asked.append(server.fileno())
            while display not in ended and (left := end - time.monotonic()) > 0:
                ready = readable(asked, 1000 * left)
                if self.woken in ready:
                    ended |= self.reap()
                    continue
                if ready:
                    with contextlib.suppress(OSError):
                        if server.recv(64):
                            return
                    asked = [self.woken]

    def await_window(self) -> None:
        """Until a window of some size is on the display. Speaks just enough of the X protocol for that."""
        with socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(X_SOCKET.format(self.display))
            except OSError as error:
                raise OverError("job-failed", f"There is no display {self.display}: {error.strerror}") from error
            server.sendall(x_setup(self.cookie))
            accepted, length = struct.unpack("<B5xH", self.receive(server, 8))
            setup = self.receive(server, 4 * length)
            if accepted != 1:
                raise OverError("job-failed", "The display refused to tell of its windows")
            root = x_root(setup)
            server.sendall(struct.pack("<BxHIII", CHANGE_WINDOW_ATTRIBUTES, 4, root, EVENT_MASK, SUBSTRUCTURE_NOTIFY))
            self.changed = True
            while not self.window_there(server, root):
                if not self.changed:
                    self.receive(server, 32)

    def window_there(self, server: socket.socket, root: int) -> bool:
        self.changed = False
        tree = self.ask(server, QUERY_TREE, root)
        for window in struct.unpack_from(f"<{struct.unpack_from('<H', tree, 16)[0]}I", tree, 32):
            attributes = self.ask(server, GET_WINDOW_ATTRIBUTES, window)
            geometry = self.ask(server, GET_GEOMETRY, window)
            seen = attributes and geometry and attributes[26] == VIEWABLE and attributes[12] == INPUT_OUTPUT
            if seen and min(struct.unpack_from("<HH", geometry, 16)) >= WINDOW_SIZE:
                return True
        return False

    def ask(self, server: socket.socket, request: int, window: int) -> bytes:
        """The reply; empty if the window is gone. An event before it means: look again."""
        server.sendall(struct.pack("<BxHI", request, 2, window))
        while (head := self.receive(server, 32))[0] > 1:
            self.changed = True
        return head + self.receive(server, 4 * struct.unpack_from("<I", head, 4)[0]) if head[0] else b""

    def receive(self, server: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            self.wait(server.fileno())
            data += (more := server.recv(size - len(data)))
            if not more:
                raise OverError("job-failed", "The display closed its connection")
        return data


def main() -> None:
    document = json.load(sys.stdin)
    with contextlib.suppress(OSError):  # the same memory, that bubblewrap outside still has open
        os.ftruncate(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    for folder, mode in MODES.items():
        os.chmod(folder, mode)
    try:
        Programs(document["display"]).run(document["programs"], locked=document["locked"])
    except OverError as end:
        say(event="over", code=end.code, message=end.message)


if __name__ == "__main__":
    main()
