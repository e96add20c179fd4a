"""Types on the VNC side, slowly enough for a BMC: what is typed never passes through the browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ipmiproxyd.model import Typing

NEWS_EVERY: Final = 0.25
"""Seconds between two words on how far it is."""


class Typist:
    """Types one text, beginning at once.

    :param strokes: the messages for each character.
    :param pace: seconds from one to the next.
    :param press: takes a character's messages; False if the server does not take more just now.
    :param tell: how far it is; None at the end, which comes once: done, or stopped.
    """

    def __init__(
        self,
        clock: IReactorTime,
        what: str,
        by: str,
        strokes: Sequence[bytes],
        *,
        pace: float,
        press: Callable[[bytes], bool],
        tell: Callable[[Typing | None], None],
    ) -> None:
        self.by = by
        self._clock = clock
        self._what = what
        self._strokes = strokes
        self._pace = pace
        self._press = press
        self._tell = tell
        self._done = 0
        self._told_at = float("-inf")
        self._timer: IDelayedCall = clock.callLater(0, self._next)
        self._report()

    def stop(self) -> None:
        """Type no more. No key is down: each is released with the message that presses it."""

        if self._timer.active():
            self._timer.cancel()
            self._tell(None)

    def _next(self) -> None:
        if self._done == len(self._strokes):
            self._tell(None)
            return
        self._timer = self._clock.callLater(self._pace, self._next)
        if self._press(self._strokes[self._done]) and self._timer.active():
            self._done += 1
            self._report()

    def _report(self) -> None:
        now = self._clock.seconds()
        if now - self._told_at >= NEWS_EVERY:
            self._told_at = now
            self._tell(Typing(what=self._what, by=self.by, done=self._done, of=len(self._strokes)))
