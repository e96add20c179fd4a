"""The synthetic RFB server (``python -m benchmarks.relay.server``): says its port, and serves until its stdin ends. It
serves a UNIX socket, too, if it is given the path of one.

What it obeys: :mod:`benchmarks.relay.stream`. A viewer that says anything else is told so on stderr and cut.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
import struct
import sys
import time
from typing import Final

from benchmarks.relay import stream

ONCE: Final = 32 << 10
"""Bytes per send: about as many as VNC servers write at once (libvncserver 30,000)."""

_VERSION = b"RFB 003.008\n"
_INIT = struct.pack(">HH16sI", 640, 480, bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0)), 5) + b"bench"
_HELLO = ((_VERSION, b"\x01\x01"), (b"\x01", b"\x00\x00\x00\x00"), (b"\x01", _INIT))
"""What the viewer says, and the answer to it; a shared flag of 1, which every client of the benchmark sets."""

_SIZES = {0: 20, 3: 10, 4: 8, 5: 6}
_REQUEST = struct.Struct(">BBHHHH")


class Illegal(Exception):
    """The viewer said what it may not say."""


class Viewer:
    """One connection."""

    __slots__ = (
        "_asked",
        "_heard",
        "_left",
        "_out",
        "_place",
        "_pointed",
        "_said",
        "number",
        "rate",
        "size",
        "sock",
        "stalled",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.number = sock.fileno()
        self.stalled = False
        self.rate = 0
        self.size = 0
        self._said = 0
        self._heard = bytearray()
        self._asked = 0
        self._pointed = 0
        self._place = 0
        self._left = 0
        self._out = bytearray()

    def read(self) -> bool:
        """False once the connection is over. Raises :class:`Illegal`."""

        data = self.sock.recv(65_536)
        if not data:
            return False
        self._heard += data
        while self._heard and self._one():
            pass
        return True

    def _one(self) -> bool:
        heard = self._heard
        if self._said < len(_HELLO):
            expected, answer = _HELLO[self._said]
            if len(heard) < len(expected):
                return False
            if heard[: len(expected)] != expected:
                raise Illegal(f"{bytes(heard[:20])!r} instead of {expected!r}")
            del heard[: len(expected)]
            self._said += 1
            self._out += answer
            return True
        kind = heard[0]
        size = _SIZES.get(kind)
        if size is None:
            if kind != 2:
                raise Illegal(f"message type {kind}")
            size = 4 + 4 * int.from_bytes(heard[2:4], "big") if len(heard) >= 4 else 4
        if len(heard) < size:
            return False
        message = heard[:size]
        del heard[:size]
        if kind == 3:
            self._obey(message)
        elif kind == 5:
            self._point(message)
        return True

    def _obey(self, message: bytearray) -> None:
        _, _, command, count, width, height = _REQUEST.unpack(message)
        if count != self._asked % stream.COUNT:
            raise Illegal(f"request {count} instead of {self._asked % stream.COUNT}")
        self._asked += 1
        if command == stream.GIVE:
            self._left += width << 16 | height
        elif command == stream.UPDATES:
            self.rate, self.size = width, height << 10
        elif command == stream.STALL:
            self.stalled = True

    def _point(self, message: bytearray) -> None:
        count = self._pointed
        if message != stream.pointer(count):
            raise Illegal(f"{bytes(message)!r} as pointer event {count}")
        self._pointed += 1
        if self.rate and count % stream.ECHO_EVERY == 0:
            self._out += stream.RECORD.pack(stream.ECHO, count % stream.COUNT, 0)

    def update(self) -> None:
        """The next update, unless the last is not yet out."""

        if not self._out:
            at = self._place % stream.PERIOD
            self._place += self.size
            self._out += stream.RECORD.pack(stream.UPDATE, 0, self.size)
            self._out += stream.PATTERN[at : at + self.size]

    def write(self) -> bool:
        """Send once; whether there is more to send."""

        try:
            if self._out:
                del self._out[: self.sock.send(self._out)]
            elif self._left:
                at = self._place % stream.PERIOD
                sent = self.sock.send(stream.PATTERN[at : at + min(self._left, ONCE)])
                self._place += sent
                self._left -= sent
        except BlockingIOError:
            return True
        return bool(self._out or self._left)


class Server:
    def __init__(self, path: str = "") -> None:
        self._poll = select.epoll()
        self._poll.register(0, select.EPOLLIN)
        self._listening: dict[int, socket.socket] = {}
        self.port: int = self._listen(socket.create_server(("127.0.0.1", 0), backlog=1024)).getsockname()[1]
        if path:
            self._listen(socket.create_server(path, family=socket.AF_UNIX, backlog=1024))
            os.chmod(path, 0o666)
        self._viewers: dict[int, Viewer] = {}
        self._masks: dict[int, int] = {}
        self._due: list[tuple[float, int, Viewer]] = []

    def _listen(self, listening: socket.socket) -> socket.socket:
        listening.setblocking(False)
        self._listening[listening.fileno()] = listening
        self._poll.register(listening, select.EPOLLIN)
        return listening

    def run(self) -> None:
        """Until stdin has ended."""

        while True:
            for number, event in self._wait():
                viewer = self._viewers.get(number)
                if viewer is not None:
                    self._serve(viewer, event)
                elif number in self._listening:
                    self._accept(self._listening[number])
                elif number == 0 and not os.read(0, 100):
                    return
            self._updates()

    def _wait(self) -> list[tuple[int, int]]:
        if self._due:
            # epoll counts in milliseconds, select in microseconds.
            select.select([self._poll], (), (), max(0.0, self._due[0][0] - time.perf_counter()))
            return self._poll.poll(0)
        return self._poll.poll()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            viewer = Viewer(sock)
            self._viewers[viewer.number] = viewer
            self._masks[viewer.number] = select.EPOLLIN
            self._poll.register(viewer.number, select.EPOLLIN)
            try:
                sock.send(_VERSION)
            except OSError:
                self._drop(viewer)

    def _serve(self, viewer: Viewer, event: int) -> None:
        try:
            rate = viewer.rate
            if event & ~select.EPOLLOUT and not viewer.read():
                self._drop(viewer)
                return
            if viewer.rate and not rate:
                heapq.heappush(self._due, (time.perf_counter(), viewer.number, viewer))
            self._say(viewer)
        except Illegal as error:
            print(f"the server was told: {error}", file=sys.stderr, flush=True)
            self._drop(viewer)
        except OSError:
            self._drop(viewer)

    def _say(self, viewer: Viewer) -> None:
        mask = select.EPOLLOUT if viewer.write() else 0
        if not viewer.stalled:
            mask |= select.EPOLLIN
        if mask != self._masks[viewer.number]:
            self._masks[viewer.number] = mask
            self._poll.modify(viewer.number, mask)

    def _updates(self) -> None:
        now = time.perf_counter()
        while self._due and self._due[0][0] <= now:
            due, number, viewer = heapq.heappop(self._due)
            if self._viewers.get(number) is not viewer:
                continue
            viewer.update()
            heapq.heappush(self._due, (due + 1 / viewer.rate, number, viewer))
            try:
                self._say(viewer)
            except OSError:
                self._drop(viewer)

    def _drop(self, viewer: Viewer) -> None:
        if self._viewers.pop(viewer.number, None) is not None:
            self._poll.unregister(viewer.number)
            del self._masks[viewer.number]
            viewer.sock.close()


def main() -> None:
    server = Server(*sys.argv[1:2])
    print(server.port, flush=True)
    server.run()


if __name__ == "__main__":
    main()
