"""What is measured, and what has to come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.relay.relays import HAPROXY, NONE, OURS, WEBSOCKIFY

PLAIN: Final = "plain"
TLS: Final = "tls"

ALL: Final = (OURS, WEBSOCKIFY, HAPROXY, NONE)
RELAYS: Final = (OURS, WEBSOCKIFY, HAPROXY)


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement.

    :ivar scenario: see :data:`benchmarks.relay.load.SCENARIOS`, with its arguments; ``quick``: those that differ in a
        quick run.
    :ivar fresh: each relay is started anew, since what it did before would hide how it grows.
    :ivar rounds: the most that are worth their time.
    """

    key: str
    title: str
    scenario: str
    arguments: dict[str, Any]
    quick: dict[str, Any]
    relays: tuple[str, ...] = ALL
    schemes: tuple[str, ...] = (PLAIN, TLS)
    fresh: bool = False
    rounds: int = 5


def _grown(key: str, title: str, scenario: str, arguments: dict[str, Any], quick: dict[str, Any]) -> Case:
    """By how much relays grow."""

    return Case(key, title, scenario, arguments, quick, relays=RELAYS, fresh=True, rounds=1)


CASES: Final = (
    Case("bulk1", "bulk, 1 connection", "bulk", {"connections": 1, "size": 10**9}, {"size": 256 * 10**6}),
    Case("bulk20", "bulk, 20 connections", "bulk", {"connections": 20, "size": 10**9}, {"size": 256 * 10**6}),
    Case(
        "rtt1",
        "small round trips, 1 connection",
        "round_trips",
        {"connections": 1, "seconds": 1.0},
        {"seconds": 0.4},
        schemes=(PLAIN,),
    ),
    Case(
        "rtt50",
        "small round trips, 50 connections",
        "round_trips",
        {"connections": 50, "seconds": 1.0},
        {"seconds": 0.4},
    ),
    Case("mixed", "120 mixed sessions", "mixed", {"sessions": 120, "seconds": 3.0}, {"seconds": 1.0}),
    Case("setups", "set-ups", "set_ups", {"workers": 8, "seconds": 1.5}, {"seconds": 0.5}),
    Case("fair", "small round trips beside 4 bulk sessions", "fairness", {"seconds": 1.5}, {"seconds": 0.5}),
    _grown("memory", "memory of a session", "memory", {"counts": [100, 1000]}, {"counts": [100, 200]}),
    _grown(
        "stalled-browser", "growth, the browser reads nothing", "stalled_browser", {"seconds": 2.5}, {"seconds": 1.0}
    ),
    _grown("stalled-server", "growth, the server reads nothing", "stalled_server", {"seconds": 2.5}, {"seconds": 1.0}),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """What has to come out for a number of a case, and what is wished for.

    :ivar ratio: how many times better than websockify in the same run; otherwise a limit of the number itself.
    """

    case: str
    metric: str
    must: float
    wish: float | None = None
    ratio: bool = field(default=False, kw_only=True)


GOALS: Final = {
    PLAIN: (
        Goal("bulk1", "CPU s/GB", 2.0, 3.3, ratio=True),
        Goal("bulk20", "CPU s/GB", 1.4, 3.3, ratio=True),
        Goal("rtt50", "CPU µs", 5.0, 9.0, ratio=True),
        Goal("mixed", "CPU %", 75.0, 50.0),
        Goal("mixed", "p50 ms", 2.0, 0.5),
        Goal("setups", "per s", 6.0, 20.0, ratio=True),
        Goal("fair", "p50 ms", 20.0),
        Goal("memory", "KB at 1000", 16.0, 4.0),
        Goal("stalled-browser", "MB", 2.0),
        Goal("stalled-server", "MB", 2.0),
    ),
    TLS: (
        Goal("bulk1", "CPU s/GB", 1.2, 1.8, ratio=True),
        Goal("bulk20", "CPU s/GB", 1.2, 1.8, ratio=True),
        Goal("setups", "per s", 4.0, 8.0, ratio=True),
        Goal("fair", "p50 ms", 20.0),
        Goal("memory", "KB at 1000", 26.0, 20.0),
        Goal("stalled-browser", "MB", 2.0),
        Goal("stalled-server", "MB", 2.0),
    ),
}

MORE_IS_BETTER: Final = ("MB/s", "per s", "updates %", "taken MB")
EITHER: Final = ("base MB", "sessions at most")


def better(metric: str, ours: float, theirs: float) -> float | None:
    """How many times better ours is; None where nothing is better or worse."""

    if metric in EITHER or min(ours, theirs) <= 0:
        return None
    return ours / theirs if metric in MORE_IS_BETTER else theirs / ours


def holds(goal: Goal, limit: float, ours: float, theirs: float | None) -> bool | None:
    """Whether ``limit`` is kept; None if it cannot be told."""

    if not goal.ratio:
        return ours <= limit
    times = None if theirs is None else better(goal.metric, ours, theirs)
    return None if times is None else times >= limit
