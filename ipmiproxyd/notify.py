"""What systemd is told (``Type=notify``), and the watchdog. Without systemd all of it does nothing."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger()


class Notifier:
    """Sends notes to systemd's notification socket. Sending never blocks and never raises.

    :ivar watchdog: seconds after which systemd takes a silent daemon for dead; None if it does not watch.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        self._address = address
        self.watchdog = watchdog

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str], pid: int) -> Notifier:
        """From the variables that systemd set for process ``pid``; they are removed, as they are not for children."""

        address = environ.pop("NOTIFY_SOCKET", None)
        period = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(address or None, int(period) / 1e6 if watched and period.isdecimal() and int(period) else None)

    def ready(self, status: str = "") -> None:
        """The daemon has started and serves."""

        self._send("READY=1", *_status(status))

    def stopping(self, status: str = "") -> None:
        """The daemon has begun to stop."""

        self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""

        self._send(*_status(text))

    def alive(self) -> None:
        """A sign of life for the watchdog."""

        self._send("WATCHDOG=1")

    def _send(self, *fields: str) -> None:
        if self._address is None or not fields:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            with socket.socket(socket.AF_UNIX, kind) as end:
                end.sendto("\n".join(fields).encode(), address)
        except OSError as error:
            log.warn("systemd could not be told {fields}: {error}", fields=fields, error=error)


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


class Heartbeat:
    """Tells the watchdog that the reactor turns, twice in its period.

    It has to go on while the daemon closes consoles: stop it after the reactor's shutdown, not with the services.
    """

    def __init__(self, notifier: Notifier, clock: IReactorTime) -> None:
        self._period = notifier.watchdog
        self._loop = LoopingCall(notifier.alive)
        self._loop.clock = clock

    def start(self) -> None:
        """The first sign of life goes out at once."""

        if self._period is not None and not self._loop.running:
            ended: Deferred[Any] = self._loop.start(self._period / 2)
            ended.addErrback(lambda failure: log.failure("the watchdog's heartbeat ended", failure=failure))

    def stop(self) -> None:
        """Idempotent."""

        if self._loop.running:
            self._loop.stop()
