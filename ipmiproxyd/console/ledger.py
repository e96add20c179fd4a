"""The ledger: what a console must give back.

A record ``(kind, key, data)`` is stored before the thing exists. Its release needs only the record and is idempotent,
so it also works in another process after a crash. Releases run once, in reverse order, each with a time limit, and
in a Deferred of their own (see :meth:`Ledger.give_back`), which no caller's cancellation reaches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ipmiproxyd.console.timing import limited, uncut
from ipmiproxyd.errors import ProxyError
from ipmiproxyd.interfaces import Store
from ipmiproxyd.model import LedgerRecord

KIND: Final = "ledger"
RELEASE_LIMIT: Final = 20.0
"""Seconds that one release may take."""

Release = Callable[[LedgerRecord], Awaitable[None]]

log = Logger()


class Ledger:
    """The ledger of one console. ``releases`` says, by kind, how a record is given back."""

    def __init__(
        self, console: str, store: Store, releases: Mapping[str, Release], clock: IReactorTime
    ) -> None:
        self._console = console
        self._store = store
        self._releases = releases
        self._clock = clock
        self._seq = 0

    async def record(self, kind: str, key: str, data: Mapping[str, Any] | None = None) -> None:
        """Store that ``kind``/``key`` is about to be acquired; durable when it returns."""

        if kind not in self._releases:
            raise ValueError(f"nothing is known that releases a {kind!r}")
        self._seq += 1
        document = {"kind": kind, "key": key, "data": dict(data or {})}
        await self._store.put(KIND, f"{self._console}/{self._seq:06d}", document)

    async def give_back(self, kind: str = "", *, keep: Collection[str] = ()) -> list[str]:
        """Release everything that is recorded (of one kind, or but for some), the latest first. Returns, in plain
        words, what could not be released: those records stay, for another try. Whoever cancels it waits for its end."""

        return await uncut(self._give_back(kind, keep))

    async def _give_back(self, kind: str, keep: Collection[str]) -> list[str]:
        problems = []
        documents = await self._store.list(KIND, f"{self._console}/")
        for name, document in sorted(documents.items(), reverse=True):
            if kind not in ("", document["kind"]) or document["kind"] in keep:
                continue
            record = LedgerRecord(
                console=self._console,
                seq=int(name.rpartition("/")[2]),
                kind=document["kind"],
                key=document["key"],
                data=document["data"],
            )
            problem = await self._release(record)
            if problem is None:
                await self._store.delete(KIND, name)
            else:
                problems.append(problem)
        return problems

    async def _release(self, record: LedgerRecord) -> str | None:
        release = self._releases.get(record.kind)
        if release is None:
            return f"nothing here knows how to give back a {record.kind}"
        try:
            await limited(release(record), RELEASE_LIMIT, self._clock)
        except ProxyError as error:
            problem = error.message
        except Exception:
            log.failure("console {console}: releasing {record}", None, console=record.console, record=_words(record))
            problem = "an internal error, see the log"
        else:
            return None
        log.warn(
            "console {console}: {record} is not given back yet: {problem}",
            console=record.console,
            record=_words(record),
            problem=problem,
        )
        return f"{_words(record)}: {problem}"


def _words(record: LedgerRecord) -> str:
    return f"{record.kind} {record.key}"
