"""Provisioning as the desk sees it, and what a host may tell while it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pwd
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.console.provision_desk import GOES_ON, NO_CHANGE, NOTHING, NOTHING_THERE, ProvisionDesk
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
    SystemUnsupported,
    TimedOut,
    ToolMissing,
)
from ipmiproxyd.interfaces import Progress
from ipmiproxyd.model import Administrator, Errand, Outcome, Proxy, RemoteAgent, Report, Secret, Verb, Wanted
from ipmiproxyd.provision import bootstrap
from ipmiproxyd.provision.host import main as engine
from ipmiproxyd.provision.progress import MOST, WORDS, Listener
from ipmiproxyd.provision.provisioner import _KIN, Reached
from ipmiproxyd.wire.provision import ACCOUNT, PATH
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
        self.others: list[str] = []
        self.when_at_work: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def reach(self, agent: RemoteAgent, _: Administrator) -> AsyncIterator[FakeProvisioner]:
        self.name, self.agent = agent.name, agent
        self.reached += 1
        try:
            yield self
        finally:
            self.reached -= 1

    async def work(
        self, verb: Verb, _: Wanted, *, dry_run: bool = False, force: bool = False, progress: Progress
    ) -> Report:
        self.forced = force
        self.dry_run = dry_run
        self.at_work.append((verb, self.name, dry_run))
        progress({"stage": "look", "text": "Looking"})
        self.when_at_work()
        if self.gate is not None:
            await self.gate
        if self.error is not None:
            raise self.error
        return self.report

    async def kin(self) -> Sequence[str]:
        return self.others


class SomeJavas(FakeJavas):
    listing_error: Exception | None = None

    async def listing(self, agent: str) -> Mapping[str, Any]:
        if self.listing_error is not None:
            raise self.listing_error
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

    def provision(self, fields: Mapping[str, Any] = GIVEN, **more: Any) -> Deferred[Any]:
        return self.work("provision", fields=fields, **more)

    def unprovision(self, fields: Mapping[str, Any] = {}, **more: Any) -> Deferred[Any]:
        return self.work("unprovision", fields=fields, **more)

    def work(self, verb: Verb, *, name: str = "east", by: Administrator = ROOT, **more: Any) -> Deferred[Any]:
        errand = Errand(name=name, by=by, **more)
        return Deferred.fromCoroutine(getattr(self.provisioning, verb)(errand, self.told.append))

    def done(self, work: Deferred[Any]) -> Any:
        return self.successResultOf(work)

    def test_a_new_one(self) -> None:
        self.failureResultOf(self.provision({}), MissingArgument)
        for wrong in (
            Wanted(repository="http://x"), Wanted(javas=("../x",))
        ):  # fmt: skip
            self.failureResultOf(self.provision(wanted=wrong), BadValue)
        looked = self.done(self.provision(dry_run=True, wanted=Wanted(javas=("8",))))
        self.assertEqual((looked["changes"][0], len(looked["changes"])), ("The runner", 2))
        self.assertNotIn("east", self.fleet)
        self.assertEqual([told.get("broken_off") for told in self.told], [NO_CHANGE])
        self.told.clear()
        told = self.done(self.provision())
        self.assertEqual((told["changes"], told["from"], told["dry_run"]), (["The runner"], "store", False))
        self.assertIn("Mind the gap.", told["warnings"])
        self.assertEqual([told.get("broken_off") for told in self.told], [GOES_ON, None])
        self.assertEqual(self.told[-1], {"stage": "agent", "text": "Signing in as ipmiproxyd", "ms": 0})
        self.hosts.report = Report()
        again = self.done(self.provision({"host": EAST.host}))
        self.assertEqual((again["changes"], again["words"]), ([], NOTHING))
        self.assertEqual(again["warnings"], ["Consoles are open. Close them."])
        other = self.failureResultOf(self.provision({"user": "other"}), BadValue).value
        self.assertIn("another user", other.message)

    def test_the_browser_stays_what_it_was(self) -> None:
        told = self.done(self.provision({**GIVEN, "browser": "none"}))
        self.assertEqual((told["browser"], self.hosts.agent.browser), ("none", "none"))
        self.done(self.provision({}))
        self.assertEqual(self.hosts.agent.browser, "none")
        looked = self.done(self.provision({"browser": "chromium"}, dry_run=True))
        self.assertIn("What is stored of its browser: chromium", looked["changes"])
        self.assertEqual((looked["browser"], self.hosts.agent.browser), ("none", "chromium"))
        self.hosts.error = PackagesFailed("No disk.")
        self.failureResultOf(self.provision({"browser": "chromium"}), PackagesFailed)
        self.hosts.error = None
        self.assertEqual(self.done(self.provision({}))["browser"], "none")
        self.assertEqual(self.done(self.provision({"browser": "brave-browser"}))["browser"], "brave-browser")
        self.done(self.work("update"))
        self.assertEqual(self.hosts.agent.browser, "brave-browser")
        error = self.failureResultOf(self.provision({"browser": "firefox"}), BadValue).value
        self.assertIn("google-chrome-stable", error.message)

    def test_the_browser_of_one_of_the_configuration_file(self) -> None:
        self.desk = self.make_desk(EAST)
        self.do(self.desk.load())
        self.provisioning = ProvisionDesk(self.desk, self.javas, lambda: self.hosts, lambda: 5.0)
        self.done(self.provision({"browser": "chromium"}))
        self.failureResultOf(self.provision({"browser": "none"}), Forbidden)
        self.assertEqual(len(self.hosts.at_work), 1)

    def test_one_that_fails_is_not_stored(self) -> None:
        """What was changed there can be taken back all the same."""

        self.hosts.error = PackagesFailed("No disk.", hint="Buy one.")
        failed = self.failureResultOf(self.provision({**GIVEN, "passphrase": Secret("x y")}), PackagesFailed).value
        self.assertEqual((list(self.fleet), self.hosts.reached), ([], 0))
        line = f"agent unprovision name=east host={EAST.host} key=/k passphrase=- host_key={EAST.host_keys[0]}"
        self.assertEqual(failed.hint, f"Buy one. To take back what was changed there: {line}")
        self.assertIn("host=", self.failureResultOf(self.unprovision(), NotFound).value.hint)
        self.hosts.error = None
        gone = self.done(self.unprovision(GIVEN))
        self.assertEqual((gone["host"], self.hosts.at_work[-1]), (EAST.host, ("unprovision", "east", False)))
        self.failureResultOf(self.unprovision({"host": EAST.host}), MissingArgument)
        self.hosts.error = Busy("Somebody is at it.", hint="Wait.")
        self.assertEqual(self.failureResultOf(self.provision(), Busy).value.hint, "Wait.")

    def test_accounts_of_former_times(self) -> None:
        self.done(self.provision())
        self.do(self.desk.add(dataclasses.replace(EAST, name="west", user="west")))
        self.hosts.others = ["former", "west"]
        told = self.done(self.provision())
        (warning,) = [words for words in told["warnings"] if "unprovision" in words]
        self.assertIn(f"agent unprovision name=east-former host={EAST.host} key=/k user=former", warning)
        east: Any = self.fleet["east"]
        east.look_error = AgentUnreachable("The jobs there are somebody else's.")
        self.assertEqual(self.failureResultOf(self.provision(), AgentUnreachable).value.hint, warning)
        taken = self.failureResultOf(self.unprovision(GIVEN, name="other"), InUse).value
        self.assertIn("of the agent east", taken.message)
        self.done(self.unprovision({**GIVEN, "user": "former"}, name="east-former"))
        self.assertEqual(list(self.fleet), ["east", "west"])

    def test_what_no_host_would_understand(self) -> None:
        for wrong in ({"user": "a.b"}, {"user": "root"}, {"python": "python3"}, {"runner": "/opt/my dir/r.py"}):
            for work in (self.provision({**GIVEN, **wrong}), self.unprovision({**GIVEN, **wrong})):
                error = self.failureResultOf(work, BadValue).value
                self.assertIn(f"{next(iter(wrong))}: must be", error.message)
        for by, words in (
            (Administrator(user=""), "as: "),
            (Administrator(user="x y"), "as: "),
            (Administrator(key="relative"), "as_key: "),
            (Administrator(passphrase=Secret("x")), "as_passphrase="),
        ):
            for going in (self.provision(by=by), self.work("update", by=by), self.unprovision(GIVEN, by=by)):
                self.assertIn(words, self.failureResultOf(going, BadValue).value.message)
        self.assertEqual(self.hosts.at_work, [])
        self.assertEqual((ACCOUNT, PATH), (engine.NAME, engine.PATH))

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
        self.javas.listing_error = AgentUnreachable("It is away.")
        told = self.done(self.provision(wanted=Wanted(javas=("7",))))
        self.assertEqual((told["name"], told["warnings"][1]), ("east", "It is away."))

    def test_update(self) -> None:
        self.failureResultOf(self.work("update"), NotFound)
        self.done(self.provision())
        self.done(self.work("update"))
        self.assertEqual(self.hosts.at_work[-1], ("update", "east", False))

    def test_back_is_only_looked_at(self) -> None:
        self.done(self.provision())
        told = self.done(self.unprovision(dry_run=True))
        self.assertEqual((told["changes"], told["name"], told["dry_run"]), (["The runner"], "east", True))
        self.assertEqual((list(self.fleet), self.hosts.dry_run), (["east"], True))
        self.hosts.report = Report()
        self.assertEqual(self.done(self.unprovision(dry_run=True))["words"], NOTHING_THERE)
        self.stored_proxies.append(Proxy(name="p1", agent="east", locations=("x",)))
        self.failureResultOf(self.unprovision(dry_run=True), InUse)

    def test_back(self) -> None:
        self.done(self.provision())
        self.stored_proxies.append(Proxy(name="p1", agent="east", locations=("x",)))
        self.failureResultOf(self.unprovision(), InUse)
        self.hosts.error = AgentUnreachable("It is away.")
        before: Any = self.fleet["east"]
        self.hosts.when_at_work = lambda: self.assertTrue(before.is_closed)
        failed = self.failureResultOf(self.unprovision(force=True), AgentUnreachable).value
        self.assertIn("agent provision name=east", failed.hint)
        self.assertFalse(self.fleet["east"].is_closed)  # type: ignore[attr-defined]
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
        self.hosts.when_at_work = lambda: self.failureResultOf(Deferred.fromCoroutine(self.desk.add(EAST)), Busy)
        told = self.done(self.unprovision())
        self.assertEqual((told["kept"], list(self.fleet)), ("east", ["east"]))
        self.assertIn("configuration file", told["warnings"][-1])
        self.hosts.when_at_work = lambda: None
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

    def test_a_host_that_talks_without_end(self) -> None:
        kinds = [{"event": "stage", "name": "x"}, {"event": "change", "words": "x"}, {"event": "warning", "words": "x"}]
        flood = [event for event in kinds for _ in range(MOST + 50)]
        listener = self.listen(*flood, {"event": "done", "facts": {"tenants": ["ipmiproxyd", 7]}})
        report = listener.report(ended())
        self.assertEqual((len(report.changes), len(report.warnings), len(self.told)), (MOST, MOST, 2 * MOST))
        self.assertEqual(listener.tenants, ("ipmiproxyd",))

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


class KinTests(SynchronousTestCase):
    def test_whom_a_key_lets_in(self) -> None:
        home = Path(self.mktemp()) / ".ssh"
        home.mkdir(parents=True)
        keys = home / "authorized_keys"
        entry = pwd.struct_passwd(("a", "*", 1, 1, "", str(home.parent), "/bin/sh"))
        self.patch(pwd, "getpwnam", {"a": entry}.__getitem__)
        self.assertEqual(self.kin(), "")
        keys.write_text("restrict ssh-ed25519 AAAA daemon\n")
        self.assertEqual(self.kin(), "a\n")
        self.assertEqual(self.kin("AAA"), "")
        keys.unlink()
        os.mkfifo(keys)
        self.assertEqual(self.kin(), "")

    def kin(self, key: str = "AAAA") -> str:
        said = io.StringIO()
        names: dict[str, Any] = {}
        exec(_KIN, names)
        with contextlib.redirect_stdout(said):
            names["main"]({"users": ["nobody9", "a"], "keys": [key]})
        return said.getvalue()


class FakeAccount:
    """Of a host without Python."""

    def __init__(self, *, has_record: bool, system: str = "") -> None:
        self.has_python = False
        self.system = system
        self.has_record = has_record
        self.ran: list[tuple[str, ...]] = []

    async def run(self, argv: tuple[str, ...], *_: Any) -> Outcome:
        self.ran.append(argv)
        return Outcome(status=100, stderr=b"E: no way\n")


class PythonTests(SynchronousTestCase):
    """Where the host had none it is removed last, and that may have been broken off."""

    def undone(self, *, has_record: bool, dry_run: bool = False) -> tuple[FakeAccount, Deferred[Report]]:
        account = FakeAccount(has_record=has_record)
        reached = Reached(None, EAST, account, {})  # type: ignore[arg-type]
        work = reached.work("unprovision", Wanted(), dry_run=dry_run, progress=lambda _: None)
        return account, Deferred.fromCoroutine(work)

    def test_nothing_is_left(self) -> None:
        account, done = self.undone(has_record=False)
        self.assertEqual(self.successResultOf(done), Report())
        self.assertEqual(account.ran, [])

    def test_it_is_installed_again(self) -> None:
        account, done = self.undone(has_record=True)
        self.failureResultOf(done, PackagesFailed)
        self.assertEqual(account.ran, [bootstrap.argv("")])
        _, done = self.undone(has_record=True, dry_run=True)
        self.assertEqual(self.successResultOf(done).changes, (bootstrap.WOULD_UNDO,))

    def test_what_would_be_changed(self) -> None:
        """Without Python there little can be seen, and much is known all the same."""

        document = {
            "account": "ipmiproxyd", "users": "auto", "prefix": "easydcim_vnc_", "displays": [1, 2, 3],
            "browser": "chromium",
            "runner": {"path": "/usr/local/lib/ipmiproxyd/runner.py", "version": 2},
            "java_dir": "/srv/javas",
        }  # fmt: skip

        def looked(system: str, **more: Any) -> Deferred[Report]:
            account: Any = FakeAccount(has_record=False, system=system)
            reached = Reached(None, EAST, account, {**document, **more})
            return Deferred.fromCoroutine(reached.work("provision", Wanted(), dry_run=True, progress=lambda _: None))

        report = self.successResultOf(looked('ID=debian\nVERSION_ID="12"\n'))
        words = "\n".join(report.changes)
        for part in ("chromium", "openjdk-17-jre", "account ipmiproxyd", "easydcim_vnc_1 to easydcim_vnc_3", "runner"):
            self.assertIn(part, words)
        self.assertIn("/srv/javas", words)
        self.assertIn("no Python", report.warnings[0])
        report = self.successResultOf(looked("ID=debian\nVERSION_ID=13", users="never"))
        self.assertNotIn("runner", "\n".join(report.changes))
        self.failureResultOf(looked("ID=ubuntu\nVERSION_ID=24.04"), SystemUnsupported)
        report = self.successResultOf(looked("ID=ubuntu\nVERSION_ID=24.04", browser="none"))
        self.assertNotIn("chromium", "\n".join(report.changes))
        self.failureResultOf(looked("ID=fedora"), SystemUnsupported)
