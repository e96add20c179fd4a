"""The memory of refused sign-ins: BMCs lock accounts, so nothing repeats what a BMC has refused.

What is kept is no password but an HMAC-SHA-256 of the credentials. Its key is random for each BMC and stands in the
document as a secret, which the store encrypts: a copy of the database alone is no use for guessing, and whoever also
has the store's key file could read the devices' passwords themselves. So a slow hash would guard nothing more, and
would cost a thread and tens of milliseconds at every look.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, Final

from ipmiproxyd.errors import BmcAuth, ProxyError
from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import BMC_REFUSED, Device, Secret, bmc_key

KEPT: Final = 16
"""So many different credentials are remembered of one BMC; the oldest are forgotten."""


class Refusals:
    """Which credentials each BMC has refused, as seen from each agent.

    Callers hold the BMC's turn, so that nobody else reads and writes in between.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def check(self, device: Device, agent: str) -> None:
        """:raises BmcAuth: the BMC has refused these credentials before."""

        document = await self._store.get(BMC_REFUSED, bmc_key(device.bmc, agent))
        known = None if document is None else document["refused"].get(_mark(document["salt"], device))
        if known is not None:
            raise BmcAuth(
                f"{known['message']} The same credentials have not been tried again, since BMCs lock accounts.",
                hint=known["hint"],
            )

    async def add(self, device: Device, agent: str, error: ProxyError) -> None:
        key = bmc_key(device.bmc, agent)
        document = await self._store.get(BMC_REFUSED, key) or {"salt": Secret(secrets.token_hex(32)), "refused": {}}
        entry = {_mark(document["salt"], device): {"message": error.message, "hint": error.hint}}
        older = list(_others(document, entry).items())[1 - KEPT :]
        await self._store.put(BMC_REFUSED, key, {**document, "refused": {**dict(older), **entry}})

    async def forget(self, device: Device, agent: str) -> None:
        """The BMC has accepted these credentials."""

        key = bmc_key(device.bmc, agent)
        document = await self._store.get(BMC_REFUSED, key)
        if document is None:
            return
        others = _others(document, {_mark(document["salt"], device): None})
        if not others:
            await self._store.delete(BMC_REFUSED, key)
        elif len(others) < len(document["refused"]):
            await self._store.put(BMC_REFUSED, key, {**document, "refused": others})


def _others(document: Mapping[str, Any], marks: Mapping[str, Any]) -> dict[str, Any]:
    return {mark: entry for mark, entry in document["refused"].items() if mark not in marks}


def _mark(salt: Secret, device: Device) -> str:
    # The parts' lengths go in, so that no two credentials make the same text.
    parts = [part.encode() for part in (device.username, device.password.reveal(), device.kg.reveal().lower())]
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.new(salt.reveal().encode(), text, hashlib.sha256).hexdigest()
