"""The stored devices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from twisted.internet.defer import DeferredLock

from ipmiproxyd.errors import BadValue, Exists, NotFound
from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import BMC_CIPHER, BMC_REFUSED, Device, bmc_key
from ipmiproxyd.wire.device import SIGN_IN, changed, checked, from_document, to_document

KIND: Final = "device"


class StoredDevices:
    """Implements :class:`~ipmiproxyd.interfaces.Devices` over any store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = DeferredLock()

    async def add(self, device: Device) -> Device:
        """:raises BadValue: a field is not valid, or the name is missing.
        :raises Exists: the name is taken."""

        if not device.name:
            raise BadValue("name: a stored device needs one.")
        device = checked(device)
        if not await self._store.create(KIND, device.name, to_document(device)):
            raise Exists(f"There is a device {device.name} already.", hint="Use device set to change it.")
        return device

    async def change(self, name: str, changes: Mapping[str, Any]) -> Device:
        """A change of what a sign-in needs, even to the same value, also makes the daemon forget that the BMC had
        refused it.

        :raises NotFound: there is no such device.
        :raises BadValue: no such field, or its new value is not valid."""

        async with self._alone():
            before = await self.get(name)
            after = changed(before, changes)
            await self._store.put(KIND, name, to_document(after))
        if SIGN_IN & changes.keys():
            for bmc in {before.bmc, after.bmc}:
                await self._forget(BMC_REFUSED, bmc)
        return after

    async def get(self, name: str) -> Device:
        """:raises NotFound: there is no such device."""

        document = await self._store.get(KIND, name)
        if document is None:
            raise NotFound(f"There is no device {name}.", hint="device list shows all.")
        return from_document(document)

    async def list(self) -> list[Device]:
        """All, in the order of their names."""

        return [from_document(document) for document in (await self._store.list(KIND)).values()]

    async def remove(self, name: str) -> None:
        """Also forgets what was remembered of its BMC.

        :raises NotFound: there is no such device."""

        async with self._alone():
            device = await self.get(name)
            await self._store.delete(KIND, name)
        for kind in (BMC_REFUSED, BMC_CIPHER):
            await self._forget(kind, device.bmc)

    async def _forget(self, kind: str, bmc: str) -> None:
        for key in await self._store.list(kind, bmc_key(bmc)):
            await self._store.delete(kind, key)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nobody else changes a device between our reading and our writing it."""

        await self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
