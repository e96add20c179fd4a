"""A picture of what a VNC server shows, by a connection of its own: viewers are not disturbed.

vncdotool decodes. It is given a conversation that begins after the sign-in, which is ours (backend.py): towards it,
this module is a server without a password, and what it says afterwards goes to the real one.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel
from twisted.python import log as twisted_log
from twisted.python.failure import Failure

from ipmiproxyd.errors import BmcError, BmcUnsupported, ProxyError, TimedOut
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.relay.backend import Backend, connect
from ipmiproxyd.wire.rfb_hello import BrowserHello

LIMIT: Final = 10.0
"""Seconds for everything."""
PAUSE: Final = 0.1
"""Seconds between two captures."""
MAX_PIXELS: Final = 1 << 24
"""A screen of 4096 × 4096; 64 MiB on the wire."""
MAX_SIDE: Final = 1 << 14
MAX_HEARD: Final = 512 << 20
MAX_PART: Final = 4 * MAX_PIXELS
"""Bytes that the client may wait for at once."""
_ASKED_FOR: Final = frozenset({0, -223, -224})
"""Raw, desktop size, last rectangle. vncdotool would decode others unasked: a megabyte of ZRLE may be a gigabyte."""


async def capture(server: VncServer, clock: IReactorTime, *, settle: float = 1.0) -> bytes:
    """What the server shows, as a PNG: the first capture that equals the one before, or the last one within ``settle``
    seconds. Raises what :func:`~ipmiproxyd.relay.backend.connect` does, and TimedOut, BmcError, BmcUnsupported."""

    began = clock.seconds()
    backend = await connect(server, clock, limit=LIMIT)
    try:
        make = await deferToThread(_library)
        left = max(began + LIMIT - clock.seconds(), PAUSE)
        settled = Deferred.fromCoroutine(_settled(_Camera(backend, make), clock, settle))
        picture = await settled.addTimeout(left, clock, onTimeoutCancel=_too_slow)
    finally:
        backend.close()
    return await deferToThread(_png, picture)


def _too_slow(result: Any, _limit: float) -> Any:
    if not isinstance(result, Failure):
        return result
    raise TimedOut(f"The VNC server did not show its whole screen within {LIMIT:g} s.")


async def _settled(camera: _Camera, clock: IReactorTime, settle: float) -> Any:
    picture = await camera.look()
    ends = clock.seconds() + settle
    while (left := ends - clock.seconds()) > PAUSE:
        await deferLater(clock, PAUSE)
        looking = Deferred.fromCoroutine(camera.look())
        again = await looking.addTimeout(left, clock, onTimeoutCancel=lambda _result, _limit: None)
        if again is None:
            break
        if await deferToThread(_equal, picture, again):
            break
        picture = again
    return picture


def _equal(one: Any, other: Any) -> bool:
    return bool(one.size == other.size and one.tobytes() == other.tobytes())


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@functools.cache
def _library() -> Callable[[_Camera], Any]:
    """What makes a client of vncdotool for a camera. In a thread: the first import takes long."""

    from PIL import Image
    from vncdotool.client import VNCDoToolClient

    class Client(VNCDoToolClient):  # type: ignore[misc]
        """Tells the camera when an update is complete; does nothing else that vncdotool's does by itself."""

        camera: _Camera

        def vncConnectionMade(self) -> None:
            # It would take the first rectangle for the whole screen.
            self.screen = Image.new("RGB", (self.width, self.height))
            super().vncConnectionMade()

        def expect(self, handler: Callable[..., None], size: int, *args: Any, **kwargs: Any) -> None:
            if size > MAX_PART:
                raise _not_understood()
            super().expect(handler, size, *args, **kwargs)

        def _handleRectangle(self, block: bytes) -> None:
            _, _, width, height, encoding = struct.unpack(">HHHHi", block)
            if encoding not in _ASKED_FOR:
                raise _not_understood()
            if encoding == 0:
                _check_size(width, height)
            super()._handleRectangle(block)

        def commitUpdate(self, rectangles: list[tuple[int, int, int, int]] | None = None) -> None:
            self.camera.updated(rectangles or [])

        def updateDesktopSize(self, width: int, height: int) -> None:
            _check_size(width, height)
            self.width, self.height = width, height  # it does not ask for the new size otherwise
            super().updateDesktopSize(width, height)
            self.camera.resized()

        def bell(self) -> None: ...

        def copy_text(self, text: str) -> None: ...

    def make(camera: _Camera) -> Any:
        client = Client()
        client.camera = camera
        paint = client.updateRectangle

        def update_rectangle(x: int, y: int, width: int, height: int, data: bytes) -> None:
            _check_size(x + width, y + height)
            paint(x, y, width, height, data)

        client.updateRectangle = update_rectangle
        return client

    return make


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BmcUnsupported(f"The screen of {width} × {height} pixels is too large for a screenshot.")


class _Camera:
    """Takes a backend over and has vncdotool's client understand what comes.

    To the client it is factory and transport; to the backend, the receiver.
    """

    # What the client's factory is asked for.
    shared = True
    pseudocursor = nocursor = qemu_extended_key = force_caps = False
    pseudodesktop = last_rect = True

    def __init__(self, backend: Backend, make: Callable[[_Camera], Any]) -> None:
        self._backend = backend
        self._heard = 0
        self._painted = 0
        self._waiting: Deferred[None] | None = None
        self._error: Exception | None = None
        said = bytearray()
        self.write: Callable[[bytes], object] = said.extend
        self._client = make(self)
        self._client.factory = self
        self._client.makeConnection(self)
        hello = BrowserHello()
        self._tell(hello.greeting)
        while said and not hello.done:
            answer = hello.feed(bytes(said))
            said.clear()
            self._tell(answer)
        self.write = backend.transport.write
        width, height = (int.from_bytes(backend.init[at : at + 2], "big") for at in (0, 2))
        _check_size(width, height)
        self._tell(backend.init)
        backend.take(self)
        backend.transport.resumeProducing()

    async def look(self) -> Any:
        """The whole screen as it is now, an image of PIL."""

        if self._error is not None:
            raise self._error
        whole: Deferred[None] = Deferred()
        self._waiting = whole
        self._ask()
        await whole
        return await deferToThread(self._client.screen.copy)

    def _ask(self) -> None:
        self._painted = 0
        self._client.framebufferUpdateRequest()

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._backend.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(error)

    # --- from the server ----------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        self._heard += len(data)
        if self._heard > MAX_HEARD:
            self._fail(BmcError("The VNC server sends a screen without an end."))
        else:
            self._tell(data)

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        self._fail(BmcError("The VNC server closed the connection before its screen was whole."))

    def _tell(self, data: bytes) -> None:
        """Let the client hear; what it tells the log is for debugging."""

        try:
            twisted_log.callWithContext({"log_level": LogLevel.debug}, self._client.dataReceived, data)
        except ProxyError as error:
            self._fail(error)
        except Exception:
            self._fail(_not_understood())

    # --- from the client ----------------------------------------------------------------------------------------------

    def updated(self, rectangles: list[tuple[int, int, int, int]]) -> None:
        """An update is painted. Servers may send the screen in several."""

        self._painted += sum(width * height for _, _, width, height in rectangles)
        if self._waiting is not None and self._painted >= self._client.width * self._client.height > 0:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def resized(self) -> None:
        """The screen has another size now: ask for the whole again."""

        if self._waiting is not None:
            self._ask()

    def clientConnectionMade(self, _client: object) -> None:
        """The client has understood ServerInit."""

    def clientConnectionFailed(self, _client: object, _reason: object) -> None:
        self._fail(_not_understood())

    def clientConnectionLost(self, _client: object, _reason: object) -> None:
        """The client hears of no loss."""

    def loseConnection(self) -> None:
        self._fail(_not_understood())


def _not_understood() -> ProxyError:
    return BmcError("The VNC server says what cannot be understood; there is no screenshot.")
