"""What the engine tells whoever started it: lines of JSON on standard output, and how it fails."""

from __future__ import annotations

import json
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROGRESS_STEP = 1.0  # percent


class FailedError(Exception):
    """The run comes to nothing. ``code`` is a stable word, ``hint`` says what to do."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class StoppedError(Exception):
    """Nobody reads any more, or we were asked to stop: the step that was begun is finished, and no other is begun."""


class Teller:
    """Says lines of JSON. That nobody reads them breaks nothing off: :meth:`go_on` tells."""

    def __init__(self, fd: int = 1) -> None:
        self._fd, self._gone, self._percent = fd, False, -PROGRESS_STEP

    def keep_going(self) -> None:
        """From now on a signal to end only means that no further step is begun."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, *_: object) -> None:
        self._gone = True

    def go_on(self) -> None:
        """Between two steps. Raises StoppedError if there shall be no further one."""
        if self._gone:
            raise StoppedError

    def say(self, **event: Any) -> None:
        line = json.dumps(event).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError:
            self._gone = True

    def stage(self, name: str, text: str) -> None:
        self._percent = -PROGRESS_STEP
        self.say(event="stage", name=name, text=text)

    def progress(self, name: str, percent: float, text: str) -> None:
        """Of a stage; what is hardly more than before is not told."""
        if percent >= self._percent + PROGRESS_STEP:
            self._percent = percent
            self.say(event="progress", name=name, percent=round(percent, 1), text=text)

    def warning(self, words: str) -> None:
        self.say(event="warning", words=words)
