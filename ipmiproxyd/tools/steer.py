"""Starts Chromium and steers it by its debugging pipe. One file, standard library only: a job gets it as a file, for it
has to run beside the browser, inside the sandbox.

    python3 -I -S steer.py CHROMIUM ARGUMENT …  < document

Standard input holds one JSON object, since it may hold secrets; each member may be missing:

    origin   the panel's
    url      the page to be opened in the only window; without it the command line names one. Once the browser has it,
             or shows why not, the job is told that this program is ready
    cookies  {name: value}, set for the panel's host before
    referer  the address that this page is told to be come to from
    storage  {name: value}, put into the sessionStorage of the panel's origin before the page's scripts run
    door     true: descriptor 3 is a listening socket. Whoever connects is told the browser's cookies for the panel's
             host in one line, {name: value}

Nothing else is asked of the browser, and it listens on no port. This ends as Chromium does; with status 127 if there is
no Chromium, and 126 if it cannot be executed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from urllib.parse import urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Object = dict[str, Any]

READY = "/run/console/ready"
DOOR_FD = 3
COMMANDS_FD, EVENTS_FD = 3, 4  # Chromium's, for --remote-debugging-pipe
ABOVE = 10  # no descriptor of ours is in the way of those
PATIENCE = 1.0  # seconds

STORE = """(() => {
    if (location.origin !== %s) return
    for (const [name, value] of Object.entries(%s)) sessionStorage.setItem(name, value)
})()"""


class RefusedError(Exception):
    """The browser does not do what it is told."""


class Browser:
    """Chromium as a child."""

    def __init__(self, argv: list[str]) -> None:
        command, self.commands = high_pipe()
        self.events, event = high_pipe()
        actions = [(os.POSIX_SPAWN_DUP2, command, COMMANDS_FD), (os.POSIX_SPAWN_DUP2, event, EVENTS_FD)]
        self.pid = os.posix_spawnp(
            argv[0], [*argv, "--remote-debugging-pipe"], os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE]
        )
        os.close(command)
        os.close(event)
        self.ended = os.pidfd_open(self.pid)
        self.sent, self.unread, self.speaks = 0, b"", False
        self.less = False  # a window may be gone
        self.send("Browser.getVersion")

    def send(self, method: str, session: str = "", **values: Any) -> int:
        self.sent += 1
        message: Object = {"id": self.sent, "method": method, "params": values}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            try:
                data = data[os.write(self.commands, data) :]
            except BrokenPipeError:
                self.wait([], None)  # it does not hear any more: it is about to end
        return self.sent

    def call(self, method: str, session: str = "", *, limit: float | None = None, **values: Any) -> Object:
        """Raises RefusedError, also if there is no answer within ``limit`` seconds."""
        number = self.send(method, session, **values)
        end = None if limit is None else time.monotonic() + limit
        while message := self.receive(None if end is None else end - time.monotonic()):
            if message.get("id") == number:
                break
        if not message or "error" in message:
            raise RefusedError(f"{method}: {message['error'].get('message') if message else 'no answer'}")
        return dict(message["result"])

    def await_event(self, method: str, session: str) -> Object:
        while message := self.receive(None):
            if (message.get("method"), message.get("sessionId", "")) == (method, session):
                return dict(message["params"])
        raise RefusedError(f"{method} did not happen")

    def receive(self, limit: float | None) -> Object | None:
        """The next message; None if there is none within ``limit`` seconds."""
        while b"\0" not in self.unread:
            if self.events not in self.wait([self.events], limit):
                return None
            self.unread += self.read()
        line, _, self.unread = self.unread.partition(b"\0")
        message: Object = json.loads(line)
        self.less = self.less or message.get("method") == "Target.targetDestroyed"
        return message

    def wait(self, fds: list[int], limit: float | None) -> list[int]:
        """Those that can be read. Ends this process when the browser has ended."""
        poll = select.poll()
        for fd in (*fds, self.ended):
            poll.register(fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(None if limit is None else max(0, limit * 1000))]
        if self.ended in ready:
            self.follow()
        return ready

    def read(self) -> bytes:
        data = os.read(self.events, 65536)
        if not data:
            self.wait([], None)  # it closes this only as it ends
        self.speaks = True
        return data

    def follow(self) -> NoReturn:
        """End as the browser has ended."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status < 0:
            if -status not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        os._exit(abs(status))

    def end(self) -> None:
        signal.pidfd_send_signal(self.ended, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    # --- what it is told ----------------------------------------------------------------------------------------------

    def open(self, told: Object) -> None:
        """Make the only window. What it needs to know is forgotten then."""
        url, origin, referer = told.pop("url"), told["origin"], told.pop("referer", "")
        cookies, storage = told.pop("cookies", {}), told.pop("storage", {})
        given = [
            # Pages have scripts that read some of these, so none is for HTTP only.
            {"name": name, "value": value, "url": f"{origin}/", "path": "/", "secure": origin.startswith("https:")}
            for name, value in cookies.items()
        ]
        if given:
            self.call("Storage.setCookies", cookies=given)
        self.call("Target.setDiscoverTargets", discover=True)
        if storage or referer:
            self.open_with(storage, referer, url, origin)
        else:
            self.await_page(self.window(url))
        with open(READY, "w", encoding="ascii") as file:
            file.write("\n")

    def targets(self) -> list[Object]:
        return list(self.call("Target.getTargets")["targetInfos"])

    def window(self, url: str) -> str:
        made = str(self.call("Target.createTarget", url=url, newWindow=True, windowState="fullscreen")["targetId"])
        found = self.call("Browser.getWindowForTarget", targetId=made)
        if found["bounds"].get("windowState") != "fullscreen":  # that of Debian 11 does not heed it
            bounds = {"windowState": "fullscreen"}
            self.call("Browser.setWindowBounds", windowId=found["windowId"], bounds=bounds)
        return made

    def await_page(self, window: str) -> None:
        """Until the window shows something: then it has a title, be it the page's address."""
        while not any(one["targetId"] == window and one["title"] for one in self.targets()):
            self.await_event("Target.targetInfoChanged", "")

    def open_with(self, storage: dict[str, str], referer: str, url: str, origin: str) -> None:
        """Into an empty window first, to which a script is attached that runs before those of the page."""
        session = self.call("Target.attachToTarget", targetId=self.window("about:blank"), flatten=True)["sessionId"]
        self.call("Page.enable", session)
        script = STORE % (json.dumps(origin), json.dumps(storage))
        self.call("Page.addScriptToEvaluateOnNewDocument", session, source=script)
        way: Object = {"referrer": referer} if referer else {}
        told = self.call("Page.navigate", session, url=url, **way)
        if not told.get("errorText"):  # else the window says what is wrong
            self.await_event("Page.domContentEventFired", session)
        self.call("Page.bringToFront", session)  # the address field of an empty window has had the keyboard
        self.call("Target.detachFromTarget", sessionId=session)

    def heed(self) -> None:
        """What it has said. Without a window of ours it would go on, since it was started with none."""
        self.unread += self.read()
        while b"\0" in self.unread:
            self.receive(0)
            if self.less:
                self.less = False
                if not any(one["type"] == "page" for one in self.targets()):
                    self.send("Browser.close")

    def cookies(self, origin: str) -> dict[str, str]:
        """Those for the panel's host; none if it has not even begun."""
        if not self.speaks and not self.wait([self.events], 0):
            return {}
        host = urlsplit(origin).hostname or ""
        found = self.call("Storage.getCookies", limit=PATIENCE)["cookies"]
        return {one["name"]: one["value"] for one in found if one["domain"].strip("[].") == host}


def high_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    high = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE) for fd in (read, write))
    os.close(read)
    os.close(write)
    return high[0], high[1]


def serve(browser: Browser, origin: str, door: socket.socket | None) -> None:
    """For as long as the browser lives."""
    doors = [door.fileno()] if door else []
    while True:
        ready = browser.wait([browser.events, *doors], None)
        if browser.events in ready:
            browser.heed()
        if door and door.fileno() in ready:
            visitor, _ = door.accept()
            with visitor, contextlib.suppress(OSError, RefusedError):
                visitor.settimeout(PATIENCE)
                visitor.sendall(json.dumps(browser.cookies(origin)).encode() + b"\n")


def main() -> None:
    document = json.loads(sys.stdin.read() or "{}")
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    door = socket.socket(fileno=fcntl.fcntl(DOOR_FD, fcntl.F_DUPFD_CLOEXEC, ABOVE)) if document.get("door") else None
    try:
        browser = Browser(sys.argv[1:])
    except FileNotFoundError:
        sys.exit(127)
    except PermissionError:
        sys.exit(126)
    origin = document.get("origin", "")
    try:
        if "url" in document:
            browser.open(document)
    except RefusedError as problem:
        browser.end()
        sys.exit(f"The browser refused {problem}")
    serve(browser, origin, door)


if __name__ == "__main__":
    main()
