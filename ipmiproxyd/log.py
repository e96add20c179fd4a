"""Where the log goes, and how an event becomes a line.

Under systemd the lines carry the journal's priority and no time; otherwise they go to standard error with both.
One event is one line, whatever stands in its values; the lines of a failure's traceback follow it, indented.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, TextIO

from twisted.application.service import MultiService
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatTime,
)
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

LONGEST_LINE: Final = 8000
"""Characters of one line; the journal would cut it somewhere later."""

_PRIORITIES: Final[Mapping[Any, int]] = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
# Control characters, line and paragraph separators, signs that turn the direction of writing, lone surrogates.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """A text without anything that ends a line or steers a terminal: such characters are shown as escapes."""

    text = _UNFIT.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return text if len(text) <= LONGEST_LINE else text[:LONGEST_LINE] + f"… ({len(text) - LONGEST_LINE} more)"


def event_lines(event: LogEvent) -> Iterator[str]:
    """The lines of an event: where it comes from and what it says, then its traceback if it has one."""

    text = formatEvent(event)
    failure: Failure | None = event.get("log_failure")
    if failure is not None and not text:
        text = failure.getErrorMessage()
    if text:
        yield one_line(f"{event.get('log_namespace') or '-'}: {text}")
    if failure is not None:
        yield from ("    " + one_line(line) for line in failure.getTraceback().splitlines())


@implementer(ILogObserver)
class LineObserver:
    """Writes events as lines to a stream, for the journal or for people."""

    def __init__(self, stream: TextIO, *, journal: bool) -> None:
        self._stream = stream
        self._journal = journal

    def __call__(self, event: LogEvent) -> None:
        prefix = self._prefix(event)
        lines = "".join(f"{prefix}{line}\n" for line in event_lines(event))
        if lines:
            self._stream.write(lines)
            self._stream.flush()

    def _prefix(self, event: LogEvent) -> str:
        level = event.get("log_level", LogLevel.info)
        if self._journal:
            return f"<{_PRIORITIES.get(level, 6)}>"
        return f"{formatTime(event.get('log_time'))} {level.name:<8} "


def goes_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is the one that systemd connected to the journal (JOURNAL_STREAM names its device and inode)."""

    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def make_observer(level: str, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> ILogObserver:
    """An observer for ``stream`` (standard error, as it is now) of events of ``level`` (a name of
    :class:`twisted.logger.LogLevel`) and above."""

    stream = stream or sys.stderr
    lines = LineObserver(stream, journal=goes_to_journal(stream, environ))
    return FilteringLogObserver(lines, [LogLevelFilterPredicate(LogLevel.lookupByName(level))])


class LoggedService(MultiService):
    """A service for ``makeService`` to return: it brings the application's log observer with it.

    twistd asks the application for an observer before it starts any service, unless it was given ``--logger``.
    """

    def __init__(self, observer: ILogObserver) -> None:
        MultiService.__init__(self)
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        MultiService.setServiceParent(self, parent)
