"""One console: its machine, its ledger, its stages, and what others see of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd.console.deadlines import Patience
from ipmiproxyd.console.ledger import Ledger
from ipmiproxyd.console.machine import Ending, Steps, make_machine
from ipmiproxyd.console.watch import Watch
from ipmiproxyd.errors import BadValue, BmcState, Cancelled, Forbidden, InternalError, ProxyError
from ipmiproxyd.interfaces import Progress, RelayPort, VncServer
from ipmiproxyd.model import (
    Console,
    ConsoleState,
    Grant,
    OpenRequest,
    Secret,
    Stage,
    Typing,
    UnixStream,
    ViewerInfo,
)

RETRY_AFTER: Final = 30.0
"""Seconds until what could not be given back is tried again."""

SETTLE_LIMIT: Final = 15.0
"""Seconds that a cancelled opening may take to come to rest before its ledger is released all the same."""

log = Logger()


@dataclass(slots=True)
class Holdings:
    """What an opening console has got so far.

    :ivar port: its page is served.
    :ivar screen: tells where its display is.
    :ivar job: the id of its job, once that is up.
    :ivar ended: why jobs of its have ended, by their ids.
    :ivar log: the file on the agent with what its programs say.
    :ivar door: where its browser tells what cookies it has.
    :ivar slot_since: since when it is signed in to the panel, which has few slots for that.
    :ivar slot_until: when the panel forgets that by itself, where nothing else ends it.
    :ivar java: the home of the Java that it runs with.
    :ivar jobs: how many jobs were begun for it.
    :ivar warnings: what whoever opened it should know, in plain words.
    """

    display: int | None = None
    port: RelayPort | None = None
    screen: Callable[[], VncServer] | None = None
    job: str = ""
    log: str = ""
    ended: dict[str, str] = field(default_factory=dict)
    door: UnixStream | None = None
    slot_since: float | None = None
    slot_until: float | None = None
    java: str = ""
    jobs: int = 0
    warnings: list[str] = field(default_factory=list)


class ConsoleSession:
    """Implements :class:`~ipmiproxyd.interfaces.RelayedConsole`.

    :ivar request: what it is to be.
    :ivar asked: what was asked for, of which its type may have turned out not to work.
    :ivar has: filled in by the stages of opening.
    :ivar opened_at: seconds since the epoch.
    :ivar joined: how many requests wait for it to open; the last of them to go away cancels it.
    :ivar owner: the grant of whoever opened it, as long as it is not revoked.
    :ivar wanted: somebody was given its URL, so it stays even if no request waits for it any more.
    :ivar on_closing: called once with the reason, before anything is given back.
    :ivar is_agent_away: tells whether its agent cannot be reached just now.
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
        self.request = self.asked = request
        self.ledger = ledger
        self.has = Holdings()
        self.joined = 0
        self.wanted = False
        self.owner: Grant | None = None
        self.on_closing: Callable[[Ending], None] = lambda _ending: None
        self.is_agent_away: Callable[[], bool] = lambda: False
        self._clock = clock
        self.opened_at = clock.seconds() if opened_at is None else opened_at
        self._ready_at: float | None = None
        self._watch = Watch(patience, clock, self.opened_at, due=self.close, told=self._changed)
        self._typing: Typing | None = None
        self._stages: list[Stage] = []
        self._serial = 1
        self._listeners: list[Progress] = []
        self._waiters: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._opening: Deferred[None] | None = None
        self._opening_done = True
        self._retry: IDelayedCall | None = None
        self._left: list[str] = []  # what could not be given back
        self._steps = Steps(
            entered=self._changed,
            watch=self._watch.begin,
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

    def stage(self, name: str, label: str, *, failed: bool = False) -> None:
        """The stage before is done, or has failed; this one begins."""

        now = self._milliseconds()
        self._finish_stage(now, failed=failed)
        self._stages.append(Stage(name, label, now))
        for listener in self._listeners:
            listener({"stage": name, "text": label, "ms": now})
        self._changed()

    def begin_anew(self, request: OpenRequest, *, signed_out: bool) -> None:
        """Another type is tried, and of what it had got nothing is left but its page."""

        before, self.request = self.has, request
        self.has = Holdings(port=before.port, ended=before.ended, jobs=before.jobs, warnings=before.warnings)
        if not signed_out:
            self.has.slot_since, self.has.slot_until = before.slot_since, before.slot_until
        self._changed()

    def _finish_stage(self, now: int, *, failed: bool = False) -> None:
        if self._stages and self._stages[-1].done_ms is None:
            self._stages[-1] = replace(self._stages[-1], done_ms=now, failed=failed)

    def _opening_succeeded(self, _result: None) -> None:
        self._opening_done = True
        if self.state is ConsoleState.OPENING:
            self._ready_at = self._clock.seconds()
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

    def try_again(self) -> None:
        """Give back at once what could not be given back before, if that waits for another attempt."""

        if self.state is ConsoleState.LOST:
            self._machine.again()

    def _give_back(self) -> None:
        self.let_go()
        Deferred.fromCoroutine(self._run_ledger()).addErrback(self._ledger_failed)

    async def _run_ledger(self) -> None:
        settled = self._when(lambda: self._opening_done)
        settled.addTimeout(SETTLE_LIMIT, self._clock)
        settled.addErrback(lambda _: log.error("console {console}: its opening does not end", console=self.id))
        await settled
        problems = await self.ledger.give_back()
        self._left = problems
        if problems:
            self._machine.stuck()
        else:
            self._machine.given_back()

    def _ledger_failed(self, failure: Failure) -> None:
        log.failure("console {console}: giving back", failure, console=self.id)
        if self.state is ConsoleState.CLOSING:
            self._machine.stuck()

    def _retry_later(self) -> None:
        self._retry = self._clock.callLater(RETRY_AFTER, self._machine.again)

    def let_go(self) -> None:
        """No timer of ours remains: the console is being closed, or the daemon ends and leaves it to its ledger."""

        self._watch.stop()
        retry, self._retry = self._retry, None
        if retry is not None and retry.active():
            retry.cancel()

    # --- watching -----------------------------------------------------------------------------------------------------

    def viewers_changed(self, viewers: Sequence[ViewerInfo]) -> None:
        self._watch.viewers_changed(viewers)
        self._changed()

    def typing_changed(self, typing: Typing | None) -> None:
        self._typing = typing
        self._changed()

    def expect_viewer(self) -> None:
        """See :meth:`Watch.expect_viewer`."""

        self._watch.expect_viewer()

    def extend(self, by: float) -> None:
        """See :meth:`Watch.extend`."""

        self._watch.extend(by)
        self._changed()

    def user_active(self) -> None:
        self._watch.user_active()

    def close_by_viewer(self) -> None:
        self.close(Ending("viewer", "The console was closed on its own page."))

    # --- what others see ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConsoleState:
        return self._machine.state()

    @property
    def ending(self) -> Ending | None:
        return self._steps.ending

    def screen(self) -> VncServer:
        if self.ending is not None:
            raise BmcState("The console is closed, or about to be.", hint="Open a new one.")
        if self.state is not ConsoleState.READY or self.has.screen is None:
            raise BmcState("The console's screen is not there yet.", hint="Wait until the console is ready.")
        return self.has.screen()

    def credential(self, which: Literal["username", "password"]) -> Secret:
        if not self.request.login_buttons:
            raise Forbidden(
                "The login buttons of this console are off.", hint="Open a console with login_buttons=yes."
            )
        device = self.request.device
        if which == "username":
            text, words = Secret(device.web_username or device.username), "user name"
        else:
            text, words = device.web_password or device.password, "password"
        if not text:
            raise BadValue(f"No {words} is known for this server.", hint="Ask whoever manages its BMC's data.")
        return text

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

        return self._when(lambda: self.has.port is not None or self.state is not ConsoleState.OPENING)

    def when_closed(self) -> Deferred[None]:
        """Fires once everything is given back, or had to be put off. Cancelling it only stops the waiting."""

        return self._when(lambda: self.state in (ConsoleState.CLOSED, ConsoleState.LOST))

    def when_gone(self) -> Deferred[None]:
        """Fires once everything is given back."""

        return self._when(lambda: self.state is ConsoleState.CLOSED)

    def snapshot(self) -> Console:
        ending = self.ending
        request = self.request
        watch = self._watch
        signed_out = self.state is ConsoleState.CLOSED and self.has.slot_until is None
        return Console(
            id=self.id,
            serial=self._serial,
            device=label_of(request),
            bmc=request.device.bmc,
            type=request.type,
            user=request.user,
            agent=request.agent,
            proxy=request.proxy,
            state=self.state,
            stages=tuple(self._stages),
            display=self.has.display,
            relay_port=None if self.has.port is None else self.has.port.number,
            viewers=watch.viewers,
            opened_at=self.opened_at,
            ready_at=self._ready_at,
            last_activity=watch.last_activity,
            idle=watch.patience.idle,
            max_time=watch.patience.max_time,
            clipboard=request.clipboard,
            typing=self._typing,
            closes_in=watch.closes_in,
            closes_why=watch.closes_why,
            slot_since=None if signed_out else self.has.slot_since,
            slot_until=self.has.slot_until,
            reason="" if ending is None else ending.reason,
            message="" if ending is None else " ".join(filter(None, (ending.message, self._still_there()))),
            log=self.has.log if ending is None else "",
            agent_away=self.is_agent_away(),
        )

    def _still_there(self) -> str:
        if self.state is not ConsoleState.LOST:
            return ""
        if any(problem.startswith("job ") for problem in self._left):
            agent = self.request.agent
            return f"Its programs may still run on the agent {agent}: they are ended when that is back."
        return f"Not all of it is given back yet ({'; '.join(self._left)}): that is tried again."

    def _milliseconds(self) -> int:
        return round((self._clock.seconds() - self.opened_at) * 1000)

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


def label_of(request: OpenRequest) -> str:
    """What people call the server of a console."""

    device = request.device
    # Several screens may have one address, as with virtual machines: then the port is what tells them apart.
    return device.name or (request.type == "vnc" and device.vnc) or device.bmc
