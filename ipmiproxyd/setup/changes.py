"""Changes are recorded and told as they are made; in a dry run they are only told."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from ipmiproxyd.setup.record import Record

P = ParamSpec("P")


class Changes:
    """:param say: takes a line for people.
    :ivar dry_run: nothing is changed.
    :ivar count: how many changes there were, or would have been.
    """

    def __init__(self, record: Record, say: Callable[[str], None], *, dry_run: bool) -> None:
        self._record = record
        self._say = say
        self.dry_run = dry_run
        self.count = 0

    def make(self, subject: str, done: str, act: Callable[P, object], *arguments: P.args, **named: P.kwargs) -> None:
        """Act, but in a dry run; the record is kept first. ``done`` is what becomes of the subject: "written"."""

        self.count += 1
        if self.dry_run:
            self._say(f"{subject}: would be {done}")
            return
        self._record.save()
        act(*arguments, **named)
        self._say(f"{subject}: {done}")

    def note(self, words: str) -> None:
        """Something that is left as it is, and why."""

        self._say(words)

    def settle(self) -> None:
        """At the end: what was found out is kept, too."""

        if self.dry_run:
            return
        if self._record.is_empty:
            self._record.forget()
        else:
            self._record.save()
