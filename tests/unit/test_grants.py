"""One-time tokens and keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.model import Grant

ANN = Grant(console="c1", id="a", user="ann")
BEN = Grant(console="c1", id="b", user="ben", control=False)
WATCHER = Grant(console="c2", id="a", user="bob", control=False)


class GrantTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.book = GrantBook(self.clock, 300.0)

    def key(self, grant: Grant = ANN) -> str:
        key = self.book.redeem(grant.console, self.book.issue(grant))
        assert key is not None
        return key

    def test_a_token_is_good_once(self) -> None:
        token = self.book.issue(ANN)
        key = self.book.redeem("c1", token)
        assert key is not None
        self.assertIsNone(self.book.redeem("c1", token))
        self.assertEqual(self.book.check("c1", key), ANN)
        self.assertEqual(self.book.check("c1", key), ANN)

    def test_the_grant_is_kept_as_it_was(self) -> None:
        self.assertEqual(self.book.check("c2", self.key(WATCHER)), WATCHER)

    def test_a_token_expires(self) -> None:
        in_time, late = self.book.issue(ANN), self.book.issue(ANN)
        self.clock.advance(299.9)
        self.assertIsNotNone(self.book.redeem("c1", in_time))
        self.clock.advance(0.1)
        self.assertIsNone(self.book.redeem("c1", late))

    def test_a_key_does_not_expire(self) -> None:
        key = self.key()
        self.clock.advance(1e6)
        self.assertEqual(self.book.check("c1", key), ANN)

    def test_both_belong_to_one_console(self) -> None:
        token, key = self.book.issue(ANN), self.key()
        self.book.issue(WATCHER)
        self.assertIsNone(self.book.redeem("c2", token))
        self.assertIsNone(self.book.check("c2", key))
        self.assertIsNotNone(self.book.redeem("c1", token))

    def test_revoked(self) -> None:
        token, key, other = self.book.issue(ANN), self.key(), self.key(WATCHER)
        self.book.revoke("c1")
        self.book.revoke("unknown")
        self.assertIsNone(self.book.redeem("c1", token))
        self.assertIsNone(self.book.check("c1", key))
        self.assertEqual(self.book.check("c2", other), WATCHER)

    def test_one_grant_revoked(self) -> None:
        token, key, key_too = self.book.issue(ANN), self.key(), self.key()
        others, elsewhere = self.key(BEN), self.key(WATCHER)
        self.book.revoke("c1", "a")
        self.book.revoke("c1", "unknown")
        self.book.revoke("unknown", "a")
        self.assertIsNone(self.book.redeem("c1", token))
        self.assertEqual([self.book.check("c1", gone) for gone in (key, key_too)], [None, None])
        self.assertEqual(self.book.check("c1", others), BEN)
        self.assertEqual(self.book.check("c2", elsewhere), WATCHER)
        self.assertEqual(self.book.all("c1"), (BEN,))

    def test_all_that_are_out(self) -> None:
        self.assertEqual(self.book.all("c1"), ())
        self.key(ANN)
        self.book.issue(BEN)
        self.book.issue(ANN)
        self.key(WATCHER)
        self.assertEqual(self.book.all("c1"), (ANN, BEN))
        self.clock.advance(300)
        self.assertEqual(self.book.all("c1"), (ANN,))
        self.book.issue(BEN)
        self.assertEqual(self.book.all("c1"), (ANN, BEN))
        self.book.revoke("c1")
        self.assertEqual(self.book.all("c1"), ())

    def test_a_book_does_not_grow(self) -> None:
        for number in range(1000):
            self.book.issue(Grant(console="c1", id=f"g{number}"))
        self.assertEqual([grant.id for grant in self.book.all("c1")], [f"g{number}" for number in range(936, 1000)])
        self.assertLess(len(self.book._books["c1"].order), 70)

    def test_the_oldest_tokens_are_forgotten(self) -> None:
        tokens = [self.book.issue(ANN) for _ in range(65)]
        self.assertIsNone(self.book.redeem("c1", tokens[0]))
        self.assertIsNotNone(self.book.redeem("c1", tokens[1]))

    def test_the_longest_unused_keys_are_forgotten(self) -> None:
        keys = [self.key() for _ in range(64)]
        self.book.check("c1", keys[0])
        newest = self.key()
        self.assertEqual(self.book.check("c1", keys[0]), ANN)
        self.assertIsNone(self.book.check("c1", keys[1]))
        self.assertEqual(self.book.check("c1", newest), ANN)

    def test_neither_is_kept(self) -> None:
        token = self.book.issue(ANN)
        open_token, key = self.book.issue(ANN), self.book.redeem("c1", token)
        assert key is not None
        kept = repr(vars(self.book))
        for secret in (token, open_token, key):
            self.assertGreaterEqual(len(secret), 43)
            self.assertRegex(secret, r"\A[A-Za-z0-9_-]+\Z")
            self.assertNotIn(secret, kept)

    @given(st.text(max_size=200))
    def test_strangers(self, text: str) -> None:
        self.key()
        self.book.issue(ANN)
        self.assertIsNone(self.book.redeem("c1", text))
        self.assertIsNone(self.book.check("c1", text))
        self.assertIsNone(self.book.redeem(text, text))
        self.assertIsNone(self.book.check(text, text))

    def test_lone_surrogates_are_strangers_too(self) -> None:
        self.assertIsNone(self.book.redeem("c1", "\ud800"))
        self.key()
        self.assertIsNone(self.book.check("c1", "\ud800"))
