"""A connected TCP or UNIX socket as an end.

It takes its socket away from the Twisted transport that it was connected or accepted by (``takeover.py``); it remains a
reader and writer of the same reactor. What of a transport's buffers was still unsent becomes the end's tail.

Where much flows from one bare socket to another, the bytes do not even enter this process
(:meth:`SocketEnd.splice_into`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.relay.ends import READ, UP_READ, VIEW, Owner, hand_out
from ipmiproxyd.relay.pipes import POOL, Pipe
from ipmiproxyd.wire.websocket import HEAD

_ROOMS: Final = {most: VIEW[HEAD : HEAD + most] for most in (READ, UP_READ)}
MUCH: Final = 32 << 10
"""Bytes in one read from which on splicing the next is cheaper than copying it."""


def _no_header(_size: int) -> bytes:
    return b""


@implementer(IReadWriteDescriptor)
class SocketEnd:
    """A connected TCP or UNIX socket.

    :param unread: bytes that were read from it already.
    :param unsent: bytes that were to be written to it before anything else.
    :param most: bytes to be read at once.
    """

    __slots__ = (
        "_after", "_finishing", "_header", "_much", "_number", "_owner", "_pipe", "_reactor", "_room", "_sink",
        "_socket", "_tail", "_unread",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        reactor: Any,
        sock: socket.socket,
        unread: bytes = b"",
        unsent: bytes = b"",
        most: int = READ,
    ) -> None:
        self._owner = owner
        self._reactor = reactor
        self._socket: socket.socket | None = sock
        self._number = sock.fileno()
        self._unread = unread
        self._room = _ROOMS[most]
        # What is kept back goes out in this order: the tail, what lies in the pipe, what was sent after that.
        self._tail: memoryview | None = None
        self._pipe: Pipe | None = None
        self._after = b""
        self._finishing = False
        self._sink: SocketEnd | None = None
        self._header: Callable[[int], bytes] = _no_header
        self._much = False
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if unsent:
            self._push(memoryview(unsent))

    # --- what its owner does -----------------------------------------------------------------------------------------

    @property
    def is_clogged(self) -> bool:
        return self._tail is not None or self._pipe is not None

    def splice_into(self, sink: SocketEnd | None, header: Callable[[int], bytes] = _no_header) -> None:
        """From now on, whenever much comes in, let the kernel hand it to ``sink`` in place of giving it to the owner;
        in front of each piece goes ``header`` of its length. None ends that."""

        self._sink = sink
        self._header = header

    def start(self) -> None:
        self.resume()  # first: what was unread may make its owner pause
        unread, self._unread = self._unread, b""
        hand_out(self._owner, self, unread)

    def send(self, data: bytes | memoryview) -> bool:
        return self._push(data)

    def _push(self, data: bytes | memoryview) -> bool:
        if self._pipe is not None:
            self._after += data
            return False
        if self._tail is not None:
            self._tail = memoryview(bytes(self._tail) + bytes(data))
            return False
        if self._socket is None or self._finishing:
            return True
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._reactor.callLater(0, self.abort)
            return True
        if sent == len(data):
            return True
        self._tail = memoryview(bytes(data[sent:]))
        self._reactor.addWriter(self)
        return False

    def pause(self) -> None:
        if self._socket is not None:
            self._reactor.removeReader(self)

    def resume(self) -> None:
        if self._socket is not None:
            self._reactor.addReader(self)

    def finish(self) -> None:
        self._finishing = True
        if not self.is_clogged:
            self._shut()

    def abort(self) -> None:
        self._close()

    def _shut(self) -> None:
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._reactor.callLater(0, self.abort)

    def _close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is None:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        sock.close()
        self._number = -1
        self._tail = self._sink = None
        if self._pipe is not None:
            POOL.give_back(self._pipe)
            self._pipe = None
        self._reactor.callLater(0, self._owner.lost, self)

    # --- what the reactor does ---------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "relay"

    def doRead(self) -> None:
        if self._socket is None or (self._much and self._splice()):
            return
        try:
            size = self._socket.recv_into(self._room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        self._much = size >= MUCH
        if size:
            self._owner.received(self, HEAD, HEAD + size)
        else:
            self._close()

    def doWrite(self) -> None:
        if self._socket is None:
            return
        try:
            is_out = self._write()
        except OSError:
            self._close()
            return
        if is_out:
            self._reactor.removeWriter(self)
            if self._finishing:
                self._shut()
            else:
                self._owner.drained(self)

    def _write(self) -> bool:
        """Send what the other side takes of what is kept back. True once all of it is out. Raises OSError."""

        sock = self._socket
        try:
            while sock is not None and (self._tail is not None or self._pipe is not None):
                if self._tail is not None:
                    self._tail = self._tail[sock.send(self._tail, self._more) :] or None
                elif self._pipe is not None:
                    if not self._pipe.drain(self._number):
                        return False
                    POOL.give_back(self._pipe)
                    self._pipe = None
                    self._tail, self._after = memoryview(self._after) or None, b""
        except (BlockingIOError, InterruptedError):
            return False
        return True

    @property
    def _more(self) -> int:
        """A header and what it belongs to go out together."""

        return 0 if self._pipe is None else socket.MSG_MORE

    # --- splicing ----------------------------------------------------------------------------------------------------

    def _splice(self) -> bool:
        """Let the kernel hand on what is there. False: read it the usual way."""

        sink = self._sink
        if sink is None or sink.is_clogged:
            return False
        pipe = POOL.borrow()
        if pipe is None:
            return False
        try:
            size = pipe.fill(self._number)
        except OSError:  # nothing there, or nothing to be spliced: reading will tell
            size = 0
        self._much = size >= MUCH
        if not size:
            POOL.give_back(pipe)
            return False
        if not sink._send_pipe(self._header(size), pipe):
            self.pause()
        return True

    def _send_pipe(self, header: bytes, pipe: Pipe) -> bool:
        """As :meth:`send`: of a header, and of what lies in the pipe, which is given back some time."""

        if self._socket is None or self._finishing:
            POOL.give_back(pipe)
            return True
        self._tail = memoryview(header) if header else None
        self._pipe = pipe
        try:
            if self._write():
                return True
        except OSError:
            self._reactor.callLater(0, self.abort)
            return True
        self._reactor.addWriter(self)
        return False

    def connectionLost(self, _reason: Failure) -> None:
        """The kernel says that it is gone: the reactor calls this in place of doRead or doWrite."""

        self._close()
