"""A text that must not be seen."""

from __future__ import annotations

import hmac
from typing import Any


class Secret:
    """A text that must not be seen: prints as ``***``; :meth:`reveal` gives it where it enters a child's stdin,
    an anonymous file or a socket, and nowhere else."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __deepcopy__(self, _memo: dict[int, Any]) -> Secret:
        return self  # it never changes

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled")
