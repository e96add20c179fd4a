"""Relay ports on a fake machine and a fake clock."""

from __future__ import annotations

import socket
import time
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
from tests.support.relay_tls import Made
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
            host = self.host(public_host=public_host)
            self.assertEqual(host.url(host.open(FakeConsole()), "T"), f"http://{authority.lower()}:6081/#t=T")
            self.machine.taken.clear()

    def test_urls_of_the_gateway(self) -> None:
        for settings, url in (
            ({"gateway": ("", 6080)}, "http://kvm.example:6080/c/c1/#t=T"),
            ({"gateway": ("::", 80), "ports": []}, "http://kvm.example/c/c1/#t=T"),
            (
                {"gateway": ("127.0.0.1", 6080), "public_url": "https://console.example/kvm"},
                "https://console.example/kvm/c/c1/#t=T",
            ),
        ):
            host = self.host(public_host="kvm.example", **settings)
            self.assertEqual(host.url(host.open(FakeConsole()), "T"), url)
            self.machine.taken.clear()

    def test_the_gateway_is_bound_from_the_start_to_the_end(self) -> None:
        host = self.host(gateway=("", 6080), ports=[])
        self.assertEqual(self.machine.taken, {(6080, "0.0.0.0"), (6080, "::")})
        port = host.open(FakeConsole())
        self.assertIsNone(port.number)
        self.successResultOf(port.close("closed", "The console was closed."))
        self.assertEqual(len(self.machine.taken), 2)
        self.successResultOf(host.close("shutdown", "The gateway was stopped."))
        self.assertEqual(self.machine.taken, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_gateway_that_cannot_be(self) -> None:
        self.machine.taken.add((6080, "::"))
        error = self.assertRaises(BadValue, self.host, gateway=("", 6080))
        self.assertIn("relay.gateway: cannot listen on port 6080", error.message)
        self.assertEqual(self.machine.taken, {(6080, "::")})
        self.assertRaises(BadValue, self.host, ports=[])

    def test_the_gateway_helps_out_where_ports_end(self) -> None:
        host = self.host(gateway=("", 6080), ports=[6081])
        self.assertEqual([host.open(FakeConsole(name)).number for name in ("c1", "c2")], [6081, None])

    def test_what_hinders_browsers(self) -> None:
        self.clock.advance(time.time())
        made = Made(self.web, names=("DNS:kvm.example",))
        tls = {"certificate": made.certificate, "key": made.key}
        secure, plain = {"frame_ancestors": ["'self'", "https://a.example"]}, {"allowed_origins": ["http://b.example"]}
        proxy = {"gateway": ("", 6080), "public_url": "https://console.example"}
        for settings, words in (
            ({}, ()),
            ({**secure, **plain}, ("(https://a.example): browsers refuse",)),
            ({**secure, **proxy}, ()),
            ({**plain, **proxy}, ("http are to show the consoles (http://b.example)",)),
            ({**secure, **tls}, ()),
            ({**plain, **tls}, ("clipboard",)),
            (
                {**tls, "public_host": "other.example"},
                ("is for kvm.example, but the consoles' URLs name other.example",),
            ),
            ({**tls, **proxy, "public_host": "other.example"}, ()),
        ):
            told = self.host(**{"public_host": "kvm.example", **settings}).warnings()
            self.machine.taken.clear()
            self.assertEqual(len(told), len(words), told)
            for one, word in zip(told, words, strict=True):
                self.assertIn(word, one)

    def test_a_bad_certificate_is_told_at_the_start(self) -> None:
        self.clock.advance(time.time())
        error = self.assertRaises(BadValue, self.host, certificate=self.web / "nothing")
        self.assertIn("relay.certificate", error.message)

    def test_as_many_sockets_as_viewers_need(self) -> None:
        for viewers, limit in ((1, 8), (100, 800)):
            with_port = self.host(viewers=viewers).open(FakeConsole())
            (site,) = {listener.factory for listener in with_port._listeners}  # type: ignore[attr-defined]
            self.assertEqual(site._limit, limit)
            self.machine.taken.clear()

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
