"""Viewers that move as much as the relay lets them, until they are ended (``python -m tests.support.flood``).

Stdin is a line of JSON: the relay's ``port``, the WebSocket's ``protocols``, whether there is ``tls``; ``ways``: "down"
for a viewer that takes in all it can, of a server that gives without end (benchmarks.relay.server), "up" for one that
moves its pointer without a pause.
"""

from __future__ import annotations

import json
import select
import sys
import threading
from typing import Final

from benchmarks.relay import stream
from benchmarks.relay.session import Session, Target

_MOVES: Final = 5000


def take(session: Session) -> None:
    session.divert(lambda _data, _start, _end: None)
    session.say(stream.give(0, 0xFFFFFFFF))
    while True:
        select.select([session], [], [])
        session.read()


def move(session: Session) -> None:
    session.sock.setblocking(True)
    block = session.encode(b"\x05\x00\x00\x07\x00\x08") * _MOVES
    while True:
        session.sock.sendall(block)


def main() -> None:
    job = json.loads(sys.stdin.readline())
    target = Target(job["port"], 0, job["protocols"], "/vnc", job["tls"])
    sessions = [(move if way == "up" else take, Session(target)) for way in job["ways"]]
    for flood, session in sessions:
        threading.Thread(target=flood, args=[session]).start()


if __name__ == "__main__":
    main()
