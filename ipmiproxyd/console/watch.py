"""Who is at a console, and the one timer that ends a console nobody needs (see ``deadlines.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ipmiproxyd.console.deadlines import Patience, Presence, next_deadline, notice_of
from ipmiproxyd.console.machine import Ending
from ipmiproxyd.model import ViewerInfo


class Watch:
    """What is known of a console's viewers. From :meth:`begin` to :meth:`stop` it waits for the next deadline.

    :param due: called once a deadline has passed.
    :param told: called when viewers are to see that the end is near, or is not any more.
    :ivar viewers: one for each connection, the longest present first.
    """

    def __init__(
        self,
        patience: Patience,
        clock: IReactorTime,
        opened_at: float,
        *,
        due: Callable[[Ending], None],
        told: Callable[[], None],
    ) -> None:
        self.patience = patience
        self.viewers: tuple[ViewerInfo, ...] = ()
        self.last_activity = opened_at
        self._clock = clock
        self._opened_at = opened_at
        self._expected_at = opened_at
        self._left_at: float | None = None
        self._due = due
        self._told = told
        self._watching = False
        self._timer: IDelayedCall | None = None
        self._notice: tuple[float, Ending] | None = None

    def begin(self) -> None:
        """The console is ready: from now on somebody can come."""

        self._watching = True
        self.expect_viewer()

    def stop(self) -> None:
        self._watching = False
        self._stop_timer()

    @property
    def closes_in(self) -> float | None:
        """Seconds until it closes, once viewers are to be told."""

        return None if self._notice is None else max(0.0, self._notice[0] - self._clock.seconds())

    @property
    def closes_why(self) -> str:
        return "" if self._notice is None else self._notice[1].reason

    # --- what happens -------------------------------------------------------------------------------------------------

    def viewers_changed(self, viewers: Sequence[ViewerInfo]) -> None:
        if viewers:
            self._left_at = None
        elif self.viewers:
            self._left_at = self._clock.seconds()
        self.viewers = tuple(sorted(viewers, key=lambda viewer: viewer.joined_at))
        self._arm()

    def expect_viewer(self) -> None:
        """Somebody was given its URL just now: the time for coming, and for doing something, begins anew."""

        now = self._expected_at = self.last_activity = self._clock.seconds()
        if self._left_at is not None:
            self._left_at = now
        self._arm()

    def extend(self, by: float) -> None:
        """As if the user had been active; and a limit of the whole time moves by ``by`` seconds."""

        if self.patience.max_time is not None:
            self.patience = replace(self.patience, max_time=self.patience.max_time + by)
        self.last_activity = self._clock.seconds()
        self._arm()

    def user_active(self) -> None:
        """Called for every key and every move: the timer is left alone until it matters."""

        self.last_activity = self._clock.seconds()
        if self._notice is not None:
            self._arm()
            self._told()

    # --- the timer ----------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if not self._watching:
            return
        self._stop_timer()
        self._notice = None
        deadline = self._next()
        if deadline is None:
            return
        now, moment = self._clock.seconds(), deadline[0] - notice_of(self.patience, deadline[1])
        if now >= moment:
            self._notice, moment = deadline, deadline[0]
        self._timer = self._clock.callLater(max(0.0, moment - now), self._fired)

    def _fired(self) -> None:
        self._timer = None
        deadline = self._next()
        if deadline is not None and deadline[0] <= self._clock.seconds():
            self._due(deadline[1])
        else:
            self._arm()  # the user was active meanwhile, or it is time to tell
            self._told()

    def _next(self) -> tuple[float, Ending] | None:
        return next_deadline(
            self.patience,
            Presence(
                opened_at=self._opened_at,
                expected_at=self._expected_at,
                last_activity=self.last_activity,
                viewers=len(self.viewers),
                left_at=self._left_at,
            ),
        )

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
