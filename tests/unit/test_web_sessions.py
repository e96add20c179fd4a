"""Sessions at panels on a fake clock: signed out on every path, and at last forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.console.ledger import Ledger
from ipmiproxyd.console.timing import uncut
from ipmiproxyd.console.web_sessions import FORGOTTEN_AFTER, KIND, SIGN_OUT_LIMIT, WebSessions
from ipmiproxyd.errors import BmcAuth, BmcUnreachable, ProxyError
from ipmiproxyd.model import Device, Secret
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.registry import by_key
from ipmiproxyd.vendors.talk import WebSession
from tests.support.fake_rooms import FakeAgent
from tests.support.memory_store import MemoryStore

DEVICE = Device(name="node1", address="192.0.2.1", username="ADMIN", password=Secret("s3cret"))
FAMILIES = by_key()
SUPERMICRO = FAMILIES["supermicro"]


class Panel:
    """Where sign-ins and sign-outs go. ``away``: what every sign-out meets; ``gates``: what each waits for."""

    families = FAMILIES

    def __init__(self) -> None:
        self.signs = [0, 0]
        self.away: Exception | None = None
        self.refuses: Exception | None = None
        self.gate: Deferred[None] | None = None
        self.exit_gate: Deferred[None] | None = None

    async def sign_in(self, _agent: Any, _device: Device, family: Family) -> WebSession:
        if self.gate is not None:
            await self.gate
        if self.refuses is not None:
            raise self.refuses
        self.signs[0] += 1
        return WebSession(family=family.key, cookies={"SID": "c00kie"})

    async def talk(self, _agent: Any, _device: Device, _make: Callable[..., Any]) -> None:
        if self.exit_gate is not None:
            await self.exit_gate
        if self.away is not None:
            raise self.away
        self.signs[1] += 1


class WebSessionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1e9)
        self.store = MemoryStore()
        self.panel = Panel()
        self.agent = FakeAgent()
        self.web = self.make()
        self.ledger = self.make_ledger()

    def make(self) -> WebSessions:
        panel: Any = self.panel
        return WebSessions(panel, panel, {"local": self.agent}, self.clock)

    def make_ledger(self) -> Ledger:
        return Ledger("c1", self.store, {KIND: self.web.release}, self.clock)

    def open(self, family: Family = SUPERMICRO) -> Deferred[WebSession]:
        return Deferred.fromCoroutine(self.web.open(self.ledger, self.agent, DEVICE, family))

    def give_back(self) -> list[str]:
        return self.successResultOf(Deferred.fromCoroutine(self.ledger.give_back()))

    @property
    def recorded(self) -> int:
        return len(self.store.documents.get("ledger", {}))

    def test_signed_out_of_when_it_is_given_back(self) -> None:
        session = self.successResultOf(self.open())
        self.assertEqual((session.cookies, self.recorded), ({"SID": "c00kie"}, 1))
        self.assertEqual(self.give_back(), [])
        self.assertEqual((self.panel.signs, self.recorded), ([1, 1], 0))

    def test_a_refusal_leaves_nothing(self) -> None:
        self.panel.refuses = BmcAuth("no")
        self.failureResultOf(self.open(), BmcAuth)
        self.assertEqual((self.panel.signs, self.recorded), ([0, 0], 0))

    def test_a_sign_in_is_not_cut_short(self) -> None:
        """Its answer alone tells how to sign out."""

        self.panel.gate = Deferred()
        opening = self.open()
        for _ in range(2):
            opening.cancel()
            self.assertNoResult(opening)
        self.panel.gate.callback(None)
        self.failureResultOf(opening, CancelledError)
        self.assertEqual((self.panel.signs, self.recorded), ([1, 1], 0))

    def test_a_cancelled_sign_in_that_is_refused(self) -> None:
        self.panel.gate = Deferred()
        self.panel.refuses = BmcAuth("no")
        opening = self.open()
        opening.cancel()
        self.panel.gate.callback(None)
        self.failureResultOf(opening, CancelledError)
        self.assertEqual((self.panel.signs, self.recorded), ([0, 0], 0))

    def test_cancelled_and_then_the_panel_is_away(self) -> None:
        """It stays in the ledger, for the console's other attempts."""

        self.panel.gate = Deferred()
        self.panel.away = BmcUnreachable("away")
        opening = self.open()
        opening.cancel()
        self.panel.gate.callback(None)
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(self.recorded, 1)
        self.panel.away = None
        self.give_back()
        self.assertEqual((self.panel.signs, self.recorded), ([1, 1], 0))

    def test_what_cannot_be_recorded_is_signed_out_of_at_once(self) -> None:
        async def put(*_: Any) -> None:
            raise OSError("disk full")

        self.store.put = put  # type: ignore[method-assign, assignment]
        self.failureResultOf(self.open(), OSError)
        self.assertEqual(self.panel.signs, [1, 1])

    def test_away_then_back(self) -> None:
        """However long the console was open before."""

        self.successResultOf(self.open())
        self.clock.advance(10 * FORGOTTEN_AFTER)
        self.panel.away = BmcUnreachable("away")
        for _ in range(3):
            (problem,) = self.give_back()
            self.assertIn("away", problem)
            self.clock.advance(30)
        self.panel.away = None
        self.assertEqual(self.give_back(), [])
        self.assertEqual((self.panel.signs, self.recorded), ([1, 1], 0))

    def test_away_for_ever(self) -> None:
        """A panel forgets a session by itself: so does the ledger."""

        imm = FAMILIES["imm2"]
        for family, forgotten in ((SUPERMICRO, FORGOTTEN_AFTER), (imm, float(imm.slot_seconds or 0))):
            self.panel.away = BmcUnreachable("away")
            self.successResultOf(self.open(family))
            self.assertTrue(self.give_back())
            self.clock.advance(forgotten - 1)
            self.assertTrue(self.give_back())
            self.clock.advance(1)
            self.assertEqual((self.give_back(), self.recorded), ([], 0))

    def test_it_hangs(self) -> None:
        self.panel.exit_gate = Deferred(lambda _: None)
        self.successResultOf(self.open())
        trying = Deferred.fromCoroutine(self.ledger.give_back())
        self.clock.advance(SIGN_OUT_LIMIT)
        (problem,) = self.successResultOf(trying)
        self.assertIn("did not sign out in time", problem)
        self.clock.advance(FORGOTTEN_AFTER)
        trying = Deferred.fromCoroutine(self.ledger.give_back())
        self.clock.advance(SIGN_OUT_LIMIT)
        self.assertEqual(self.successResultOf(trying), [])

    def test_in_another_life_of_the_daemon(self) -> None:
        self.successResultOf(self.open())
        self.web = self.make()
        self.ledger = self.make_ledger()
        self.assertEqual(self.give_back(), [])
        self.assertEqual(self.panel.signs, [1, 1])

    def test_no_such_agent_any_more(self) -> None:
        self.successResultOf(self.open())
        self.agent = FakeAgent("other")
        self.web = WebSessions(self.panel, self.panel, {}, self.clock)  # type: ignore[arg-type]
        self.ledger = self.make_ledger()
        self.assertIn("no agent", self.give_back()[0])

    def test_a_panel_without_sign_out(self) -> None:
        self.successResultOf(self.open(FAMILIES["irmc"]))
        self.assertEqual(self.give_back(), [])
        self.assertEqual(self.panel.signs, [1, 0])


class UncutTests(SynchronousTestCase):
    def test_results_and_failures_come_through(self) -> None:
        async def works() -> int:
            return 7

        async def fails() -> int:
            raise ProxyError("no")

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(uncut(works()))), 7)
        self.failureResultOf(Deferred.fromCoroutine(uncut(fails())), ProxyError)

    def test_later(self) -> None:
        gate: Deferred[int] = Deferred()

        async def waits() -> int:
            return await gate

        waiting = Deferred.fromCoroutine(uncut(waits()))
        self.assertNoResult(waiting)
        gate.errback(ProxyError("no"))
        self.failureResultOf(waiting, ProxyError)
