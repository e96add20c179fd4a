"""An agent that can only run short programs, on this machine: for tests of the tools alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ipmiproxyd.model import Command, Job, JobSpec, JobStage, Outcome, StreamAddress
from ipmiproxyd.tools.ipmitool import ENTERPRISE_NUMBERS, ENTERPRISE_NUMBERS_PATH


class _Run(ProcessProtocol):
    def __init__(self, command: Command) -> None:
        self.ended: Deferred[Outcome] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.timed_out = False
        self._command = command
        self._out = b""
        self._err = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._command.stdin)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._out += data

    def errReceived(self, data: bytes) -> None:
        self._err += data

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.gone.callback(None)
        if not self.ended.called:
            how: dict[str, Any] = {"status": value.exitCode, "signal": value.signal, "timed_out": self.timed_out}
            self.ended.callback(Outcome(**how, stdout=self._out, stderr=self._err))


class PlainAgent:
    """:param folder: its HOME.
    :ivar pids: of the programs that run now; each leads a session of its own.
    """

    def __init__(self, reactor: Any, folder: Path, name: str = "local") -> None:
        self.name = name
        self.pids: set[int] = set()
        self._reactor = reactor
        self._home = folder
        numbers = folder / ENTERPRISE_NUMBERS_PATH
        numbers.parent.mkdir(parents=True, exist_ok=True)
        numbers.write_text(ENTERPRISE_NUMBERS)

    async def run(self, command: Command) -> Outcome:
        run = _Run(command)
        env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(self._home)}
        process = self._reactor.spawnProcess(run, "/usr/bin/setsid", ["setsid", *command.argv], env=env)
        pid: int = process.pid
        self.pids.add(pid)
        limit = self._reactor.callLater(command.timeout, self._time_is_up, run, pid)
        try:
            return await run.ended
        except CancelledError:
            self._end(pid)
            await run.gone
            raise
        finally:
            self.pids.discard(pid)
            if limit.active():
                limit.cancel()

    def _time_is_up(self, run: _Run, pid: int) -> None:
        run.timed_out = True
        self._end(pid)

    def _end(self, pid: int) -> None:
        os.killpg(pid, signal.SIGKILL)

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        raise AssertionError("this agent has no jobs")

    async def jobs(self) -> list[Job]:
        return []

    async def stop(self, job_id: str) -> None:
        """There are no jobs."""

    async def sweep(self) -> list[str]:
        return []

    def dial(self, address: StreamAddress) -> IStreamClientEndpoint:
        raise AssertionError("this agent has no streams")

    def watch(self, ended: Callable[[Job], None]) -> None:
        """There are no jobs."""
