"""Time limits on what others do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

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


def _raiser(error: ProxyError) -> Callable[[Any, float], Any]:
    def convert(_result: Any, _timeout: float) -> Any:
        raise error

    return convert
