"""The stored agents, and what is remembered of them and by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import RemoteAgent
from ipmiproxyd.store.records import Records
from ipmiproxyd.wire.agent import from_document, to_document

KIND: Final = "agent"
ISOLATED: Final = "agent-isolated"
"""Kind of stored document: an agent whose displays had Unix users of their own, and what it was then, by its name."""


class StoredAgents(Records[RemoteAgent]):
    """What ``agent add`` was told, over any store. Who changes one sees to it that nobody else does meanwhile."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, KIND, from_document, to_document)

    async def note_isolated(self, agent: RemoteAgent) -> None:
        """Remember that its displays have Unix users of their own."""

        await self._store.put(ISOLATED, agent.name, _isolated_as(agent))

    async def still_isolated(self, agent: RemoteAgent) -> bool:
        """Whether its displays had that. Forgets it if the agent is to be another now."""

        before = await self._store.get(ISOLATED, agent.name)
        if before is not None and before != _isolated_as(agent):
            await self._store.delete(ISOLATED, agent.name)
        return before == _isolated_as(agent)

    async def forget(self, name: str, remembered: Mapping[str, int]) -> None:
        """Delete what is remembered by an agent's name.

        :param remembered: kind of document → which word of its keys the agent's name is.
        """

        for kind, place in {ISOLATED: 0, **remembered}.items():
            for key in await self._store.list(kind):
                if key.split()[place : place + 1] == [name]:
                    await self._store.delete(kind, key)


def _isolated_as(agent: RemoteAgent) -> dict[str, Any]:
    return {
        "user": agent.user,
        "users": agent.users,
        "runner": agent.runner,
        "python": agent.python,
        "host_keys": list(agent.host_keys),
    }
