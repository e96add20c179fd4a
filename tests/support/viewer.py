"""A real browser in tests: drives ``tests/browser/viewer.mjs``, one process (and one Chromium) for a whole run.

A test says ``page = await open_page(self, url)`` and gets a browser context of its own, closed when the test ends. The
process is started by the first test that needs it and ends with the run. It is no child of the reactor's, and its
pipe is only among the reactor's readers while an answer is awaited: trial looks there after every class.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet import abstract, fdesc
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

SCRIPT: Final = Path(__file__).resolve().parents[1] / "browser" / "viewer.mjs"
TIMEOUT: Final = 10.0
START_TIMEOUT: Final = 30.0
MARGIN: Final = 5.0  # seconds by which we wait longer than the script does, so that its words reach us


class ViewerFailed(AssertionError):
    """The browser could not do what the test asked for."""


class _Pipe(abstract.FileDescriptor):
    """The script's stdout. Hands out lines; a reader of the reactor only between ``listen`` and ``rest``."""

    def __init__(self, reactor: Any, fd: int, viewer: Viewer) -> None:
        super().__init__(reactor)
        self._fd = fd
        self._viewer = viewer
        self._rest = b""
        fdesc.setNonBlocking(fd)

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self.connectionLost(Failure(ConnectionDone()))
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._viewer._heard(json.loads(line))

    def connectionLost(self, reason: Failure) -> None:
        """The script has ended. The descriptor itself is the process object's."""

        self.stopReading()
        self._viewer._ended()


class Viewer:
    """The running script. Use :meth:`open` for a page.

    :ivar folder: home and temporary folder of the script and its browser; removed with them.
    """

    def __init__(self, reactor: Any) -> None:
        """Start the process. :meth:`ready` waits until its browser is up."""

        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._waiting: dict[int, Deferred[Any]] = {}
        self._ids = 0
        self._up = False
        self._gone = False
        self.folder = Path(tempfile.mkdtemp(prefix="ipx-viewer-", dir="/tmp"))
        self._errors = (self.folder / "stderr").open("wb")
        self._process = subprocess.Popen(
            ["node", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self.folder),
                "TMPDIR": str(self.folder),
                "LANG": "C.UTF-8",
            },
        )
        assert self._process.stdout is not None
        self._pipe = _Pipe(reactor, self._process.stdout.fileno(), self)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._gone and self._process.poll() is None

    @classmethod
    async def start(cls, reactor: Any = None) -> Viewer:
        """A viewer of one's own, with its browser up. End it with :meth:`stop`."""

        if reactor is None:
            from twisted.internet import reactor as installed

            reactor = installed
        viewer = cls(reactor)
        try:
            await viewer.ready()
        except BaseException:
            viewer.kill()
            raise
        return viewer

    async def ready(self) -> None:
        """Wait until the browser is up."""

        if not self._up:
            await self._await(0, START_TIMEOUT, "start")

    async def stop(self) -> None:
        """End the script and its browser; returns when the process is gone."""

        if self.alive:
            assert self._process.stdin is not None
            self._process.stdin.close()
            with contextlib.suppress(ViewerFailed):  # its end is what is awaited
                await self._await(-1, TIMEOUT, "stop")
        self.kill()

    def kill(self) -> None:
        """End the script without the reactor: at the end of the run, or when it does not answer."""

        process = self._process
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._gone = True
        if process.stdout is not None:
            process.stdout.close()
        self._errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def call(self, verb: str, *, limit: float = TIMEOUT, **arguments: Any) -> Any:
        """One request to the script. Raises :class:`ViewerFailed` with its words, or after ``limit`` seconds."""

        if not self.alive:
            raise ViewerFailed(f"{verb}: the browser has ended; {self._last_words()}")
        self._ids += 1
        request = {"id": self._ids, "do": verb, "timeout": round(limit * 1000), **arguments}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return await self._await(self._ids, limit + MARGIN, verb)

    async def open(
        self,
        url: str,
        *,
        width: int = 1280,
        height: int = 800,
        frame: Mapping[str, Any] | None = None,
        init: str = "",
        touch: bool = False,
        permissions: Sequence[str] = (),
        tap: bool = False,
        limit: float = TIMEOUT,
    ) -> Page:
        """A new browser context with one page at ``url``.

        :param frame: ``{"width": …, "height": …, "name": host}``: show it in a frame of another site's page.
        :param init: JavaScript that runs before the page's own.
        :param permissions: for example ``clipboard-read``, ``clipboard-write``.
        :param tap: keep all that passes between the page and its servers, for :meth:`Page.traffic`.
        """

        number = await self.call(
            "open",
            limit=limit,
            url=url,
            width=width,
            height=height,
            frame=frame,
            init=init,
            touch=touch,
            permissions=list(permissions),
            tap=tap,
        )
        return Page(self, number)

    def _await(self, number: int, timeout: float, what: str) -> Deferred[Any]:
        def give_up(_: Deferred[Any]) -> None:
            self._forget(number)
            answer.errback(ViewerFailed(f"{what}: no answer within {timeout:g} s; {self._last_words()}"))

        answer: Deferred[Any] = Deferred(give_up)
        self._waiting[number] = answer
        timer = self._clock.callLater(timeout, answer.cancel)

        def settled(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        answer.addBoth(settled)
        self._pipe.startReading()
        return answer

    def _forget(self, number: int) -> Deferred[Any] | None:
        answer = self._waiting.pop(number, None)
        if not self._waiting:
            self._pipe.stopReading()
        return answer

    def _heard(self, message: dict[str, Any]) -> None:
        if message.get("ready"):
            self._up = True
        answer = self._forget(message.get("id", 0))
        if answer is None:
            return
        if "error" in message:
            answer.errback(ViewerFailed(message["error"]))
        else:
            answer.callback(message.get("value"))

    def _ended(self) -> None:
        self._gone = True
        for number in list(self._waiting):
            answer = self._forget(number)
            if answer is not None:
                answer.errback(ViewerFailed(f"the browser has ended; {self._last_words()}"))

    def _last_words(self) -> str:
        path = self.folder / "stderr"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""


class Page:
    """One page in a context of its own. Spots and pixels are those of the remote screen."""

    def __init__(self, viewer: Viewer, number: int) -> None:
        self.viewer = viewer
        self.number = number

    async def call(self, verb: str, *, limit: float = TIMEOUT, **arguments: Any) -> Any:
        return await self.viewer.call(verb, limit=limit, page=self.number, **arguments)

    async def leave(self) -> None:
        """Close the page and its context."""

        if self.viewer.alive:
            await self.call("leave")

    async def goto(self, url: str) -> None:
        await self.call("goto", url=url)

    async def reload(self) -> None:
        await self.call("reload")

    async def address(self) -> str:
        """The console page's address, fragment and all."""

        return str(await self.call("address"))

    async def evaluate(self, expression: str) -> Any:
        return await self.call("evaluate", expression=expression)

    async def wait(self, expression: str, limit: float = TIMEOUT) -> Any:
        """Until the JavaScript expression is true; returns its value."""

        return await self.call("wait", expression=expression, limit=limit)

    async def phase(self, name: str, limit: float = TIMEOUT) -> None:
        """Until our page is in this phase: starting, opening, connecting, connected, reconnecting, over."""

        await self.wait(f"document.body.dataset.phase === {json.dumps(name)}", limit)

    async def see(self, selector: str, limit: float = TIMEOUT) -> None:
        await self.call("see", selector=selector, limit=limit)

    async def text(self, selector: str) -> str:
        return str(await self.call("text", selector=selector))

    async def value(self, selector: str) -> str:
        return str(await self.call("value", selector=selector))

    async def visible(self, selector: str) -> bool:
        return bool(await self.call("visible", selector=selector))

    async def click(self, selector: str) -> None:
        await self.call("click", selector=selector)

    async def fill(self, selector: str, text: str) -> None:
        await self.call("fill", selector=selector, text=text)

    async def type(self, text: str) -> None:
        await self.call("type", text=text)

    async def press(self, key: str) -> None:
        """One key or combination, in Playwright's words: ``Enter``, ``Control+a``."""

        await self.call("press", key=key)

    async def move(self, x: int, y: int) -> None:
        await self.call("move", to=[x, y])

    async def click_at(self, x: int, y: int, button: str = "left") -> None:
        await self.call("click_at", at=[x, y], button=button)

    async def drag(self, start: tuple[int, int], end: tuple[int, int], button: str = "left") -> None:
        await self.call("drag", start=list(start), to=list(end), button=button)

    async def pixels(self, *points: tuple[int, int]) -> list[tuple[int, int, int]]:
        """Red, green and blue of spots of the canvas."""

        return [(r, g, b) for r, g, b in await self.call("pixels", points=[list(point) for point in points])]

    async def wait_pixel(self, point: tuple[int, int], colour: tuple[int, int, int], limit: float = TIMEOUT) -> None:
        """Until a spot of the canvas has this colour."""

        x, y = point
        await self.wait(
            f"(([r, g, b]) => r === {colour[0]} && g === {colour[1]} && b === {colour[2]})(document.querySelector("
            f"'#screen canvas:not(.frozen)').getContext('2d').getImageData({x}, {y}, 1, 1).data)",
            limit,
        )

    async def screenshot(self, path: Path) -> None:
        await self.call("screenshot", path=str(path))

    async def canvas_shot(self, path: Path) -> None:
        """The remote screen alone, as a PNG of its own size."""

        await self.call("canvas_shot", path=str(path))

    async def resize(self, width: int, height: int) -> None:
        await self.call("resize", width=width, height=height)

    async def offline(self, on: bool) -> None:
        """Cut this context off from the network, or bring it back."""

        await self.call("offline", on=on)

    async def console(self) -> list[dict[str, str]]:
        """What the browser's console has said: ``type`` (error, warning, …, pageerror) and ``text``."""

        return list(await self.call("console"))

    async def requests(self) -> list[dict[str, str]]:
        """Every request: ``method`` and ``url``."""

        return list(await self.call("requests"))

    async def sockets(self) -> list[dict[str, Any]]:
        """Every WebSocket: ``url``, ``sent`` (frames in base64), ``received`` (bytes), ``closed``."""

        return list(await self.call("sockets"))

    async def traffic(self) -> list[dict[str, Any]]:
        """Of a page that was opened with ``tap``, in order: ``way`` (sent, received), ``kind`` (headers, body, frame),
        ``url``, ``data`` in base64, or null with ``error``."""

        return list(await self.call("traffic"))

    async def accessible(self, selector: str = "body") -> str:
        """What assistive technology sees, as an outline."""

        return str(await self.call("accessible", selector=selector))


_shared: Viewer | None = None


async def shared_viewer() -> Viewer:
    """The run's viewer, started by the first call; started anew if it has died."""

    global _shared
    if _shared is None or not _shared.alive:
        from twisted.internet import reactor

        _shared = Viewer(reactor)
        atexit.register(_shared.kill)
    await _shared.ready()
    return _shared


async def open_page(test: TestCase, url: str, **options: Any) -> Page:
    """A page of the run's viewer for one test. Options as of :meth:`Viewer.open`."""

    viewer = await shared_viewer()
    page = await viewer.open(url, **options)
    test.addCleanup(lambda: Deferred.fromCoroutine(page.leave()))
    return page
