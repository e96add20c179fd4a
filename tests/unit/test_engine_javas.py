"""The folder for Javas as the engine makes it and takes it back, with real files below a scratch folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ipmiproxyd.provision.host import files, javas
from tests.unit.test_engine import OWN_FOLDER, OwnTestCase

JAVAS = "/opt/ipmiproxyd/java"
USERS = "".join(
    f"{name}:x:{number}:{number}::/home/{name}:/bin/sh\n"
    for name, number in (("root", 0), ("ipmiproxyd", 54321), ("east", 54322))
)


if not os.geteuid():  # only root gives folders away

    class JavaTests(OwnTestCase):
        """The folder for Javas. Its account is another user than the one who runs the test, and than root."""

        def setUp(self) -> None:
            super().setUp()
            self.stages = (javas.put_folder,)
            self.given = {"java_dir": JAVAS}
            self.patch(files, "new_folder", OWN_FOLDER)
            self.path("/etc/passwd").write_text(USERS)
            self.folder = self.path(JAVAS)
            self.before = self.listing()

        def java(self, name: str, uid: int) -> Path:
            """As that user unpacks it."""

            home = self.folder / name
            (home / "bin").mkdir(parents=True)
            os.chown(home, uid, uid)
            return home

        def owner(self) -> tuple[int, int]:
            status = self.folder.stat()
            return status.st_uid, status.st_mode & 0o7777

        def test_there_and_back(self) -> None:
            words = [f"The folder {os.path.dirname(JAVAS)}", f"The folder for Javas: {JAVAS}"]
            self.assertEqual(self.provision(dry_run=True, **self.given)[-2:], words)
            self.assertEqual(self.provision(**self.given)[-2:], words)
            self.assertEqual(self.owner(), (54321, 0o755))
            self.folder.chmod(0o700)
            self.assertEqual(self.provision(**self.given), words[1:])
            self.assertEqual((self.provision(**self.given), self.owner()), ([], (54321, 0o755)))
            self.java("jdk1.8.0_121", 54321)
            self.java(".work-1", 54321)
            self.assertIn(f"{JAVAS} is removed, with jdk1.8.0_121", self.unprovision(dry_run=True))
            self.assertIn(f"{JAVAS} is removed, with jdk1.8.0_121", self.unprovision())
            self.assertEqual((self.told.words("warning"), self.listing()), ([], self.before))

        def test_what_others_put_there_is_left(self) -> None:
            self.provision(**self.given)
            self.java("jdk1.8.0_121", 54321)
            theirs = self.java("theirs", 0)
            self.assertIn(f"Of {JAVAS} is removed: jdk1.8.0_121", self.unprovision())
            self.assertEqual(self.told.words("warning")[0], f"{JAVAS} has files that are not ours, and is left: theirs")
            self.assertEqual((list(self.folder.iterdir()), self.owner()), ([theirs], (0, 0o755)))
            self.assertEqual(self.provision(**self.given), [])
            (warning,) = self.told.words("warning")
            self.assertIn("belongs to root, and is left: java install cannot unpack into it. To have", warning)
            self.assertTrue(warning.endswith("do so, let [java] dir of the daemon be another folder"), warning)
            shutil.rmtree(theirs)
            self.provision(**self.given)
            self.assertIn(f"chown ipmiproxyd {JAVAS} there", self.told.words("warning")[-1])
            self.assertEqual(self.unprovision(), [])

        def test_two_daemons(self) -> None:
            """The folder is one daemon's, and the other's once that one is gone."""

            self.provision(**self.given)
            there = self.listing()
            self.assertEqual(self.provision(account="east", **self.given), [])
            (warning,) = self.told.words("warning")
            self.assertIn("belongs to ipmiproxyd, and is left", warning)
            self.unprovision(account="east")
            self.assertEqual(self.listing().keys(), there.keys())
            self.assertEqual(self.owner(), (54321, 0o755))
            self.provision(account="east", java_dir="/srv/javas")
            self.unprovision()
            self.assertFalse(self.folder.exists())
            self.provision(account="east", **self.given)
            self.assertEqual(self.owner(), (54322, 0o755))
            self.unprovision(account="east")
            self.assertEqual(self.listing(), self.before)

        def test_one_that_was_made_for_it(self) -> None:
            self.java("jdk1.8.0_121", 54321)
            os.chown(self.folder, 54321, 54321)
            before = self.listing()
            self.assertEqual((self.provision(**self.given), self.told.words("warning")), ([], []))
            self.unprovision()
            self.assertEqual(self.listing(), before)
            self.folder.chmod(0o700)
            self.provision(**self.given)
            self.assertIn("closed to the users of displays", self.told.words("warning")[0])

        def test_a_file_in_its_place(self) -> None:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.write_text("mine")
            os.chown(self.folder, 0, 0)
            self.assertEqual(self.provision(**self.given), [])
            self.assertIn("belongs to root, and is left", self.told.words("warning")[0])
            self.unprovision()
            self.assertEqual(self.folder.read_text(), "mine")

        def test_a_number_that_is_another_users_now(self) -> None:
            """What that one has put there is left, and what it runs goes on."""

            self.provision(**self.given)
            self.java("jdk1.8.0_121", 54321)
            passwd = self.path("/etc/passwd")
            passwd.write_text(passwd.read_text().replace("ipmiproxyd:x:54321", "other:x:54321"))
            self.assertEqual([words for words in self.unprovision() if "jdk" in words], [])
            self.assertTrue((self.folder / "jdk1.8.0_121").exists())

        def test_killed_anywhere(self) -> None:
            for point in range(1, 60):
                if not self.killed(point, lambda: self.provision(**self.given)):
                    break
                self.provision(**self.given)
                self.java("jdk1.8.0_121", 54321)
                self.killed(point, self.unprovision)
                self.unprovision()
                self.assertEqual(self.listing(), self.before, f"at {point}")
            self.assertGreater(point, 10)
