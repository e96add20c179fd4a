"""A console manager in a world of fakes, on a fake clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.console.admission import Limits
from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.console.manager import ConsoleManager, Surroundings
from ipmiproxyd.console.opening import VncOpening, Workshop, serve_page, start_job
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.console.types import Types
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Console, Device, Existing, OpenRequest, Program
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.curl import Curl
from ipmiproxyd.tools.names import Names
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.xvnc import Display
from tests.support.fake_rooms import FakeAgent, FakeRelay
from tests.support.memory_store import MemoryStore

NODE = Device(name="node17", address="192.0.2.17")
LIMITS = Limits(total=10, per_agent=0, per_user=0, unvisited=120, abandoned=300)


class Agents(dict[str, FakeAgent]):
    leaving: set[str]


class Life(SynchronousTestCase):
    """A manager in a world of fakes; :meth:`restart` makes another one over the same store and agent.

    :ivar away: the agents that cannot be reached; ``leaving`` those that are being removed.
    :ivar early: what goes wrong with a type of console once its page is there; ``late`` once its job runs.
    """

    limits = LIMITS
    displays = range(1, 6)
    debug_allowed = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.agent = FakeAgent()
        self.relay = FakeRelay()
        self.checked: list[VncServer] = []
        self.check_gate: Deferred[None] | None = None
        self.check_error: Exception | None = None
        self.away: set[str] = set()
        self.leaving: set[str] = set()
        self.early: dict[str, Exception] = {}
        self.late: dict[str, Exception] = {}
        self.captured: list[VncServer] = []
        self.trials: set[str] = set()
        self.slow_capture = False
        self.capturing: list[Deferred[None]] = []
        self.manager = self.make_manager()
        self.told: list[Mapping[str, Any]] = []

    def make_manager(self) -> ConsoleManager:
        self.grants = GrantBook(self.clock, 300.0)
        agents = Agents({self.agent.name: self.agent})
        agents.leaving = self.leaving
        self.pool = DisplayPool(self.displays[0], self.displays[-1], self.clock)
        around = Surroundings(
            store=self.store,
            agents=agents,
            displays={self.agent.name: self.pool},
            relay=self.relay,
            grants=self.grants,
            limits=self.limits,
            clock=self.clock,
            capture=self.capture,
            is_away=lambda name: name in self.away,
            types=Types(debug=self.debug_allowed, is_local=lambda name: name == self.agent.name),
            trials=self.trials,
        )
        self.shop_parts: dict[str, Any] = {
            "agents": agents,
            "displays": {self.agent.name: self.pool},
            "display": Display(),
            "browser": PanelBrowser(),
            "panels": PanelHttp(Curl(), self.store, self.clock),
            "names": Names(),
            "check": self.check,
            "lease": 900,
            "start_timeout": 30,
        }
        shop = Workshop(**self.shop_parts)

        async def stages(session: ConsoleSession) -> None:
            await serve_page(session, manager.serve)
            if session.request.type in self.early:
                raise self.early[session.request.type]
            await start_job(session, shop, (Program(name="app", argv=("app",)),), (), window=("app", "Starting"))
            if session.request.type in self.late:
                raise self.late[session.request.type]

        vnc = VncOpening(agents, lambda session: manager.serve(session), self.check, self.clock, 30.0)
        manager = ConsoleManager(around, {"panel": stages, "java": stages, "html5": stages, "vnc": vnc})
        self.agent.watch(manager.job_ended)
        return manager

    async def check(self, server: VncServer) -> None:
        """What the relay does with a VNC server."""

        self.checked.append(server)
        if self.check_gate is not None:
            await self.check_gate
        if self.check_error is not None:
            raise self.check_error

    async def capture(self, server: VncServer) -> bytes:
        self.captured.append(server)
        if self.slow_capture:
            self.capturing.append(Deferred())
            await self.capturing[-1]
        return b"PNG"

    def restart(self) -> int:
        self.relay = FakeRelay()
        self.manager = self.make_manager()
        left = self.successResultOf(Deferred.fromCoroutine(self.manager.recover()))
        self.reconcile()
        return left

    def reconcile(self) -> None:
        reconciled = Deferred.fromCoroutine(self.manager.reconcile(self.agent))
        self.settle()
        self.successResultOf(reconciled)

    def settle(self) -> None:
        for _ in range(20):
            self.clock.advance(0)

    def begin(
        self, *, device: Device = NODE, existing: Existing = "reuse", user: str = "", wait: bool = True,
        idle: float | None = 600.0, max_time: float | None = None, **more: Any,
    ) -> Deferred[Mapping[str, Any]]:
        request = OpenRequest(
            device=device, existing=existing, user=user, wait=wait, idle=idle, max_time=max_time, **more
        )
        opening = Deferred.fromCoroutine(self.manager.open(request, self.told.append))
        self.settle()
        return opening

    def opened(self, **how: Any) -> Console:
        console: Console = self.successResultOf(self.begin(**how))["console"]
        return console

    def close(self, console: Console) -> None:
        closing = Deferred.fromCoroutine(self.manager.close(console_id=console.id))
        self.settle()
        self.successResultOf(closing)

    def reason(self, console: Console) -> str:
        return self.manager.show(console.id).reason

    def assert_nothing_left(self) -> None:
        self.settle()
        self.assertEqual(self.manager.list(), [])
        self.assertEqual(self.agent.running, {})
        self.assertEqual(self.pool.in_use, 0)
        self.assertTrue(all(port.closed_with for port in self.relay.opened))
        for kind in ("console", "ledger"):
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.store.list(kind))), {}, kind)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
