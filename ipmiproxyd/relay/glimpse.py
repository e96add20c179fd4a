"""Waiting until a display of ours shows a colour, seen as viewers see it: by a stream of the agent, and by RFB."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ipmiproxyd.errors import BmcError, TimedOut
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.relay.backend import LIMIT, Backend, connect
from ipmiproxyd.wire.rfb_area import Area, AreaError

_ANY: Final = "several colours"


async def shows(server: VncServer, colour: int, clock: IReactorTime, *, limit: float) -> None:
    """Returns once the screen has this colour (0xRRGGBB). Raises TimedOut after ``limit`` seconds,
    BmcError, and what :func:`~ipmiproxyd.relay.backend.connect` raises."""

    began = clock.seconds()
    backend = await connect(server, clock, limit=min(limit, LIMIT))
    try:
        watcher = _Watcher(backend, colour)
        left = max(began + limit - clock.seconds(), 0.0)
        await watcher.seen.addTimeout(left, clock, onTimeoutCancel=watcher.too_slow)
    finally:
        backend.close()


class _Watcher:
    """:ivar seen: fires when the colour is there."""

    def __init__(self, backend: Backend, colour: int) -> None:
        self.seen: Deferred[None] = Deferred(lambda _: None)
        self._wanted = colour
        self._area = Area(backend.init)
        self._write = backend.transport.write
        backend.take(self)
        self._write(self._area.greeting)
        backend.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.seen.called:
            return
        try:
            self._write(self._area.feed(data))
        except AreaError as error:
            self.seen.errback(BmcError(str(error)))
        else:
            if self._area.colour == self._wanted:
                self.seen.callback(None)

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        if not self.seen.called:
            self.seen.errback(BmcError("The display closed the connection."))

    def too_slow(self, result: Any, limit: float) -> Any:
        if not isinstance(result, Failure):
            return result
        colour = self._area.colour
        instead = _ANY if colour is None else f"the colour #{colour:06x}"
        raise TimedOut(f"After {limit:.1f} s the screen shows {instead}, and not #{self._wanted:06x}.")
