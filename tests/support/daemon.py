"""The real daemon as a child process, with its own folders, ports and configuration."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime, IReactorUNIXDatagram
from twisted.internet.protocol import DatagramProtocol, ProcessProtocol
from twisted.python.failure import Failure

from tests.support.ports import port_range
from tests.support.scratch import remove_root_jobs, root_jobs
from tests.support.wire_client import WireClient

REPOSITORY: Final = Path(__file__).resolve().parents[2]


class _Child(ProcessProtocol):
    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        code = value.exitCode if value.exitCode is not None else -value.signal
        self.ended.callback(code)


class _Notices(DatagramProtocol):
    """Stands in for systemd's end of sd_notify."""

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()

    def datagramReceived(self, datagram: bytes, _address: Any) -> None:
        if b"READY=1" in datagram.split(b"\n") and not self.ready.called:
            self.ready.callback(None)


def _hand_on(code: int, waiting: Deferred[int]) -> int:
    if not waiting.called:
        waiting.callback(code)
    return code


class DaemonProcess:
    """``settings``: section → key → value, over what a test needs anyway. Its log is ``folder / "log"``.

    :param own_session: the terminal's Ctrl-C does not reach it. Either way it ends with this process.
    :param spawner: what starts it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        own_session: bool = False,
        spawner: Any = reactor,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._spawner = spawner
        self.folder = folder
        self.log = folder / "log"
        self.config = folder / "config.toml"
        self.control = folder / "run" / "control.sock"
        self.jobs = root_jobs(folder) if os.geteuid() == 0 else folder / "run-jobs"
        self._command = ["setpriv", "--pdeathsig", "TERM", *(["setsid"] if own_session else [])]
        self._command += [sys.executable, "-m", "ipmiproxyd", "--config", str(self.config)]
        self._transport: IProcessTransport | None = None
        self._child: _Child | None = None
        self._write_config(settings or {})

    def _write_config(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        base: dict[str, dict[str, Any]] = {
            "daemon": {"state_dir": str(self.folder / "state"), "runtime_dir": str(self.folder / "run")},
            "relay": {"listen": ["127.0.0.1"], "public_host": "127.0.0.1", "ports": port_range(40)},
            "displays": {"range": "101-140"},
            # Not those of this machine.
            "java": {"dir": str(self.folder / "java"), "archives": str(self.folder / "java-archives")},
            # By sudo the jobs' folder would be root's, and an ordinary user could not remove it again.
            "agent": {"users": "auto" if os.geteuid() == 0 else "never", "jobs_name": self.jobs.name},
        }
        for section, values in settings.items():
            base.setdefault(section, {}).update(values)
        self.config.write_text(tomli_w.dumps(base))

    async def start(self, timeout: float = 30.0) -> None:
        """Returns once the daemon says that it is ready."""

        notices = _Notices()
        notify = self.folder / "notify"
        notify.unlink(missing_ok=True)
        port: Any = IReactorUNIXDatagram(reactor).listenUNIXDatagram(str(notify), notices, 8192, 0o600)
        self._child = _Child()
        with self.log.open("ab") as log, open(os.devnull, "rb") as null:
            self._transport = IReactorProcess(self._spawner).spawnProcess(
                self._child,
                self._command[0],
                self._command,
                env={**os.environ, "NOTIFY_SOCKET": str(notify), "PYTHONPATH": str(REPOSITORY)},
                path=str(self.folder),
                childFDs={0: null.fileno(), 1: log.fileno(), 2: log.fileno()},
            )
        self._child.ended.addCallback(self._ended_early, notices)
        try:
            await notices.ready.addTimeout(timeout, IReactorTime(reactor))
        finally:
            await port.stopListening()

    def _ended_early(self, code: int, notices: _Notices) -> int:
        if not notices.ready.called:
            notices.ready.errback(RuntimeError(f"the daemon ended with {code}:\n{self.log_text()}"))
        return code

    @property
    def is_running(self) -> bool:
        return self._child is not None and not self._child.ended.called

    @property
    def pid(self) -> int:
        assert self._transport is not None
        pid: int = self._transport.pid
        return pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    async def connect(self) -> WireClient:
        return await WireClient.connect(str(self.control))

    async def ended(self, timeout: float = 30.0) -> int:
        """Wait for its end; its exit status, or minus the signal."""

        assert self._child is not None
        waiting: Deferred[int] = Deferred()
        self._child.ended.addCallback(_hand_on, waiting)
        code: int = await waiting.addTimeout(timeout, IReactorTime(reactor))
        return code

    async def signal(self, number: signal.Signals) -> int:
        assert self._transport is not None
        with contextlib.suppress(ProcessExitedAlready):
            self._transport.signalProcess(number)
        return await self.ended()

    async def stop(self) -> None:
        """Close all its consoles and end it, in whatever state it is. For cleaning up."""

        try:
            if self.is_running:
                client = await self.connect()
                await client.ask("daemon stop", 30.0)
                await self.ended()
        except Exception:
            await self.signal(signal.SIGKILL)
            raise
        finally:
            remove_root_jobs(self.jobs)
