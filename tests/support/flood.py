"""Viewers that move as much as the relay lets them, until they are ended (``python -m tests.support.flood``).

Stdin is a line of JSON: the relay's ``port``, the WebSocket's ``protocols``, whether there is ``tls``; ``ways``: "down"
for a viewer that takes in all it can, of a server that gives without end (benchmarks.relay.server), "up" for one that
moves its pointer without a pause. It says "flooding" when all of them have come.
"""

from __future__ import annotations

import contextlib
import json
import select
import ssl
import sys
from typing import Final

from benchmarks.relay import stream
from benchmarks.relay.session import Session, Target

_BLOCK: Final = 8192
_MOVE: Final = b"\x05\x00\x00\x07\x00\x08"


class Up:
    """Sends the same block over and over."""

    events = select.EPOLLOUT

    def __init__(self, target: Target) -> None:
        self.session = Session(target)
        self._block = memoryview(self.session.encode(_MOVE) * (_BLOCK // 12))
        self._place = 0

    def go_on(self) -> None:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
            self._place += self.session.sock.send(self._block[self._place :])
            self._place %= len(self._block)


class Down:
    """Takes what comes."""

    events = select.EPOLLIN

    def __init__(self, target: Target) -> None:
        self.session = Session(target, lambda _data, _start, _end: None)
        self.session.say(stream.give(0, 0xFFFFFFFF))

    def go_on(self) -> None:
        self.session.read()


def main() -> None:
    job = json.loads(sys.stdin.readline())
    target = Target(job["port"], 0, job["protocols"], "/vnc", job["tls"])
    floods: list[Up | Down] = [Up(target) if way == "up" else Down(target) for way in job["ways"]]
    print("flooding", flush=True)
    poll = select.epoll()
    by_number = {flood.session.fileno(): flood for flood in floods}
    for number, flood in by_number.items():
        poll.register(number, flood.events)
    while True:
        for number, _ in poll.poll():
            by_number[number].go_on()


if __name__ == "__main__":
    main()
