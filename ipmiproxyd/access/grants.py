"""One-time tokens, and the keys that browsers trade them for."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from ipmiproxyd.model import Grant

_BYTES: Final = 32
_TOKENS_PER_CONSOLE: Final = 64
_KEYS_PER_CONSOLE: Final = 64


@dataclass(slots=True)
class _Book:
    """What is out for one console: tokens and keys by hash, the longest unused first; ``order`` has the grants in the
    order in which they came."""

    tokens: OrderedDict[bytes, tuple[float, Grant]] = field(default_factory=OrderedDict)
    keys: OrderedDict[bytes, Grant] = field(default_factory=OrderedDict)
    order: dict[str, Grant] = field(default_factory=dict)

    def forget_stale(self, now: float) -> None:
        """Tokens that are too old, and grants that no token or key stands for any more."""

        for hashed in [hashed for hashed, (expires, _) in self.tokens.items() if now >= expires]:
            del self.tokens[hashed]
        alive = {grant.id for _, grant in self.tokens.values()} | {grant.id for grant in self.keys.values()}
        self.order = {grant_id: grant for grant_id, grant in self.order.items() if grant_id in alive}

    def forget(self, grant_id: str) -> None:
        for hashed in [hashed for hashed, (_, grant) in self.tokens.items() if grant.id == grant_id]:
            del self.tokens[hashed]
        for hashed in [hashed for hashed, grant in self.keys.items() if grant.id == grant_id]:
            del self.keys[hashed]
        self.order.pop(grant_id, None)


class GrantBook:
    """Implements :class:`~ipmiproxyd.interfaces.Grants` in memory.

    Tokens and keys are 256 random bits, of which only the SHA-256 is kept. A token is good once and for
    ``token_lifetime`` seconds; a key until its console, or its grant, is revoked. Both belong to one console. A grant
    may have several of them. Of each kind a console has at most 64: one more, and the oldest token or the key that
    was idle longest is forgotten.
    """

    def __init__(self, clock: IReactorTime, token_lifetime: float) -> None:
        self._clock = clock
        self._token_lifetime = token_lifetime
        self._books: dict[str, _Book] = {}

    def issue(self, grant: Grant) -> str:
        book = self._books.setdefault(grant.console, _Book())
        now = self._clock.seconds()
        book.forget_stale(now)
        token = secrets.token_urlsafe(_BYTES)
        book.tokens[_hash(token)] = (now + self._token_lifetime, grant)
        book.order[grant.id] = grant
        _shorten(book.tokens, _TOKENS_PER_CONSOLE)
        return token

    def redeem(self, console_id: str, token: str) -> str | None:
        book = self._books.get(console_id)
        expires, grant = book.tokens.pop(_hash(token), (0.0, None)) if book else (0.0, None)
        if book is None or grant is None or self._clock.seconds() >= expires:
            return None
        key = secrets.token_urlsafe(_BYTES)
        book.keys[_hash(key)] = grant
        _shorten(book.keys, _KEYS_PER_CONSOLE)
        return key

    def check(self, console_id: str, key: str) -> Grant | None:
        book = self._books.get(console_id)
        hashed = _hash(key)
        if book is None or hashed not in book.keys:
            return None
        book.keys.move_to_end(hashed)
        return book.keys[hashed]

    def all(self, console_id: str) -> Sequence[Grant]:
        book = self._books.get(console_id)
        if book is None:
            return ()
        book.forget_stale(self._clock.seconds())
        return tuple(book.order.values())

    def revoke(self, console_id: str, grant_id: str = "") -> None:
        if not grant_id:
            self._books.pop(console_id, None)
        elif console_id in self._books:
            self._books[console_id].forget(grant_id)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _shorten(book: OrderedDict[bytes, Any], limit: int) -> None:
    while len(book) > limit:
        book.popitem(last=False)
