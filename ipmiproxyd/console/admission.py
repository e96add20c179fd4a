"""How many consoles there may be, and whether there is room for one more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipmiproxyd.errors import LimitReached
from ipmiproxyd.model import OpenRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many consoles there may be (0: no limit of this kind), and how patient they are, in seconds."""

    total: int
    per_agent: int
    per_user: int
    unvisited: float
    abandoned: float


def admit(request: OpenRequest, present: Sequence[OpenRequest], limits: Limits) -> None:
    """:param present: by which the others were opened.

    :raises LimitReached: there are as many as there may be.
    """

    counts = (
        (limits.total, len(present), "consoles are open in all", "consoles.limit"),
        (
            limits.per_agent,
            sum(other.agent == request.agent for other in present),
            f"consoles are open on the agent {request.agent}",
            "consoles.limit_per_agent",
        ),
        (
            limits.per_user if request.user else 0,
            sum(other.user == request.user for other in present),
            f"consoles are open for the user {request.user}",
            "consoles.limit_per_user",
        ),
    )
    for limit, count, words, setting in counts:
        if limit and count >= limit:
            raise LimitReached(
                f"{count} {words}, and no more are allowed.",
                hint=f"Close one that is no longer needed, or raise {setting}.",
            )
