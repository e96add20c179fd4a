"""What cannot be set up."""

from __future__ import annotations


class SetupError(Exception):
    """Nothing more is done. ``message`` and ``hint`` are for people."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
