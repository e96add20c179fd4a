"""Stored values of one kind, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from twisted.internet.defer import DeferredLock

from ipmiproxyd.errors import Exists, NotFound
from ipmiproxyd.interfaces import Store

T = TypeVar("T")


class Records(Generic[T]):
    """Over any store.

    :param kind: of document, and what people call it.
    :param read: makes a value of a document, ``write`` the other way round.
    """

    def __init__(
        self,
        store: Store,
        kind: str,
        read: Callable[[Mapping[str, Any]], T],
        write: Callable[[T], Mapping[str, Any]],
    ) -> None:
        self._store = store
        self._kind = kind
        self._read = read
        self._write = write
        self._lock = DeferredLock()

    async def get(self, name: str) -> T:
        """:raises NotFound: there is none of that name."""

        document = await self._store.get(self._kind, name)
        if document is None:
            raise NotFound(f"There is no {self._kind} {name}.", hint=f"{self._kind} list shows all.")
        return self._read(document)

    async def list(self) -> list[T]:
        """All, in the order of their names."""

        return [self._read(document) for document in (await self._store.list(self._kind)).values()]

    async def create(self, name: str, value: T) -> None:
        """:raises Exists: the name is taken."""

        if not await self._store.create(self._kind, name, self._write(value)):
            article = "an" if self._kind[0] in "aeiou" else "a"
            raise Exists(f"There is {article} {self._kind} {name} already.", hint=f"Use {self._kind} set to change it.")

    async def put(self, name: str, value: T) -> None:
        await self._store.put(self._kind, name, self._write(value))

    async def delete(self, name: str) -> None:
        await self._store.delete(self._kind, name)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nobody else changes one between our reading and our writing it."""

        await self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
