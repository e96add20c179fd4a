"""Provisioning as the desk sees it, and what a host may tell while it goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.console.provision_desk import NOTHING, ProvisionDesk
from ipmiproxyd.errors import (
    AgentUnreachable,
    BadValue,
    Busy,
    Forbidden,
    InternalError,
    InUse,
    MissingArgument,
    NotFound,
    PackagesFailed,
    TimedOut,
    ToolMissing,
)
from ipmiproxyd.interfaces import Progress
from ipmiproxyd.model import Administrator, Outcome, Proxy, RemoteAgent, Report, Verb, Wanted
from ipmiproxyd.provision import bootstrap
from ipmiproxyd.provision.progress import WORDS, Listener
from ipmiproxyd.provision.provisioner import Reached
from tests.support.control_fakes import FakeJavas
from tests.unit.test_agents import EAST, DeskTestCase

ROOT = Administrator()
GIVEN = {"host": EAST.host, "key": EAST.key, "host_keys": EAST.host_keys}


class FakeProvisioner:
    """``gate`` holds its work back, ``error`` is raised by it; ``at_work`` holds what it did."""

    def __init__(self) -> None:
        self.gate: Deferred[None] | None = None
        self.error: Exception | None = None
        self.report = Report(("The runner",), ("Mind the gap.",))
        self.at_work: list[tuple[str, str, bool]] = []
        self.reached = 0

    @asynccontextmanager
    async def reach(self, agent: RemoteAgent, _: Administrator) -> AsyncIterator[FakeProvisioner]:
        self.name = agent.name
        self.reached += 1
        try:
            yield self
        finally:
            self.reached -= 1

    async def work(
        self, verb: Verb, _: Wanted, *, dry_run: bool = False, force: bool = False, progress: Progress
    ) -> Report:
        self.forced = force
        self.at_work.append((verb, self.name, dry_run))
        progress({"stage": "look", "text": "Looking"})
        if self.gate is not None:
            await self.gate
        if self.error is not None:
            raise self.error
        return self.report


class SomeJavas(FakeJavas):
    async def listing(self, agent: str) -> Mapping[str, Any]:
        found = [{"name": "jdk_8u121", "there": False}, {"name": "jdk_7u80", "there": True}]
        return {"installed": [{"name": "debian_17"}], "available": found, "agent": agent}

    async def install(self, agent: str, name: str) -> Mapping[str, Any]:
        if name != "jdk_7u80":
            raise ToolMissing(f"The archive of {name} is not there.", hint="Bring it there.")
        return await super().install(agent, name)


class DeskTests(DeskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.hosts = FakeProvisioner()
        self.javas = SomeJavas()
        self.provisioning = ProvisionDesk(self.desk, self.javas, lambda: self.hosts, lambda: 5.0)
        self.told: list[Mapping[str, Any]] = []

    def provision(self, fields: Mapping[str, Any] = GIVEN, name: str = "east", **more: Any) -> Deferred[Any]:
        wanted = more.pop("wanted", Wanted())
        work = self.provisioning.provision(name, fields, ROOT, wanted, progress=self.told.append, **more)
        return Deferred.fromCoroutine(work)

    def unprovision(self, **more: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.provisioning.unprovision("east", ROOT, **more))

    def done(self, work: Deferred[Any]) -> Any:
        return self.successResultOf(work)

    def test_a_new_one(self) -> None:
        self.failureResultOf(self.provision({}), MissingArgument)
        for wrong in (Wanted(browser="--x"), Wanted(repository="http://x")):
            self.failureResultOf(self.provision(wanted=wrong), BadValue)
        looked = self.done(self.provision(dry_run=True, wanted=Wanted(javas=("8",))))
        self.assertEqual((looked["changes"][0], len(looked["changes"])), ("The runner", 2))
        self.assertNotIn("east", self.fleet)
        told = self.done(self.provision())
        self.assertEqual((told["changes"], told["from"], told["dry_run"]), (["The runner"], "store", False))
        self.assertIn("Mind the gap.", told["warnings"])
        self.assertEqual(self.told[-1], {"stage": "agent", "text": "Signing in as ipmiproxyd", "ms": 0})
        self.hosts.report = Report()
        again = self.done(self.provision({"host": EAST.host}))
        self.assertEqual((again["changes"], again["words"]), ([], NOTHING))
        self.assertEqual(again["warnings"], ["Consoles are open. Close them."])
        other = self.failureResultOf(self.provision({"user": "other"}), BadValue).value
        self.assertIn("another user", other.message)

    def test_one_that_fails_is_not_stored(self) -> None:
        self.hosts.error = PackagesFailed("No disk.")
        self.failureResultOf(self.provision(), PackagesFailed)
        self.assertEqual((list(self.fleet), self.hosts.reached), ([], 0))

    def test_one_at_a_time(self) -> None:
        self.hosts.gate = Deferred()
        first = self.provision()
        self.failureResultOf(self.provision(), Busy)
        first.cancel()
        self.failureResultOf(first)
        self.hosts.gate = None
        self.done(self.provision())

    def test_javas(self) -> None:
        told = self.done(self.provision(wanted=Wanted(javas=("17", "7", "8"))))
        self.assertEqual(told["changes"], ["The runner", "The Java jdk_7u80"])
        self.assertIn("The archive of 8 is not there. Bring it there.", told["warnings"])

    def test_update(self) -> None:
        update = Deferred.fromCoroutine(self.provisioning.update("east", ROOT))
        self.failureResultOf(update, NotFound)
        self.done(self.provision())
        self.done(Deferred.fromCoroutine(self.provisioning.update("east", ROOT)))
        self.assertEqual(self.hosts.at_work[-1], ("update", "east", False))

    def test_back(self) -> None:
        self.done(self.provision())
        self.stored_proxies.append(Proxy(name="p1", agent="east", locations=("x",)))
        self.failureResultOf(self.unprovision(), InUse)
        self.hosts.error = AgentUnreachable("It is away.")
        self.failureResultOf(self.unprovision(force=True), AgentUnreachable)
        self.assertEqual((list(self.fleet), self.fleet.leaving), (["east"], set()))
        self.hosts.error = None
        self.assertEqual(self.done(self.unprovision(force=True, keep=True))["kept"], "east")
        self.hosts.gate = Deferred()
        going = self.unprovision(force=True)
        going.cancel()
        self.failureResultOf(going)
        self.assertEqual(self.hosts.reached, 1)
        self.hosts.gate.callback(None)
        self.assertEqual((list(self.fleet), self.do(self.store.list("agent"))), ([], {}))

    def test_one_of_the_configuration_file(self) -> None:
        self.desk = self.make_desk(EAST)
        self.do(self.desk.load())
        self.provisioning = ProvisionDesk(self.desk, self.javas, lambda: self.hosts, lambda: 5.0)
        self.done(self.provision({}))
        told = self.done(self.unprovision())
        self.assertEqual((told["kept"], list(self.fleet)), ("east", ["east"]))
        self.assertIn("configuration file", told["warnings"][-1])
        self.fleet["east"].kind = "local"  # type: ignore[misc]
        self.failureResultOf(self.provision({}), Forbidden)


def ended(stderr: bytes = b"", *, timed_out: bool = False) -> Outcome:
    return Outcome(status=1, stderr=stderr, timed_out=timed_out)


class ListenerTests(SynchronousTestCase):
    def listen(self, *events: Any) -> Listener:
        self.told: list[Mapping[str, Any]] = []
        listener = Listener("east", self.told.append, lambda: 1.0, dry_run=False)
        for event in events:
            listener.line(event if isinstance(event, bytes) else json.dumps(event).encode())
        return listener

    def test_what_is_told(self) -> None:
        listener = self.listen(
            {"event": "stage", "name": "packages", "text": "Installing"},
            *({"event": "progress", "name": "packages", "percent": at, "text": "Unpacking"} for at in (41.66, 90)),
            {"event": "change", "stage": "packages", "words": "The package a"},
            {"event": "warning", "words": "Mind."},
            {"event": "done", "changed": ["The package a"], "facts": {}},
        )
        self.assertEqual(listener.report(ended()), Report(("The package a",), ("Mind.",)))
        self.assertEqual(
            self.told,
            [
                {"stage": "packages", "text": "Installing"},
                {"stage": "packages", "text": "Unpacking", "percent": 41.7},
                {"stage": "packages", "text": "The package a"},
            ],
        )

    def test_a_host_that_talks_nonsense(self) -> None:
        listener = self.listen(
            b"\xff", b"[]", b"{", {"event": ["x"]}, {"event": "line"}, {"event": "progress", "percent": True},
            {"event": "stage", "text": 5 * [1]}, {"event": "warning", "words": "x" * 9999}, {"event": "done"},
        )  # fmt: skip
        (warning,) = listener.report(ended()).warnings
        self.assertEqual((len(warning), self.told), (WORDS, [{"stage": "", "text": ""}]))

    def test_failures(self) -> None:
        failed = {"event": "failed", "code": "packages-failed", "message": "No disk", "hint": "Buy one."}
        for events, outcome, kind, words in (
            ([failed], ended(), PackagesFailed, ("No disk.", "Buy one.")),
            ([{**failed, "code": "bmc-auth", "hint": ""}], ended(), InternalError, ("No disk.", "same line")),
            ([], ended(b"Killed\n"), AgentUnreachable, ("Killed.", "same line")),
            ([], ended(timed_out=True), TimedOut, ("in time.", "same line")),
        ):
            with self.assertRaises(kind) as caught:
                self.listen(*events).report(outcome)
            self.assertIn(words[0], caught.exception.message)
            self.assertIn(words[1], caught.exception.hint)


class FakeAccount:
    """Of a host without Python. ``left`` is what is said of its record."""

    def __init__(self, left: bytes) -> None:
        self.has_python = False
        self.left = left
        self.ran: list[tuple[str, ...]] = []

    async def run(self, argv: tuple[str, ...], *_: Any) -> Outcome:
        self.ran.append(argv)
        if argv == bootstrap.LOOK:
            return Outcome(status=0, stdout=self.left)
        return Outcome(status=100, stderr=b"E: no way\n")


class PythonTests(SynchronousTestCase):
    """Where the host had none it is removed last, and that may have been broken off."""

    def undone(self, left: bytes, *, dry_run: bool = False) -> tuple[FakeAccount, Deferred[Report]]:
        account = FakeAccount(left)
        reached = Reached(None, EAST, account, {})  # type: ignore[arg-type]
        work = reached.work("unprovision", Wanted(), dry_run=dry_run, progress=lambda _: None)
        return account, Deferred.fromCoroutine(work)

    def test_nothing_is_left(self) -> None:
        account, done = self.undone(b"nothing\n")
        self.assertEqual(self.successResultOf(done), Report())
        self.assertEqual(account.ran, [bootstrap.LOOK])

    def test_it_is_installed_again(self) -> None:
        account, done = self.undone(b"")
        self.failureResultOf(done, PackagesFailed)
        self.assertEqual(account.ran[1:], [bootstrap.argv("")])
        _, done = self.undone(b"", dry_run=True)
        self.assertEqual(self.successResultOf(done).changes, (bootstrap.WOULD["unprovision"],))
