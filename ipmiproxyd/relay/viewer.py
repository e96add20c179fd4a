"""A viewer: a browser's WebSocket on one side, an own connection to the console's VNC server on the other.

    HELLO ──both have introduced themselves──▶ RELAYING ──▶ LEAVING ──browser's socket closed──▶ GONE

What the server says is put into WebSocket frames and not looked at. What the browser says is taken out of them, and
each of its messages passes the judgement of :class:`~ipmiproxyd.wire.rfb.ClientMessages`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd.errors import BadCertificate, BmcAuth, BmcUnreachable, BmcUnsupported, LimitReached, ProxyError
from ipmiproxyd.model import Grant
from ipmiproxyd.relay.backend import Backend
from ipmiproxyd.relay.ends import BUFFER, VIEW, End
from ipmiproxyd.relay.socket_end import SocketEnd
from ipmiproxyd.relay.takeover import display_end
from ipmiproxyd.wire import websocket
from ipmiproxyd.wire.rfb import ClientMessages, ProtocolError
from ipmiproxyd.wire.rfb_hello import BrowserHello
from ipmiproxyd.wire.websocket import ClientFrames, FrameError

if TYPE_CHECKING:
    from ipmiproxyd.relay.viewers import Viewers

CLOSED: Final = 4000
DISPLAY_LOST: Final = 4001
VIOLATION: Final = 4002
REVOKED: Final = 4003
LIMIT: Final = 4004
REFUSED: Final = 4005

HELLO_TIME: Final = 30.0
"""Seconds in which a browser has to introduce itself."""
LINGER: Final = 30.0
"""Seconds for what is kept back and the close handshake of a leaving viewer: a slow line needs them."""
DISPLAY_LINGER: Final = 3.0
"""Seconds for the browser's last bytes to reach the display."""
NEWS_TIME: Final = 1.0
"""Seconds in which a lost display turns out to be the end of its console."""

_PING: Final = websocket.frame(websocket.PING)
_NORMAL: Final = 1000
_WENT_AWAY: Final = "The display went away"
_TOO_MANY: Final = "The server takes no more viewers at once"

log = Logger()


class Stage(enum.Enum):
    HELLO = "hello"  # the browser introduces itself, and we introduce ourselves to the VNC server
    RELAYING = "relaying"  # bytes pass both ways
    LEAVING = "leaving"  # a close frame went out; what is kept back drains
    GONE = "gone"  # the browser's socket is closed


class Viewer:
    """One browser on a console. Owns the ends of its two connections."""

    __slots__ = (
        "_backend", "_browser", "_dialling", "_display", "_display_timer", "_frames", "_hello", "_messages", "_party",
        "_stage", "_timer", "grant", "joined_at", "peer",
    )  # fmt: skip

    def __init__(self, party: Viewers, grant: Grant, peer: str, joined_at: float) -> None:
        self.grant = grant
        self.peer = peer
        self.joined_at = joined_at
        self._party = party
        self._stage = Stage.HELLO
        self._browser: End
        self._display: End | None = None
        self._frames = ClientFrames(party.unmask_large)
        self._hello: BrowserHello | None = BrowserHello()
        self._messages: ClientMessages | None = None
        self._backend: Backend | None = None
        self._dialling: Deferred[Backend] | None = None
        self._timer: IDelayedCall | None = None
        self._display_timer: IDelayedCall | None = None

    @property
    def is_relaying(self) -> bool:
        return self._stage is Stage.RELAYING and self._display is not None

    # --- introductions -----------------------------------------------------------------------------------------------

    def begin(self, browser: End, dialling: Deferred[Backend]) -> None:
        """The WebSocket is open: introduce both sides to each other."""

        self._browser = browser
        self._timer = self._party.clock.callLater(HELLO_TIME, self.leave, VIOLATION, "The viewer said nothing in time")
        self._dialling = dialling
        self._party.add(self)
        browser.send(websocket.frame(websocket.BINARY, BrowserHello.greeting))
        browser.start()
        dialling.addCallbacks(self._backend_up, self._backend_failed)

    def turn_away(self, browser: End, code: int, reason: str) -> None:
        """The WebSocket is open, so that its page can be told why it is closed again."""

        self._browser = browser
        self._say_farewell(code, reason)
        browser.start()

    def _introduce(self, hello: BrowserHello, data: bytes) -> None:
        answer = hello.feed(data)
        if answer:
            self._browser.send(websocket.frame(websocket.BINARY, answer))
        if hello.done:
            self._browser.pause()
            self._join()

    def _backend_up(self, backend: Backend) -> None:
        self._dialling = None
        if self._stage is Stage.HELLO:
            self._backend = backend
            self._join()
        else:
            backend.close()

    def _backend_failed(self, failure: Failure) -> None:
        self._dialling = None
        if self._stage is not Stage.HELLO or failure.check(CancelledError):
            return
        error = failure.value
        if not isinstance(error, ProxyError):
            log.failure("console {console}: its display", failure, console=self._party.console.id)
            self.leave(DISPLAY_LOST, "The display cannot be reached")
            return
        log.warn("console {console}: its display: {error}", console=self._party.console.id, error=error.message)
        if isinstance(error, LimitReached):
            self.leave(LIMIT, error.message)
        elif isinstance(error, BmcAuth | BadCertificate | BmcUnsupported):
            self.leave(REFUSED, error.message)
        elif self._party.is_networked and self._party.others_relay(self):
            self.leave(LIMIT, _TOO_MANY)
        else:
            self.leave(DISPLAY_LOST, "The display cannot be reached")

    def _join(self) -> None:
        """Both sides are ready: from here on bytes pass."""

        hello, backend = self._hello, self._backend
        if hello is None or backend is None or not hello.done:
            return
        self._hello = self._backend = None
        self._stop_timer()
        party = self._party
        try:
            self._display = display_end(self, party.reactor, backend)
        except BmcUnreachable:
            self.leave(DISPLAY_LOST, _WENT_AWAY)
            return
        self._messages = ClientMessages(self, clipboard_in=party.clipboard_in, clipboard_out=party.clipboard_out)
        self._stage = Stage.RELAYING
        self._browser.send(websocket.frame(websocket.BINARY, backend.init))
        if type(self._browser) is SocketEnd and type(self._display) is SocketEnd:
            self._display.splice_into(self._browser, websocket.header)
        self._browser.resume()
        self._display.start()
        if hello.rest:
            self._from_browser(hello.rest)

    # --- relaying ----------------------------------------------------------------------------------------------------

    def received(self, end: End, start: int, stop: int) -> None:
        if end is not self._browser:
            if self._stage is Stage.RELAYING:
                begin = websocket.put_header(BUFFER, start, stop)
                if not self._browser.send(VIEW[begin:stop]):
                    end.pause()
            return
        if self._frames.closed:
            return
        try:
            payload, controls = self._frames.feed(bytes(VIEW[start:stop]))
        except FrameError as error:
            self._expel(error.code, error)
            self._frames.closed = True  # nothing more of it can be read, not even the answer to our close frame
            self._browser.finish()
            return
        if payload:
            self._from_browser(payload)
        if controls:
            self._obey(controls)

    def _from_browser(self, payload: bytes) -> None:
        try:
            if self._messages is not None and self._display is not None:
                passing = self._messages.feed(payload)
                if passing and not self._display.send(passing):
                    self._browser.pause()
            elif self._hello is not None:
                self._introduce(self._hello, payload)
        except ProtocolError as error:
            self._expel(VIOLATION, error)

    def drained(self, end: End) -> None:
        other = self._display if end is self._browser else self._browser
        if other is not None:
            other.resume()

    def _obey(self, controls: list[tuple[int, bytes]]) -> None:
        for opcode, payload in controls:
            if opcode == websocket.PING:
                if not self._browser.is_clogged:
                    self._browser.send(websocket.frame(websocket.PONG, payload))
            elif opcode == websocket.CLOSE:
                if self._stage is Stage.LEAVING:
                    self._browser.finish()
                else:
                    self.leave(int.from_bytes(payload[:2], "big") if len(payload) > 1 else _NORMAL)
                    self._browser.finish()

    def _expel(self, code: int, error: Exception) -> None:
        log.info("viewer {peer} on {console}: {error}", peer=self.peer, console=self._party.console.id, error=error)
        self.leave(code, str(error))

    def ping(self) -> None:
        """Keep a still screen alive in proxies, and find out whether anybody is there: what the browser's kernel does
        not acknowledge in time ends the connection."""

        if self._stage is Stage.RELAYING and not self._browser.is_clogged:
            self._browser.send(_PING)

    # --- judging: see wire.rfb.Judge ---------------------------------------------------------------------------------

    def user_acts(self, *, strong: bool) -> bool:
        return self._party.user_acts(self.grant, strong)

    def has_control(self) -> bool:
        return self._party.holder == self.grant.id

    def let_go(self) -> None:
        """Release all keys and buttons that are down."""

        if self._messages is not None and self._display is not None:
            released = self._messages.release()
            if released:
                self._display.send(released)

    def press(self, messages: bytes) -> bool:
        """Send messages of ours to the server; False if it does not take more just now."""

        if not self.is_relaying or self._display is None or self._messages is None or self._display.is_clogged:
            return False
        self._display.send(self._messages.insert(messages))
        return True

    # --- leaving -----------------------------------------------------------------------------------------------------

    def leave(self, code: int, reason: str = "") -> None:
        """Close the WebSocket with these words, and the connection to the server."""

        if self._stage in (Stage.LEAVING, Stage.GONE):
            return
        self._part()
        self._say_farewell(code, reason)
        self._browser.resume()  # the answer to our close frame has to come in

    def _say_farewell(self, code: int, reason: str) -> None:
        self._hello = None
        self._stage = Stage.LEAVING
        self._browser.send(websocket.close_frame(code, reason))
        self._timer = self._party.clock.callLater(LINGER, self._browser.abort)

    def abortConnection(self) -> None:
        """Close everything now."""

        self._browser.abort()
        if self._display is not None:
            self._display.abort()

    def _part(self) -> None:
        """What ends with relaying, whoever ends it."""

        self._stop_timer()
        self._party.remove(self)
        if self._dialling is not None:
            self._dialling.cancel()
        if self._backend is not None:
            self._backend.close()
        self._hello = self._backend = None
        if self._display is not None:
            if isinstance(self._display, SocketEnd):
                self._display.splice_into(None)
            self.let_go()
            self._display.resume()
            self._display.finish()
            self._display_timer = self._party.clock.callLater(DISPLAY_LINGER, self._display.abort)
        self._messages = None

    def lost(self, end: End) -> None:
        if end is self._browser:
            if self._stage is not Stage.LEAVING:
                self._part()
            self._stop_timer()
            self._stage = Stage.GONE
        else:
            self._display = None
            _cancel(self._display_timer)
            if self._stage is Stage.RELAYING:
                self._messages = None
                # Mostly its console is about to close, and then the viewer shall learn why.
                self._timer = self._party.clock.callLater(NEWS_TIME, self._tell_lost)
        if self._stage is Stage.GONE and self._display is None:
            self._party.forget(self)

    def _tell_lost(self) -> None:
        if self._party.was_too_many(self):
            self.leave(LIMIT, _TOO_MANY)
        else:
            self.leave(DISPLAY_LOST, _WENT_AWAY)

    def _stop_timer(self) -> None:
        _cancel(self._timer)
        self._timer = None


def _cancel(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
