"""Programs on this machine: each in a session of its own, so that all of it can be ended."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ipmiproxyd.errors import ToolMissing
from ipmiproxyd.model import Outcome

PATIENCE: Final = 2.0
"""Seconds between TERM and KILL."""

LATE_OUTPUT: Final = 0.5
"""Seconds after a program's end for which output of what it left behind is awaited."""

_MISSING: Final = (b"setsid: failed to execute", b"command not found")


class Child(ProcessProtocol):
    """A running program.

    :param on_line: takes each line of its standard output; without it the output is kept for the outcome.
    :ivar out_of_reach: it runs as another user, and could not be signalled.
    :ivar ended: fires once with the :class:`~ipmiproxyd.model.Outcome`. Cancelling it ends nothing: see :meth:`end`.
    """

    def __init__(
        self, reactor: Any, *, stdin: bytes, keep_open: bool, limit: int, on_line: Callable[[bytes], None] | None
    ) -> None:
        self.ended: Deferred[Outcome] = Deferred()
        self._reactor = reactor
        self._stdin = stdin
        self._keep_open = keep_open
        self._limit = limit
        self._on_line = on_line
        self._out = bytearray()
        self._err = bytearray()
        self.out_of_reach = False
        self._timed_out = False
        self._said_too_much = False
        self._exit: Any = None
        self._timers: list[IDelayedCall] = []

    def connectionMade(self) -> None:
        assert self.transport is not None  # noqa: S101 - Twisted's promise
        self.transport.write(self._stdin)
        self._stdin = b""
        if not self._keep_open:
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        if self._on_line is None:
            room = self._limit - len(self._out)
            self._out += data[:room]
            if len(data) > room and not self._said_too_much:
                self._said_too_much = True
                self.end()
            return
        self._out += data
        *lines, rest = self._out.split(b"\n")
        self._out = bytearray(rest[-self._limit :])
        for line in lines:
            self._on_line(bytes(line))

    def errReceived(self, data: bytes) -> None:
        self._err += data[: max(0, self._limit - len(self._err))]

    def processExited(self, reason: Failure) -> None:
        self._exit = reason.value
        self._cancel_timers()
        self._later(LATE_OUTPUT, self._let_go)

    def _let_go(self) -> None:
        """Something that it left behind holds its output open."""

        self._signal_group(signal.SIGKILL)
        self._later(LATE_OUTPUT, self._close_pipes)

    def _close_pipes(self) -> None:
        assert self.transport is not None  # noqa: S101
        self.transport.loseConnection()

    def processEnded(self, reason: Failure) -> None:
        self._exit = reason.value
        self._cancel_timers()
        self.ended.callback(
            Outcome(
                status=self._exit.exitCode,
                signal=self._exit.signal,
                stdout=bytes(self._out),
                stderr=bytes(self._err),
                timed_out=self._timed_out,
            )
        )

    def limit_to(self, seconds: float) -> None:
        self._later(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timed_out = True
        self.end()

    def end(self) -> None:
        """TERM, and after a while KILL, to everything in its session. Idempotent."""

        if self._exit is None:
            self._cancel_timers()
            self._signal_group(signal.SIGTERM)
            self._later(PATIENCE, self._signal_group, signal.SIGKILL)

    def close_stdin(self) -> None:
        if self._exit is None and self.transport is not None:
            self.transport.closeStdin()

    def _signal_group(self, number: signal.Signals) -> None:
        pid = getattr(self.transport, "pid", None) or getattr(self, "group", None)
        if pid is None:
            return
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            # It has not come to have its own session yet, or all of it is gone already.
            with suppress(ProcessLookupError):
                if self._exit is None:
                    os.kill(pid, number)
        except PermissionError:
            # It runs as root, by sudo: it ends by itself, at the latest when it finds its pipes closed.
            self.out_of_reach = True
            self._close_pipes()

    def _later(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        self._timers.append(self._reactor.callLater(seconds, call, *arguments))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()


def start_child(
    reactor: Any,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: bytes = b"",
    keep_open: bool = False,
    limit: int = 1 << 20,
    on_line: Callable[[bytes], None] | None = None,
) -> Child:
    """Start ``argv``. ``keep_open``: leave its standard input open after ``stdin``. ``limit``: bytes of output; a
    program that says more is ended. Raises ToolMissing."""

    child = Child(reactor, stdin=stdin, keep_open=keep_open, limit=limit, on_line=on_line)
    try:
        process = reactor.spawnProcess(child, "setsid", ["setsid", *argv], env=dict(env))
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise ToolMissing("setsid (util-linux) is not installed on the agent.") from None
        raise
    child.group = process.pid  # type: ignore[attr-defined]
    return child


async def run_child(child: Child, timeout: float) -> Outcome:
    """Wait for its end, at most ``timeout`` seconds plus the time that ending it takes. Cancelling ends it, and
    returns once it is gone (but does not wait for a program of root's)."""

    child.limit_to(timeout)
    try:
        return await _shielded(child.ended)
    except CancelledError:
        child.end()
        if not child.out_of_reach:
            await child.ended
        raise


def _shielded(shared: Deferred[Outcome]) -> Deferred[Outcome]:
    """Fires with ``shared``; cancelling it leaves ``shared`` alone."""

    mine: Deferred[Outcome] = Deferred()

    def hand_on(outcome: Outcome) -> Outcome:
        if not mine.called:
            mine.callback(outcome)
        return outcome

    shared.addCallback(hand_on)
    return mine


def is_missing(outcome: Outcome) -> bool:
    """Whether the program itself was not there."""

    return outcome.status == 127 and any(words in outcome.stderr for words in _MISSING)
