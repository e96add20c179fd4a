"""The stored agents."""

from __future__ import annotations

from typing import Final

from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import RemoteAgent
from ipmiproxyd.store.records import Records
from ipmiproxyd.wire.agent import from_document, to_document

KIND: Final = "agent"


class StoredAgents(Records[RemoteAgent]):
    """What ``agent add`` was told, over any store. Who changes one sees to it that nobody else does meanwhile."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, KIND, from_document, to_document)
