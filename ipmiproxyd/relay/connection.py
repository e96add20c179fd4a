"""A browser's connection to the relay, as long as Twisted has it."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.tcp import Server
from twisted.python.failure import Failure

from ipmiproxyd.relay.sockets import Sockets


class RelayConnection(Server):
    """An accepted connection. It stands in the accounts of those who may have to close it, whoever speaks on it by
    then; at first in that of its listener's factory, ``factory.sockets``.

    :ivar request: what a gateway serves on it just now.
    """

    request: object | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        factory: Any = self.server.factory
        self._accounts: tuple[Sockets, ...] = ()
        self.stand_in(factory.sockets)

    def stand_in(self, *accounts: Sockets) -> None:
        """Stand in these accounts and in no other; in none if the connection is gone."""

        before, self._accounts = self._accounts, () if self.disconnected else accounts
        for sockets in self._accounts:
            sockets.add(self)
        for sockets in before:
            if sockets not in self._accounts:
                sockets.discard(self)

    def take_socket(self) -> tuple[socket.socket, bytes]:
        """Leave: the caller has the socket from now on, and the bytes that were still to be sent on it.

        The reactor and the protocol know nothing of this connection afterwards, and nothing will be told to the
        protocol. It still stands in its accounts: ``stand_in()`` ends that, once the caller stands there.
        """

        self.stopReading()  # type: ignore[no-untyped-call]
        self.stopWriting()  # type: ignore[no-untyped-call]
        taken = self.socket
        unsent = self.dataBuffer[self.offset :] + b"".join(self._tempDataBuffer)
        self.connected, self.disconnected = 0, 1
        self.producer = self.request = None
        self.dataBuffer, self._tempDataBuffer, self._tempDataLen = b"", [], 0
        del self.protocol, self.socket, self.fileno
        return taken, unsent

    def doWrite(self) -> Any:
        """May still be called in the turn in which the socket was taken."""

        return None if self.disconnected else super().doWrite()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)
        finally:  # whatever happens to the protocol
            self.stand_in()
