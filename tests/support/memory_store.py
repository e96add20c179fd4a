"""A store in memory, for tests of logic. It is held to the same tests as the real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipmiproxyd.model import Secret


class MemoryStore:
    """Implements :class:`~ipmiproxyd.interfaces.Store`.

    :ivar documents: what is stored, by kind and key.
    """

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, dict[str, Any]]] = {}

    async def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        self.documents.setdefault(kind, {})[key] = _copy(document)

    async def create(self, kind: str, key: str, document: Mapping[str, Any]) -> bool:
        if key in self.documents.get(kind, {}):
            return False
        await self.put(kind, key, document)
        return True

    async def get(self, kind: str, key: str) -> dict[str, Any] | None:
        document = self.documents.get(kind, {}).get(key)
        return None if document is None else _copy(document)

    async def list(self, kind: str, prefix: str = "") -> dict[str, dict[str, Any]]:
        stored = self.documents.get(kind, {})
        return {key: _copy(stored[key]) for key in sorted(stored) if key.startswith(prefix)}

    async def delete(self, kind: str, key: str) -> bool:
        return self.documents.get(kind, {}).pop(key, None) is not None

    async def close(self) -> None:
        """Nothing is open."""


def _copy(value: Any) -> Any:
    # As a real store does it: what is not JSON (or a Secret) does not get in, tuples come back as lists.
    if isinstance(value, Mapping):
        return {key: _copy(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(part) for part in value]
    if value is None or isinstance(value, Secret | str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} cannot stand in a document")
