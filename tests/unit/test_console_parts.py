"""The console's parts on their own: machine, deadlines, displays, ledger."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.console.deadlines import Patience, Presence, next_deadline, words
from ipmiproxyd.console.displays import FOREIGN_REST, DisplayPool
from ipmiproxyd.console.ledger import RELEASE_LIMIT, Ledger
from ipmiproxyd.console.machine import Ending, Steps, make_machine
from ipmiproxyd.console.timing import limited
from ipmiproxyd.errors import AgentUnreachable, NoFreeDisplay, ProxyError, TimedOut
from ipmiproxyd.model import ConsoleState, LedgerRecord
from tests.support.memory_store import MemoryStore

DONE = Ending("closed", "The console was closed.")


class MachineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.steps_taken: list[str] = []

        def step(name: str) -> None:
            self.steps_taken.append(name)

        self.steps = Steps(
            entered=lambda: step("entered"),
            watch=lambda: step("watch"),
            cancel_opening=lambda: step("cancel"),
            give_back=lambda: step("give back"),
            retry_later=lambda: step("retry later"),
        )
        self.machine = make_machine(self.steps)

    def test_the_whole_life(self) -> None:
        self.assertIs(self.machine.state(), ConsoleState.OPENING)
        self.machine.opened()
        self.assertIs(self.machine.state(), ConsoleState.READY)
        self.machine.close(DONE)
        self.assertIs(self.machine.state(), ConsoleState.CLOSING)
        self.machine.given_back()
        self.assertIs(self.machine.state(), ConsoleState.CLOSED)
        self.assertEqual(self.steps_taken, ["watch", "entered", "give back", "entered", "entered"])

    def test_closed_while_opening(self) -> None:
        self.machine.close(DONE)
        self.assertEqual(self.steps_taken, ["cancel", "give back", "entered"])

    def test_first_reason_stands(self) -> None:
        self.machine.opened()
        self.machine.close(DONE)
        self.machine.close(Ending("idle", "…"))
        self.assertIs(self.steps.ending, DONE)
        self.assertEqual(self.steps_taken.count("give back"), 1)

    def test_lost_is_tried_again(self) -> None:
        self.machine.close(DONE)
        self.machine.stuck()
        self.assertIs(self.machine.state(), ConsoleState.LOST)
        self.assertIn("retry later", self.steps_taken)
        self.machine.again()
        self.assertIs(self.machine.state(), ConsoleState.CLOSING)
        self.machine.given_back()
        self.assertIs(self.machine.state(), ConsoleState.CLOSED)

    def test_late_inputs_are_harmless(self) -> None:
        self.machine.close(DONE)
        self.machine.given_back()
        self.machine.close(DONE)
        self.machine.again()
        self.assertIs(self.machine.state(), ConsoleState.CLOSED)


class DeadlineTests(SynchronousTestCase):
    patience = Patience(unvisited=120, abandoned=300, idle=600, max_time=None)

    def deadline(self, patience: Patience | None = None, **presence: float | int | None) -> tuple[float, str]:
        facts: dict[str, object] = {
            "opened_at": 0.0, "expected_at": 10.0, "last_activity": 10.0, "viewers": 0, "left_at": None
        }
        found = next_deadline(patience or self.patience, Presence(**{**facts, **presence}))  # type: ignore[arg-type]
        assert found is not None
        return found[0], found[1].reason

    def test_nobody_came(self) -> None:
        self.assertEqual(self.deadline(), (130.0, "abandoned"))

    def test_everybody_left(self) -> None:
        self.assertEqual(self.deadline(left_at=50.0), (350.0, "abandoned"))

    def test_idle_counts_from_the_last_activity(self) -> None:
        self.assertEqual(self.deadline(viewers=1, last_activity=42.0), (642.0, "idle"))

    def test_longest_time(self) -> None:
        patience = Patience(120, 300, None, 100.0)
        self.assertEqual(self.deadline(patience, viewers=2), (100.0, "max-time"))

    def test_never(self) -> None:
        patience = Patience(120, 300, None, None)
        self.assertIsNone(next_deadline(patience, Presence(0.0, 10.0, 10.0, 1, None)))

    def test_words(self) -> None:
        self.assertEqual(words(600), "10 minutes")
        self.assertEqual(words(5400), "1 hour 30 minutes")
        self.assertEqual(words(1), "1 second")
        self.assertEqual(words(0.2), "0 seconds")


class LimitedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.work: Deferred[int] = Deferred()

    def begin(self, error: ProxyError | None = None) -> Deferred[int]:
        return Deferred.fromCoroutine(limited(self.work, 5.0, self.clock, error))

    def test_in_time(self) -> None:
        waiting = self.begin()
        self.clock.advance(4.9)
        self.work.callback(7)
        self.assertEqual(self.successResultOf(waiting), 7)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        waiting = self.begin()
        self.clock.advance(5)
        self.assertEqual(self.failureResultOf(waiting, TimedOut).value.message, "it took longer than 5 seconds")
        self.work = Deferred()
        waiting = self.begin(AgentUnreachable("It is away."))
        self.clock.advance(5)
        self.failureResultOf(waiting, AgentUnreachable)

    def test_given_up(self) -> None:
        waiting = self.begin()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DisplayPoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = DisplayPool(1, 3, self.clock)

    def test_exhausted(self) -> None:
        self.assertEqual([self.pool.take(name) for name in "abc"], [1, 2, 3])
        with self.assertRaisesRegex(NoFreeDisplay, "All 3 displays"):
            self.pool.take("d")

    def test_rested_longest_first(self) -> None:
        self.pool.give_back(self.pool.take("a"), "a")
        self.assertEqual(self.pool.take("b"), 2)

    def test_only_its_holder_gives_it_back(self) -> None:
        self.pool.take("a")
        self.pool.give_back(1, "b")
        self.assertEqual(self.pool.in_use, 1)

    def test_foreign_display_is_left_alone_for_a_while(self) -> None:
        for display in (1, 2, 3):
            self.pool.held_by_others(display)
        with self.assertRaises(NoFreeDisplay):
            self.pool.take("a")
        self.clock.advance(FOREIGN_REST)
        self.assertEqual(self.pool.take("a"), 1)


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.released: list[str] = []
        self.error: Exception | None = None
        self.hang: Deferred[None] | None = None
        self.ledger = self.make_ledger()

    def make_ledger(self) -> Ledger:
        async def release(record: LedgerRecord) -> None:
            if self.error is not None and record.key == "bad":
                raise self.error
            if self.hang is not None and record.key == "bad":
                await self.hang
            self.released.append(f"{record.kind} {record.key} {record.data.get('n', '')}".strip())

        return Ledger("c1", self.store, {"job": release, "port": release}, self.clock)

    def record(self, kind: str, key: str, **data: int) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.ledger.record(kind, key, data)))

    def test_latest_first_and_then_empty(self) -> None:
        self.record("port", "6081")
        self.record("job", "c1", n=7)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.ledger.give_back())), [])
        self.assertEqual(self.released, ["job c1 7", "port 6081"])
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.store.list("ledger"))), {})

    def test_another_process_needs_only_the_records(self) -> None:
        self.record("port", "6081")
        another = self.make_ledger()
        self.successResultOf(Deferred.fromCoroutine(another.give_back()))
        self.assertEqual(self.released, ["port 6081"])

    def test_a_failure_does_not_keep_the_others(self) -> None:
        self.record("port", "6081")
        self.record("job", "bad")
        self.error = AgentUnreachable("The agent does not answer.")
        problems = self.successResultOf(Deferred.fromCoroutine(self.ledger.give_back()))
        self.assertEqual(problems, ["job bad: The agent does not answer."])
        self.assertEqual(self.released, ["port 6081"])
        self.error = None
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.ledger.give_back())), [])
        self.assertEqual(self.released, ["port 6081", "job bad"])

    def test_an_unexpected_error_is_logged_and_kept(self) -> None:
        self.record("job", "bad")
        self.error = ZeroDivisionError("oops")
        problems = self.successResultOf(Deferred.fromCoroutine(self.ledger.give_back()))
        self.assertEqual(len(problems), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_release_has_a_time_limit(self) -> None:
        self.record("job", "bad")
        self.hang = Deferred()
        work = Deferred.fromCoroutine(self.ledger.give_back())
        self.assertNoResult(work)
        self.clock.advance(RELEASE_LIMIT)
        self.assertIn("longer than 20 seconds", self.successResultOf(work)[0])

    def test_a_kind_that_nobody_releases_is_refused_at_once(self) -> None:
        self.failureResultOf(Deferred.fromCoroutine(self.ledger.record("cake", "1")), ValueError)
