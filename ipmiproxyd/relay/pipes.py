"""Pipes through which the kernel hands bytes from one socket to another without copying them (splice(2)).

They are borrowed: a session has one only while bytes lie in it. Where the pool has none to lend, bytes are copied.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Final

SIZE: Final = 512 << 10
MOST: Final = 64
"""Pipes at once: an unprivileged user may have 64 MiB of them (fs.pipe-user-pages-soft) before they shrink."""

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """``left``: bytes that lie in it."""

    __slots__ = ("_reader", "_writer", "left")

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # it has 64 KiB then
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, SIZE)
        self.left = 0

    def fill(self, number: int) -> int:
        """Take from a socket what it has, at most SIZE bytes; 0 at its end. Raises BlockingIOError, OSError."""

        self.left = os.splice(number, self._writer, SIZE, flags=_FLAGS)
        return self.left

    def drain(self, number: int) -> bool:
        """Give to a socket what it takes. True once nothing is left. Raises OSError, but not BlockingIOError."""

        while self.left:
            try:
                self.left -= os.splice(self._reader, number, self.left, flags=_FLAGS)
            except BlockingIOError:
                return False
        return True

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class PipePool:
    """Lends pipes, at most ``most`` at once.

    :ivar lent: how many are out.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.lent = 0
        self._idle: list[Pipe] = []

    def borrow(self) -> Pipe | None:
        if self._idle:
            self.lent += 1
            return self._idle.pop()
        if self.lent >= self._most:
            return None
        try:
            pipe = Pipe()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            return None
        self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """One with bytes left in it is of no use to anybody else."""

        self.lent -= 1
        if pipe.left or len(self._idle) >= 4:
            pipe.close()
        else:
            self._idle.append(pipe)

    def close_idle(self) -> None:
        """Keep none for later."""

        while self._idle:
            self._idle.pop().close()


POOL: Final = PipePool()
