"""Ids that people read aloud and type: small letters and digits that are not mistaken for one another."""

from __future__ import annotations

import secrets
from typing import Final

_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"


def job_id(console: str, attempt: int) -> str:
    """Of a console's job: an agent starts no job of an id again that was stopped."""

    return console if attempt == 1 else f"{console}-{attempt}"


def console_of(job: str) -> str:
    return job.partition("-")[0]


def new_id(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
