"""When a console that nobody needs is closed. Idle means the user: keys, pointer and cut text, not traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ipmiproxyd.console.machine import Ending

NOTICE: Final = 60.0
"""Seconds before the end at which viewers are told of it; half of the time for a console with less patience."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds. None: for ever."""

    unvisited: float
    abandoned: float
    idle: float | None
    max_time: float | None


@dataclass(frozen=True, slots=True)
class Presence:
    """Who was there when, in seconds of the clock. ``expected_at``: since when a viewer could come. ``left_at`` is
    None until a first viewer has come and all are gone."""

    opened_at: float
    expected_at: float
    last_activity: float
    viewers: int
    left_at: float | None


def next_deadline(patience: Patience, presence: Presence) -> tuple[float, Ending] | None:
    """The earliest moment at which the console is to be closed as things stand, and why."""

    candidates: list[tuple[float, Ending]] = []
    if presence.viewers == 0:
        if presence.left_at is None:
            candidates.append(
                (presence.expected_at + patience.unvisited, Ending("abandoned", "Nobody came to use the console."))
            )
        else:
            candidates.append(
                (presence.left_at + patience.abandoned, Ending("abandoned", "Everybody had left the console."))
            )
    if patience.idle is not None:
        candidates.append(
            (
                max(presence.last_activity, presence.expected_at) + patience.idle,
                Ending("idle", f"Nothing was typed or clicked for {words(patience.idle)}."),
            )
        )
    if patience.max_time is not None:
        candidates.append(
            (
                presence.opened_at + patience.max_time,
                Ending("max-time", f"The console was open for its whole time of {words(patience.max_time)}."),
            )
        )
    return min(candidates, key=lambda candidate: candidate[0], default=None)


def notice_of(patience: Patience, ending: Ending) -> float:
    """How many seconds before this ending viewers are to be told; 0 for one that nobody would be there to hear of."""

    whole = {"idle": patience.idle, "max-time": patience.max_time}.get(ending.reason)
    return 0.0 if whole is None else min(NOTICE, whole / 2)


def words(seconds: float) -> str:
    """A duration as people say it: "10 minutes", "1 hour 30 minutes", "45 seconds"."""

    whole = round(seconds)
    parts = [(whole // 3600, "hour"), (whole % 3600 // 60, "minute"), (whole % 60, "second")]
    said = [f"{number} {unit}{'' if number == 1 else 's'}" for number, unit in parts if number]
    return " ".join(said) or "0 seconds"
