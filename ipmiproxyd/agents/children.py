"""Running programs: what they printed, their time limit, and how they are ended; and those of this machine, each in a
session of its own, so that all of it can be ended."""

from __future__ import annotations

import errno
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ipmiproxyd.errors import ToolMissing
from ipmiproxyd.model import Outcome

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds between TERM and KILL."""

LATE_OUTPUT: Final = 0.5
"""Seconds after a program's end for which output of what it left behind is awaited."""

_MISSING: Final = (b"setsid: failed to execute", b"command not found")


class Running(ABC):
    """A running program. Subclasses know how to signal it, and tell what it says and how it ends.

    :param limit: bytes of output; a program that says more is ended.
    :param on_line: takes each line of its standard output; without it the output is kept for the outcome.
    :ivar out_of_reach: it runs as another user, and cannot be signalled.
    :ivar has_begun: it runs, or has run; until then it waits for something.
    :ivar ended: fires once with the :class:`~ipmiproxyd.model.Outcome`, or fails with a ProxyError if nobody will ever
        know. Cancelling it ends nothing: see :meth:`end`.
    """

    def __init__(self, reactor: Any, *, limit: int, on_line: Callable[[bytes], None] | None) -> None:
        self.ended: Deferred[Outcome] = Deferred()
        self.out_of_reach = False
        self.has_begun = True
        self._reactor = reactor
        self._limit = limit
        self._on_line = on_line
        self._out = bytearray()
        self._err = bytearray()
        self._exited = False
        self._timed_out = False
        self._said_too_much = False
        self._timers: list[IDelayedCall] = []

    # --- what subclasses do -------------------------------------------------------------------------------------------

    @abstractmethod
    def write(self, data: bytes) -> None:
        """To its standard input, where that was left open."""

    @abstractmethod
    def close_stdin(self) -> None: ...

    @abstractmethod
    def signal_group(self, number: signal.Signals) -> None:
        """Signal the program and everything in its session."""

    @abstractmethod
    def close_pipes(self) -> None:
        """Listen no longer. ``ended`` follows."""

    # --- what they tell -----------------------------------------------------------------------------------------------

    def printed(self, data: bytes) -> None:
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

    def complained(self, data: bytes) -> None:
        self._err += data[: max(0, self._limit - len(self._err))]

    def has_exited(self) -> None:
        """The program itself is over; its output may not be."""

        self._exited = True
        self._cancel_timers()
        self._later(LATE_OUTPUT, self._let_go)

    def is_over(self, status: int | None, signal_number: int | None) -> None:
        """All of it is over."""

        self._exited = True
        self._cancel_timers()
        self.ended.callback(
            Outcome(
                status=status,
                signal=signal_number,
                stdout=bytes(self._out),
                stderr=bytes(self._err),
                timed_out=self._timed_out,
            )
        )

    # --- what others do with it ---------------------------------------------------------------------------------------

    def limit_to(self, seconds: float) -> None:
        if not self._exited:
            self._later(seconds, self._time_is_up)

    def end(self) -> None:
        """TERM, and after a while KILL, to everything in its session. Idempotent."""

        if not self._exited:
            self._cancel_timers()
            self.signal_group(signal.SIGTERM)
            self._later(PATIENCE, self.signal_group, signal.SIGKILL)

    def _time_is_up(self) -> None:
        self._timed_out = True
        self.end()

    def _let_go(self) -> None:
        """Something that it left behind holds its output open."""

        self.signal_group(signal.SIGKILL)
        self._later(LATE_OUTPUT, self.close_pipes)

    def _later(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        self._timers.append(self._reactor.callLater(seconds, call, *arguments))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()


class Child(Running, ProcessProtocol):
    """A program on this machine."""

    def __init__(
        self, reactor: Any, *, stdin: bytes, keep_open: bool, limit: int, on_line: Callable[[bytes], None] | None
    ) -> None:
        super().__init__(reactor, limit=limit, on_line=on_line)
        self.group: int | None = None
        self._stdin = stdin
        self._keep_open = keep_open

    def connectionMade(self) -> None:
        assert self.transport is not None  # noqa: S101 - Twisted's promise
        self.transport.write(self._stdin)
        self._stdin = b""
        if not self._keep_open:
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.printed(data)

    def errReceived(self, data: bytes) -> None:
        self.complained(data)

    def processExited(self, _reason: Failure) -> None:
        self.has_exited()

    def processEnded(self, reason: Failure) -> None:
        how: Any = reason.value
        self.is_over(how.exitCode, how.signal)

    def write(self, data: bytes) -> None:
        if not self._exited and self.transport is not None:
            self.transport.write(data)

    def close_stdin(self) -> None:
        if not self._exited and self.transport is not None:
            self.transport.closeStdin()

    def close_pipes(self) -> None:
        assert self.transport is not None  # noqa: S101
        self.transport.loseConnection()

    def signal_group(self, number: signal.Signals) -> None:
        pid = getattr(self.transport, "pid", None) or self.group
        if pid is None:
            return
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            # It has not come to have its own session yet, or all of it is gone already.
            with suppress(ProcessLookupError):
                if not self._exited:
                    os.kill(pid, number)
        except PermissionError:
            # It runs as root, by sudo: it ends by itself, at the latest when it finds its pipes closed.
            self.out_of_reach = True
            self.close_pipes()


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
    child.group = process.pid
    return child


async def run_child(child: Running, timeout: float) -> Outcome:
    """Wait for its end, at most ``timeout`` seconds plus the time that ending it takes. Cancelling ends it, and
    returns once it is gone (but does not wait for a program of root's)."""

    child.limit_to(timeout)
    try:
        return await shielded(child.ended)
    except CancelledError:
        child.end()
        if not child.out_of_reach:
            await child.ended
        raise


def shielded(shared: Deferred[T]) -> Deferred[T]:
    """Fires with ``shared``; cancelling it leaves ``shared`` alone, whose failure nobody hears of afterwards."""

    mine: Deferred[T] = Deferred()

    def hand_on(result: Any) -> Any:
        if not mine.called:
            mine.callback(result)
        return None if isinstance(result, Failure) else result

    shared.addBoth(hand_on)
    return mine


def is_missing(outcome: Outcome) -> bool:
    """Whether the program itself was not there."""

    return outcome.status == 127 and any(words in outcome.stderr for words in _MISSING)
