"""A browser's connection to the relay, as long as Twisted has it."""

from __future__ import annotations

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

    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)
        finally:  # whatever happens to the protocol
            self.stand_in()
