"""The stored proxies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import Proxy
from ipmiproxyd.store.records import Records
from ipmiproxyd.wire.proxy import changed, checked, from_document, to_document

KIND: Final = "proxy"

Judge = Callable[[Proxy, Proxy | None, Sequence[Proxy]], Awaitable[None]]
"""Sees whether a proxy can work here: as it shall be, as it was (None: new), and the others. Raises ProxyError."""


class StoredProxies(Records[Proxy]):
    """What is stored of proxies, over any store. None is stored that ``judge`` refuses."""

    def __init__(self, store: Store, judge: Judge) -> None:
        super().__init__(store, KIND, from_document, to_document)
        self._judge = judge

    async def add(self, proxy: Proxy) -> Proxy:
        """:raises BadValue: a field is not valid.
        :raises Exists: the name is taken."""

        proxy = checked(proxy)
        async with self.alone():
            others = [other for other in await self.list() if other.name != proxy.name]
            await self._judge(proxy, None, others)
            await self.create(proxy.name, proxy)
        return proxy

    async def change(self, name: str, changes: Mapping[str, Any]) -> Proxy:
        """:raises NotFound: there is no such proxy.
        :raises BadValue: no such field, or its new value is not valid."""

        async with self.alone():
            before = await self.get(name)
            after = changed(before, changes)
            await self._judge(after, before, [other for other in await self.list() if other.name != name])
            await self.put(name, after)
        return after

    async def remove(self, name: str) -> Proxy:
        """:raises NotFound: there is no such proxy."""

        async with self.alone():
            proxy = await self.get(name)
            await self.delete(name)
        return proxy
