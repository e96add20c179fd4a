"""One behaviour for every store: mix it into a test case that makes the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import Secret

if TYPE_CHECKING:
    Mixin = TestCase
else:
    Mixin = object  # so that the suite itself is not collected as a test


class StoreSuite(Mixin):
    """Subclasses implement :meth:`make_store`, which also arranges that the store is closed."""

    store: Store

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        return Deferred.fromCoroutine(self._prepare())

    async def _prepare(self) -> None:
        self.store = await self.make_store()

    async def make_store(self) -> Store:
        raise AssertionError("a subclass makes the store")

    async def test_put_get(self) -> None:
        document = {"text": "ä 'quoted'", "number": 7, "list": [1, {"deep": None}], "yes": True}
        await self.store.put("device", "node17", document)
        self.assertEqual(await self.store.get("device", "node17"), document)

    async def test_get_nothing(self) -> None:
        self.assertIsNone(await self.store.get("device", "nobody"))

    async def test_put_replaces(self) -> None:
        await self.store.put("device", "a", {"v": 1})
        await self.store.put("device", "a", {"v": 2})
        self.assertEqual(await self.store.list("device"), {"a": {"v": 2}})

    async def test_create_only_once(self) -> None:
        self.assertTrue(await self.store.create("device", "a", {"v": 1}))
        self.assertFalse(await self.store.create("device", "a", {"v": 2}))
        self.assertEqual(await self.store.get("device", "a"), {"v": 1})

    async def test_delete(self) -> None:
        await self.store.put("device", "a", {})
        self.assertTrue(await self.store.delete("device", "a"))
        self.assertFalse(await self.store.delete("device", "a"))

    async def test_kinds_are_apart(self) -> None:
        await self.store.put("device", "a", {"v": 1})
        await self.store.put("console", "a", {"v": 2})
        await self.store.delete("device", "a")
        self.assertEqual(await self.store.get("console", "a"), {"v": 2})

    async def test_list_by_prefix_in_key_order(self) -> None:
        for key in ("c2/000002", "c1/000001", "c2/000001", "c2%/000001", "c10/000001"):
            await self.store.put("ledger", key, {"key": key})
        self.assertEqual(list(await self.store.list("ledger", "c2/")), ["c2/000001", "c2/000002"])
        self.assertEqual(
            list(await self.store.list("ledger")),
            ["c1/000001", "c10/000001", "c2%/000001", "c2/000001", "c2/000002"],
        )

    async def test_secrets_come_back_as_secrets(self) -> None:
        await self.store.put("device", "a", {"password": Secret("hunter2 ☃"), "list": [Secret("x")]})
        document = await self.store.get("device", "a")
        assert document is not None
        self.assertIsInstance(document["password"], Secret)
        self.assertEqual(document["password"].reveal(), "hunter2 ☃")
        self.assertEqual(document["list"][0].reveal(), "x")

    async def test_documents_are_copies(self) -> None:
        mine: dict[str, Any] = {"list": [1]}
        await self.store.put("device", "a", mine)
        mine["list"].append(2)
        theirs = await self.store.get("device", "a")
        assert theirs is not None
        theirs["list"].append(3)
        self.assertEqual(await self.store.get("device", "a"), {"list": [1]})

    async def test_many_at_once(self) -> None:
        await gatherResults(
            [Deferred.fromCoroutine(self.store.put("device", f"n{i:03}", {"i": i})) for i in range(100)]
        )
        self.assertEqual(len(await self.store.list("device")), 100)

