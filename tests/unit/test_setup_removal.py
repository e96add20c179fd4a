"""``ipmiproxyctl setup --remove`` in a tree of files, and setup that is broken off."""

from __future__ import annotations

from collections.abc import Callable

from ipmiproxyd.setup.putting import KEY, KEYS
from ipmiproxyd.setup.record import Record
from ipmiproxyd.setup.shipped import ACCOUNT, CONFIG, SERVICE, SUDOERS
from tests.support.setup_tree import ACCOUNT_FILES, TreeTestCase


class RemoveTests(TreeTestCase):
    def test_all_of_it(self) -> None:
        before = self.listing()
        self.put()
        self.remove(purge=True)
        self.assertEqual(self.listing(), before)
        self.assertEqual(self.remove(purge=True), ["Nothing was changed."])

    def test_a_dry_run(self) -> None:
        self.put()
        before = self.listing()
        would = self.remove(purge=True, dry_run=True)
        self.assertEqual(self.listing(), before)
        self.assertIn(f"{SERVICE}: would be removed", would)
        self.assertIn(f"user {ACCOUNT}: would be removed", would)

    def test_what_is_kept(self) -> None:
        self.put()
        (self.root / "var/lib/ipmiproxyd/key").write_text("state")
        self.remove()
        kept = {CONFIG, KEY, f"{KEY}.pub", "/var/lib/ipmiproxyd/key", "/var/lib/ipmiproxyd-setup/record.json"}
        files = {name for name in self.listing() if self.tree.path(name).is_file()}
        self.assertEqual(files - {f"/etc/{name}" for name in ACCOUNT_FILES}, kept)
        self.assertIsNotNone(self.tree.account(ACCOUNT))

    def test_in_two_steps(self) -> None:
        before = self.listing()
        self.put()
        self.remove()
        self.remove(purge=True)
        self.assertEqual(self.listing(), before)

    def test_put_again_afterwards(self) -> None:
        self.put()
        key = self.text(KEY)
        self.remove()
        self.put()
        self.assertEqual(self.text(KEY), key)
        self.assertTrue(self.tree.path(SERVICE).exists())

    def test_what_others_have_changed(self) -> None:
        self.put()
        self.tree.path(SERVICE).write_text("[Service]\n")
        said = "\n".join(self.remove())
        self.assertIn(f"{SERVICE}: left, as somebody has changed it", said)
        self.assertEqual(self.text(SERVICE), "[Service]\n")

    def test_what_made_room_comes_back(self) -> None:
        self.tree.path(SERVICE).write_text("[Service]\n")
        before = self.listing()
        said = "\n".join(self.put())
        self.assertIn(f"{SERVICE}: moved to {SERVICE}.old", said)
        self.assertIn("ExecStart=", self.text(SERVICE))
        self.remove(purge=True)
        self.assertEqual(self.listing(), before)

    def test_a_changed_copy_of_ours_does_not(self) -> None:
        self.tree.path(f"{SUDOERS}.old").write_text("somebody's")
        self.put()
        self.tree.path(SUDOERS).write_text(f"{self.text(SUDOERS)}# mine\n")
        self.assertIn(f"{SUDOERS}: moved to {SUDOERS}.old2", "\n".join(self.put()))
        said = self.remove(purge=True)
        self.assertIn(f"{SUDOERS}.old2: left; it is our {SUDOERS} as somebody had changed it", said)
        left = {path.name: path.read_text()[-10:] for path in (self.root / "etc/sudoers.d").iterdir()}
        self.assertEqual(left, {"ipmiproxyd.old": "somebody's", "ipmiproxyd.old2": self.text(f"{SUDOERS}.old2")[-10:]})
        self.assertEqual(self.remove(purge=True), ["Nothing was changed."])

    def test_what_made_room_and_was_changed_there(self) -> None:
        self.tree.path(SERVICE).write_text("[Service]\n")
        self.put()
        self.tree.path(f"{SERVICE}.old").write_text("[Service]\n# more\n")
        self.assertIn(f"{SERVICE}.old: left; it was {SERVICE} before", self.remove(purge=True))
        self.assertFalse(self.tree.path(SERVICE).exists())

    def test_an_account_that_was_there_before(self) -> None:
        with (self.root / "etc/passwd").open("a") as file:
            file.write(f"{ACCOUNT}:x:4711:4711::/srv:/bin/false\n")
        before = self.listing()
        self.put()
        self.assertEqual(self.tree.described(KEYS), (0o700, ACCOUNT))
        self.remove(purge=True)
        self.assertEqual(self.listing(), before)


class _BrokenOffError(Exception):
    pass


class InterruptedTests(TreeTestCase):
    """Killed after a change was recorded, and before it was made."""

    def broken_off(self, after: int, act: Callable[[], object]) -> bool:
        """Whether the act was broken off, after so many records."""

        save, count = Record.save, 0

        def saved(record: Record) -> None:
            nonlocal count
            count += 1
            save(record)
            if count > after:
                raise _BrokenOffError

        patched = self.patch(Record, "save", saved)
        try:
            act()
        except _BrokenOffError:
            return True
        finally:
            patched.restore()
        return False

    def test_the_next_run_completes_it(self) -> None:
        self.put()
        done = set(self.listing())
        self.remove(purge=True)
        before = self.listing()
        after = 0
        while self.broken_off(after, self.put):
            self.put()
            self.assertEqual(set(self.listing()), done, after)
            self.assertTrue(self.broken_off(after, lambda: self.remove(purge=True)), after)
            self.remove(purge=True)
            self.assertEqual(self.listing(), before, after)
            after += 2
        self.assertGreater(after, 12)

    def test_half_made_can_be_removed(self) -> None:
        self.tree.path(SERVICE).write_text("[Service]\n")
        before = self.listing()
        after = 0
        while self.broken_off(after, self.put):
            self.remove(purge=True)
            self.assertEqual(self.listing(), before, after)
            after += 3
