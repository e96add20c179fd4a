"""Agents as they are told, stored and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.fleet import Fleet, HostedAgent
from ipmiproxyd.console.agent_desk import AgentDesk, DeskRooms
from ipmiproxyd.console.displays import DisplayPools
from ipmiproxyd.errors import AgentOutdated, AgentUnreachable, BadValue, Exists, InUse, NoFreeDisplay, NotFound
from ipmiproxyd.interfaces import Agent, agent_named
from ipmiproxyd.model import BMC_REFUSED, Console, ConsoleState, Proxy, RemoteAgent, Secret
from ipmiproxyd.store.agents import ISOLATED, KIND, StoredAgents
from ipmiproxyd.wire.agent import changed, checked, from_document, to_document
from tests.support.control_fakes import FakeConsoles, console
from tests.support.fake_rooms import FakeAgent
from tests.support.memory_store import MemoryStore

PRINT = f"SHA256:{43 * 'a'}"
EAST = RemoteAgent(name="east", host="192.0.2.10", key="/k", passphrase=Secret("open sesame"), host_keys=(PRINT,))


class Hosted(FakeAgent):
    """``gate`` holds its start back; ``start_error`` is raised by it, ``look_error`` by a look."""

    kind = "ssh"
    python = "python3"
    facts: Mapping[str, Any] = {}
    folder = "/nowhere"
    host = "192.0.2.10"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.place = ""
        self.neighbour: Callable[[str], str] = lambda _: ""
        self.connected: Callable[[], None] = lambda: None
        self.isolated = False
        self.when_isolated: Callable[[], None] = lambda: None
        self.isolation = "none"
        self.start_gate: Deferred[None] | None = None
        self.start_error: Exception | None = None
        self.look_error: Exception | None = None
        self.is_closed = False
        self.changed: RemoteAgent | None = None

    async def start(self) -> None:
        if self.start_gate is not None:
            await self.start_gate
        if self.start_error is not None:
            raise self.start_error

    async def close(self) -> None:
        self.is_closed = True

    async def look_again(self) -> Finding:
        if self.look_error is not None:
            raise self.look_error
        return Finding("runner", "warning", "Consoles are open.", "Close them.")

    async def change(self, agent: RemoteAgent) -> None:
        self.changed = agent
        self.browser = agent.browser
        self.isolation = "users" if self.isolated else "none"

    def describe(self) -> Mapping[str, Any]:
        return {"isolation": self.isolation, "displays_run_as": "ipmiproxyd"}

    async def check(self) -> Sequence[Finding]:
        raise AgentOutdated("It is another one.", hint="fix=yes")

    async def repair(self) -> Finding | None:
        return Finding("fix", "fault", "It cannot be installed.", "As root there: install.")


class SlowConsoles(FakeConsoles):
    """``gate`` holds closing back; ``close_error`` is raised by it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: Deferred[None] | None = None
        self.close_error: Exception | None = None

    async def close(self, *, console_id: str = "", **_: Any) -> Sequence[Console]:
        if self.gate is not None:
            await self.gate
        if self.close_error is not None:
            raise self.close_error
        return [self.known.pop(console_id)]


class FieldsTests(SynchronousTestCase):
    def test_a_document_and_back(self) -> None:
        self.assertEqual(from_document(to_document(EAST)), EAST)
        former = from_document({"name": "a", "host": "b", "key": "/k", "new": 1})
        self.assertEqual((former.port, former.browser), (22, "chromium"))

    def test_one_spelling(self) -> None:
        self.assertEqual(checked(dataclasses.replace(EAST, host="[2001:DB8::1]")).host, "2001:db8::1")
        self.assertEqual(checked(dataclasses.replace(EAST, host_keys=(f"{PRINT}=",))).host_keys, (PRINT,))
        self.assertEqual(changed(EAST, {"key": "ssh-agent"}).key, "ssh-agent")

    def test_every_mistake_is_told(self) -> None:
        wrong: dict[str, Any] = {
            "name": "East",
            "host": "",
            "port": 0,
            "user": "-x",
            "key": "relative",
            "passphrase": Secret("x" * 300),
            "host_keys": ("MD5:x",),
            "python": "-c",
            "users": "some",
            "group": "a b",
            "runner": "../x",
            "folder": "~",
            "jobs_name": "/x",
            "transport": "udp",
            "browser": "chromium-browser",
            "notes": "\0",
        }
        with self.assertRaises(BadValue) as caught:
            checked(dataclasses.replace(EAST, **wrong))
        told = caught.exception.message
        for name in wrong:
            self.assertIn("host_key:" if name == "host_keys" else f"{name}:", told)
        self.assertNotIn("xxx", told)


class FleetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fleet = Fleet()
        self.local = Hosted("local")
        self.fleet.put(self.local)
        self.greeted: list[str] = []

    async def welcome(self, agent: Agent) -> None:
        self.greeted.append(agent.name)

    def start(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.fleet.start(lambda _: None)))
        self.fleet.welcome(self.welcome)

    def test_who_comes_later(self) -> None:
        self.start()
        pools = DisplayPools(self.fleet, 1, 1, Clock())
        with self.assertRaises(NotFound):
            agent_named(self.fleet, "east")
        east = Hosted("east")
        east.start_gate = Deferred()
        joining = Deferred.fromCoroutine(self.fleet.join(east))
        self.assertIs(agent_named(self.fleet, "east"), east)
        joining.cancel()
        self.failureResultOf(joining)
        east.start_gate.callback(None)
        east.connected()
        self.assertEqual(self.greeted, ["east"])
        pools["east"].take("c1")
        with self.assertRaises(NoFreeDisplay):
            pools["east"].take("c2")
        self.assertEqual((list(pools), pools["local"].in_use), (["local", "east"], 0))
        self.successResultOf(Deferred.fromCoroutine(self.fleet.leave("east")))
        self.assertTrue(east.is_closed)
        self.assertIsNone(pools.get("east"))
        east.connected()
        self.assertEqual(self.greeted, ["east"])

    def test_local_agent_that_does_not_start(self) -> None:
        self.local.start_error = AgentUnreachable("It has no Python.")
        starting = Deferred.fromCoroutine(self.fleet.start(lambda _: None))
        self.assertEqual(self.failureResultOf(starting, AgentUnreachable).value.message, "It has no Python.")


class Examiner:
    async def examine(self, agent: HostedAgent, **_: Any) -> Sequence[Finding]:
        return await agent.check()


class Maker:
    def make(self, agent: RemoteAgent) -> Hosted:
        made = Hosted(agent.name)
        made.browser = agent.browser
        return made

    async def vouched(self, agent: RemoteAgent, **_: Any) -> RemoteAgent:
        return agent

    async def trusted(self, agent: RemoteAgent, **_: Any) -> RemoteAgent:
        return agent


class DeskTestCase(SynchronousTestCase):
    """A desk over a store in memory."""

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.fleet = Fleet()
        self.stored_proxies: list[Proxy] = []
        self.consoles = SlowConsoles()
        self.desk = self.make_desk()

    async def proxies(self) -> Sequence[Proxy]:
        return self.stored_proxies

    def make_desk(self, *configured: RemoteAgent) -> AgentDesk:
        self.fleet = Fleet()
        return AgentDesk(
            DeskRooms(
                fleet=self.fleet,
                stored=StoredAgents(self.store),
                maker=Maker,
                consoles=self.consoles,
                displays=DisplayPools(self.fleet, 1, 5, Clock()),
                configured=configured,
                proxies=self.proxies,
                doctor=Examiner(),
                limit=100,
            )
        )

    def do(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))


class DeskTests(DeskTestCase):
    def test_stored_and_loaded(self) -> None:
        told = self.do(self.desk.add(EAST))
        self.assertEqual((told["passphrase"], told["from"], told["limits"]["displays"]), ("set", "store", 5))
        self.failureResultOf(Deferred.fromCoroutine(self.desk.add(EAST)), Exists)
        again = self.make_desk()
        self.do(again.load())
        self.assertEqual(list(self.fleet), ["east"])
        self.do(again.remove("east"))
        self.assertEqual((list(self.fleet), self.do(self.store.list(KIND))), ([], {}))

    def test_one_that_proxies_name(self) -> None:
        self.do(self.desk.add(EAST))
        for name, agent in (("p1", "east"), ("p2", "local"), ("p3", "east")):
            self.stored_proxies.append(Proxy(name=name, agent=agent, locations=("x",)))
        refused = self.failureResultOf(Deferred.fromCoroutine(self.desk.remove("east")), InUse).value
        self.assertIn("the proxies p1, p3", refused.message)
        self.assertIn("east", self.fleet)
        self.do(self.desk.remove("east", force=True))
        self.assertEqual(list(self.fleet), [])

    def test_direct_displays_need_open_ports(self) -> None:
        self.do(self.desk.add(EAST))
        for changes, told in (({"transport": "direct"}, 1), ({"transport": "direct", "notes": "x"}, 0)):
            warnings = self.do(self.desk.change("east", changes))["warnings"]
            self.assertEqual(len([one for one in warnings if "agent provision name=east" in one]), told)

    def test_another_browser(self) -> None:
        self.do(self.desk.add(EAST))
        told = self.do(self.desk.change("east", {"browser": "none"}))
        self.assertEqual((told["browser"], self.desk.listing()[0]["browser"]), ("none", "none"))
        refused = self.failureResultOf(Deferred.fromCoroutine(self.desk.change("east", {"browser": "firefox"})))
        self.assertIn("google-chrome-stable", str(refused.value))

    def test_mending_that_failed(self) -> None:
        self.do(self.desk.add(EAST))
        for fix, hint in ((False, "fix=yes"), (True, "It cannot be installed. As root there: install.")):
            checking = Deferred.fromCoroutine(self.desk.check("east", lambda _: None, fix=fix))
            self.assertEqual(self.failureResultOf(checking, AgentOutdated).value.hint, hint)

    def test_what_was_cleared_away(self) -> None:
        async def no_finding(_: Hosted) -> Any: ...

        async def findings(_: Hosted) -> Sequence[Finding]:
            return []

        self.patch(Hosted, "repair", no_finding)
        self.patch(Hosted, "check", findings)
        self.do(self.desk.add(EAST))
        told = self.do(self.desk.check("east", lambda _: None, fix=True))
        self.assertEqual([one["words"] for one in told["findings"]], ["Cleared away: job x of east: it never started."])
        self.consoles.tidy_error = AgentUnreachable("It is away.")
        told = self.do(self.desk.check("east", lambda _: None, fix=True))
        self.assertIn("not cleared away: It is away.", told["warnings"][0])

    def test_what_is_warned_of(self) -> None:
        """Beside the daemon: only where the host is new."""

        one_user, beside = self.do(self.desk.add(dataclasses.replace(EAST, host="127.0.0.1")))["warnings"]
        self.assertIn("run as the one user ipmiproxyd", one_user)
        self.assertIn("safer", beside)
        for changes, count in (({"notes": "x"}, 0), ({"host": "::1"}, 1), ({"port": 2222}, 0)):
            self.assertEqual(len(self.do(self.desk.change("east", changes))["warnings"]), count)

    def test_the_configuration_file_goes_first(self) -> None:
        self.do(self.desk.add(EAST))
        again = self.make_desk(dataclasses.replace(EAST, host="elsewhere"))
        self.do(again.load())
        told = self.do(again.show("east"))
        self.assertEqual((told["host"], told["from"]), ("elsewhere", "config"))

    def test_notes_connect_nobody_anew(self) -> None:
        self.do(self.desk.add(EAST))
        east: Any = self.fleet["east"]
        self.do(self.desk.change("east", {"notes": "rack 4"}))
        self.assertIsNone(east.changed)
        self.do(self.desk.change("east", {"port": 2222}))
        self.assertEqual(east.changed.port, 2222)
        self.assertEqual(self.do(self.desk.show("east"))["notes"], "rack 4")

    # --- with consoles ------------------------------------------------------------------------------------------------

    def opened(self, number: int = 1, state: ConsoleState = ConsoleState.READY) -> None:
        self.consoles.known[f"c{number}"] = console(number, agent="east", state=state)

    def refused(self, work: Any, error: type[Exception] = InUse) -> str:
        return str(self.failureResultOf(Deferred.fromCoroutine(work), error).value)

    def test_what_consoles_depend_on(self) -> None:
        """Also those that could not be closed. A host whose keys are the same is the same."""

        self.do(self.desk.add(EAST))
        other = f"SHA256:{43 * 'b'}"
        for state in (ConsoleState.READY, ConsoleState.LOST):
            self.opened(state=state)
            self.assertIn("runner", self.refused(self.desk.change("east", {"runner": "/opt/runner.py"})))
            self.assertIn("python", self.refused(self.desk.change("east", {"python": "/opt/python3"})))
            self.assertIn("port", self.refused(self.desk.change("east", {"port": 2200, "host_keys": (other,)})))
            self.refused(self.desk.remove("east"))
        self.do(self.desk.change("east", {"host": "192.0.2.11"}))
        self.do(self.desk.change("east", {"host_keys": (other,)}))

    def test_isolation_that_is_lost_by_a_change(self) -> None:
        """It is remembered over a restart, and told when a change ends it."""

        self.do(self.desk.add(EAST))
        east: Any = self.fleet["east"]
        self.assertFalse(east.isolated)
        east.isolated, east.isolation = True, "users"
        east.when_isolated()
        again = self.make_desk()
        self.do(again.load())
        east = self.fleet["east"]
        self.assertTrue(east.isolated)
        east.isolation = "users"
        told = self.do(again.change("east", {"port": 2222}))
        self.assertEqual((east.isolated, told["warnings"]), (True, []))
        told = self.do(again.change("east", {"users": "never"}))
        self.assertFalse(east.isolated)
        self.assertIn("now all run as ipmiproxyd", told["warnings"][0])
        self.do(again.change("east", {"users": "auto"}))
        self.assertFalse(east.isolated)

    def test_removing_with_force(self) -> None:
        """Nothing new begins there meanwhile, and others are not held up."""

        self.do(self.desk.add(EAST))
        self.do(self.desk.add(dataclasses.replace(EAST, name="west")))
        self.opened()
        self.consoles.gate = Deferred()
        removing: Deferred[Any] = Deferred.fromCoroutine(self.desk.remove("east", force=True))
        with self.assertRaises(NotFound):
            agent_named(self.fleet, "east")
        self.assertIn("being removed", self.refused(self.desk.remove("east", force=True), NotFound))
        self.refused(self.desk.add(EAST), Exists)
        self.do(self.desk.remove("west"))
        self.assertEqual(list(self.fleet), ["east"])
        self.assertNoResult(removing)
        self.consoles.gate.callback(None)
        self.assertEqual(self.successResultOf(removing), [])
        self.assertEqual((list(self.fleet), self.do(self.store.list(KIND))), ([], {}))
        self.do(self.desk.add(EAST))
        agent_named(self.fleet, "east")

    def test_consoles_that_cannot_be_closed(self) -> None:
        self.do(self.desk.add(EAST))
        self.opened(1)
        self.opened(2, ConsoleState.LOST)
        self.consoles.close_error = RuntimeError("out of order")
        (words,) = self.do(self.desk.remove("east", force=True))
        self.assertIn("c1, c2", words)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((list(self.fleet), self.do(self.store.list(KIND))), ([], {}))

    def test_what_is_remembered_goes_with_it(self) -> None:
        self.do(self.desk.add(EAST))
        east: Any = self.fleet["east"]
        east.isolated = True
        east.when_isolated()
        url = "https://10.0.0.17"
        for agent in ("east", "east2"):
            for kind, key in (
                ("vendor", f"{agent} {url}"),
                ("panel", f"10.0.0.17 {agent}"),
                ("panel", f"10.0.0.17 {agent} http any"),
                (BMC_REFUSED, f"10.0.0.17:623 {agent}"),
                (BMC_REFUSED, f"10.0.0.17:623 {agent} web"),
                ("java", agent),
            ):
                self.do(self.store.put(kind, key, {}))
        self.do(self.desk.remove("east"))
        left = [key for kind in ("vendor", "panel", BMC_REFUSED, "java") for key in self.do(self.store.list(kind))]
        self.assertEqual((len(left), [key for key in left if "east2" not in key]), (6, []))
        self.assertEqual(self.do(self.store.list(ISOLATED)), {})
