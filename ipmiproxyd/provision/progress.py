"""What the engine tells while it works, and at its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.logger import Logger

from ipmiproxyd.errors import (
    AgentFull,
    AgentOutdated,
    AgentUnreachable,
    BadRequest,
    Busy,
    Forbidden,
    InternalError,
    InUse,
    PackagesFailed,
    ProxyError,
    SystemUnsupported,
    TimedOut,
    ToolMissing,
)
from ipmiproxyd.interfaces import Progress
from ipmiproxyd.model import Outcome, Report

PACE: Final = 0.5
"""Seconds between two lines of progress within a stage."""
WORDS: Final = 500
"""Marks that a text of the host's may have."""
MOST: Final = 1000
"""Stages, changes and warnings of each that are told and kept; of what a host tells beyond that, nothing is."""
AGAIN: Final = "Say the same line again: it goes on where it was."

_ERRORS: Final[Mapping[str, type[ProxyError]]] = {
    error.code: error
    for error in (
        AgentFull,
        AgentOutdated,
        AgentUnreachable,
        BadRequest,
        Busy,
        Forbidden,
        InUse,
        PackagesFailed,
        SystemUnsupported,
        TimedOut,
        ToolMissing,
    )
}

log = Logger()


class Listener:
    """Takes the engine's lines.

    :param name: the agent's.
    :param dry_run: changes would be made, and are not.
    """

    def __init__(self, name: str, progress: Progress, seconds: Callable[[], float], *, dry_run: bool) -> None:
        self._name = name
        self._progress = progress
        self._seconds = seconds
        self._dry_run = dry_run
        self._next = 0.0
        self._changes: list[str] = []
        self._warnings: list[str] = []
        self._last: Mapping[str, Any] = {}
        self._stages = 0
        self._takers: Mapping[Any, Callable[[Mapping[str, Any]], None]] = {
            "stage": self._stage,
            "progress": self._percent,
            "change": self._change,
            "warning": self._warning,
            "done": self._end,
            "failed": self._end,
        }

    def line(self, line: bytes) -> None:
        """What is no JSON object, or of another kind, is passed over."""

        try:
            event = json.loads(line)
        except ValueError:
            return
        if isinstance(event, dict) and isinstance(kind := event.get("event"), str) and kind in self._takers:
            self._takers[kind](event)

    def _stage(self, event: Mapping[str, Any]) -> None:
        self._stages += 1
        if self._stages > MOST:
            return
        self._next = 0.0
        self._progress({"stage": _text(event, "name"), "text": _text(event, "text")})

    def _percent(self, event: Mapping[str, Any]) -> None:
        percent, now = event.get("percent"), self._seconds()
        if now < self._next or isinstance(percent, bool) or not isinstance(percent, int | float):
            return
        self._next = now + PACE
        told = {"stage": _text(event, "name"), "text": _text(event, "text")}
        self._progress({**told, "percent": round(min(max(percent, 0.0), 100.0), 1)})

    def _change(self, event: Mapping[str, Any]) -> None:
        if len(self._changes) >= MOST:
            return
        words = _text(event, "words")
        self._changes.append(words)
        if not self._dry_run:
            log.info("agent {agent}: {words}", agent=self._name, words=words)
            self._progress({"stage": _text(event, "stage"), "text": words})

    def _warning(self, event: Mapping[str, Any]) -> None:
        if len(self._warnings) >= MOST:
            return
        words = _text(event, "words")
        self._warnings.append(words)
        log.warn("agent {agent}: {words}", agent=self._name, words=words)

    def _end(self, event: Mapping[str, Any]) -> None:
        self._last = event

    @property
    def tenants(self) -> tuple[str, ...]:
        """The accounts on whose behalf something was changed there, as it told at its end."""

        facts = self._last.get("facts")
        tenants = facts.get("tenants") if isinstance(facts, dict) else None
        return tuple(one[:WORDS] for one in tenants[:MOST] if isinstance(one, str)) if isinstance(tenants, list) else ()

    def report(self, outcome: Outcome) -> Report:
        """Once it is over. Raises what it failed by."""

        last = self._last
        if last.get("event") == "done":
            return Report(tuple(self._changes), tuple(self._warnings))
        if last:
            message = _text(last, "message") or "It failed without a word"
            kind = _ERRORS.get(str(last.get("code")), InternalError)
            hint = _text(last, "hint") or (None if kind is BadRequest else AGAIN)
            raise kind(message if message.endswith(".") else f"{message}.", hint=hint)
        if outcome.timed_out:
            raise TimedOut(f"The agent {self._name} did not get done with it in time.", hint=AGAIN)
        raise AgentUnreachable(f"It broke off on the agent {self._name}: {outcome.last_words}.", hint=AGAIN)


def _text(event: Mapping[str, Any], member: str) -> str:
    value = event.get(member)
    return value[:WORDS] if isinstance(value, str) else ""
