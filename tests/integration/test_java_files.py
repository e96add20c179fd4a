"""Installing Javas on an agent, and its cache of files, with the real programs."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from ipmiproxyd.errors import BadJnlp, BadValue, Exists, Forbidden, InternalError, NotFound, ProxyError, ToolMissing
from ipmiproxyd.model import LibraryFile
from ipmiproxyd.tools.java_files import JavaFiles
from ipmiproxyd.tools.java_profiles import Java
from tests.integration.test_local_agent import AM_ROOT, LocalCase
from tests.simulator import kvm
from tests.support import java_archive
from tests.support.java_archive import link, members, plain

NAME, FOLDER = "jdk-8u121-linux-x64.tar.gz", "jdk1.8.0_121"


class JavaFilesCase(LocalCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.files = JavaFiles()
        self.archives, self.java_dir = self.folder / "archives", self.folder / "java"
        self.archives.mkdir()

    async def fails(self, what: Coroutine[Any, Any, object], kind: type[ProxyError]) -> str:
        error = await self.assertFailure(Deferred.fromCoroutine(what), kind)
        return str(error)


class InstallTests(JavaFilesCase):
    async def install(self) -> Java:
        return await self.files.install(
            self.agent, "jdk_8u121", archives=str(self.archives), java_dir=str(self.java_dir)
        )

    async def installed(self) -> dict[str, Java]:
        return {java.name: java for java in await self.files.installed(self.agent, java_dir=str(self.java_dir))}

    async def test_from_archive_to_removal(self) -> None:
        self.assertIn(f"There is no {self.archives / NAME}", await self.fails(self.install(), NotFound))
        java_archive.write(self.archives / NAME, members(FOLDER, "1.8.0_121"))
        java = await self.install()
        home = self.java_dir / FOLDER
        self.assertEqual(
            (java.name, java.home, java.version, java.machine, java.graphics, java.unpack200),
            ("jdk_8u121", str(home), "1.8.0_121", "x86_64", True, f"{home}/bin/unpack200"),
        )
        self.assertEqual(stat.S_IMODE((home / "bin/java").stat().st_mode), 0o755)
        self.assertEqual(stat.S_IMODE((home / "release").stat().st_mode), 0o644)
        self.assertEqual(os.readlink(home / "man/ja"), "../release")
        found = await self.installed()
        self.assertEqual(found["jdk_8u121"], java)
        self.assertEqual((found["debian_17"].major, found["debian_17"].graphics), (17, True))
        self.assertIn("installed already", await self.fails(self.install(), Exists))
        await self.files.remove(self.agent, java, java_dir=str(self.java_dir))
        self.assertEqual(list(self.java_dir.iterdir()), [])
        removing = self.files.remove(self.agent, found["debian_17"], java_dir=str(self.java_dir))
        self.assertIn("not installed by", await self.fails(removing, Forbidden))

    async def test_registered_home(self) -> None:
        homes = {"mine": java_archive.DEBIAN, "none": "/nowhere"}
        found = await self.files.installed(self.agent, java_dir="", homes=homes)
        self.assertIn("mine", [java.name for java in found])
        self.assertEqual(len({java.home for java in found}), len(found))

    async def test_what_others_can_change_is_not_run(self) -> None:
        home = self.folder / "theirs"
        (home / "bin").mkdir(parents=True)
        (home / "bin/java").write_text(f"#!/bin/sh\ntouch {self.folder}/ran\n")
        (home / "bin/java").chmod(0o755)
        home.chmod(0o777)
        await self.fails(self.files.look(self.agent, str(home), name="theirs"), Forbidden)
        self.assertFalse((self.folder / "ran").exists())
        await self.fails(self.files.look(self.agent, str(home / "bin"), name="none"), NotFound)

    if AM_ROOT:  # only root gives files away

        async def test_what_another_user_has_put_there_is_not_tried(self) -> None:
            """As another daemon's account does, which has the same folder."""

            (self.java_dir / "theirs/bin").mkdir(parents=True)
            program = self.java_dir / "theirs/bin/java"
            program.write_text(f"#!/bin/sh\ntouch {self.folder}/ran\n")
            program.chmod(0o755)
            await self.installed()
            self.assertTrue((self.folder / "ran").exists())
            (self.folder / "ran").unlink()
            os.chown(self.java_dir / "theirs", 54321, 54321)
            self.assertNotIn(str(self.java_dir / "theirs"), [java.home for java in (await self.installed()).values()])
            self.assertFalse((self.folder / "ran").exists())

    async def test_archives_that_are_not_what_they_are_called(self) -> None:
        good = members(FOLDER, "1.8.0_121")
        broken = [plain(f"{FOLDER}/bin/java", "#!/bin/sh\nexit 1\n", 0o755)]
        cases: Sequence[tuple[Sequence[tuple[tarfile.TarInfo, bytes]], str]] = (
            (members("jdk1.8.0_131", "1.8.0_131"), "more than the folder"),
            ([*good, plain("../../x")], "more than the folder"),
            ([*good, plain(f"{FOLDER}/../../x")], "more than the folder"),
            ([*good, plain(f"/{FOLDER}/x")], "more than the folder"),
            ([*good, link(f"{FOLDER}/out", "/etc")], "leads out"),
            ([*good, link(f"{FOLDER}/out", "../..")], "leads out"),
            ([*good, link(f"{FOLDER}/out", ".."), plain(f"{FOLDER}/out/x")], "through a link"),
            ([*good, link(f"{FOLDER}/in", "bin"), plain(f"{FOLDER}/in/x")], "through a link"),
            ([*good, plain(f"{FOLDER}/release")], "a file twice"),
            ([*good, link(f"{FOLDER}/hard", "/etc/passwd", tarfile.LNKTYPE)], "may not be unpacked"),
            ([*good, link(f"{FOLDER}/device", "", tarfile.CHRTYPE)], "may not be unpacked"),
            ([plain(f"{FOLDER}/release")], "holds no"),
            (broken, "does not run"),
        )
        for content, words in cases:
            java_archive.write(self.archives / NAME, content)
            self.assertIn(words, await self.fails(self.install(), BadValue))
            self.assertEqual(list(self.java_dir.iterdir()), [], words)
        for data in (b"", b"no archive", b"\x1f\x8b broken"):
            (self.archives / NAME).write_bytes(data)
            self.assertIn("cannot be", await self.fails(self.install(), BadValue))
        self.assertFalse((self.folder / "x").exists())

    async def test_checksum(self) -> None:
        java_archive.write(self.archives / "jdk-7u80-linux-x64.tar.gz", members("jdk1.7.0_80", "1.7.0_80"))
        installing = self.files.install(
            self.agent, "jdk_7u80", archives=str(self.archives), java_dir=str(self.java_dir)
        )
        self.assertIn("not what its maker has published", await self.fails(installing, BadValue))


class CacheTests(JavaFilesCase):
    @property
    def cache(self) -> str:
        return self.agent.cache

    def fetched(self, content: bytes) -> str:
        path = self.folder / "fetched"
        path.write_bytes(content)
        return str(path)

    async def test_jars(self) -> None:
        jars = kvm.jars()
        viewer = await self.files.take_jar(self.agent, self.cache, self.fetched(jars.viewer), name="1.jar")
        self.assertEqual(viewer, LibraryFile(hashlib.sha256(jars.viewer).hexdigest(), "1.jar"))
        natives = await self.files.take_libraries(self.agent, self.cache, self.fetched(jars.native))
        wanted = LibraryFile(hashlib.sha256(jars.native_library).hexdigest(), "libsimulatedkvm.so")
        self.assertEqual(natives, (wanted,))
        self.assertEqual(Path(self.cache, wanted.sha256).read_bytes(), jars.native_library)
        self.assertTrue(await self.files.have(self.agent, self.cache, [viewer, wanted]))
        self.assertFalse(await self.files.have(self.agent, self.cache, [viewer, LibraryFile("0" * 64, "x")]))
        self.assertEqual({stat.S_IMODE(path.stat().st_mode) for path in Path(self.cache).iterdir()}, {0o444})

    async def test_what_is_no_jar(self) -> None:
        for content in (b"", b"<html>404</html>", b"PK\3\4" + bytes(100)):
            taking = self.files.take_jar(self.agent, self.cache, self.fetched(content), name="1.jar")
            self.assertIn("no jar", await self.fails(taking, BadJnlp))
        (self.folder / "link").symlink_to("/etc/passwd")
        taking = self.files.take_jar(self.agent, self.cache, str(self.folder / "link"), name="1.jar")
        await self.fails(taking, BadValue)
        await self.fails(self.files.take_jar(self.agent, self.cache, "/nowhere", name="1.jar"), InternalError)
        self.assertEqual(os.listdir(self.cache), [])

    async def test_jars_that_mean_harm(self) -> None:
        for name, content in (("../../x.so", b"x"), ("/x.so", b"x"), ("bomb.so", bytes(64 << 20))):
            memory = io.BytesIO()
            with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as jar:
                jar.writestr(name, content)
            taking = self.files.take_libraries(self.agent, self.cache, self.fetched(memory.getvalue()))
            await self.fails(taking, BadJnlp)
        self.assertFalse((self.folder.parent / "x.so").exists())

    async def test_listing_without_end(self) -> None:
        count = 1_000_000
        listing = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"x"
        size = len(listing) * count
        end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, 0)
        end += struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
        end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        taking = self.files.take_jar(self.agent, self.cache, self.fetched(listing * count + end), name="1.jar")
        self.assertIn("no jar", await self.fails(taking, BadJnlp))
        self.assertEqual(os.listdir(self.cache), [])

    async def test_file_that_is_larger_than_it_says(self) -> None:
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as jar:
            jar.writestr("a.so", bytes(1 << 20))
        size = (1 << 20).to_bytes(4, "little")
        lying = memory.getvalue().replace(size, (1000).to_bytes(4, "little"))
        taking = self.files.take_libraries(self.agent, self.cache, self.fetched(lying))
        await self.fails(taking, BadJnlp)

    async def test_packed(self) -> None:
        """By the program of a Java that has one; this one only copies."""

        none = Java(name="debian_17", home=java_archive.DEBIAN, version="17.0.15")
        finding = self.files.unpacker(self.agent, self.cache, none, [none])
        self.assertIn("comes packed", await self.fails(finding, ToolMissing))
        unpack200 = self.folder / "unpack200"
        unpack200.write_text('#!/bin/sh\nexec cp "$1" "$2"\n')
        unpack200.chmod(0o755)
        old = Java(name="jdk_8u121", home="/opt/x", version="1.8.0_121", unpack200=str(unpack200))
        unpacker = await self.files.unpacker(self.agent, self.cache, none, [none, old])
        viewer = kvm.jars().viewer
        taken = await self.files.take_jar(
            self.agent, self.cache, self.fetched(viewer), name="1.jar", unpacker=unpacker
        )
        self.assertEqual(taken.sha256, hashlib.sha256(viewer).hexdigest())
        unpack200.write_text("#!/bin/sh\nexit 2\n")
        taking = self.files.take_jar(self.agent, self.cache, self.fetched(viewer), name="1.jar", unpacker=unpacker)
        self.assertIn("could not be unpacked", await self.fails(taking, BadJnlp))

    async def test_packed_by_the_library(self) -> None:
        """Only where somebody has the library: Debian's lacks this part."""

        none = Java(name="debian_17", home=java_archive.DEBIAN, version="17.0.15")
        library = kvm.PACKER or "/nowhere.jar"
        unpacker = await self.files.unpacker(self.agent, self.cache, none, [none], pack200=library)
        packed = kvm.jars().packed or b"x"
        taking = self.files.take_jar(self.agent, self.cache, self.fetched(packed), name="1.jar", unpacker=unpacker)
        if not kvm.PACKER:
            self.assertIn("could not be unpacked", await self.fails(taking, BadJnlp))
            return
        with zipfile.ZipFile(Path(self.cache, (await taking).sha256)) as jar:
            self.assertIn("com/ami/kvm/jviewer/JViewer.class", jar.namelist())

    async def test_old_ones_go(self) -> None:
        files = []
        for at in range(4):
            path = Path(self.cache, str(at) * 64)
            path.write_bytes(bytes(1000))
            os.utime(path, (at, at))
            files.append(LibraryFile(path.name, "x"))
        self.patch(__import__("ipmiproxyd.tools.java_files", fromlist=["x"]), "CACHE_LIMIT", 2500)
        self.assertTrue(await self.files.have(self.agent, self.cache, files[:1]))
        self.assertEqual(sorted(os.listdir(self.cache)), ["0" * 64, "3" * 64])
