"""Time limits on what others do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ipmiproxyd.errors import ProxyError, TimedOut

T = TypeVar("T")


async def limited(work: Awaitable[T], seconds: float, clock: IReactorTime, error: ProxyError | None = None) -> T:
    """Await ``work``, and cancel it after so many seconds. Raises ``error`` then, by default TimedOut."""

    async def run() -> T:
        return await work

    late = error or TimedOut(f"it took longer than {seconds:g} seconds")
    deferred = Deferred.fromCoroutine(run())
    deferred.addTimeout(seconds, clock, onTimeoutCancel=_raiser(late))
    return await deferred


async def uncut(work: Awaitable[T]) -> T:
    """Await ``work`` to its end: CancelledError comes only then, and in the place of whatever has come of it."""

    async def run() -> T:
        return await work

    over: list[T | Failure] = []
    waiting: list[Deferred[None]] = []

    def ended(outcome: T | Failure) -> None:
        over.append(outcome)
        if waiting and not waiting[-1].called:
            waiting[-1].callback(None)

    Deferred.fromCoroutine(run()).addBoth(ended)
    cancelled: CancelledError | None = None
    while not over:
        waiting.append(Deferred())
        try:
            await waiting[-1]
        except CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    (outcome,) = over
    if isinstance(outcome, Failure):
        outcome.raiseException()
    return outcome


def _raiser(error: ProxyError) -> Callable[[Any, float], Any]:
    def convert(_result: Any, _timeout: float) -> Any:
        raise error

    return convert
