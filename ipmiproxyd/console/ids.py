"""Ids that people read aloud and type: small letters and digits that are not mistaken for one another."""

from __future__ import annotations

import secrets
from typing import Final

_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"


def new_id(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
