"""What is measured, and what has to come out."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.relay.cases import Case, Goal
from benchmarks.ssh.peers import NAMES, RELAY, STREAM

SCHEMES: Final = (STREAM, RELAY)


def _case(key: str, title: str, scenario: str, arguments: dict[str, Any], quick: dict[str, Any], **more: Any) -> Case:
    return Case(key, title, scenario, arguments, quick, relays=NAMES, schemes=SCHEMES, **more)


CASES: Final = (
    _case("bulk", "bulk", "bulk", {"connections": 1, "size": 10**9}, {"size": 256 * 10**6}),
    _case("rtt", "small round trips", "round_trips", {"connections": 1, "seconds": 1.0}, {"seconds": 0.4}),
    _case(
        "fair",
        "small round trips beside a bulk stream",
        "fairness",
        {"seconds": 1.5, "hogs": 1},
        {"seconds": 0.5},
    ),
    _case(
        "stalled",
        "growth, nothing is read",
        "stalled_browser",
        {"seconds": 2.0},
        {"seconds": 1.0},
        fresh=True,
        rounds=3,
    ),
)

_GOALS: Final = (
    Goal("bulk", "MB/s", 0.5, 1.0, ratio=True),
    Goal("bulk", "CPU s/GB", 0.33, 1.0, ratio=True),
    Goal("rtt", "p99 ms", 10.0),
    Goal("fair", "p99 ms", 10.0),
    Goal("stalled", "MB", 2.0),
)
GOALS: Final = dict.fromkeys(SCHEMES, _GOALS)
