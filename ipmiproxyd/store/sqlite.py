"""The embedded store: one SQLite file, one thread, nothing to set up."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ipmiproxyd.errors import InternalError
from ipmiproxyd.store.codec import DocumentCodec, load_or_make_key

P = ParamSpec("P")
T = TypeVar("T")

DATABASE: Final = "ipmiproxyd.sqlite"
KEY_FILE: Final = "secrets.key"
LOCK_FILE: Final = "lock"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL,
    key  TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""


class SqliteStore:
    """:class:`~ipmiproxyd.interfaces.Store` in ``<folder>/ipmiproxyd.sqlite``, its key in ``<folder>/secrets.key``.

    Every statement runs on the store's own thread, in the order in which it was asked for.
    """

    def __init__(self, folder: Path, reactor: IReactorFromThreads) -> None:
        self._folder = folder
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=1, maxthreads=1, name="store")
        self._files: _Files | None = None

    async def open(self) -> None:
        """:raises InternalError: the folder, the key or the database cannot be used."""

        self._pool.start()
        try:
            self._files = await deferToThreadPool(self._reactor, self._pool, _Files, self._folder)
        except (OSError, sqlite3.Error) as error:
            self._pool.stop()
            raise InternalError(f"The state folder {self._folder} cannot be used: {error}.") from error
        except InternalError:
            self._pool.stop()
            raise

    async def close(self) -> None:
        files, self._files = self._files, None
        if files is not None:
            await deferToThreadPool(self._reactor, self._pool, files.close)
            self._pool.stop()

    async def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        await self._call(_Files.put, kind, key, document)

    async def create(self, kind: str, key: str, document: Mapping[str, Any]) -> bool:
        return await self._call(_Files.create, kind, key, document)

    async def get(self, kind: str, key: str) -> dict[str, Any] | None:
        return await self._call(_Files.get, kind, key)

    async def list(self, kind: str, prefix: str = "") -> dict[str, dict[str, Any]]:
        return await self._call(_Files.list, kind, prefix)

    async def delete(self, kind: str, key: str) -> bool:
        return await self._call(_Files.delete, kind, key)

    async def _call(
        self, action: Callable[Concatenate[_Files, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self._files is None:
            raise InternalError("The store is closed.")
        result: T = await deferToThreadPool(self._reactor, self._pool, action, self._files, *args, **kwargs)
        return result


def _lock(folder: Path) -> int:
    """The folder's lock: another daemon would close this one's consoles as if they were left over."""

    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InternalError(
            f"The state folder {folder} is in use by another ipmiproxyd.",
            hint="Give each daemon its own daemon.state-dir.",
        ) from None
    return descriptor


class _Files:
    """The blocking side: used by the store's thread only."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(folder)
        database = folder / DATABASE
        self._codec = DocumentCodec(load_or_make_key(folder / KEY_FILE, may_make=not database.exists()))
        self._connection = sqlite3.connect(database, isolation_level=None, timeout=5.0)
        database.chmod(0o600)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode NORMAL survives a crash of the process, which is what the ledger is for.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()
        os.close(self._lock)

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        self._connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
            (kind, key, self._codec.encode(document)),
        )

    def create(self, kind: str, key: str, document: Mapping[str, Any]) -> bool:
        cursor = self._connection.execute(
            "INSERT OR IGNORE INTO documents VALUES (?, ?, ?)", (kind, key, self._codec.encode(document))
        )
        return cursor.rowcount == 1

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        row = self._connection.execute(
            "SELECT body FROM documents WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return None if row is None else self._codec.decode(row[0])

    def list(self, kind: str, prefix: str) -> dict[str, dict[str, Any]]:
        rows = self._connection.execute(
            "SELECT key, body FROM documents WHERE kind = ? AND substr(key, 1, ?) = ? ORDER BY key",
            (kind, len(prefix), prefix),
        )
        return {key: self._codec.decode(body) for key, body in rows}

    def delete(self, kind: str, key: str) -> bool:
        cursor = self._connection.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key))
        return cursor.rowcount == 1
