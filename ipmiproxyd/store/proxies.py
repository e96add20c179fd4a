"""The stored proxies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from twisted.internet.defer import DeferredLock

from ipmiproxyd.errors import Exists, NotFound
from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import Proxy
from ipmiproxyd.wire.proxy import changed, checked, from_document, to_document

KIND: Final = "proxy"

Judge = Callable[[Proxy, Sequence[Proxy]], Awaitable[None]]
"""Sees whether a proxy can work here, beside the others. Raises ProxyError."""


class StoredProxies:
    """What is stored of proxies, over any store. None is stored that ``judge`` refuses."""

    def __init__(self, store: Store, judge: Judge) -> None:
        self._store = store
        self._judge = judge
        self._lock = DeferredLock()

    async def add(self, proxy: Proxy) -> Proxy:
        """:raises BadValue: a field is not valid.
        :raises Exists: the name is taken."""

        proxy = checked(proxy)
        async with self._alone():
            others = await self.list()
            if any(other.name == proxy.name for other in others):
                raise Exists(f"There is a proxy {proxy.name} already.", hint="Use proxy set to change it.")
            await self._judge(proxy, others)
            await self._store.put(KIND, proxy.name, to_document(proxy))
        return proxy

    async def change(self, name: str, changes: Mapping[str, Any]) -> Proxy:
        """:raises NotFound: there is no such proxy.
        :raises BadValue: no such field, or its new value is not valid."""

        async with self._alone():
            after = changed(await self.get(name), changes)
            await self._judge(after, [other for other in await self.list() if other.name != name])
            await self._store.put(KIND, name, to_document(after))
        return after

    async def get(self, name: str) -> Proxy:
        """:raises NotFound: there is no such proxy."""

        document = await self._store.get(KIND, name)
        if document is None:
            raise NotFound(f"There is no proxy {name}.", hint="proxy list shows all.")
        return from_document(document)

    async def list(self) -> list[Proxy]:
        """All, in the order of their names."""

        return [from_document(document) for document in (await self._store.list(KIND)).values()]

    async def remove(self, name: str) -> Proxy:
        """:raises NotFound: there is no such proxy."""

        async with self._alone():
            proxy = await self.get(name)
            await self._store.delete(KIND, name)
        return proxy

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nobody else changes a proxy between our reading and our writing."""

        await self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
