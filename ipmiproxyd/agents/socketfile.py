"""A UNIX socket in a folder that somebody else may write: connect to it, and to nothing that it points to."""

from __future__ import annotations

import os
import stat
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer


@implementer(IStreamClientEndpoint)
class SocketFileEndpoint:
    """Connects to the socket that ``path`` itself is. A link is refused: a console's program may have put it there to
    have its viewer speak with another of the daemon's sockets. ``timeout`` in seconds."""

    def __init__(self, reactor: Any, path: str, timeout: float) -> None:
        self._reactor = reactor
        self._path = path
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - the interface's name
        try:
            descriptor = os.open(self._path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            return fail(ConnectError(string=error.strerror))
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return fail(ConnectError(string="this is no socket"))
        endpoint = UNIXClientEndpoint(self._reactor, f"/proc/self/fd/{descriptor}", timeout=self._timeout)
        connecting: Deferred[IProtocol] = endpoint.connect(protocolFactory)

        def close(result: Any) -> Any:
            os.close(descriptor)
            return result

        return connecting.addBoth(close)
