"""Which Java runs a console, on the whole daemon: Debian's, and others from archives with Oracle's names and layout."""

from __future__ import annotations

import os
import pwd
from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from ipmiproxyd.errors import Forbidden
from ipmiproxyd.tools.java_files import JavaFiles
from tests.integration.test_local_agent import AM_ROOT, LocalCase
from tests.support import java_archive, leftovers
from tests.support.account import ordinary_account
from tests.support.wire_client import Reply
from tests.support.world import World

ARCHIVE, FOLDER = "jdk-8u121-linux-x64.tar.gz", "jdk1.8.0_121"
TOO_OLD = """\
#!/bin/sh
case "$*" in
*-XshowSettings:properties*) printf '    java.version = 1.7.0_80\\n    os.arch = amd64\\n' >&2 ;;
*) echo 'java.lang.UnsupportedClassVersionError: x/Main : Unsupported major.minor version 52.0' >&2; exit 1 ;;
esac
"""


class JavaVersionsCase(World):
    timeout: ClassVar[float] = 90
    personality = "supermicro"

    async def _prepare(self) -> None:
        await super()._prepare()
        self.folder.chmod(0o711)  # the displays' users have to get at the Javas in there
        self.java_dir, self.archives = self.daemon.folder / "java", self.daemon.folder / "java-archives"
        self.archives.mkdir()

    async def ask(self, words: str) -> dict[str, Any]:
        return await self.client.must(words)

    async def refused(self, words: str, code: str) -> Reply:
        reply = await self.client.ask(words)
        self.assertEqual(reply.code, code, reply.body)
        self.assertTrue(reply.body["message"].endswith("."))
        return reply

    async def listed(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """``java list``, and what is installed by name."""

        told = await self.ask("java list")
        return told, {java["name"]: java for java in told["installed"]}

    def running(self, console: str) -> set[str]:
        """The programs of a console's Java processes, as the kernel tells them."""

        found = {os.readlink(f"/proc/{pid}/exe") for pid in leftovers.sandboxed(self.jobs / console)}
        return {program for program in found if program.endswith("/bin/java")}

    def put_archive(self, program: str | bytes) -> None:
        java_archive.write(self.archives / ARCHIVE, java_archive.members(FOLDER, "1.8.0_121", program))


class JavaVersionsTests(JavaVersionsCase):
    async def test_two_side_by_side(self) -> None:
        debian, oracle = f"{java_archive.DEBIAN}/bin/java", f"{self.java_dir}/{FOLDER}/bin/java"
        first = await self.opened("device=node1 type=java")
        (warning,) = first["warnings"]
        self.assertIn("jdk_8u121 is not installed on the agent: debian_17 (Java 17", warning)
        self.assertIn("java use version=debian_17 agent=local,", warning)
        self.assertEqual(self.running(first["console"]), {debian})

        self.put_archive(java_archive.launcher("1.8.0_121"))
        installed = await self.ask("java install version=jdk_8u121")
        self.assertEqual((installed["version"], installed["used"]), ("1.8.0_121", True))
        await self.ask("java use version=jdk_8u121")
        second = await self.opened("device=node1 type=java existing=new")
        self.assertEqual(second["warnings"], [])
        self.assertEqual(self.running(second["console"]), {oracle})
        self.assertEqual(self.running(first["console"]), {debian})

        refusal = await self.refused("java remove version=jdk_8u121", "forbidden")
        self.assertIn("console list", refusal.body["hint"])
        await self.ask("java use version=debian_17")
        await self.ask("device set name=node1 java=jdk_8u121")
        third = await self.opened("device=node1 type=java existing=new")
        self.assertEqual((third["warnings"], self.running(third["console"])), ([], {oracle}))
        for console in (first, second, third):
            await self.close(console["console"])
        self.assertEqual([len(self.server.panel.record(kind)) for kind in ("sign-in", "sign-out")], [3, 3])
        await self.ask("java remove version=jdk_8u121")
        self.assertEqual(list(self.java_dir.iterdir()), [])
        told = await self.opened("device=node1 type=java")
        self.assertIn("change the device's java", told["warnings"][0])

    async def test_what_there_is(self) -> None:
        told, installed = await self.listed()
        self.assertEqual((told["use"], told["chosen_by"]), ("jdk_8u121", "[java] default"))
        self.assertEqual(len(told["warnings"]), 1)
        self.assertEqual([java["name"] for java in told["installed"] if java["used"]], ["debian_17"])
        self.assertEqual(installed["debian_17"]["home"], java_archive.DEBIAN)
        for java, name in zip(told["available"], ("jdk_7u80", "jdk_8u121", "jre_8u251"), strict=True):
            archive = f"{self.archives}/{name.replace('_', '-')}-linux-x64.tar.gz"
            self.assertEqual(java, {"name": name, "there": False, "archive": archive})

        for name in (ARCHIVE, "server-jre-8u202-linux-x64.tar.gz", "other.tar.gz"):
            (self.archives / name).write_bytes(b"broken")
        told, _ = await self.listed()
        there = {java["name"]: java["there"] for java in told["available"]}
        others = {"jdk_7u80": False, "jre_8u251": False}
        self.assertEqual(there, {**others, "jdk_8u121": True, "server_jre_8u202": True})

        link = self.folder / "link"
        link.symlink_to(java_archive.DEBIAN)
        taken = await self.refused(f"java register version=mine home={link}", "exists")
        self.assertIn("debian_17", taken.body["message"])
        self.put_archive(java_archive.launcher("1.8.0_121"))
        java_archive.unpack(self.archives / ARCHIVE, self.folder / "by-hand")
        mine = await self.ask(f"java register version=mine home={self.folder}/by-hand/{FOLDER}/")
        self.assertEqual((mine["name"], mine["version"]), ("mine", "1.8.0_121"))
        await self.ask("java use version=mine")
        told, installed = await self.listed()
        self.assertEqual((told["use"], told["chosen_by"], told["warnings"]), ("mine", "java use", []))
        self.assertTrue(installed["mine"]["used"])
        await self.ask("java remove version=mine")
        self.assertTrue((self.folder / "by-hand" / FOLDER / "bin" / "java").exists())
        told, installed = await self.listed()
        self.assertEqual((told["use"], "mine" in installed), ("jdk_8u121", False))

    async def test_words_of_refusals(self) -> None:
        unknown = await self.refused("java install version=jdk_99", "bad-value")
        self.assertIn("jdk_7u80, jdk_8u121, jre_8u251", unknown.body["hint"])
        missing = await self.refused("java install version=jdk_8u121", "not-found")
        self.assertEqual(missing.body["message"], f"There is no {self.archives}/{ARCHIVE} on this agent.")
        self.assertIn(f"install -D -m 644 {ARCHIVE} {self.archives}/{ARCHIVE}", missing.body["hint"])
        (self.archives / ARCHIVE).write_bytes(b"\x1f\x8b broken")
        broken = await self.refused("java install version=jdk_8u121", "bad-value")
        self.assertIn(f"{ARCHIVE} cannot be unpacked", broken.body["message"])
        self.assertIn("Fetch it again", broken.body["hint"])
        for name, hint in (("jre_8u251", "java install version=jre_8u251"), ("nothing", "java list agent=local")):
            absent = await self.refused(f"java use version={name}", "not-found")
            self.assertIn(hint, absent.body["hint"])
        await self.refused("java remove version=nothing", "not-found")
        theirs = await self.refused("java remove version=debian_17", "forbidden")
        self.assertIn("was not installed by ipmiproxyd", theirs.body["message"])
        empty = await self.refused("java register version=mine home=/etc", "not-found")
        self.assertEqual(empty.body["message"], "No Java runs in /etc on this agent.")
        await self.refused("java register version=mine home=etc", "bad-value")
        home = self.folder / "open"
        self.put_archive("")
        java_archive.unpack(self.archives / ARCHIVE, home)
        home.chmod(0o777)
        risky = await self.refused(f"java register version=mine home={home}/{FOLDER}", "forbidden")
        self.assertIn(f"{home} can be changed by others", risky.body["message"])

    async def test_another_one_helps(self) -> None:
        """What ran is remembered: the next console does not try in vain."""

        self.put_archive(TOO_OLD)
        await self.ask("java install version=jdk_8u121")
        first = await self.opened("device=node1 type=java")
        (warning,) = first["warnings"]
        self.assertIn("made for a newer Java", warning)
        self.assertIn("debian_17 (Java 17", warning)
        self.assertEqual(self.running(first["console"]), {f"{java_archive.DEBIAN}/bin/java"})
        second = await self.opened("device=node1 type=java existing=new")
        self.assertEqual(second["warnings"], [])
        tries = [stage["label"] for stage in (await self.show(second["console"]))["stages"]]
        self.assertEqual(tries.count("Starting the display"), 1)
        await self.ask("device set name=node1 java=jdk_8u121")
        third = await self.opened("device=node1 type=java existing=new")
        self.assertIn("has not run with jdk_8u121", third["warnings"][0])


class RightsTests(LocalCase):
    """The daemon's user is not root, and [java] dir is."""

    ordinary: ClassVar[bool] = True

    async def denied(self, java_dir: str) -> Forbidden:
        """Install Java 8."""

        if AM_ROOT:
            self.agent.python = str(self.folder / "python-as-account")
        installing = JavaFiles().install(self.agent, "jdk_8u121", archives=str(self.folder), java_dir=java_dir)
        error: Any = await self.assertFailure(Deferred.fromCoroutine(installing), Forbidden)
        assert isinstance(error, Forbidden)
        return error

    async def test_who_lacks_which_right(self) -> None:
        user = ordinary_account().pw_name if AM_ROOT else pwd.getpwuid(os.geteuid()).pw_name
        java_dir = "/usr/ipmiproxyd/java"
        java_archive.write(self.folder / ARCHIVE, java_archive.members(FOLDER, "1.8.0_121"))
        error = await self.denied(java_dir)
        self.assertIn(f"{user} may not write to {java_dir}: Permission denied", error.message)
        self.assertIn(f"install -d -o {user} -m 755 {java_dir}", error.hint or "")
        (self.folder / ARCHIVE).chmod(0)
        error = await self.denied(java_dir)
        self.assertIn(f"{user} may not read {self.folder / ARCHIVE}", error.message)
