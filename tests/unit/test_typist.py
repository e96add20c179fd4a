"""Typing at a pace, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.model import Typing
from ipmiproxyd.relay.typist import NEWS_EVERY, Typist

PACE = 1 / 64
"""No rounding on the fake clock."""


class TypistTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[float, Typing | None]] = []
        self.typed: list[tuple[float, bytes]] = []
        self.is_clogged = False
        self.when_told: Callable[[Typing | None], None] = lambda _: None
        self.when_pressed: Callable[[], None] = lambda: None

    def tell(self, typing: Typing | None) -> None:
        self.told.append((self.clock.seconds(), typing))
        self.when_told(typing)

    def press(self, messages: bytes) -> bool:
        if self.is_clogged:
            return False
        self.typed.append((self.clock.seconds(), messages))
        self.when_pressed()
        return True

    def typist(self, count: int) -> Typist:
        self.strokes = [b"stroke %d" % number for number in range(count)]
        return Typist(
            self.clock, "text", "grant", self.strokes, pace=PACE, press=self.press, tell=self.tell,
        )  # fmt: skip

    def run_for(self, seconds: float) -> None:
        self.clock.pump([PACE / 4] * round(seconds / PACE * 4))

    def over(self) -> None:
        """It has said so once, last of all, and has nothing more to do."""

        news = [typing for _, typing in self.told]
        self.assertIsNone(news[-1])
        self.assertEqual(news.count(None), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_everything_in_order_at_the_pace(self) -> None:
        self.typist(10)
        self.assertEqual(self.typed, [], "not from within the call that begins it")
        self.run_for(1.0)
        self.assertEqual([stroke for _, stroke in self.typed], self.strokes)
        for number, (at, _) in enumerate(self.typed[1:], 1):
            self.assertEqual(at - self.typed[0][0], number * PACE)
        self.over()
        self.assertEqual(self.told[-1][0] - self.typed[-1][0], PACE, "the last key has its time, too")

    def test_news(self) -> None:
        self.typist(200)
        self.assertEqual(self.told, [(0.0, Typing(what="text", by="grant", done=0, of=200))])
        self.run_for(200 * PACE + 1)
        self.over()
        progress = [(at, typing) for at, typing in self.told if typing is not None]
        self.assertGreater(len(progress), 10)
        for (before, earlier), (after, later) in pairwise(progress):
            self.assertGreaterEqual(after - before, NEWS_EVERY)
            self.assertLess(after - before, NEWS_EVERY + 2 * PACE)
            self.assertLess(earlier.done, later.done)
        for at, typing in progress:
            self.assertEqual(typing.done, sum(when <= at for when, _ in self.typed))
            self.assertEqual((typing.what, typing.by, typing.of), ("text", "grant", 200))

    def test_server_that_takes_no_more(self) -> None:
        self.typist(6)
        self.run_for(2 * PACE)
        count = len(self.typed)
        self.is_clogged = True
        self.run_for(1.0)
        self.assertEqual(len(self.typed), count)
        self.is_clogged = False
        self.run_for(1.0)
        self.assertEqual([stroke for _, stroke in self.typed], self.strokes)
        self.over()

    def test_stop(self) -> None:
        typist = self.typist(50)
        self.run_for(5 * PACE)
        count = len(self.typed)
        self.assertTrue(0 < count < 50)
        typist.stop()
        self.over()
        typist.stop()
        self.run_for(2.0)
        self.assertEqual(len(self.typed), count)
        self.over()

    def test_stop_before_the_first_key(self) -> None:
        self.typist(3).stop()
        self.run_for(1.0)
        self.assertEqual(self.typed, [])
        self.over()

    def test_stop_after_the_end(self) -> None:
        typist = self.typist(3)
        self.run_for(1.0)
        self.over()
        typist.stop()
        self.over()

    def test_stop_by_what_it_calls(self) -> None:
        """A viewer may be lost with the very key that is pressed, and the typing be stopped by the news of it."""

        typist = self.typist(100)
        self.when_pressed = typist.stop
        self.run_for(3.0)
        self.assertEqual(len(self.typed), 1)
        self.over()

        self.told.clear()
        self.typed.clear()
        self.when_pressed = lambda: None
        another = self.typist(100)
        self.when_told = lambda typing: another.stop() if typing and typing.done else None
        self.run_for(3.0)
        self.assertTrue(0 < len(self.typed) < 50)
        self.over()
