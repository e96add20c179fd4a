"""Tries to connect to some TCP ports from an agent, all at a time. One file, standard library only: it is handed to
``python3 -c`` by standard input.

Reads one JSON object with ``targets``, pairs of an IP address and a port, and ``limit`` in seconds. Prints a list with
one object for each: ``{"ms": …}``, ``{"refused": true}``, ``{"silent": true}`` or ``{"failed": words}``.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]


def outcome(number: int, begun: float) -> Object:
    if number == errno.ECONNREFUSED:
        return {"refused": True}
    if number == errno.ETIMEDOUT:
        return {"silent": True}
    return {"failed": os.strerror(number)} if number else {"ms": round(1000 * (time.monotonic() - begun))}


def main(given: Object) -> None:
    begun, poll = time.monotonic(), select.poll()
    found: list[Object] = [{"silent": True} for _ in given["targets"]]
    waiting: dict[int, tuple[int, socket.socket]] = {}
    for place, (address, port) in enumerate(given["targets"]):
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        one.setblocking(False)
        number = one.connect_ex((address, port))
        if number not in (0, errno.EINPROGRESS):
            found[place] = outcome(number, begun)
            one.close()
            continue
        waiting[one.fileno()] = (place, one)
        poll.register(one, select.POLLOUT)
    while waiting and (left := begun + given["limit"] - time.monotonic()) > 0:
        for fd, _ in poll.poll(1000 * left):
            place, one = waiting.pop(fd)
            found[place] = outcome(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), begun)
            poll.unregister(fd)
            one.close()
    print(json.dumps(found))
