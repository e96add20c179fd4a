"""Consoles of type vnc: the BMC's own VNC server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from ipmiproxyd.console.admission import Limits
from ipmiproxyd.errors import BadValue, BmcAuth, BmcState, BmcUnreachable, LimitReached, MissingArgument
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Console, ConsoleState, Device, Secret, TcpStream
from tests.support.console_life import NODE, Life
from tests.support.fake_rooms import FakeEndpoint

SCREEN = replace(NODE, vnc="192.0.2.17:5901", vnc_password=Secret("calvin"), vnc_fingerprint="ab" * 32)


class VncLife(Life):
    def begin(self, *, device: Device = SCREEN, **how: Any) -> Deferred[Any]:
        return super().begin(device=device, **{"type": "vnc", **how})


class VncTests(VncLife):
    def test_no_display_and_no_job(self) -> None:
        console = self.opened()
        self.assertEqual([message["stage"] for message in self.told], ["page", "screen"])
        self.assertEqual((console.type, console.state, console.display), ("vnc", ConsoleState.READY, None))
        self.assertEqual((self.agent.launched, self.pool.in_use), ([], 0))
        ledger = self.successResultOf(Deferred.fromCoroutine(self.store.list("ledger")))
        self.assertEqual([document["kind"] for document in ledger.values()], ["relay-port", "grants"])
        self.close(console)
        self.assert_nothing_left()

    def test_where_the_screen_is(self) -> None:
        self.opened()
        server = VncServer(FakeEndpoint(TcpStream("192.0.2.17", 5901)), "192.0.2.17", Secret("calvin"), "ab" * 32)
        self.assertEqual(self.checked, [server])
        self.assertEqual(self.relay.opened[0].console.screen(), server)

    def test_ipv6(self) -> None:
        self.opened(device=replace(SCREEN, vnc="[2001:db8::7]:5900"))
        self.assertEqual(self.checked[0].host, "2001:db8::7")
        self.assertEqual(self.checked[0].endpoint, FakeEndpoint(TcpStream("2001:db8::7", 5900)))

    def test_it_is_tried_before_it_is_ready(self) -> None:
        self.check_gate = Deferred()
        opening = self.begin()
        self.assertNoResult(opening)
        with self.assertRaises(BmcState):
            self.relay.opened[0].console.screen()
        self.check_gate.callback(None)
        self.settle()
        self.assertIs(self.successResultOf(opening)["console"].state, ConsoleState.READY)

    def test_wrong_password(self) -> None:
        self.check_error = BmcAuth("The VNC server refused the password.", hint="Change vnc_password.")
        failure = self.failureResultOf(self.begin(), BmcAuth)
        self.assertEqual(failure.value.hint, "Change vnc_password.")
        self.assertEqual(len(self.checked), 1)
        self.assert_nothing_left()

    def test_a_server_that_says_nothing(self) -> None:
        self.check_gate = Deferred()
        opening = self.begin()
        self.clock.advance(30)
        self.settle()
        self.assertIn("192.0.2.17:5901", self.failureResultOf(opening, BmcUnreachable).value.message)
        self.assert_nothing_left()

    def test_given_up(self) -> None:
        self.check_gate = Deferred()
        opening = self.begin()
        opening.cancel()
        self.failureResultOf(opening)
        self.assert_nothing_left()

    def test_no_vnc_server_is_known(self) -> None:
        failure = self.failureResultOf(self.begin(device=NODE), MissingArgument)
        self.assertIn("vnc=", failure.value.hint)
        self.assert_nothing_left()

    def test_clipboard_that_cannot_be_promised(self) -> None:
        for clipboard in ("off", "in"):
            failure = self.failureResultOf(self.begin(clipboard=clipboard), BadValue)
            self.assertIn("clipboard=out", failure.value.hint)
        self.assertEqual(self.manager.list(), [])
        self.assertEqual(self.opened(clipboard="out").clipboard, "out")

    def test_another_screen_of_the_same_bmc_is_another_console(self) -> None:
        first = self.opened()
        self.assertEqual(self.opened().id, first.id)
        self.assertNotEqual(self.opened(device=replace(SCREEN, vnc="192.0.2.17:5902")).id, first.id)
        self.assertNotEqual(self.opened(type="panel").id, first.id)

    def test_without_a_name_its_address_is_its_name(self) -> None:
        console = self.opened(device=replace(SCREEN, name=""))
        self.assertEqual((console.device, console.bmc), ("192.0.2.17:5901", "192.0.2.17:623"))
        closing = Deferred.fromCoroutine(self.manager.close(device="192.0.2.17:5901"))
        self.settle()
        self.assertEqual([closed.id for closed in self.successResultOf(closing)], [console.id])

    def test_recovered(self) -> None:
        self.opened(device=replace(SCREEN, name=""))
        self.clock.calls.clear()
        self.assertEqual(self.restart(), 1)
        self.assertEqual([(past.type, past.device) for past in self.past()], [("vnc", "192.0.2.17:5901")])
        self.assert_nothing_left()

    def past(self) -> list[Console]:
        return list(self.manager._past.values())

    def test_keep(self) -> None:
        self.opened()
        leaving = Deferred.fromCoroutine(self.manager.leave())
        self.settle()
        self.successResultOf(leaving)
        self.assertEqual(self.restart(), 1)
        self.assert_nothing_left()


class VncLimitTests(VncLife):
    limits = Limits(total=10, per_agent=2, per_user=0, unvisited=120, abandoned=300)

    def test_they_count_too(self) -> None:
        self.opened()
        self.opened(type="panel")
        self.failureResultOf(self.begin(existing="new"), LimitReached)
