"""A machine without sockets, for the pool of relay ports."""

from __future__ import annotations

import errno
import os

from twisted.internet.interfaces import IProtocolFactory


class FakeListener:
    def __init__(self, machine: FakeMachine, place: tuple[int, str], factory: IProtocolFactory) -> None:
        self.factory = factory
        self._machine = machine
        self._place = place
        machine.taken.add(place)

    def stopListening(self) -> None:
        self._machine.taken.remove(self._place)


class FakeMachine:
    """Implements Binder. ``taken`` are (port, address); ``faults`` raise; ``lacks`` maps addresses to errno."""

    def __init__(self) -> None:
        self.taken: set[tuple[int, str]] = set()
        self.lacks: dict[str, int] = {}
        self.faults: dict[int, int] = {}

    def probe(self, address: str) -> None:
        if address in self.lacks:
            raise OSError(self.lacks[address], os.strerror(self.lacks[address]))

    def listen(self, port: int, factory: IProtocolFactory, address: str) -> FakeListener:
        code = self.faults.get(port, errno.EADDRINUSE if (port, address) in self.taken else 0)
        if code:
            raise OSError(code, os.strerror(code))
        return FakeListener(self, (port, address), factory)
