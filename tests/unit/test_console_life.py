"""The life of consoles over a fake agent, a fake relay and a fake clock."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred, fail

from ipmiproxyd.console.admission import Limits
from ipmiproxyd.console.machine import Ending
from ipmiproxyd.console.session import RETRY_AFTER, ConsoleSession
from ipmiproxyd.errors import (
    AgentUnreachable,
    BmcState,
    Cancelled,
    JobFailed,
    LimitReached,
    NoFreeDisplay,
    NoFreePort,
    NotFound,
)
from ipmiproxyd.model import Console, ConsoleState, Device, Job, OpenRequest, UnixStream
from tests.support.console_life import NODE, Life
from tests.support.control_fakes import viewer
from tests.support.fake_rooms import FakeRelay


class AgentTests(Life):
    def test_away(self) -> None:
        console = self.opened()
        self.assertFalse(console.agent_away)
        self.away.add(console.agent)
        self.assertTrue(self.manager.show(console.id).agent_away)

    def test_its_removal_is_the_reason(self) -> None:
        console = self.opened()
        self.leaving.add(console.agent)
        closing = Deferred.fromCoroutine(self.manager.close(console_id=console.id))
        self.settle()
        (closed,) = self.successResultOf(closing)
        self.assertEqual(closed.reason, "agent-removed")
        self.assertEqual(closed.message, f"The agent {console.agent}, on which it ran, was removed.")


class OpeningTests(Life):
    def test_stages_are_told_in_order(self) -> None:
        console = self.opened()
        self.assertEqual([message["stage"] for message in self.told], ["page", "display", "app"])
        self.assertIs(console.state, ConsoleState.READY)
        self.assertTrue(all(stage.done_ms is not None for stage in console.stages))
        self.assertEqual((console.display, console.relay_port), (1, 6081))

    def test_url_has_a_token_for_this_console(self) -> None:
        answer = self.successResultOf(self.begin())
        token = answer["url"].partition("#t=")[2]
        self.assertIsNone(self.grants.redeem("another", token))
        answer = {"url": self.manager.url(answer["console"].id), **{"console": answer["console"]}}
        key = self.grants.redeem(answer["console"].id, answer["url"].partition("#t=")[2])
        assert key is not None
        self.assertIsNotNone(self.grants.check(answer["console"].id, key))

    def test_without_waiting_the_url_comes_at_once(self) -> None:
        self.agent.gate = Deferred()
        answer = self.successResultOf(self.begin(wait=False))
        self.assertIs(answer["console"].state, ConsoleState.OPENING)
        self.agent.gate.callback(None)
        self.settle()
        self.assertIs(self.manager.show(answer["console"].id).state, ConsoleState.READY)

    def test_display_is_dialled_only_when_ready(self) -> None:
        self.agent.gate = Deferred()
        self.begin()
        with self.assertRaises(BmcState):
            self.relay.opened[0].console.screen()

    def test_failure_gives_everything_back_before_it_is_told(self) -> None:
        self.agent.launch_error = JobFailed("Xvnc ended by itself.", hint="Look at the log.")
        failure = self.failureResultOf(self.begin(), JobFailed)
        self.assertEqual((failure.value.message, failure.value.hint), ("Xvnc ended by itself.", "Look at the log."))
        self.assert_nothing_left()

    def test_unexpected_error_is_internal(self) -> None:
        self.agent.launch_error = ZeroDivisionError()
        failure = self.failureResultOf(self.begin())
        self.assertEqual(failure.value.code, "internal")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_nothing_left()

    def test_no_port(self) -> None:
        self.relay.free = []
        self.failureResultOf(self.begin(), NoFreePort)
        self.assert_nothing_left()

    def test_no_display(self) -> None:
        consoles = [self.opened(existing="new") for _ in self.displays]
        self.failureResultOf(self.begin(existing="new"), NoFreeDisplay)
        self.close(consoles[2])
        self.assertEqual(self.opened(existing="new").display, consoles[2].display)

    def test_display_of_somebody_else_is_passed_over(self) -> None:
        self.agent.foreign = {1, 2}
        self.assertEqual(self.opened().display, 3)
        self.assertEqual(self.pool.in_use, 1)

    def test_unknown_agent(self) -> None:
        request = OpenRequest(device=NODE, agent="mars")
        self.failureResultOf(Deferred.fromCoroutine(self.manager.open(request, self.told.append)), NotFound)

    def test_client_hangs_up(self) -> None:
        self.agent.gate = Deferred()
        opening = self.begin()
        opening.cancel()
        self.failureResultOf(opening)
        self.settle()
        self.assertEqual(len(self.agent.cancelled), 1)
        self.assertEqual(self.reason(self.past()), "cancelled")
        self.assert_nothing_left()

    def past(self) -> Console:
        return self.manager.show(self.agent.launched[-1].id)

    def test_hang_up_of_one_of_two_that_wait(self) -> None:
        self.agent.gate = Deferred()
        first, second = self.begin(), self.begin()
        first.cancel()
        self.failureResultOf(first)
        self.agent.gate.callback(None)
        self.settle()
        self.assertTrue(self.successResultOf(second)["reused"])

    def test_closed_by_another_while_opening(self) -> None:
        self.agent.gate = Deferred()
        opening = self.begin()
        self.close(self.manager.list()[0])
        self.failureResultOf(opening, Cancelled)
        self.assert_nothing_left()

    def test_everything_is_recorded_before_it_is_acquired(self) -> None:
        self.agent.gate = Deferred()
        self.begin()
        ledger = self.successResultOf(Deferred.fromCoroutine(self.store.list("ledger")))
        self.assertEqual(
            [document["kind"] for document in ledger.values()], ["relay-port", "grants", "display", "job"]
        )


class ExistingTests(Life):
    def test_reuse(self) -> None:
        one = self.successResultOf(self.begin())
        two = self.successResultOf(self.begin())
        self.assertEqual(one["console"].id, two["console"].id)
        self.assertEqual((one["reused"], two["reused"]), (False, True))
        self.assertNotEqual(one["url"], two["url"])

    def test_another_user_gets_another_console(self) -> None:
        self.assertNotEqual(self.opened(user="ann").id, self.opened(user="bob").id)

    def test_new(self) -> None:
        self.assertNotEqual(self.opened().id, self.opened(existing="new").id)

    def test_replace(self) -> None:
        old = self.opened()
        new = self.opened(existing="replace")
        self.assertNotEqual(old.id, new.id)
        self.assertEqual(self.reason(old), "replaced")
        self.assertEqual(len(self.agent.running), 1)


    def test_replace_by_several_at_once(self) -> None:
        """They all wait for the same console to go."""

        self.opened()
        self.agent.stop_gate = Deferred()
        replacing = [self.begin(existing="replace") for _ in range(3)]
        self.agent.stop_gate.callback(None)
        self.settle()
        self.assertEqual(len(self.manager.list()), 1)
        outcomes = [opening.addErrback(lambda failure: failure.trap(Cancelled)) for opening in replacing]
        self.assertNotEqual([self.successResultOf(outcome) for outcome in outcomes], [Cancelled] * 3)


class LimitTests(Life):
    limits = Limits(total=3, per_agent=0, per_user=1, unvisited=120, abandoned=300)

    def test_total(self) -> None:
        for _ in range(3):
            self.opened(existing="new")
        failure = self.failureResultOf(self.begin(existing="new"), LimitReached)
        self.assertIn("3 consoles are open in all", failure.value.message)

    def test_per_user(self) -> None:
        self.opened(user="ann")
        self.failureResultOf(self.begin(user="ann", existing="new"), LimitReached)
        self.opened(user="bob")


class ClosingTests(Life):
    def test_close_by_id(self) -> None:
        self.close(self.opened())
        self.assert_nothing_left()

    def test_close_twice(self) -> None:
        console = self.opened()
        self.close(console)
        self.close(console)

    def test_close_by_device_and_by_user(self) -> None:
        self.opened(user="ann")
        other = Device(name="node18", address="192.0.2.18")
        self.opened(user="bob", device=other)
        closing = Deferred.fromCoroutine(self.manager.close(device="node17"))
        self.settle()
        self.assertEqual([console.user for console in self.successResultOf(closing)], ["ann"])
        closing = Deferred.fromCoroutine(self.manager.close(user="bob"))
        self.settle()
        self.assertEqual(len(self.successResultOf(closing)), 1)
        self.assert_nothing_left()

    def test_unknown_id(self) -> None:
        self.failureResultOf(Deferred.fromCoroutine(self.manager.close(console_id="nope")), NotFound)

    def test_a_second_cancellation_does_not_cut_it_short(self) -> None:
        console = self.opened()
        self.agent.stop_gate = Deferred()
        for _ in range(2):
            closing = Deferred.fromCoroutine(self.manager.close(console_id=console.id))
            closing.cancel()
            self.failureResultOf(closing)
        self.agent.stop_gate.callback(None)
        self.assert_nothing_left()

    def test_viewer_presses_close(self) -> None:
        console = self.opened()
        self.relay.opened[0].console.close_by_viewer()
        self.assertEqual(self.relay.opened[0].closed_with, ("viewer", "The console was closed on its own page."))
        self.settle()
        self.assertEqual(self.reason(console), "viewer")
        self.assert_nothing_left()

    def test_program_dies(self) -> None:
        console = self.opened()
        job = self.agent.running[console.id]
        self.agent.ended(replace(job, running=False, reason="chromium ended by itself."))
        self.settle()
        self.assertEqual(self.manager.show(console.id).message, "chromium ended by itself.")
        self.assert_nothing_left()

    def test_program_died_while_the_agent_was_away(self) -> None:
        """The watch may be slower than the sweep."""

        console = self.opened()
        self.agent.gate = Deferred()
        opening = self.begin(existing="new")
        for job in list(self.agent.running.values()):
            self.agent.running[job.id] = replace(job, running=False, reason="chromium ended by itself.")
        self.reconcile()
        self.assertEqual(self.manager.show(console.id).message, "chromium ended by itself.")
        self.agent.gate.callback(None)
        self.settle()
        self.close(self.successResultOf(opening)["console"])  # its end would be for the launch to tell
        self.assert_nothing_left()

    def test_agent_away_then_back(self) -> None:
        console = self.opened()
        self.agent.stop_errors = [AgentUnreachable("The agent does not answer.")]
        self.close(console)
        shown = self.manager.show(console.id)
        self.assertIs(shown.state, ConsoleState.LOST)
        self.assertIn("may still run on the agent local: they are ended when that is back", shown.message)
        self.reconcile()
        self.assertNotIn("may still run", self.manager.show(console.id).message)
        self.assert_nothing_left()

    def test_nothing_was_begun(self) -> None:
        """The agent answers, and has no runner that works."""

        self.agent.stop_errors = [AgentUnreachable("The runner does not work.")]
        self.patch(self.agent, "launch", lambda *_: fail(AgentUnreachable("The runner does not work.")))
        self.failureResultOf(self.begin(), AgentUnreachable)
        self.assert_nothing_left()

    def test_agent_of_two_names(self) -> None:
        """One of them, that is there, ends nothing of the other's."""

        console = self.opened()
        self.agent.name = "twin"
        self.reconcile()
        self.assertEqual((list(self.agent.running), self.agent.stopped), ([console.id], []))
        self.agent.name = "local"
        self.close(console)
        self.assert_nothing_left()

    def test_when_changed(self) -> None:
        console = self.relay_console()
        serial = console.snapshot().serial
        waiting = console.when_changed(serial)
        self.assertNoResult(waiting)
        console.viewers_changed([viewer()])
        self.settle()
        self.successResultOf(waiting)
        cancelled = console.when_changed(console.snapshot().serial)
        cancelled.cancel()
        self.failureResultOf(cancelled)
        console.viewers_changed([])
        self.settle()

    def test_waiting_that_is_given_up_is_forgotten(self) -> None:
        console = self.relay_console()
        for _ in range(1000):
            waiting = console.when_changed(console.snapshot().serial)
            waiting.cancel()
            self.failureResultOf(waiting)
        self.assertLess(len(console._waiters), 10)

    def test_display_is_free_only_after_its_job(self) -> None:
        console = self.opened()
        self.agent.stop_gate = Deferred()
        closing = Deferred.fromCoroutine(self.manager.close(console_id=console.id))
        self.settle()
        self.assertEqual(self.pool.in_use, 1)
        self.agent.stop_gate.callback(None)
        self.settle()
        self.successResultOf(closing)
        self.assert_nothing_left()

    def relay_console(self) -> ConsoleSession:
        self.opened()
        console = self.relay.opened[-1].console
        assert isinstance(console, ConsoleSession)
        return console


class PatienceTests(Life):
    def test_nobody_comes(self) -> None:
        console = self.opened()
        self.clock.advance(119)
        self.assertIs(self.manager.show(console.id).state, ConsoleState.READY)
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.reason(console), "abandoned")
        self.assert_nothing_left()

    def test_everybody_left(self) -> None:
        console = self.opened()
        viewed = self.relay.opened[0].console
        viewed.viewers_changed([viewer()])
        self.clock.advance(200)
        viewed.viewers_changed([])
        self.clock.advance(299)
        self.assertIs(self.manager.show(console.id).state, ConsoleState.READY)
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.reason(console), "abandoned")

    def test_a_viewer_who_comes_back_in_time(self) -> None:
        console = self.opened(idle=None)
        viewed = self.relay.opened[0].console
        viewed.viewers_changed([viewer()])
        viewed.viewers_changed([])
        self.clock.advance(299)
        viewed.viewers_changed([viewer()])
        self.clock.advance(100_000)
        self.assertIs(self.manager.show(console.id).state, ConsoleState.READY)

    def test_idle_means_the_user(self) -> None:
        console = self.opened(idle=600.0)
        viewed = self.relay.opened[0].console
        viewed.viewers_changed([viewer()])
        for _ in range(5):
            self.clock.advance(500)
            viewed.user_active()
        self.assertIs(self.manager.show(console.id).state, ConsoleState.READY)
        self.clock.advance(600)
        self.settle()
        self.assertEqual(self.reason(console), "idle")
        self.assertIn("10 minutes", self.manager.show(console.id).message)

    def test_whoever_gets_the_url_has_time_to_come(self) -> None:
        console = self.opened()
        self.clock.advance(119)
        self.assertTrue(self.successResultOf(self.begin())["reused"])
        self.clock.advance(119)
        self.assertIs(self.manager.show(console.id).state, ConsoleState.READY)
        self.manager.url(console.id)
        self.clock.advance(119)
        self.assertIs(self.manager.show(console.id).state, ConsoleState.READY)
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.reason(console), "abandoned")

    def test_the_last_minute_is_told(self) -> None:
        console = self.opened(idle=600.0)
        viewed = self.relay.opened[0].console
        viewed.viewers_changed([viewer()])
        self.clock.advance(539)
        self.assertIsNone(viewed.snapshot().closes_in)
        told = viewed.when_changed(viewed.snapshot().serial)
        self.clock.advance(1)
        self.settle()
        self.successResultOf(told)
        self.assertEqual((viewed.snapshot().closes_in, viewed.snapshot().closes_why), (60.0, "idle"))
        self.clock.advance(50)
        told = viewed.when_changed(viewed.snapshot().serial)
        viewed.user_active()
        self.settle()
        self.successResultOf(told)
        self.assertIsNone(viewed.snapshot().closes_in)
        self.clock.advance(599)
        self.assertIs(self.manager.show(console.id).state, ConsoleState.READY)
        self.assertEqual(viewed.snapshot().closes_in, 1.0)
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.reason(console), "idle")

    def test_extended(self) -> None:
        console = self.opened(idle=600.0, max_time=3600.0)
        self.relay.opened[0].console.viewers_changed([viewer()])
        self.clock.advance(599)
        self.assertEqual(self.manager.extend(console.id, 1800.0).max_time, 5400.0)
        for _ in range(8):
            self.clock.advance(599)
            self.relay.opened[0].console.user_active()
        self.clock.advance(8)
        self.assertIs(self.manager.show(console.id).state, ConsoleState.READY)
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.reason(console), "max-time")
        with self.assertRaisesRegex(NotFound, "is closed"):
            self.manager.extend(console.id, 1.0)

    def test_longest_time(self) -> None:
        console = self.opened(idle=None, max_time=3600.0)
        self.relay.opened[0].console.viewers_changed([viewer()])
        self.clock.advance(3600)
        self.settle()
        self.assertEqual(self.reason(console), "max-time")


class RestartTests(Life):
    def test_crash_with_open_consoles(self) -> None:
        """Neither the manager nor the relay port of the dead daemon takes part in what follows."""

        self.opened()
        self.opened(existing="new")
        self.agent.gate = Deferred()
        self.begin(existing="new")
        self.assertEqual(len(self.agent.running), 3)
        self.clock.calls.clear()
        self.assertEqual(self.restart(), 3)
        self.assertEqual(self.agent.running, {})
        self.assert_nothing_left()

    def test_job_that_no_console_knows(self) -> None:
        self.agent.running["stray"] = Job(id="stray", display=9, running=True, vnc=UnixStream("/x"), user="nobody")
        self.restart()
        self.assertEqual(self.agent.stopped, ["stray"])

    def test_what_is_cleared_away_on_request(self) -> None:
        self.opened()
        self.agent.running["stray"] = Job(id="stray", display=9, running=True, vnc=UnixStream("/x"), user="nobody")
        told = self.successResultOf(Deferred.fromCoroutine(self.manager.tidy(self.agent)))
        self.assertEqual((told, self.agent.stopped), (["job stray: it belonged to no console"], ["stray"]))

    def test_agent_has_another_name_now(self) -> None:
        self.opened()
        self.clock.calls.clear()
        self.agent.name = "renamed"
        self.restart()
        self.assertEqual(self.agent.running, {})
        self.assert_nothing_left()

    def test_agent_away_at_the_start(self) -> None:
        self.opened()
        self.clock.calls.clear()
        self.agent.stop_errors = [AgentUnreachable("The agent does not answer.") for _ in range(2)]
        self.restart()
        self.assertEqual([console.state for console in self.manager.list()], [ConsoleState.LOST])
        self.clock.advance(RETRY_AFTER)
        self.assert_nothing_left()

    def test_agent_that_comes_later(self) -> None:
        """Nothing waits for it, and once it is there it is not left waiting."""

        self.opened()
        self.clock.calls.clear()
        self.agent.stop_gate = Deferred()
        self.relay = FakeRelay()
        self.manager = self.make_manager()
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.manager.recover())), 1)
        gate, self.agent.stop_gate = self.agent.stop_gate, None
        gate.errback(AgentUnreachable("The agent does not answer."))
        self.settle()
        self.assertEqual([console.state for console in self.manager.list()], [ConsoleState.LOST])
        self.reconcile()
        self.assert_nothing_left()

    def test_a_trial_is_left_alone(self) -> None:
        self.agent.running["trial1"] = Job(id="trial1", display=1, running=True, vnc=UnixStream("/v"), user="", log="")
        self.trials.add("trial1")
        self.reconcile()
        self.assertEqual(self.agent.stopped, [])
        self.trials.clear()
        self.reconcile()
        self.assertEqual(self.agent.stopped, ["trial1"])

    def test_keep(self) -> None:
        self.opened()
        leaving = Deferred.fromCoroutine(self.manager.leave())
        self.settle()
        self.successResultOf(leaving)
        self.assertEqual(len(self.agent.running), 1)
        self.assertEqual(self.relay.opened[0].closed_with, ("restart", "The gateway is being restarted."))
        self.assertEqual(self.restart(), 1)
        self.assert_nothing_left()

    def test_close_all(self) -> None:
        self.opened()
        self.agent.gate = Deferred()
        opening = self.begin(existing="new")
        closing = Deferred.fromCoroutine(self.manager.close_all(Ending("shutdown", "The gateway was stopped.")))
        self.settle()
        self.successResultOf(closing)
        self.failureResultOf(opening, Cancelled)
        self.assert_nothing_left()
