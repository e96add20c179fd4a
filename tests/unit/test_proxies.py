"""The stored proxies, and which of them a request goes by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.console.proxies import ProxyDesk
from ipmiproxyd.console.types import Types
from ipmiproxyd.errors import BadValue, Exists, Forbidden, NotFound
from ipmiproxyd.interfaces import Proxies
from ipmiproxyd.model import CertificateFiles, Console, ConsoleState, Device, Proxy
from ipmiproxyd.wire.proxy import from_document, to_document
from tests.support.control_fakes import console
from tests.support.fake_rooms import FakeRelay
from tests.support.memory_store import MemoryStore

EAST = Proxy(name="east", agent="far", locations=("Rack 1", "Rack 2"))
WEST = Proxy(name="west", agent="local", locations=("Rack 2",))
NODE = Device(name="node17", address="192.0.2.17", location="Rack 2")


class DeskCase(SynchronousTestCase):
    debug_allowed = False

    def setUp(self) -> None:
        self.store, self.relay = MemoryStore(), FakeRelay()
        self.there: list[Console] = []
        self.agents = {"local", "far"}
        self.desk = self.make_desk()

    def make_desk(self, *, debug: bool = False) -> ProxyDesk:
        types = Types(debug=debug, is_local=lambda name: name == "local")
        return ProxyDesk(self.store, self.relay, types, lambda name: name in self.agents, lambda: self.there)

    def done(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fails(self, coroutine: Any, error: type[Exception] = BadValue) -> str:
        return str(self.failureResultOf(Deferred.fromCoroutine(coroutine), error).value)

    def add(self, *proxies: Proxy) -> None:
        for proxy in proxies:
            self.done(self.desk.add(proxy))


class StoredTests(DeskCase):
    def test_is_proxies(self) -> None:
        desk: Proxies = self.desk
        self.assertIsNotNone(desk)

    def test_there_and_back(self) -> None:
        full = Proxy(
            name="full", agent="far", locations=("a", "b"), type="panel", idle=None, login_buttons=False, encrypt=True,
            certificate="/good.pem", key="/good.key", java="jdk_7u80",
        )  # fmt: skip
        self.add(full, EAST)
        self.assertEqual(self.done(self.desk.list()), [EAST, full])
        self.assertEqual(self.done(self.desk.get("full")), full)
        self.assertEqual(from_document({**to_document(full), "later": 1}), full)
        self.assertEqual(self.done(self.desk.remove("full")), full)
        self.fails(self.desk.get("full"), NotFound)

    def test_add_twice(self) -> None:
        self.add(EAST)
        self.fails(self.desk.add(EAST), Exists)

    def test_change(self) -> None:
        self.add(EAST)
        after = self.done(self.desk.change("east", {"locations": ("x", "x"), "idle": 300.0, "login_buttons": False}))
        self.assertEqual(after, replace(EAST, locations=("x",), idle=300.0, login_buttons=False))
        self.assertEqual(self.done(self.desk.get("east")), after)
        self.fails(self.desk.change("north", {"idle": None}), NotFound)
        self.fails(self.desk.change("east", {"name": "other"}))
        self.fails(self.desk.change("east", {"colour": "red"}))

    def test_what_is_not_valid(self) -> None:
        for wrong in (
            {"name": ""}, {"name": "a b"}, {"agent": ""}, {"agent": "nobody"}, {"locations": ()}, {"locations": ("",)},
            {"locations": ("a\n",)}, {"locations": tuple(map(str, range(300)))}, {"type": "ssh"}, {"idle": 59.0},
            {"idle": True}, {"idle": 1e9}, {"login_buttons": 1.5}, {"encrypt": "yes"}, {"certificate": "cert.pem"},
            {"certificate": "/a/../b"}, {"certificate": "/a\n"}, {"key": "/k"}, {"java": "no such!"},
        ):  # fmt: skip
            self.fails(self.desk.add(replace(EAST, **wrong)))
        self.assertEqual(self.done(self.desk.list()), [])
        words = self.fails(self.desk.add(replace(EAST, locations=(), java="-")))
        self.assertIn("locations: is empty", words)
        self.assertIn("java: is not the name", words)

    def test_certificate_is_judged(self) -> None:
        good = replace(EAST, encrypt=True, certificate="/good.pem")
        self.add(EAST, replace(good, name="a"), replace(good, name="b", certificate="/other.pem", key="/k"))
        others = {CertificateFiles("/good.pem")}
        judged: list[tuple[CertificateFiles | None, set[CertificateFiles]]] = [
            (CertificateFiles("/good.pem"), set()),
            (CertificateFiles("/other.pem", "/k"), others),
        ]
        self.assertEqual(self.relay.judged, judged)
        self.fails(self.desk.add(replace(good, name="c", certificate="/bad.pem")))
        self.fails(self.desk.change("a", {"certificate": "/bad.pem"}))
        self.fails(self.desk.add(replace(good, name="unused", certificate="/bad.pem", encrypt=False)))
        self.fails(self.desk.change("east", {"certificate": "/bad.pem"}))
        self.done(self.desk.change("b", {"certificate": ""}))
        self.assertEqual(self.relay.judged[-1], (None, others))
        self.assertEqual(self.done(self.desk.get("b")).key, "")

    def test_certificate_that_is_not_in_use(self) -> None:
        self.add(replace(EAST, encrypt=True, certificate="/good.pem"))
        seen = len(self.relay.judged)
        self.done(self.desk.change("east", {"encrypt": False}))  # also where it has expired meanwhile
        self.assertEqual(len(self.relay.judged), seen)
        self.done(self.desk.change("east", {"certificate": "/other.pem"}))
        self.assertEqual(self.relay.judged[seen:], [(CertificateFiles("/other.pem"), set())])

    def test_debug_mode(self) -> None:
        self.fails(self.desk.add(replace(WEST, type="panel-debug")), Forbidden)
        self.desk = self.make_desk(debug=True)
        self.fails(self.desk.add(replace(EAST, type="panel-debug")), Forbidden)
        self.add(replace(WEST, type="panel-debug"))


class PickTests(DeskCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(EAST, WEST)

    def picked(self, device: Device = NODE, **how: str) -> str:
        proxy = self.done(self.desk.pick(device, **how))
        return "" if proxy is None else proxy.name

    def opens(self, *proxies: str, **more: Any) -> None:
        self.there += [console(proxy=proxy, bmc="192.0.2.99:623", **more) for proxy in proxies]

    def test_by_location(self) -> None:
        self.assertEqual(self.picked(replace(NODE, location="Rack 1")), "east")
        for location in ("", "Rack 3", "rack 1"):
            self.assertEqual(self.picked(replace(NODE, location=location)), "")

    def test_the_fewest_consoles_then_by_name(self) -> None:
        self.assertEqual(self.picked(), "east")
        self.opens("east")
        self.assertEqual(self.picked(), "west")
        self.opens("west")
        self.assertEqual(self.picked(), "east")
        self.opens("west", "west", state=ConsoleState.CLOSING)
        self.opens("east")
        self.assertEqual(self.picked(), "west")
        self.assertEqual(self.desk.consoles("east"), 2)

    def test_one_that_serves_this_user_already(self) -> None:
        self.there = [console(proxy="west", bmc=NODE.bmc, user="ann")]
        self.assertEqual((self.picked(user="ann"), self.picked(user="bob")), ("west", "east"))

    def test_by_agent(self) -> None:
        self.assertEqual((self.picked(agent="local"), self.picked(agent="third")), ("west", "east"))

    def test_agent_that_is_no_more(self) -> None:
        self.agents.remove("far")
        self.assertEqual((self.picked(), self.picked(name="east", agent="local")), ("west", "east"))
        lone = replace(NODE, location="Rack 1")
        for asked in (self.desk.pick(lone), self.desk.pick(NODE, name="east"), self.desk.of(lone)):
            error = self.failureResultOf(Deferred.fromCoroutine(asked), NotFound).value
            self.assertEqual(error.message, "The proxy east names the agent far, which is no more.")
            self.assertIn("proxy set name=east agent=", error.hint)

    def test_by_name(self) -> None:
        self.assertEqual(self.picked(replace(NODE, location=""), name="west"), "west")
        self.fails(self.desk.pick(NODE, name="north"), NotFound)

    def test_for_what_is_no_console(self) -> None:
        self.opens("east")
        self.assertEqual(self.done(self.desk.of(NODE)), EAST)
        self.assertIsNone(self.done(self.desk.of(replace(NODE, location="x"))))
