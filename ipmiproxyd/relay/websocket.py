"""A viewer: a browser's WebSocket on one side, a connection to the console's display on the other.

Everything of Autobahn is in this module.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Iterable
from typing import Any, Final

import txaio.tx
from autobahn import websocket as autobahn_websocket
from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from twisted.web.server import Request

from ipmiproxyd.errors import LimitReached
from ipmiproxyd.interfaces import RelayedConsole
from ipmiproxyd.relay.channel import SERVER
from ipmiproxyd.relay.pump import DisplayFactory, DisplaySide, Pump, Valve
from ipmiproxyd.relay.sockets import Sockets
from ipmiproxyd.wire.rfb import USER_EVENTS, ClientSplitter, ProtocolError

CLOSED: Final = 4000
DISPLAY_LOST: Final = 4001
VIOLATION: Final = 4002

MAX_VIEWERS: Final = 16
MAX_FRAME: Final = 256 << 10
DIAL_TIME: Final = 15.0
LINGER: Final = 30.0
"""Seconds for queued bytes and the close handshake of a leaving viewer: a slow line needs them."""
DISPLAY_LINGER: Final = 3.0
"""Seconds for the browser's last bytes to reach the display."""
NEWS_TIME: Final = 1.0
"""Seconds in which a lost display turns out to be the end of its console."""
_WENT_AWAY: Final = "The display went away"
DEAD_AFTER_MS: Final = 120_000
"""A browser that acknowledges nothing for so long is dead, however long the kernel would try again."""

_PRIVATE: Final = (b"Origin", b"Cookie", b"Authorization", b"Sec-WebSocket-Protocol")

log = Logger()


def warn_if_slow() -> None:
    """Say so if Autobahn runs without its compiled masker: it is fifty times slower then."""

    if not autobahn_websocket.USES_NVX:
        log.warn("autobahn runs without NVX, its compiled part: consoles will be slow; install its wheel")


class _Stage(enum.Enum):
    HANDSHAKE = "handshake"  # HTTP
    JOINING = "joining"  # the display is being dialled; the browser's bytes wait in the kernel
    RELAYING = "relaying"  # bytes pass both ways
    LEAVING = "leaving"  # a close frame went out; what is queued drains
    GONE = "gone"  # the browser's socket is closed


class Viewer(WebSocketServerProtocol):  # type: ignore[misc]
    """One browser on a console."""

    factory: ViewerFactory
    # Autobahn's own log would tell the handshake and every frame.
    log = txaio.tx.make_logger(level="error")  # type: ignore[no-untyped-call]

    def __init__(
        self,
        party: Viewers,
        console: RelayedConsole,
        display: IStreamClientEndpoint,
        headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        super().__init__()
        self._party = party
        self._console = console
        self._endpoint = display
        self._headers = headers
        self._splitter = ClientSplitter()
        self._stage = _Stage.HANDSHAKE
        self._valve: Valve
        self._dialling: Deferred[Any] | None = None
        self._display: DisplaySide | None = None
        self._pump: Pump | None = None
        self._timer: IDelayedCall | None = None
        self._display_timer: IDelayedCall | None = None
        self._active_at = float("-inf")

    # --- handshake ---------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        # The HTTP channel that had the connection is still registered as its producer.
        self.transport.unregisterProducer()
        handle = self.transport.getHandle()
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
        self._valve = Valve(self.transport)
        self._party.add(self)
        super().connectionMade()

    def onConnect(self, request: Any) -> str | None:
        return "binary" if "binary" in request.protocols else None

    def sendHttpErrorResponse(self, code: int, _reason: str, extra: Any = None) -> None:
        """Autobahn's refusal of a malformed handshake, in the form of this port's other answers."""

        lines = [b"HTTP/1.1 %d %s" % (code, RESPONSES.get(code, b"Refused"))]
        lines += [b"%s: %s" % header for header in self._headers]
        lines += [f"{name}: {value}".encode() for name, value in extra or ()]
        lines += [b"Content-Length: 0", b"Connection: close", b"", b""]
        self.sendData(b"\r\n".join(lines))

    def onOpen(self) -> None:
        self._stage = _Stage.JOINING
        self._valve.pauseProducing()
        self._timer = self.factory.clock.callLater(self.factory.ping, self._ping)
        log.info("viewer {peer} on console {console}", peer=self.peer, console=self._console.id)
        self._console.viewer_joined()
        self._dialling = self._endpoint.connect(DisplayFactory(self._from_display, self._display_lost))
        self._dialling.addTimeout(DIAL_TIME, self.factory.clock)
        self._dialling.addCallbacks(self._display_up, self._display_failed)

    def _display_up(self, display: DisplaySide) -> None:
        self._dialling = None
        self._display = display
        self._party.sockets.add(display.transport)  # type: ignore[arg-type]
        if self._stage is _Stage.JOINING:
            self._stage = _Stage.RELAYING
            self._pump = Pump(self.transport, self._valve, display.transport)
        else:
            self._drop_display()

    def _display_failed(self, failure: Failure) -> None:
        self._dialling = None
        if self._stage is _Stage.JOINING:
            log.warn(
                "console {console}: its display cannot be reached: {error}",
                console=self._console.id,
                error=failure.getErrorMessage(),
            )
            self.sendClose(DISPLAY_LOST, "The display cannot be reached")

    # --- relaying ----------------------------------------------------------------------------------------------------

    def onMessage(self, payload: bytes, is_binary: bool) -> None:
        if self._stage is not _Stage.RELAYING or self._display is None:
            return
        if not is_binary:
            self.sendClose(VIOLATION, "Only binary messages are understood here")
            return
        try:
            events = self._splitter.feed(payload)
        except ProtocolError as error:
            log.info("viewer {peer} on {console}: {error}", peer=self.peer, console=self._console.id, error=error)
            self.sendClose(VIOLATION, str(error))
            return
        self._display.transport.write(payload)  # type: ignore[union-attr]
        if not USER_EVENTS.isdisjoint(events):
            now = self.factory.clock.seconds()
            if now - self._active_at >= 1.0:
                self._active_at = now
                self._console.user_active()

    def _from_display(self, data: bytes) -> None:
        if self._stage is _Stage.RELAYING:
            self.sendMessage(data, True)

    def _ping(self) -> None:
        self._timer = self.factory.clock.callLater(self.factory.ping, self._ping)
        if self._pump is None or not self._pump.display_valve.is_shut:  # else pings would pile up behind the data
            self.sendPing()

    # --- leaving -----------------------------------------------------------------------------------------------------

    def sendCloseFrame(self, *args: Any, **kwargs: Any) -> None:
        """Every way of leaving passes here: our own, the browser's, and Autobahn's on a malformed frame."""

        super().sendCloseFrame(*args, **kwargs)
        self._leave()

    def onClose(self, _was_clean: bool, _code: int | None, _reason: str | None) -> None:
        """The browser's socket is closed."""

        self._leave()
        self._stage = _Stage.GONE
        if self._timer is not None:
            _cancel(self._timer)
        self._party.remove(self)

    def _leave(self) -> None:
        if self._stage not in (_Stage.JOINING, _Stage.RELAYING):
            return
        self._stage = _Stage.LEAVING
        for timer in (self._timer, self._display_timer):
            if timer is not None:
                _cancel(timer)
        self._timer = self.factory.clock.callLater(LINGER, self.transport.abortConnection)
        if self._dialling is not None:
            self._dialling.cancel()
        if self._pump is not None:
            self._pump.disconnect()
        self._drop_display()
        self._valve.resumeProducing()  # the answer to our close frame has to come in
        log.info("viewer {peer} left console {console}", peer=self.peer, console=self._console.id)
        self._console.viewer_left()

    def _drop_display(self) -> None:
        if self._display is not None:
            transport: Any = self._display.transport
            self._display_timer = self.factory.clock.callLater(DISPLAY_LINGER, transport.abortConnection)
            transport.loseConnection()

    def _display_lost(self, display: DisplaySide) -> None:
        self._display = None
        self._party.sockets.discard(display.transport)  # type: ignore[arg-type]
        if self._display_timer is not None:
            _cancel(self._display_timer)
        if self._stage in (_Stage.JOINING, _Stage.RELAYING):
            # Mostly its console is about to close, and then the viewer shall learn why.
            self._display_timer = self.factory.clock.callLater(NEWS_TIME, self.sendClose, DISPLAY_LOST, _WENT_AWAY)


def _cancel(call: IDelayedCall) -> None:
    if call.active():
        call.cancel()


class ViewerFactory(WebSocketServerFactory):  # type: ignore[misc]
    """Autobahn's settings, and what all viewers share.

    :param ping: seconds between pings, which keep still screens alive in proxies. A missing answer ends nothing.
    """

    def __init__(self, clock: IReactorTime, ping: float) -> None:
        super().__init__(server=SERVER.decode(), reactor=clock)
        self.clock = clock
        self.ping = ping
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            maxFramePayloadSize=MAX_FRAME,
            maxMessagePayloadSize=MAX_FRAME,
            failByDrop=False,
            # Handshakes are answered at once, and leaving has a time limit of its own on our clock.
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            # The Origin has been checked before, against more than Autobahn knows.
            allowNullOrigin=True,
        )


class _Introduction:
    """What WebSocketResource takes for a factory: it hands out the one viewer of one request."""

    def __init__(self, factory: ViewerFactory, viewer: Viewer) -> None:
        self._factory = factory
        self._viewer = viewer

    def buildProtocol(self, _addr: IAddress | None) -> Viewer:
        self._viewer.factory = self._factory
        return self._viewer


class Viewers:
    """The viewers of one console. ``sockets`` is told of their connections to the display."""

    def __init__(self, factory: ViewerFactory, console: RelayedConsole, sockets: Sockets) -> None:
        self._factory = factory
        self._console = console
        self.sockets = sockets
        self._present: set[Viewer] = set()

    def take_over(self, request: Request, display: IStreamClientEndpoint) -> int:
        """Make a viewer of the connection on which ``request``, already admitted, came in.

        :returns: NOT_DONE_YET, for ``render``.
        :raises LimitReached: there are 16 viewers.
        """

        if len(self._present) >= MAX_VIEWERS:
            raise LimitReached("Too many viewers are on this console.", hint="Close one of the other windows.")
        offered = b",".join(request.requestHeaders.getRawHeaders(b"Sec-WebSocket-Protocol", []))
        for name in _PRIVATE:  # done with, and nothing that a log or a traceback of Autobahn should show
            request.requestHeaders.removeHeader(name)
        if b"binary" in [name.strip() for name in offered.split(b",")]:
            request.requestHeaders.setRawHeaders(b"Sec-WebSocket-Protocol", [b"binary"])
        headers = [(name, values[0]) for name, values in request.responseHeaders.getAllRawHeaders()]
        viewer = Viewer(self, self._console, display, headers)
        taken: int = WebSocketResource(_Introduction(self._factory, viewer)).render(request)
        return taken

    def close(self, reason: str) -> None:
        """Tell everybody that the console is closed; ``reason`` is a code word."""

        for viewer in tuple(self._present):
            viewer.sendClose(CLOSED, reason)

    def add(self, viewer: Viewer) -> None:
        self._present.add(viewer)

    def remove(self, viewer: Viewer) -> None:
        self._present.discard(viewer)
