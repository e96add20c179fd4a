"""A child process of the simulator: it ends with its parent, whatever happens to that."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorProcess, IReactorTime, IReactorUDP
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure


class Reactor(IReactorProcess, IReactorTime, IReactorUDP):
    """What the simulator needs of a reactor."""


def the_reactor() -> Reactor:
    """The one that is installed."""

    from twisted.internet import reactor

    return cast(Reactor, reactor)


class Child(ProcessProtocol):
    """:ivar output: what it wrote to stdout and stderr."""

    def __init__(self, on_line: Callable[[str], None] = lambda _line: None) -> None:
        self.output = b""
        self._unfinished = b""
        self._on_line = on_line
        self._ended: list[Deferred[None]] = []
        self._running = True

    @property
    def running(self) -> bool:
        return self._running

    @property
    def pid(self) -> int:
        assert self.transport is not None
        pid: int = self.transport.pid
        return pid

    def outReceived(self, data: bytes) -> None:
        self.output += data
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode())

    def errReceived(self, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Failure) -> None:
        self._running = False
        waiting, self._ended = self._ended, []
        for ended in waiting:
            ended.callback(None)

    def when_ended(self) -> Deferred[None]:
        ended: Deferred[None] = Deferred()
        if self._running:
            self._ended.append(ended)
        else:
            ended.callback(None)
        return ended

    def close_stdin(self) -> None:
        assert self.transport is not None
        self.transport.closeStdin()

    async def stop(self, clock: IReactorTime, patience: float = 3.0) -> None:
        """TERM, after ``patience`` seconds KILL; returns when it has ended. Idempotent."""

        if not self._running:
            return
        killing = clock.callLater(patience, self._signal, "KILL")
        self._signal("TERM")
        await self.when_ended()
        if killing.active():
            killing.cancel()

    def _signal(self, name: str) -> None:
        assert self.transport is not None
        try:
            self.transport.signalProcess(name)
        except ProcessExitedAlready:
            # It has ended, and processEnded is about to say so.
            return


def start(reactor: IReactorProcess, child: Child, argv: Sequence[str], folder: Path) -> None:
    """Start ``argv`` in ``folder``. It gets TERM from the kernel when this process ends."""

    env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(folder)}
    command = ["setpriv", "--pdeathsig", "TERM", *argv]
    reactor.spawnProcess(child, "/usr/bin/setpriv", command, env=env, path=str(folder))
