"""One console: its machine, its ledger, its stages, who looks at it, and when it is to end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd.console.deadlines import Patience, Presence, next_deadline, notice_of
from ipmiproxyd.console.ledger import Ledger
from ipmiproxyd.console.machine import Ending, Steps, make_machine
from ipmiproxyd.errors import BmcState, Cancelled, InternalError, ProxyError
from ipmiproxyd.interfaces import Progress
from ipmiproxyd.model import Console, ConsoleState, OpenRequest, Stage

RETRY_AFTER: Final = 30.0
"""Seconds until what could not be given back is tried again."""

SETTLE_LIMIT: Final = 15.0
"""Seconds that a cancelled opening may take to come to rest before its ledger is released all the same."""

log = Logger()


@dataclass(slots=True)
class Holdings:
    """What an opening console has got so far."""

    display: int | None = None
    relay_port: int | None = None
    dial: Callable[[], IStreamClientEndpoint] | None = None


class ConsoleSession:
    """Implements :class:`~ipmiproxyd.interfaces.RelayedConsole`.

    :ivar has: filled in by the stages of opening.
    :ivar joined: how many requests wait for it to open; the last of them to go away cancels it.
    :ivar wanted: somebody was given its URL, so it stays even if no request waits for it any more.
    :ivar on_closing: called once with the reason, before anything is given back.
    """

    def __init__(
        self,
        console_id: str,
        request: OpenRequest,
        ledger: Ledger,
        patience: Patience,
        clock: IReactorTime,
        *,
        opened_at: float | None = None,
    ) -> None:
        self.id = console_id
        self.request = request
        self.ledger = ledger
        self.has = Holdings()
        self.joined = 0
        self.wanted = False
        self.on_closing: Callable[[Ending], None] = lambda _ending: None
        self._patience = patience
        self._clock = clock
        self._opened_at = clock.seconds() if opened_at is None else opened_at
        self._ready_at: float | None = None
        self._last_activity = self._opened_at
        self._left_at: float | None = None
        self._expected_at = self._opened_at
        self._viewers = 0
        self._stages: list[Stage] = []
        self._serial = 1
        self._listeners: list[Progress] = []
        self._waiters: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._opening: Deferred[None] | None = None
        self._opening_done = True
        self._timer: IDelayedCall | None = None
        self._notice: tuple[float, Ending] | None = None
        self._steps = Steps(
            entered=self._changed,
            watch=self._begin_watch,
            cancel_opening=self._cancel_opening,
            give_back=self._give_back,
            retry_later=self._retry_later,
        )
        self._machine = make_machine(self._steps)

    # --- opening ------------------------------------------------------------------------------------------------------

    def begin(self, stages: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run the stages of opening in a Deferred that belongs to this console alone."""

        self._opening_done = False
        self._opening = Deferred.fromCoroutine(stages)
        self._opening.addCallbacks(self._opening_succeeded, self._opening_failed)

    def stage(self, name: str, label: str) -> None:
        """The stage before is done, this one begins."""

        now = self._milliseconds()
        self._finish_stage(now)
        self._stages.append(Stage(name, label, now))
        for listener in self._listeners:
            listener({"stage": name, "text": label, "ms": now})
        self._changed()

    def _finish_stage(self, now: int) -> None:
        if self._stages and self._stages[-1].done_ms is None:
            self._stages[-1] = replace(self._stages[-1], done_ms=now)

    def _opening_succeeded(self, _result: None) -> None:
        self._opening_done = True
        if self.state is ConsoleState.OPENING:
            self._ready_at = self._last_activity = self._clock.seconds()
            self._finish_stage(self._milliseconds())
            self._machine.opened()
        else:
            self._changed()

    def _opening_failed(self, failure: Failure) -> None:
        self._opening_done = True
        error = failure.value
        if isinstance(error, ProxyError):
            log.info("console {console} did not open: {error}", console=self.id, error=error.message)
            self.close(Ending.from_error(error))
        elif isinstance(error, CancelledError):
            self.close(Ending.from_error(Cancelled("The opening was cancelled.")))
        else:
            log.failure("console {console}: opening", failure, console=self.id)
            self.close(Ending.from_error(InternalError("An internal error, see the log of ipmiproxyd.")))
        self._changed()

    def _cancel_opening(self) -> None:
        if self._opening is not None and not self._opening_done:
            self._opening.cancel()

    # --- closing ------------------------------------------------------------------------------------------------------

    def close(self, ending: Ending) -> None:
        """Begin to end the console; the first reason stands. Await it with :meth:`when_closed`."""

        first = self.ending is None
        self._machine.close(ending)
        if first:
            log.info("console {console} closes: {reason}", console=self.id, reason=ending.reason)
            self.on_closing(ending)

    def _give_back(self) -> None:
        self._stop_timer()
        Deferred.fromCoroutine(self._run_ledger()).addErrback(self._ledger_failed)

    async def _run_ledger(self) -> None:
        settled = self._when(lambda: self._opening_done)
        settled.addTimeout(SETTLE_LIMIT, self._clock)
        settled.addErrback(lambda _: log.error("console {console}: its opening does not end", console=self.id))
        await settled
        problems = await self.ledger.give_back()
        if problems:
            self._machine.stuck()
        else:
            self._machine.given_back()

    def _ledger_failed(self, failure: Failure) -> None:
        log.failure("console {console}: giving back", failure, console=self.id)
        if self.state is ConsoleState.CLOSING:
            self._machine.stuck()

    def _retry_later(self) -> None:
        self._timer = self._clock.callLater(RETRY_AFTER, self._machine.again)

    def let_go(self) -> None:
        """The daemon ends and leaves the console to its ledger: no timer of ours remains."""

        self._stop_timer()

    # --- watching -----------------------------------------------------------------------------------------------------

    def viewer_joined(self) -> None:
        self._viewers += 1
        self._left_at = None
        self._watch()
        self._changed()

    def viewer_left(self) -> None:
        self._viewers -= 1
        if self._viewers == 0:
            self._left_at = self._clock.seconds()
        self._watch()
        self._changed()

    def expect_viewer(self) -> None:
        """Somebody was given its URL just now: the time for coming, and for doing something, begins anew."""

        now = self._expected_at = self._last_activity = self._clock.seconds()
        if self._left_at is not None:
            self._left_at = now
        self._watch()

    def extend(self, by: float) -> None:
        """As if the user had been active; and a limit of the whole time moves by ``by`` seconds."""

        if self._patience.max_time is not None:
            self._patience = replace(self._patience, max_time=self._patience.max_time + by)
        self._last_activity = self._clock.seconds()
        self._watch()
        self._changed()

    def user_active(self) -> None:
        self._last_activity = self._clock.seconds()
        if self._notice is not None:
            self._watch()
            self._changed()

    def close_by_viewer(self) -> None:
        self.close(Ending("viewer", "The console was closed on its own page."))

    def _begin_watch(self) -> None:
        # The machine calls this while it is still on its way to "ready".
        self._arm()

    def _watch(self) -> None:
        if self.state is ConsoleState.READY:
            self._arm()

    def _arm(self) -> None:
        self._stop_timer()
        self._notice = None
        deadline = next_deadline(self._patience, self._presence())
        if deadline is None:
            return
        now, moment = self._clock.seconds(), deadline[0] - notice_of(self._patience, deadline[1])
        if now >= moment:
            self._notice, moment = deadline, deadline[0]
        self._timer = self._clock.callLater(max(0.0, moment - now), self._due)

    def _due(self) -> None:
        self._timer = None
        deadline = next_deadline(self._patience, self._presence())
        if deadline is not None and deadline[0] <= self._clock.seconds():
            self.close(deadline[1])
        else:
            self._watch()  # the user was active meanwhile, or it is time to tell
            self._changed()

    def _presence(self) -> Presence:
        return Presence(
            opened_at=self._opened_at,
            expected_at=max(self._expected_at, self._ready_at or self._opened_at),
            last_activity=self._last_activity,
            viewers=self._viewers,
            left_at=self._left_at,
        )

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # --- what others see ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConsoleState:
        return self._machine.state()

    @property
    def ending(self) -> Ending | None:
        return self._steps.ending

    def dial(self) -> IStreamClientEndpoint:
        if self.state is not ConsoleState.READY or self.has.dial is None:
            raise BmcState("The console's screen is not there yet.", hint="Wait until the console is ready.")
        return self.has.dial()

    def add_listener(self, progress: Progress) -> Callable[[], None]:
        """Tell the stages that were begun so far, and those to come. Returns how to stop that."""

        for stage in self._stages:
            progress({"stage": stage.name, "text": stage.label, "ms": stage.begun_ms})
        self._listeners.append(progress)
        return lambda: self._listeners.remove(progress)

    def when_changed(self, serial: int) -> Deferred[None]:
        return self._when(lambda: self._serial > serial)

    def when_ready(self) -> Deferred[None]:
        """Fires once it has left the state of opening, for better or worse."""

        return self._when(lambda: self.state is not ConsoleState.OPENING)

    def when_reachable(self) -> Deferred[None]:
        """Fires once its page can be visited, or it never will be."""

        return self._when(lambda: self.has.relay_port is not None or self.state is not ConsoleState.OPENING)

    def when_closed(self) -> Deferred[None]:
        """Fires once everything is given back, or had to be put off. Cancelling it only stops the waiting."""

        return self._when(lambda: self.state in (ConsoleState.CLOSED, ConsoleState.LOST))

    def when_gone(self) -> Deferred[None]:
        """Fires once everything is given back."""

        return self._when(lambda: self.state is ConsoleState.CLOSED)

    def snapshot(self) -> Console:
        ending = self.ending
        request = self.request
        return Console(
            id=self.id,
            serial=self._serial,
            device=request.device.label,
            bmc=request.device.bmc,
            type=request.type,
            user=request.user,
            agent=request.agent,
            state=self.state,
            stages=tuple(self._stages),
            display=self.has.display,
            relay_port=self.has.relay_port,
            viewers=self._viewers,
            opened_at=self._opened_at,
            ready_at=self._ready_at,
            last_activity=self._last_activity,
            idle=self._patience.idle,
            max_time=self._patience.max_time,
            closes_in=None if self._notice is None else max(0.0, self._notice[0] - self._clock.seconds()),
            closes_why="" if self._notice is None else self._notice[1].reason,
            reason="" if ending is None else ending.reason,
            message="" if ending is None else ending.message,
        )

    def _milliseconds(self) -> int:
        return round((self._clock.seconds() - self._opened_at) * 1000)

    def _changed(self) -> None:
        self._serial += 1
        # Waiters are told in a turn of their own: the machine may be between two states just now.
        self._clock.callLater(0, self._tell)

    def _tell(self) -> None:
        true = [waiter for waiter in self._waiters if waiter[0]()]
        self._waiters = [waiter for waiter in self._waiters if waiter not in true]
        for _, deferred in true:
            if not deferred.called:  # one may give up another
                deferred.callback(None)

    def _when(self, condition: Callable[[], bool]) -> Deferred[None]:
        if condition():
            return succeed(None)
        deferred: Deferred[None] = Deferred(self._forget)
        self._waiters.append((condition, deferred))
        return deferred

    def _forget(self, given_up: Deferred[None]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter[1] is not given_up]
