"""The stored agents."""

from __future__ import annotations

from typing import Final

from ipmiproxyd.errors import Exists, NotFound
from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import RemoteAgent
from ipmiproxyd.wire.agent import from_document, to_document

KIND: Final = "agent"


class StoredAgents:
    """What ``agent add`` was told, over any store. Who changes one sees to it that nobody else does meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, agent: RemoteAgent) -> None:
        """:raises Exists: the name is taken."""

        if not await self._store.create(KIND, agent.name, to_document(agent)):
            raise Exists(f"There is an agent {agent.name} already.", hint="Use agent set to change it.")

    async def put(self, agent: RemoteAgent) -> None:
        await self._store.put(KIND, agent.name, to_document(agent))

    async def get(self, name: str) -> RemoteAgent:
        """:raises NotFound: it is not stored."""

        document = await self._store.get(KIND, name)
        if document is None:
            raise NotFound(f"There is no agent named {name!r}.", hint="agent list shows all.")
        return from_document(document)

    async def list(self) -> list[RemoteAgent]:
        """All, in the order of their names."""

        return [from_document(document) for document in (await self._store.list(KIND)).values()]

    async def remove(self, name: str) -> None:
        await self._store.delete(KIND, name)
