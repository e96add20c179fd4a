"""Tells of an agent's jobs, as whoever asks for them: it reads what the keepers (runner.py) write. One file, standard
library only.

    python3 -I -S watcher.py < document

The document is one line of JSON with ``verb`` and ``jobs``, the folder. Answers are lines of JSON on standard output:

    list    {"event":"jobs","jobs":[JOB, …]}
    wait    of one job, ``id``: {"event":"stage","name":…,"ms":…} …, then {"event":"running","job":JOB} or FAILED
    watch   {"event":"alive"} now and then, {"event":"ended","job":JOB}; runs until its standard input is closed.
            Whoever watches answers each "alive" with an empty line, and that is the sign of life without which
            keepers end their jobs: a connection may be dead long before its end is noticed. ``lease`` is theirs
    FAILED = {"event":"failed","code":…,"message":…}, exit status 1
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]

VNC_PORT = 5900  # + display number
BEAT = 30.0  # seconds
IN_MOVED_FROM = 0x40


class RefusedError(Exception):
    """There is no such job, or not any more. ``code`` is a stable word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def identity(pid: int) -> str:
    """As in runner.py."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file, open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            fields = file.read().rpartition(b")")[2].split()
            return "" if fields[0] in (b"Z", b"X") else f"{boot.read().strip()}:{pid}:{int(fields[19])}"
    except (FileNotFoundError, ProcessLookupError):
        return ""


def open_process(name: str) -> int | None:
    """A pidfd of exactly the process of this :func:`identity`; None if it has ended. Who asks closes it."""
    pid = int(name.split(":")[1])
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if identity(pid) == name:
        return fd
    os.close(fd)
    return None


def readable(fds: list[int], timeout: float | None) -> list[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout is None else max(0, timeout * 1000 + 1))]


def say(**event: Any) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


class Jobs:
    """A folder of jobs."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        libc = ctypes.CDLL(None, use_errno=True)
        self.changes = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)  # readable when a job's state has changed
        if libc.inotify_add_watch(self.changes, folder.encode(), IN_MOVED_FROM) < 0:
            raise OSError(ctypes.get_errno(), f"{folder} cannot be watched")

    def ids(self) -> list[str]:
        return sorted(name for name in os.listdir(self.folder) if os.path.exists(f"{self.folder}/{name}/state.json"))

    def state(self, job: str) -> Object | None:
        for _ in range(2):  # a keeper that is gone may have had its last word after the first look
            try:
                with open(f"{self.folder}/{job}/state.json", encoding="utf-8") as file:
                    state: Object = json.load(file)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if state["state"] == "ended" or identity(int(state["keeper"].split(":")[1])) == state["keeper"]:
                return state
        return state | {"state": "lost", "code": "job-failed", "reason": "The job's keeper was killed"}

    def public(self, state: Object) -> Object:
        """A job as it is told to others."""
        job = {name: state[name] for name in ("id", "display", "user", "reason")}
        vnc, port = f"{self.folder}/{state['id']}/vnc", VNC_PORT + state["display"]
        places = {"unix": f"{vnc}/socket", "tcp": ["127.0.0.1", port], "direct": port}
        job |= {"vnc": {state["vnc"]: places[state["vnc"]]}}
        job |= {"door": f"{vnc}/door" if state["door"] else "", "log": f"{self.folder}/{state['id']}/log"}
        return job | {"running": state["state"] in ("starting", "running")}

    def sign_of_life(self) -> None:
        with open(f"{self.folder}/alive", "r+", encoding="ascii") as file:
            file.write(f"{time.monotonic():.3f}\n")
            file.truncate()


def list_jobs(jobs: Jobs, _: Object) -> None:
    say(event="jobs", jobs=[jobs.public(state) for job in jobs.ids() if (state := jobs.state(job))])


def wait(jobs: Jobs, document: Object) -> None:
    keeper, told = None, 0
    while state := jobs.state(document["id"]):
        for name, ms in state["stages"][told:]:
            say(event="stage", name=name, ms=ms)
        told = len(state["stages"])
        if state["state"] == "running":
            return say(event="running", job=jobs.public(state))
        if state["state"] != "starting":
            raise RefusedError(state["code"], state["reason"])
        keeper = keeper or open_process(state["keeper"])
        if jobs.changes in readable([jobs.changes, *([keeper] if keeper else [])], None):
            os.read(jobs.changes, 65536)
    raise RefusedError("cancelled", "The job was stopped")


def watch(jobs: Jobs, document: Object) -> None:
    next_beat, answered = 0.0, True
    told: dict[str, str] = {}  # by job: its keeper, for a job that was refused its display may be started again
    keepers: dict[int, str] = {}
    while True:
        if time.monotonic() >= next_beat:
            next_beat = time.monotonic() + min(document["lease"] / 10, BEAT)
            if answered:
                jobs.sign_of_life()
            answered = False
            say(event="alive")
        ids = set(jobs.ids())
        told = {job: keeper for job, keeper in told.items() if job in ids}
        for job in ids - set(keepers.values()):
            state = jobs.state(job)
            if not state or told.get(job) == state["keeper"]:
                continue
            if (process := open_process(state["keeper"])) is not None:
                keepers[process] = job
            elif state := jobs.state(job):
                told[job] = state["keeper"]
                if state["ready"]:
                    say(event="ended", job=jobs.public(state))
        for fd in readable([0, jobs.changes, *keepers], next_beat - time.monotonic()):
            if keepers.pop(fd, None):
                os.close(fd)
            elif not os.read(fd, 65536):
                return
            elif fd == 0:
                answered = True


def main() -> int:
    line = b""
    # Not by a buffer: what comes after the document is looked for with poll.
    while b"\n" not in line and (more := os.read(0, 65536)):
        line += more
    try:
        document = json.loads(line)
        {"list": list_jobs, "wait": wait, "watch": watch}[document["verb"]](Jobs(document["jobs"]), document)
        return 0
    except BrokenPipeError:
        return 1  # whoever asked is gone
    except RefusedError as refusal:
        say(event="failed", code=refusal.code, message=refusal.message)
    except Exception as error:
        say(event="failed", code="internal", message=f"The watcher failed: {type(error).__name__}: {error}")
    return 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
