"""The stores: one behaviour, and what is particular to the SQLite one."""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from ipmiproxyd.errors import InternalError
from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import Secret
from ipmiproxyd.store.sqlite import DATABASE, KEY_FILE, SqliteStore
from tests.support.memory_store import MemoryStore
from tests.support.scratch import scratch
from tests.support.store_suite import StoreSuite


class MemoryStoreTests(StoreSuite, TestCase):
    async def make_store(self) -> Store:
        return MemoryStore()


class SqliteStoreTests(StoreSuite, TestCase):
    async def make_store(self) -> Store:
        self.folder = scratch(self)
        store = SqliteStore(self.folder, IReactorFromThreads(reactor))
        await store.open()
        self.addCleanup(store.close)
        return store

    async def reopened(self) -> SqliteStore:
        await self.store.close()
        store = SqliteStore(self.folder, IReactorFromThreads(reactor))
        await store.open()
        self.addCleanup(store.close)
        return store

    async def test_survives(self) -> None:
        await self.store.put("device", "a", {"password": Secret("kept")})
        document = await (await self.reopened()).get("device", "a")
        assert document is not None
        self.assertEqual(document["password"].reveal(), "kept")

    async def test_no_secret_in_any_file(self) -> None:
        await self.store.put("device", "a", {"password": Secret("Tr0ub4dor&3")})
        await self.store.close()
        for path in self.folder.iterdir():
            self.assertNotIn(b"Tr0ub4dor", path.read_bytes(), path.name)

    async def test_files_are_private(self) -> None:
        for name in (DATABASE, KEY_FILE):
            self.assertEqual(os.stat(self.folder / name).st_mode & 0o077, 0, name)

    async def test_key_that_others_can_read_is_refused(self) -> None:
        (self.folder / KEY_FILE).chmod(0o644)
        with self.assertRaisesRegex(InternalError, "can be read by other users"):
            await self.reopened()

    async def test_missing_key_is_refused(self) -> None:
        (self.folder / KEY_FILE).unlink()
        with self.assertRaisesRegex(InternalError, "key file .* is missing"):
            await self.reopened()

    async def test_damaged_key_is_refused(self) -> None:
        (self.folder / KEY_FILE).write_text("short")
        with self.assertRaisesRegex(InternalError, "damaged"):
            await self.reopened()

    async def test_another_key_is_noticed(self) -> None:
        await self.store.put("device", "a", {"password": Secret("kept")})
        (self.folder / KEY_FILE).write_bytes(b"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
        store = await self.reopened()
        with self.assertRaisesRegex(InternalError, "another key"):
            await store.get("device", "a")

    async def test_one_daemon_at_a_time(self) -> None:
        other = SqliteStore(self.folder, IReactorFromThreads(reactor))
        with self.assertRaisesRegex(InternalError, "in use by another ipmiproxyd"):
            await other.open()

    async def test_closed_store_says_so(self) -> None:
        await self.store.close()
        with self.assertRaisesRegex(InternalError, "closed"):
            await self.store.get("device", "a")
