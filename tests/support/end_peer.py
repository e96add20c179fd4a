"""The other side of an end: it sends what everybody can foretell, and checks each byte that it gets."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

reactor: Any = global_reactor

PATIENCE: Final = 20.0
"""Seconds that anything may take here."""
_PERIOD: Final = 300_007
"""A prime: no size of a buffer, a record or a frame is in step with it."""


class Pattern:
    """An endless stream in which each place is known."""

    def __init__(self, seed: int) -> None:
        block = random.Random(seed).randbytes(_PERIOD)
        self._twice = memoryview(block + block)

    def at(self, start: int, size: int) -> memoryview:
        """The bytes ``[start:start + size]``; fewer if there are more than 300,007."""

        start %= _PERIOD
        return self._twice[start : start + min(size, _PERIOD)]

    def take(self, start: int, size: int) -> bytes:
        """The bytes ``[start:start + size]``, however many."""

        return b"".join(
            bytes(self.at(at, min(_PERIOD, start + size - at))) for at in range(start, start + size, _PERIOD)
        )

    def check(self, start: int, data: bytes | memoryview) -> None:
        """Raises AssertionError unless ``data`` is what stands at ``start``."""

        view = memoryview(data)
        for at in range(0, len(view), _PERIOD):
            piece = view[at : at + _PERIOD]
            if self.at(start + at, len(piece)) != piece:
                raise AssertionError(f"{len(view)} wrong bytes at {start}: {bytes(view[:20])!r}…")


UP: Final = Pattern(1)
"""What peers send."""
DOWN: Final = Pattern(2)
"""What they get."""


class Bell:
    """Rung at every event, for those who wait for what the events bring about."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], Any], Deferred[None]]] = []

    def ring(self) -> None:
        for entry in tuple(self._waiting):
            condition, fulfilled = entry
            if condition():
                self._waiting.remove(entry)
                reactor.callLater(0, fulfilled.callback, None)  # not in the midst of the event

    async def until(self, condition: Callable[[], Any], what: str | Callable[[], str] = "") -> None:
        if condition():
            return
        fulfilled: Deferred[None] = Deferred()
        entry = condition, fulfilled
        self._waiting.append(entry)

        def late() -> None:
            words = what() if callable(what) else what
            fulfilled.errback(AssertionError(f"it did not happen in time: {words}"))

        limit = reactor.callLater(PATIENCE, late)
        try:
            await fulfilled
        finally:
            if limit.active():
                limit.cancel()
            if entry in self._waiting:
                self._waiting.remove(entry)


class Moody:
    """A socket that often has no time, and takes and gives less than it could.

    :param most: bytes at once.
    """

    def __init__(self, sock: socket.socket, seed: int, most: int, idle: float = 0.3) -> None:
        self._socket = sock
        self._random = random.Random(seed)
        self._most = most
        self._idle = idle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _some(self) -> int:
        if self._random.random() < self._idle:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return self._random.randint(1, self._most)

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        return self._socket.send(memoryview(data)[: self._some()], flags)

    def sendmsg(self, pieces: list[bytes]) -> int:
        return self.send(b"".join(pieces))

    def recv(self, size: int) -> bytes:
        return self._socket.recv(min(size, self._some()))

    def recv_into(self, room: memoryview) -> int:
        return self._socket.recv_into(room[: self._some()])


@implementer(IReadWriteDescriptor)
class Peer:
    """A socket in the test's own reactor, with or without TLS on it.

    When the other side says that no more will come, it closes.

    :param tls: a client's, with its handshake done.
    :cvar sends: as far as it is told to; ``expects``: of this it checks every byte.
    :ivar ended: how the other side ended: ``""`` (not yet), ``eof``, ``close_notify``, ``alert`` or ``reset``.
    """

    sends = UP
    expects = DOWN

    def __init__(
        self, bell: Bell, sock: socket.socket,
        tls: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO] | None = None, *, seed: int = 1, largest: int = 70_000,
    ) -> None:  # fmt: skip
        self.sent = self.got = 0
        self.ended = ""
        self._bell = bell
        self._socket = sock
        self._tls = tls
        self._random = random.Random(seed)
        self._largest = largest
        self._goal = 0
        self._closing = False
        self._waits = b""
        self._buffer = bytearray(256 << 10)
        sock.setblocking(False)
        reactor.addReader(self)

    def send_until(self, goal: int) -> None:
        """Send as far as that place of the stream."""

        self._goal = goal
        reactor.addWriter(self)

    def stall(self) -> None:
        reactor.removeReader(self)

    def go_on(self) -> None:
        if self._socket.fileno() >= 0:
            reactor.addReader(self)

    def close(self) -> None:
        reactor.removeReader(self)
        reactor.removeWriter(self)
        self._socket.close()

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def half_close(self, goal: int) -> None:
        """Send as far as that, then say that this was all; go on reading."""

        self._closing = True
        self.send_until(goal)

    def begin_tls(self) -> None:
        """The handshake, with whoever is at the other side. It goes on by itself."""

        self._tell_by_tls(lambda tls: tls.do_handshake())

    def say_goodbye(self) -> None:
        """close_notify, and go on reading."""

        self._tell_by_tls(lambda tls: tls.unwrap())

    def _tell_by_tls(self, what: Callable[[ssl.SSLObject], Any]) -> None:
        assert self._tls is not None
        with contextlib.suppress(ssl.SSLWantReadError):
            what(self._tls[0])
        self._waits += self._tls[2].read()
        self.doWrite()
        if self._waits:
            reactor.addWriter(self)

    def encrypted(self, size: int) -> bytes:
        """The next bytes of the stream, for somebody who hands them over in another way."""

        plain = self.sends.take(self.sent, size)
        self.sent += size
        if self._tls is None:
            return plain
        self._tls[0].write(plain)
        return self._tls[2].read()

    # --- what the reactor does ---------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "peer"

    def doWrite(self) -> None:
        if not self._waits and self.sent < self._goal:
            self._waits = self.encrypted(min(self._random.randint(1, self._largest), self._goal - self.sent))
        try:
            self._waits = self._waits[self._socket.send(self._waits) :]
        except BlockingIOError:
            return
        except OSError:
            reactor.removeWriter(self)
            return
        if not self._waits and self.sent >= self._goal:
            reactor.removeWriter(self)
            if self._closing:
                self._socket.shutdown(socket.SHUT_WR)
        self._bell.ring()

    def doRead(self) -> None:
        try:
            size = self._socket.recv_into(self._buffer, self._random.randint(1, self._largest))
        except BlockingIOError:
            return
        except OSError:
            self._end("reset")
            return
        if not size:
            self._end("eof")
        elif self._tls is None:
            self._take(memoryview(self._buffer)[:size])
        else:
            self._decrypt(bytes(self._buffer[:size]))
        self._bell.ring()

    def _decrypt(self, data: bytes) -> None:
        assert self._tls is not None
        tls, incoming, outgoing = self._tls
        incoming.write(data)
        while True:
            try:
                plain = tls.read(1 << 16)
            except ssl.SSLWantReadError:
                if outgoing.pending:  # the handshake
                    self._waits += outgoing.read()
                    reactor.addWriter(self)
                return
            except ssl.SSLZeroReturnError:
                plain = b""
            except ssl.SSLError:
                self._end("alert")
                return
            if not plain:
                self.say_goodbye()
                self._end("close_notify")
                return
            self._take(plain)

    def _take(self, plain: bytes | memoryview) -> None:
        self.expects.check(self.got, plain)
        self.got += len(plain)

    def _end(self, how: str) -> None:
        if not self.ended:
            self.ended = how
            self.close()
            self._bell.ring()

    def connectionLost(self, _reason: Failure) -> None:
        self._end("reset")


class Mirror(Peer):
    """A peer that sends what the others get, and gets what they send: one pattern for both would not show an echo."""

    sends = DOWN
    expects = UP


def tcp_pair(small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Accepted and connected. ``small``: with buffers as tiny as the kernel allows."""

    with socket.create_server(("127.0.0.1", 0)) as listener:
        if small:
            shrink(listener)
        connected = socket.socket()
        if small:
            shrink(connected)
        connected.connect(listener.getsockname())
        accepted, _ = listener.accept()
    return _ready(accepted, connected, small)


def unix_pair(small: bool = False) -> tuple[socket.socket, socket.socket]:
    return _ready(*socket.socketpair(), small)


def _ready(one: socket.socket, other: socket.socket, small: bool) -> tuple[socket.socket, socket.socket]:
    for sock in (one, other):
        sock.setblocking(False)
        if small:
            shrink(sock)
    return one, other


def shrink(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


def descriptors() -> int:
    """How many this process has open."""

    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of this process that are in memory."""

    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
