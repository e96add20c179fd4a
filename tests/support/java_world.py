"""The daemon, and simulated vendors' panels in the test's own process: there requests can be held and moods changed."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Final, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request as HttpRequest
from twisted.web.server import NOT_DONE_YET, Site

from tests.simulator.panel import Panel, Recorder, Settings, context_factory
from tests.simulator.vendors.vendor import VendorPanel
from tests.support import leftovers
from tests.support.daemon import DaemonProcess
from tests.support.ports import free_ports
from tests.support.scratch import scratch
from tests.support.visit import enter, visit
from tests.support.wire_client import Reply, WireClient
from tests.support.world import World

reactor = cast(Any, global_reactor)
USER: Final = "ADMIN"
PASSWORD: Final = "s3cret-&+/=x"
Fits = Callable[[HttpRequest], bool]


@dataclass
class Hold:
    """Requests that are not answered yet: ``reached`` fires with the first; :meth:`release` lets them all go."""

    fits: Fits
    reached: Deferred[None] = field(default_factory=Deferred)
    gate: Deferred[None] = field(default_factory=Deferred)

    async def wait(self) -> None:
        await self.reached.addTimeout(20.0, IReactorTime(reactor))

    def release(self) -> None:
        self.gate.callback(None)


class _Panel(Panel):
    """:ivar visitors: the connections that requests came by."""

    def __init__(self, settings: Settings, record: Recorder) -> None:
        super().__init__(settings, record)
        self.holds: list[Hold] = []
        self.visitors: list[object] = []

    def render(self, request: HttpRequest) -> bytes | int:
        if request.channel not in self.visitors:
            self.visitors.append(request.channel)
        for hold in self.holds:
            if hold.fits(request) and not hold.gate.called:
                content: Any = request.content
                hold.gate.addCallback(self._answer, request, content.read())
                if not hold.reached.called:
                    hold.reached.callback(None)
                return NOT_DONE_YET
        return super().render(request)

    def _answer(self, _: None, request: HttpRequest, body: bytes) -> None:
        """The panel does what it was asked for, whether or not anybody still waits."""

        request.content = BytesIO(body)  # Twisted closes it when the visitor leaves
        answer = super().render(request)
        if answer is not NOT_DONE_YET and request.channel is not None:
            request.write(answer)
            request.finish()


class _Site(Site):
    """Knows its connections."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self._channels: list[Any] = []
        self.connections = 0

    def buildProtocol(self, addr: Any) -> Any:
        channel: Any = super().buildProtocol(addr)
        self._channels.append(channel)
        self.connections += 1
        return channel

    async def end(self) -> None:
        channels, self._channels = self._channels, []
        for channel in channels:
            tls = channel._channel.transport
            if tls is not None and tls.transport is not None:
                tls.transport.abortConnection()
        await leftovers.pause(0)


class PanelHere:
    """A vendor's panel, and what happens at it.

    :ivar personality: may be changed at any time.
    :ivar events: (kind, more), the oldest first.
    """

    def __init__(self, folder: Path, kind: str, users: Mapping[str, str], *, tls: str, attributes: Mapping[str, Any]):
        folder.mkdir(parents=True)
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self._waiting: list[Deferred[None]] = []
        settings = Settings(
            personality=kind, users=users, chassis=str(folder), tls=cast(Any, tls), attributes=attributes
        )
        self._settings, self._folder = settings, folder
        self._panel = _Panel(settings, cast(Recorder, self._record))
        self._tls = context_factory(settings, folder)
        self._site = _Site(self._panel)
        self._number = free_ports(1)[0]
        self._port: Any = None
        self.listen()

    def _record(self, kind: str, more: Mapping[str, Any]) -> None:
        self.events.append((kind, more))
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    @property
    def personality(self) -> VendorPanel:
        return cast(VendorPanel, self._panel.personality)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._number}"

    def listen(self) -> None:
        """At the same port as before, if there was one."""

        self._port = reactor.listenSSL(self._number, self._site, self._tls, interface="127.0.0.1")

    async def leave(self) -> None:
        """Nothing answers any more, and whoever still waits is hung up on. Idempotent."""

        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()
        await self._site.end()

    async def stop(self) -> None:
        await self.leave()
        await self._panel.stop()

    async def take_another_key(self) -> None:
        await self.leave()
        self._tls = context_factory(self._settings, self._folder)
        self.listen()

    @property
    def without_request(self) -> int:
        """Connections that did not get as far as a request."""

        return self._site.connections - len(self._panel.visitors)

    def hold(self, fits: Fits) -> Hold:
        hold = Hold(fits)
        self._panel.holds.append(hold)
        return hold

    def of(self, kind: str, **more: Any) -> list[Mapping[str, Any]]:
        return [told for event, told in self.events if event == kind and more.items() <= told.items()]

    async def happens(self, kind: str, count: int = 1, limit: float = 20.0, **more: Any) -> Mapping[str, Any]:
        """The ``count``-th event of a kind, once it has happened."""

        while len(found := self.of(kind, **more)) < count:
            one: Deferred[None] = Deferred()
            self._waiting.append(one)
            await one.addTimeout(limit, IReactorTime(reactor))
        return found[count - 1]

    @property
    def signs(self) -> tuple[int, int]:
        """How often somebody signed in, and out."""

        return len(self.of("sign-in", ok=True)), len(self.of("sign-out"))


class JavaWorld(World):
    """A running daemon; panels and devices as the test wants them."""

    timeout: ClassVar[float] = 90

    async def _prepare(self) -> None:
        self.folder = scratch(self)
        self.x_locks = leftovers.x_locks()
        self.panels: list[PanelHere] = []
        self.addCleanup(lambda: Deferred.fromCoroutine(self._stop_panels()))
        self.daemon = DaemonProcess(self.folder / "d", self.settings)
        self.addCleanup(self.daemon.stop)
        await self.daemon.start()
        self.client = await self.connect()

    async def _stop_panels(self) -> None:
        for panel in self.panels:
            await panel.stop()

    def panel(
        self, kind: str, users: Mapping[str, str] | None = None, *, tls: str = "modern", **attributes: Any
    ) -> PanelHere:
        folder = self.folder / f"panel{len(self.panels)}"
        panel = PanelHere(folder, kind, users or {USER: PASSWORD}, tls=tls, attributes=attributes)
        self.panels.append(panel)
        return panel

    async def device(self, panel: PanelHere, name: str, user: str = USER, password: str = PASSWORD) -> None:
        words = {"name": name, "address": "127.0.0.1", "username": user, "password": password, "web": panel.url}
        await self.client.must("device add " + " ".join(f"{key}={shlex.quote(text)}" for key, text in words.items()))

    async def node(self, kind: str, name: str = "node1", **more: Any) -> PanelHere:
        """A panel with its device."""

        panel = self.panel(kind, **more)
        await self.device(panel, name)
        return panel

    async def java(self, name: str = "node1", client: WireClient | None = None) -> dict[str, Any]:
        return await self.opened(f"device={name} type=java", client)

    def ask_java(self, name: str = "node1", client: WireClient | None = None) -> Deferred[Reply]:
        return self.open(f"device={name} type=java", client)

    async def click_and_type(self, panel: PanelHere, url: str) -> None:
        """Come to a console, click into it and press a key, without a browser. Returns when both have arrived."""

        viewer = await visit(url)
        self.addCleanup(viewer.hang_up)
        await enter(viewer)
        for buttons in (0, 1, 0):
            viewer.say(bytes((5, buttons)) + (640).to_bytes(2) + (500).to_bytes(2))
        await panel.happens("kvm-click")
        for down in (1, 0):
            viewer.say(bytes((4, down, 0, 0)) + ord("k").to_bytes(4))
        await panel.happens("kvm-key", char="k")

    async def until_gone(self) -> None:
        """Wait until no console is there, whatever its state."""

        while (await self.client.must("console list"))["consoles"]:
            await leftovers.pause(0.05)

    async def kill_and_start(self) -> None:
        """Another daemon after one that had no time to give anything back; returns when it has done so."""

        await self.daemon.signal(signal.SIGKILL)
        await self.daemon.start()
        self.client = await self.connect()
        await self.until_gone()

    @property
    def cached(self) -> list[str]:
        """What lies in the agent's cache."""

        return sorted(path.name for path in self.daemon.folder.rglob("*-cache/*"))
