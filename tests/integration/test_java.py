"""The vendors' Java console, run for real: the launcher, a real Java, a real display."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ipmiproxyd.errors import JobFailed, ToolMissing
from ipmiproxyd.model import Command, Job, JobSpec, LibraryFile, Program, Ready, Secret
from ipmiproxyd.tools.java import LAUNCHER, JavaProgram
from ipmiproxyd.tools.java_files import JavaFiles
from ipmiproxyd.tools.java_profiles import cause
from ipmiproxyd.tools.xvnc import Display
from ipmiproxyd.wire.jnlp import Applet, Jnlp
from tests.integration.test_local_agent import AM_ROOT, LocalCase
from tests.simulator import kvm
from tests.support import java_archive, leftovers
from tests.support.account import ordinary_account
from tests.support.agent_suite import reach_of, shell
from tests.support.rfb_client import RfbClient

JAVA = java_archive.DEBIAN
BACKGROUND = (12, 60, 96)
TOKEN = "sEcReT-t0ken-\\of-0ne-time"


class Events:
    """What a simulated server has recorded."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Mapping[str, Any]]] = []
        self._waiting: list[Deferred[None]] = []

    def __call__(self, kind: str, more: Mapping[str, Any]) -> None:
        self.all.append((kind, more))
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    async def of(self, kind: str, count: int = 1) -> list[Mapping[str, Any]]:
        while len(found := [more for name, more in self.all if name == kind]) < count:
            more: Deferred[None] = Deferred()
            self._waiting.append(more)
            await more.addTimeout(20.0, IReactorTime(reactor))
        return found


class JavaCase(LocalCase):
    timeout: ClassVar[float] = 90
    java: ClassVar[str] = JAVA

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        if self.ordinary and AM_ROOT:
            account = ordinary_account()
            os.chown(self.cache, account.pw_uid, account.pw_gid)
        jars = kvm.jars()
        self.viewer = self.cached(jars.viewer, "viewer.jar")
        self.native = self.cached(jars.native_library, "libsimulatedkvm.so")
        self.events = Events()
        self.tokens = {TOKEN}
        self.server = kvm.KvmPort("a server", lambda token: token in self.tokens, self.events)
        self.port = self.server.listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.stop()))

    @property
    def cache(self) -> Path:
        return Path(self.agent.cache)

    def cached(self, content: bytes, name: str) -> LibraryFile:
        digest = hashlib.sha256(content).hexdigest()
        path = self.cache / digest
        path.write_bytes(content)
        os.chown(path, path.parent.stat().st_uid, -1)
        return LibraryFile(digest, name)

    def jnlp(self, main: str, *arguments: str, **more: Any) -> Jnlp:
        given = tuple(Secret(argument) for argument in arguments)
        where = "https://127.0.0.1"
        return Jnlp(codebase=f"{where}/", origin=where, main_class=main, arguments=given, **more)

    def job(self, jnlp: Jnlp, *, library: Sequence[LibraryFile] | None = None, **changes: Any) -> JobSpec:
        program, files = JavaProgram().programs(jnlp, java=self.java, major=17, jars=[self.viewer])
        small = self.spec()
        screen, screen_files = Display().programs(small.display)
        return JobSpec(
            id=small.id,
            display=small.display,
            programs=(*screen, dataclasses.replace(program, **changes)),
            files=(*screen_files, *files),
            library=(self.viewer, self.native) if library is None else tuple(library),
            java=self.java,
            reach=reach_of(f"kvm://127.0.0.1:{self.port}"),
        )

    async def view(self, job: Job) -> RfbClient:
        client = await RfbClient.connect(self.agent.dial(job.vnc))
        self.addCleanup(client.close)
        limit = time.monotonic() + 20
        while (await client.look()).share(BACKGROUND) < 0.9:
            self.assertLess(time.monotonic(), limit, "the console's screen was not seen")
            await leftovers.pause(0.05)
        return client

    def log_of(self, spec: JobSpec) -> str:
        return (self.jobs_dir / spec.id / "log").read_text()


class ConsoleTests(JavaCase):
    async def test_keys_arrive_and_no_secret_is_seen(self) -> None:
        jnlp = self.jnlp("com.ami.kvm.jviewer.JViewer", "-hostname", "127.0.0.1", "-kvmtoken", TOKEN, "-kvmport",
                         str(self.port), "-webcookie", "sEcReT-c00kie")  # fmt: skip
        spec = self.job(jnlp)
        job = await self.agent.launch(spec, lambda _: None)
        await self.events.of("kvm-connected")
        client = await self.view(job)
        client.type("aB")
        client.click(300, 300)
        keys = await self.events.of("kvm-key", 3)
        self.assertEqual([key["char"] for key in keys if key["char"]], ["a", "B"])
        (click,) = await self.events.of("kvm-click")
        self.assertEqual((click["button"], click["x"]), (1, 300))
        for secret in (b"sEcReT", b"kvmtoken"):
            self.assertEqual(leftovers.seen_in_processes(secret), [])
            kept = [path for path in self.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
            self.assertEqual(kept, [])
        self.check_sandbox(spec)
        await self.agent.stop(spec.id)
        await self.events.of("kvm-gone")
        await self.nothing_left()

    def check_sandbox(self, spec: JobSpec) -> None:
        """Neither a file in the sandbox has a secret, nor memory that any of the job's processes has open."""

        java = Path(f"/proc/{self.pid_of(spec, 'java')}")
        self.assertEqual(str((java / "exe").readlink()), f"{JAVA}/bin/java")
        for place in ("tmp", "run/console", "home/console"):
            for path in (java / "root" / place).rglob("*"):
                if path.is_file() and path.name != "socket":
                    self.assertNotIn(b"sEcReT", path.read_bytes(), path)
        self.assertFalse(list((java / "root" / "tmp").glob("hsperfdata*")))
        for pid in leftovers.processes_of(self.jobs_dir / spec.id):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                    if "memfd" in str(fd.readlink()):
                        self.assertEqual(fd.read_bytes(), b"", fd)
        sites = java / "root/home/console/.java/deployment/security/exception.sites"
        self.assertEqual(sites.read_text(), "https://127.0.0.1/\n")

    async def test_viewer_that_dies_with_its_session(self) -> None:
        arguments = ("ip=127.0.0.1", f"passwd={TOKEN}", f"kmport={self.port}")
        spec = self.job(self.jnlp("com.avocent.idrac.kvm.Main", *arguments))
        await self.agent.launch(spec, lambda _: None)
        self.server.drop(TOKEN)
        reason = (await self.endings.of(spec.id)).reason
        self.assertIn("Java ended by itself (exit status 4): The server closed the viewer's connection", reason)

    async def test_token_that_is_not_good(self) -> None:
        spec = self.job(self.jnlp("tw.com.aten.ikvm.KVMMain", "127.0.0.1", "x", "wrong", "null", str(self.port)))
        words = await self.refused(spec, JobFailed)
        self.assertIn("(exit status 3): The server did not accept the viewer's token", words)
        await self.events.of("kvm-refused")

    async def test_applet(self) -> None:
        parameters = {"RCINFO1": Secret(TOKEN), "RCINFO6": Secret(str(self.port))}
        applet = Applet(width=1, height=1, document="https://127.0.0.1/html/java_irc.html", parameters=parameters)
        job = await self.agent.launch(self.job(self.jnlp(kvm.ILO_APPLET, applet=applet)), lambda _: None)
        client = await self.view(job)
        client.type("x")
        self.assertEqual((await self.events.of("kvm-key"))[0]["char"], "x")
        self.assertEqual(leftovers.seen_in_processes(b"sEcReT"), [])

    async def test_applet_in_its_page(self) -> None:
        texts = {"IPA": "127.0.0.1", "verifyValueExt": TOKEN, "port": str(self.port)}
        parameters = {name: Secret(text) for name, text in texts.items()}
        applet = Applet(width=950, height=700, document="https://127.0.0.1/", parameters=parameters)
        job = await self.agent.launch(self.job(self.jnlp(kvm.HUAWEI_APPLET, applet=applet)), lambda _: None)
        client = await self.view(job)
        client.click(200, 200)
        client.type("x")
        self.assertEqual((await self.events.of("kvm-key"))[0]["char"], "x")

    async def test_every_vendor_s_arguments(self) -> None:
        """As their descriptions have them; without a display, since only the arguments differ."""

        port = str(self.port)
        for main, arguments in {
            "tw.com.aten.ikvm.KVMMain": ("127.0.0.1", TOKEN, TOKEN, "null", port, "623", "0", "0", "1", "5900"),
            "com.ami.kvm.jviewer.JViewer": ("127.0.0.1", port, TOKEN, "cookie"),
            "com.avocent.ibmc.kvm.Main": ("ip=127.0.0.1", f"user=0x{TOKEN}", "passwd=", f"kmport={port}", "title=a=b"),
            "com.avocent.nuova.kvm.Main": ("ip=127.0.0.1", "user=x", f"passwd={TOKEN}", f"kmport={port}"),
            "com.fujitsu.avr.Main": ("ipaddress=127.0.0.1", "username=a", f"httpdata={TOKEN}", f"VncPort={port}"),
            "com.sun.rkvm.rconsole.JavaRConsole": ("16", "127.0.0.1", "sp-1", TOKEN, port),
            "com.example.acme.Viewer": ("127.0.0.1", port, TOKEN),
        }.items():
            program, _ = JavaProgram().programs(self.jnlp(main, *arguments), java=JAVA, major=17, jars=[])
            assert program.stdin is not None
            connected = len(self.events.all)
            folder = self.cache
            argv = (f"{JAVA}/bin/java", "-XX:TieredStopAtLevel=1", f"-Djava.library.path={self.folder}", "-cp",
                    f"{LAUNCHER}:{folder / self.viewer.sha256}", "ipmiproxyd.Launcher")  # fmt: skip
            (self.folder / self.native.name).write_bytes((folder / self.native.sha256).read_bytes())
            outcome = await self.agent.run(Command(argv=argv, stdin=program.stdin.reveal().encode()))
            # There is no display to show it on, but by then it was connected.
            self.assertIn(b"HeadlessException", outcome.stderr, main)
            self.assertEqual(self.events.all[connected][0], "kvm-connected", main)

    async def test_main_class_of_the_manifest(self) -> None:
        job = await self.agent.launch(self.job(self.jnlp("", "127.0.0.1", str(self.port), TOKEN)), lambda _: None)
        await self.view(job)


class OrdinaryUserTests(JavaCase):
    """The runner is not root."""

    ordinary = True

    async def test_console(self) -> None:
        spec = self.job(self.jnlp("com.ami.kvm.jviewer.JViewer", "127.0.0.1", str(self.port), TOKEN))
        client = await self.view(await self.agent.launch(spec, lambda _: None))
        client.type("x")
        self.assertEqual((await self.events.of("kvm-key"))[0]["char"], "x")


class LauncherTests(JavaCase):
    async def test_how_it_is_started(self) -> None:
        arguments = ["", "two words", "$(id);`x`'\"", "a\\nb\nc\r", "ünï ☃", "-Dx=y", "true", "a-longer-text"]
        property_of = {"simulated.word": Secret("w=1"), "java.security.properties": Secret("/none"),
                       "user.home": Secret("/tmp")}  # fmt: skip
        jnlp = self.jnlp("simulated.Tell", *arguments, properties=property_of, heap=1 << 40)
        spec = self.job(jnlp, ready=Ready.STARTED)
        await self.agent.launch(spec, lambda _: None)
        while "end=" not in self.log_of(spec):
            await leftovers.pause(0.05)
        lines = [line.partition("=")[::2] for line in self.log_of(spec).splitlines()]
        told = dict(lines)
        self.assertTrue(told["java"].startswith("17."))
        self.assertEqual(
            {name: told[name] for name in ("home", "disabled", "property", "stdin", "hsperfdata")},
            {"home": "/home/console", "disabled": "", "property": "w=1", "stdin": "-1", "hsperfdata": "false"},
        )
        self.assertLess(int(told["heap"]), 513)
        self.assertEqual(int(told["sum"]), signed(sum(java_hash(argument) for argument in arguments)))
        shown = [value for name, value in lines if name == "argument"]
        self.assertEqual(shown[:2] + shown[-2:], ["", "***", "true", "***"])

    async def test_nothing_to_start(self) -> None:
        spec = self.job(self.jnlp("x.Y"), stdin=Secret("main simulated.Tell\n"))
        self.assertIn("was not told what to start", await self.refused(spec, JobFailed))


class CausesTests(JavaCase):
    """What a real Java says is understood."""

    async def words(self, jnlp: Jnlp, **more: Any) -> str:
        words = await self.refused(self.job(jnlp, **more), JobFailed)
        self.assertNotIn("sEcReT", words)
        found = cause(words)
        assert found is not None, words
        return found.words

    def viewer_of(self, port: int) -> Jnlp:
        return self.jnlp("com.ami.kvm.jviewer.JViewer", "127.0.0.1", str(port), TOKEN)

    async def test_native_library_is_missing(self) -> None:
        self.assertIn("native library", await self.words(self.viewer_of(self.port), library=[self.viewer]))

    async def test_native_library_for_another_machine(self) -> None:
        other = self.cached(b"\x7fELF\1\1\1" + bytes(200), self.native.name)
        self.assertIn("native library", await self.words(self.viewer_of(self.port), library=[self.viewer, other]))

    async def test_port_is_closed(self) -> None:
        self.assertIn("does not reach", await self.words(self.viewer_of(1)))

    async def test_class_is_missing(self) -> None:
        self.assertIn("part of the vendor's program", await self.words(self.jnlp("com.example.Missing")))

    async def test_trace_that_names_an_argument(self) -> None:
        spec = self.job(self.jnlp("com.ami.kvm.jviewer.JViewer", "127.0.0.1", TOKEN, "x"))
        words = await self.refused(spec, JobFailed)
        self.assertIn('NumberFormatException: For input string: "***"', words)


class InstalledTests(JavaCase):
    async def test_java_from_an_archive(self) -> None:
        """Somewhere that a job does not see by itself."""

        content = java_archive.members("jdk1.8.0_121", "1.8.0_121")
        java_archive.write(self.folder / "jdk-8u121-linux-x64.tar.gz", content)
        self.folder.chmod(0o711)
        java = await JavaFiles().install(
            self.agent, "jdk_8u121", archives=str(self.folder), java_dir=str(self.folder / "java")
        )
        program, files = JavaProgram().programs(
            self.jnlp("simulated.Tell"), java=java.home, major=java.major, jars=[self.viewer]
        )
        look = shell(f"test -x {java.home}/bin/java && ! touch {java.home}/x && echo fine > {READY}; exec sleep 60",
                     ready=Ready.TOLD)  # fmt: skip
        spec = self.spec(look, dataclasses.replace(program, ready=Ready.STARTED))
        spec = dataclasses.replace(spec, files=files, library=(self.viewer,), java=java.home)
        await self.agent.launch(spec, lambda _: None)
        while "end=" not in self.log_of(spec):
            await leftovers.pause(0.05)
        (self.folder / "java").chmod(0o777)
        again = dataclasses.replace(self.spec(), java=java.home)
        await self.agent.stop(spec.id)
        error = await self.assertFailure(Deferred.fromCoroutine(self.agent.launch(again, lambda _: None)), ToolMissing)
        self.assertIn("can be changed by others", str(error))


class LibraryTests(LocalCase):
    async def test_file_that_was_changed(self) -> None:
        Path(self.agent.cache, "0" * 64).write_bytes(b"other")
        spec = dataclasses.replace(self.spec(), library=(LibraryFile("0" * 64, "a.jar"),))
        self.assertIn("a.jar in the agent's cache is not what it was", await self.refused(spec, JobFailed))
        spec = dataclasses.replace(self.spec(), library=(LibraryFile("1" * 64, "b.jar"),))
        self.assertIn("b.jar is not in the agent's cache", await self.refused(spec, JobFailed))
        self.assertEqual([job for job in await self.agent.jobs() if job.running], [])

    async def test_standard_input(self) -> None:
        """It arrives whole, however long, and the program after it has one of its own."""

        long = "sEcReT" * 30_000
        first = Program(name="first", argv=("sh", "-c", f"echo n=$(wc -c); echo > {READY}; exec sleep 60"),
                        ready=Ready.TOLD, stdin=Secret(long))  # fmt: skip
        second = Program(name="second", argv=("sh", "-c", f"echo empty=$(wc -c); echo > {READY}; exec sleep 60"),
                         ready=Ready.TOLD)  # fmt: skip
        spec, _ = await self.launch(first, second)
        log = (self.jobs_dir / spec.id / "log").read_text()
        self.assertIn(f"n={len(long)}\nempty=0\n", log)
        self.assertEqual(leftovers.seen_in_processes(b"sEcReT"), [])

    async def test_program_that_does_not_read(self) -> None:
        deaf = Program(name="deaf", argv=("sh", "-c", f"exec <&-; echo > {READY}; exec sleep 60"), ready=Ready.TOLD,
                       stdin=Secret("x" * 200_000))  # fmt: skip
        await self.launch(deaf)


READY = "/run/console/ready"


def java_hash(text: str) -> int:
    """String.hashCode()"""

    result = 0
    data = text.encode("utf-16-be")
    for at in range(0, len(data), 2):
        result = signed(31 * result + int.from_bytes(data[at : at + 2]))
    return result


def signed(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31
