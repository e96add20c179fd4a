"""Programs on an agent, over SSH: with all three streams, exit status and signal, and an end for all they started."""

from __future__ import annotations

import secrets
import shlex
import signal
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.conch.error import ConchError
from twisted.conch.ssh.common import NS, getNS
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.task import deferLater

from ipmiproxyd.agents.children import PATIENCE, Running
from ipmiproxyd.agents.ssh_channel import Channel, ChannelRefused, Connection
from ipmiproxyd.errors import AgentUnreachable

SESSIONS: Final = 7
"""Programs at once over one connection: sshd's MaxSessions is 10, and one watches, and ending one takes another."""
REFUSED: Final = (0.2, 5.0)
"""Seconds after which a session that sshd refused is tried again, and for how long: it may count one that just ends."""
CLOSING: Final = 2.0
"""Seconds in which sshd has to confirm that a channel is closed."""
HEAD_LIMIT: Final = 64 << 10
"""Bytes that an account's own start files may print before our program does."""

# Whatever the account's shell prints before stays in front of the mark. sshd has made a session for the shell, and exec
# keeps its process number: so this is also the number of the group.
_SCRIPT: Final = """
mark=$1 home=$2; shift 2
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
command -v "$1" >/dev/null 2>&1 || { echo "$mark missing"; exit 127; }
echo "$mark $$"; echo "$mark" >&2
set -- SSH_CONNECTION="$SSH_CONNECTION" IPMIPROXYD_RUN="$mark" "$@"
exec env -i PATH="$PATH" LANG=C.UTF-8 HOME="${home:-$HOME}" "$@"
"""
_END: Final = """
number=$1 pid=$2
kill -s "$number" -- "-$pid" 2>/dev/null || kill -s "$number" "$pid"
"""
_END_ORPHAN: Final = """
tr '\\0' '\\n' <"/proc/$1/environ" | grep -qx "IPMIPROXYD_RUN=$2" && kill -s KILL -- "-$1"
"""


def shell_line(script: str, *arguments: str) -> str:
    """A line for whatever shell the account has, that runs a script of sh in its place."""

    return f"exec sh -c {shlex.quote(script)} sh {shlex.join(arguments)}"


class Exec(Channel):
    """A session that runs one line of shell, unless it is unwanted by then. What happens is told to ``owner``."""

    name = b"session"

    def __init__(self, line: str, owner: Any = None) -> None:
        super().__init__()
        self._line = line
        self._owner = owner
        self.status: int | None = None
        self.signal: int | None = None

    def channelOpen(self, specificData: bytes) -> None:  # noqa: N803 - Conch's name
        if self.unwanted:
            self._owner = None
        else:
            asked = self.conn.sendRequest(self, b"exec", NS(self._line.encode()), wantReply=1)
            asked.addCallbacks(lambda _: None, self._not_run)
        super().channelOpen(specificData)

    def _not_run(self, failure: Any) -> None:
        failure.trap(ConchError)
        self.close_now()

    def dataReceived(self, data: bytes) -> None:
        self.consumed(len(data))
        if self._owner is not None:
            self._owner.said(data)

    def extReceived(self, dataType: int, data: bytes) -> None:  # noqa: N803, ARG002 - Conch's names
        self.consumed(len(data))
        if self._owner is not None:
            self._owner.muttered(data)

    def request_exit_status(self, data: bytes) -> bool:
        (self.status,) = struct.unpack(">L", data[:4])
        self._exited()
        return True

    def request_exit_signal(self, data: bytes) -> bool:
        name, _ = getNS(data)
        try:
            self.signal = signal.Signals[f"SIG{name.decode('ascii', 'replace')}"]
        except KeyError:
            self.signal = 0  # sshd names only a few
        self._exited()
        return True

    def _exited(self) -> None:
        if self._owner is not None:
            self._owner.has_exited()

    def gone(self) -> None:
        if self._owner is not None:
            self._owner.channel_gone()


class RemoteProgram(Running):
    """A program on the agent.

    :param sessions: lets only so many run at once.
    :param connect: gives the connection, when there is one.
    :param argv: what to run; asked for when there is a connection, as are ``stdin`` and ``home``.
    :param as_root: it becomes root, by sudo: only closing its streams ends it.
    :param orphaned: is told the process number and the mark of a program that was lost with the connection.
    :ivar missing: the program is not there.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        sessions: DeferredSemaphore,
        connect: Callable[[], Deferred[Connection]],
        argv: Callable[[], Sequence[str]],
        *,
        stdin: Callable[[], bytes],
        home: Callable[[], str] = lambda: "",
        keep_open: bool = False,
        limit: int = 1 << 20,
        on_line: Callable[[bytes], None] | None = None,
        as_root: Callable[[], bool] = lambda: False,
        orphaned: Callable[[str, str], None] = lambda _pid, _mark: None,
    ) -> None:
        super().__init__(reactor, limit=limit, on_line=on_line)
        self.missing = False
        self.has_begun = False
        self._name = name
        self._sessions = sessions
        self._stdin = stdin
        self._keep_open = keep_open
        self._as_root = as_root
        self._orphaned = orphaned
        self._mark = f"ipx-{secrets.token_hex(8)}"
        self._heads: list[bytes | None] = [b"", b""]  # what came before the marks; None after them
        self._pid = ""
        self._channel: Exec | None = None
        self._slot = False
        self._closing = False
        self._done = False
        self._beginning: Deferred[None] = Deferred.fromCoroutine(self._begin(connect, argv, home))
        self._beginning.addErrback(self._not_begun)

    # --- its begin ----------------------------------------------------------------------------------------------------

    async def _begin(
        self, connect: Callable[[], Deferred[Connection]], argv: Callable[[], Sequence[str]], home: Callable[[], str]
    ) -> None:
        connection = await connect()
        await self._sessions.acquire()
        self._slot = True
        self.out_of_reach = self._as_root()
        line = shell_line(_SCRIPT, self._mark, home(), *argv())
        channel = self._channel = await open_exec(self._reactor, connection, line, self)
        self.has_begun = True
        channel.write(self._stdin())
        self._stdin = bytes
        if not self._keep_open:
            channel.end_writing()

    def _not_begun(self, failure: Any) -> None:
        if failure.check(CancelledError):
            self._finish(None, signal.SIGTERM)
        elif failure.check(ChannelRefused):
            refusal = failure.value
            if refusal.code is None:
                self._fail(refusal.words, None)
            else:
                self._fail(f"its sshd lets no program run ({refusal.words})", "See MaxSessions in its configuration.")
        else:
            self._finish(failure)

    # --- what the channel tells ---------------------------------------------------------------------------------------

    def said(self, data: bytes) -> None:
        if rest := self._after_mark(0, data):
            self.printed(rest)

    def muttered(self, data: bytes) -> None:
        if rest := self._after_mark(1, data):
            self.complained(rest)

    def has_exited(self) -> None:
        if not self._done:
            super().has_exited()

    def _after_mark(self, stream: int, data: bytes) -> bytes:
        head = self._heads[stream]
        if head is None:
            return data
        head += data
        _, mark, after = head.partition(self._mark.encode())
        told, end, rest = after.partition(b"\n")
        if not mark or not end:
            self._heads[stream] = head[-HEAD_LIMIT:]
            return b""
        self._heads[stream] = None
        if stream == 0:
            self.missing = told == b" missing"
            self._pid = told.decode("ascii", "replace").strip() if told.strip().isdigit() else ""
        return rest

    def channel_gone(self) -> None:
        channel = self._channel
        if channel is None or self._done:
            return
        if channel.status is None and channel.signal is None:
            if channel.with_connection:
                if self._pid and not self.out_of_reach:
                    self._orphaned(self._pid, self._mark)
                self._fail("the connection was lost", None)
                return
            if not self._ended_by_us:
                self._fail("the program's session was closed", "See what its sshd logs.")
                return
        if self._heads[0] is not None and not self._ended_by_us and not self.missing:
            said = [(head or b"").decode("utf-8", "replace").strip() for head in self._heads]
            words = next((text.splitlines()[-1] for text in said if text), "it said nothing")
            self._fail(f"its account runs no commands ({words[:200]})", "Give the account a shell such as /bin/sh.")
            return
        number = channel.signal if channel.status is None and channel.signal is not None else None
        if channel.status is None and number is None:
            number = signal.SIGKILL
        self._finish(channel.status, number)

    @property
    def _ended_by_us(self) -> bool:
        return self._timed_out or self._closing

    # --- its end ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._channel is not None:
            self._channel.write(data)

    def close_stdin(self) -> None:
        if self._channel is not None:
            self._channel.end_writing()
        elif not self._done:
            self._beginning.cancel()

    def end(self) -> None:
        if self._exited:
            return
        if self._channel is None or self.out_of_reach:
            self._cancel_timers()
            self.close_pipes()
        else:
            super().end()
            self._later(2 * PATIENCE, self.close_pipes)

    def signal_group(self, number: signal.Signals) -> None:
        self._closing = True
        channel = self._channel
        if channel is not None and channel.is_open and self._pid and not self.out_of_reach:
            line = shell_line(_END, number.name.removeprefix("SIG"), self._pid)
            ending = Deferred.fromCoroutine(open_exec(self._reactor, channel.conn, line))
            ending.addErrback(lambda failure: failure.trap(ChannelRefused))
        elif number == signal.SIGKILL or self.out_of_reach:
            self.close_pipes()

    def close_pipes(self) -> None:
        self._closing = True
        if self._done:
            return
        if self._channel is None:
            self._beginning.cancel()
            return
        self._channel.close_now()
        self._later(CLOSING, self._finish, None, signal.SIGKILL)

    def _fail(self, words: str, hint: str | None) -> None:
        self._finish(AgentUnreachable(f"On the agent {self._name}: {words}.", hint=hint))

    def _finish(self, how: Any, number: int | None = None) -> None:
        """``how`` is the exit status, or why it is not known."""

        if self._done:
            return
        self._done = self._exited = True
        self._cancel_timers()
        if self._slot:
            self._slot = False
            self._sessions.release()
        if how is None or isinstance(how, int):
            self.is_over(how, number)
        else:
            self.ended.errback(how)


async def open_exec(reactor: Any, connection: Connection, line: str, owner: Any = None) -> Exec:
    """A session that runs a line. Raises ChannelRefused. If this is cancelled, so is the session."""

    pause, limit = REFUSED
    give_up = reactor.seconds() + limit
    while True:
        channel = Exec(line, owner)
        try:
            await channel.open_on(connection)
        except ChannelRefused as refusal:
            if refusal.code is None or reactor.seconds() > give_up:
                raise
            await deferLater(reactor, pause)
        else:
            return channel


def orphans_line(orphans: Sequence[tuple[str, str]]) -> str:
    """Ends programs that were lost with their connection, if they still run."""

    calls = [f"(set -- {shlex.join(orphan)}; {_END_ORPHAN.strip()})" for orphan in orphans]
    return shell_line("exec 2>/dev/null\n" + "\n".join(calls))
