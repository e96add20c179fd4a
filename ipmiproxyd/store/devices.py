"""The stored devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ipmiproxyd.errors import BadValue
from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import BMC_CIPHER, BMC_REFUSED, Device, bmc_key
from ipmiproxyd.store.records import Records
from ipmiproxyd.wire.device import SIGN_IN, changed, checked, from_document, to_document

KIND: Final = "device"


class StoredDevices(Records[Device]):
    """Implements :class:`~ipmiproxyd.interfaces.Devices` over any store."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, KIND, from_document, to_document)

    async def add(self, device: Device) -> Device:
        """:raises BadValue: a field is not valid, or the name is missing.
        :raises Exists: the name is taken."""

        if not device.name:
            raise BadValue("name: a stored device needs one.")
        device = checked(device)
        await self.create(device.name, device)
        return device

    async def change(self, name: str, changes: Mapping[str, Any]) -> Device:
        """A change of what a sign-in needs, even to the same value, also makes the daemon forget that the BMC had
        refused it.

        :raises NotFound: there is no such device.
        :raises BadValue: no such field, or its new value is not valid."""

        async with self.alone():
            before = await self.get(name)
            after = changed(before, changes)
            await self.put(name, after)
        if SIGN_IN & changes.keys():
            for bmc in {before.bmc, after.bmc}:
                await self._forget(BMC_REFUSED, bmc)
        return after

    async def remove(self, name: str) -> None:
        """Also forgets what was remembered of its BMC.

        :raises NotFound: there is no such device."""

        async with self.alone():
            device = await self.get(name)
            await self.delete(name)
        for kind in (BMC_REFUSED, BMC_CIPHER):
            await self._forget(kind, device.bmc)

    async def _forget(self, kind: str, bmc: str) -> None:
        for key in await self._store.list(kind, bmc_key(bmc)):
            await self._store.delete(kind, key)
