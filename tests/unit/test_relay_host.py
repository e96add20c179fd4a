"""Relay ports on a fake machine and a fake clock."""

from __future__ import annotations

import socket
from typing import Any

import autobahn.websocket
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.errors import BadValue, NoFreePort, ToolMissing
from ipmiproxyd.relay.host import WebRelayHost
from ipmiproxyd.relay.sockets import Sockets
from tests.support.fake_console import FakeConsole
from tests.support.fake_machine import FakeMachine
from tests.support.relay_pages import write_pages
from tests.support.scratch import scratch


class HostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.machine = FakeMachine()
        self.web, self.novnc = write_pages(scratch(self))

    def host(self, **settings: Any) -> WebRelayHost:
        return WebRelayHost(
            self.clock,
            GrantBook(self.clock, 300.0),
            binder=self.machine,
            **{
                "listen": ["0.0.0.0", "::"],
                "ports": range(6081, 6083),
                "novnc": str(self.novnc),
                "web": self.web,
                **settings,
            },
        )

    def test_bound_before_it_is_told_and_free_after_the_close(self) -> None:
        host = self.host()
        port = host.open(FakeConsole())
        self.assertEqual(self.machine.taken, {(6081, "0.0.0.0"), (6081, "::")})
        self.successResultOf(port.close("closed", "The console was closed."))
        self.assertEqual(self.machine.taken, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rests_as_configured(self) -> None:
        host = self.host(ports=[6081], port_rest=5.0)
        self.successResultOf(host.open(FakeConsole()).close("closed", "The console was closed."))
        self.assertRaises(NoFreePort, host.open, FakeConsole())
        self.clock.advance(5)
        self.assertEqual(host.open(FakeConsole()).number, 6081)

    def test_close_all(self) -> None:
        host = self.host()
        host.open(FakeConsole("c1"))
        host.open(FakeConsole("c2"))
        self.successResultOf(host.close("shutdown", "The gateway was stopped."))
        self.assertEqual(self.machine.taken, set())
        self.successResultOf(host.close("shutdown", "The gateway was stopped."))

    def test_urls(self) -> None:
        for public_host, authority in (
            ("kvm.example", "kvm.example"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
            ("", socket.gethostname()),
        ):
            self.assertEqual(self.host(public_host=public_host).url(6081, "T"), f"http://{authority}:6081/#t=T")

    def test_wrong_settings(self) -> None:
        for source in ("'self'; script-src *", "a,b", "https://a b", "", "https://\u00fc.example", "x\ny"):
            error = self.assertRaises(BadValue, self.host, frame_ancestors=[source])
            self.assertIn("relay.frame_ancestors", error.message)
        self.assertRaises(BadValue, self.host, novnc=str(self.web))
        self.assertRaises(BadValue, self.host, listen=[])
        self.assertRaises(ToolMissing, self.host, web=self.novnc)

    def test_a_slow_autobahn_is_told(self) -> None:
        for fast, levels in ((True, []), (False, [LogLevel.warn])):
            self.patch(autobahn.websocket, "USES_NVX", fast)
            with capturedLogs() as logs:
                self.host()
            self.assertEqual([log["log_level"] for log in logs], levels)


class SocketsTests(SynchronousTestCase):
    def test_waits_for_the_last(self) -> None:
        sockets = Sockets()
        self.successResultOf(sockets.when_empty())
        one, two = StringTransportWithDisconnection(), StringTransportWithDisconnection()
        sockets.add(one)
        sockets.add(two)
        empty, given_up = sockets.when_empty(), sockets.when_empty()
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        sockets.discard(one)
        sockets.discard(one)
        self.assertNoResult(empty)
        self.assertEqual(list(sockets), [two])
        sockets.discard(two)
        self.successResultOf(empty)
