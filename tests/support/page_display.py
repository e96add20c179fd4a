"""A display for the page's tests: Xvnc on a UNIX socket, and small X programs on it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure


class Running(ProcessProtocol):
    """A child whose output is kept. ``ended`` fires with its failure or None when it is gone."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.output = ""
        self.extra = ""
        self.ended: Deferred[None] = Deferred()
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == 3:
            self.extra += data.decode()
        else:
            self.output += data.decode(errors="replace")
        for condition, waiter in list(self._waiting):
            if condition():
                self._waiting.remove((condition, waiter))
                waiter.callback(None)

    def processEnded(self, reason: Failure) -> None:
        for _, waiter in self._waiting:
            waiter.errback(AssertionError(f"the program has ended: {reason.value}; it said: {self.output[-1000:]}"))
        self._waiting.clear()
        self.ended.callback(None)

    async def until(self, condition: Callable[[], bool], limit: float = 10.0) -> None:
        """Until its output makes the condition true."""

        if condition():
            return
        waiter: Deferred[None] = Deferred()
        self._waiting.append((condition, waiter))
        timer = self._reactor.callLater(
            limit, waiter.errback, AssertionError(f"not within {limit:g} s; it said: {self.output[-3000:]}")
        )
        try:
            await waiter
        finally:
            if timer.active():
                timer.cancel()
            self._waiting = [entry for entry in self._waiting if entry[1] is not waiter]

    async def says(self, pattern: str, limit: float = 10.0) -> re.Match[str]:
        """Until its output matches."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.output, re.DOTALL)

        await self.until(lambda: found() is not None, limit)
        match = found()
        assert match is not None
        return match

    async def stop(self) -> None:
        """End it by its pid and wait until it is gone."""

        if self.transport is not None:
            try:
                self.transport.signalProcess("TERM")
            except (ProcessExitedAlready, ProcessDone):
                return
            kill = self._reactor.callLater(5, self.transport.signalProcess, "KILL")
            await self.ended
            if kill.active():
                kill.cancel()


class PageDisplay:
    """An Xvnc of 1024 × 768 pixels, black, without a window manager."""

    def __init__(self, reactor: Any, folder: Path) -> None:
        self._reactor = reactor
        self.socket = folder / "vnc"
        self._home = folder
        self._children: list[Running] = []
        self.number = -1

    async def start(self) -> None:
        server = self._spawn(
            [
                *("Xvnc", "-displayfd", "3", "-geometry", "1024x768", "-depth", "24", "-br"),
                *("-rfbport", "-1", "-rfbunixpath", str(self.socket), "-rfbunixmode", "0600"),
                *("-SecurityTypes", "None", "-UseBlacklist=0", "-AlwaysShared", "-nolisten", "tcp"),
                # Its abstract socket stays: without it -displayfd would take a number that is in use.
                "-ac",
            ],
            {},
            fds={0: "w", 1: "r", 2: "r", 3: "r"},
        )
        await server.until(lambda: "\n" in server.extra)
        self.number = int(server.extra)

    def run(self, *argv: str) -> Running:
        """Start an X program on the display. It is ended with it."""

        return self._spawn(["stdbuf", "-oL", *argv], {"DISPLAY": f":{self.number}"})

    def _spawn(self, argv: list[str], env: dict[str, str], fds: Any = None) -> Running:
        child = Running(self._reactor)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._home), "LANG": "C.UTF-8", **env}
        self._reactor.spawnProcess(child, argv[0], argv, environment, path=str(self._home), childFDs=fds)
        self._children.append(child)
        return child

    async def stop(self) -> None:
        for child in reversed(self._children):
            await child.stop()
