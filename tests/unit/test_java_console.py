"""Which Java a console gets, and what is remembered about that."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadJnlp, BadValue, BmcUnreachable, Exists, NotFound, ProxyError, ToolMissing
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Device, LibraryFile, Secret
from ipmiproxyd.tools.java import launch_text
from ipmiproxyd.tools.java_console import JARS_KIND, KIT_TIME, JavaConsoles
from ipmiproxyd.tools.java_files import JavaFiles
from ipmiproxyd.tools.java_profiles import Java
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.vendors.talk import WebSession
from ipmiproxyd.wire.jnlp import Jar, Jnlp
from tests.support.memory_store import MemoryStore

T = TypeVar("T")
JDK7 = Java(name="jdk_7u80", home="/opt/7", version="1.7.0_80")
JDK8 = Java(name="jdk_8u121", home="/opt/8", version="1.8.0_121")
D17 = Java(name="debian_17", home="/usr/lib/jvm/17", version="17.0.15")
HEADLESS = Java(name="debian_21", home="/usr/lib/jvm/21", version="21", graphics=False)
VIEWER = Jnlp(
    codebase="https://bmc/", origin="https://bmc", main_class="x.Main", jars=(Jar(url="https://bmc/a.jar"),)
)


class FakeFiles:
    def __init__(self, *javas: Java) -> None:
        self.javas = list(javas)
        self.there: list[str] = []

    async def installed(self, _agent: Agent, **_more: Any) -> list[Java]:
        return self.javas

    async def archives(self, _agent: Agent, _folder: str) -> list[str]:
        return self.there

    async def remove(self, _agent: Agent, java: Java, **_more: Any) -> None:
        self.javas.remove(java)


class FakeAgent:
    name = "local"
    cache = "/cache"


class ChoiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = FakeFiles(D17)
        self.agent = cast(Agent, FakeAgent())
        self.javas = JavaConsoles(
            cast(JavaFiles, self.files), cast(PanelHttp, None), MemoryStore(), Clock(), java_dir="/opt", archives="/a"
        )

    def done(self, work: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def refused(self, work: Coroutine[Any, Any, Any], kind: type[ProxyError]) -> ProxyError:
        error: ProxyError = self.failureResultOf(Deferred.fromCoroutine(work), kind).value
        return error

    def choice(self, **more: str) -> tuple[str, str]:
        java, words = self.done(self.javas.choice(self.agent, self.files.javas, **more))
        return java.name, words

    def test_nobody_has_chosen(self) -> None:
        name, words = self.choice()
        self.assertEqual(name, "debian_17")
        self.assertEqual(
            words,
            "jdk_8u121 is not installed on the agent: debian_17 (Java 17.0.15) is used. To settle it: "
            "java use version=debian_17 agent=local, or install that one (see java list).",
        )
        self.done(self.javas.use(self.agent, "debian_17"))
        self.assertEqual(self.choice(), ("debian_17", ""))

    def test_who_decides(self) -> None:
        self.files.javas = [JDK7, JDK8, D17]
        self.assertEqual(self.choice(), ("jdk_8u121", ""))
        self.assertEqual(self.choice(liked="jdk_7u80"), ("jdk_7u80", ""))
        self.assertEqual(self.choice(liked="jre_8u251"), ("jdk_8u121", ""))
        self.done(self.javas.use(self.agent, "debian_17"))
        self.assertEqual(self.choice(liked="jdk_7u80"), ("debian_17", ""))
        self.assertEqual(self.choice(liked="jdk_7u80", device="jdk_8u121"), ("jdk_8u121", ""))
        name, words = self.choice(device="jre_8u251")
        self.assertEqual(name, "jdk_8u121")
        self.assertIn("change the device's java", words)

    def test_what_is_removed_is_used_no_more(self) -> None:
        self.files.javas = [JDK7, JDK8, D17]
        self.done(self.javas.use(self.agent, "jdk_7u80"))
        self.done(self.javas.remove(self.agent, "jdk_7u80"))
        self.assertEqual(self.choice(), ("jdk_8u121", ""))

    def test_one_without_windows(self) -> None:
        self.files.javas = [HEADLESS]
        self.refused(self.javas.choice(self.agent, self.files.javas), ToolMissing)
        told = self.done(self.javas.listing(self.agent))
        self.assertIn("can show no windows", told["warnings"][0])
        self.assertEqual([java["used"] for java in told["installed"]], [False])
        self.assertIn("openjdk-17-jre", self.refused(self.javas.use(self.agent, "debian_21"), BadValue).hint or "")

    def test_refusals(self) -> None:
        words = self.refused(self.javas.use(self.agent, "jre_8u251"), NotFound).hint or ""
        self.assertIn("java install version=jre_8u251 agent=local", words)
        self.files.javas = [JDK8]
        words = self.refused(self.javas.install(self.agent, "jdk_8u121"), Exists).hint or ""
        self.assertIn("java use version=jdk_8u121", words)

    def test_what_has_helped(self) -> None:
        installed = self.files.javas = [JDK7, JDK8, D17]

        def instead(java: Java) -> Java | None:
            return self.done(self.javas.instead("acme", VIEWER, java, installed))

        self.assertIsNone(instead(D17))
        self.done(self.javas.remember("acme", VIEWER, [D17, JDK8], JDK7))
        self.assertEqual([instead(java) for java in installed], [None, JDK7, JDK7])
        self.assertIsNone(self.done(self.javas.instead("other", VIEWER, D17, installed)))
        installed.remove(JDK7)
        self.assertIsNone(instead(D17))
        installed.append(JDK7)
        self.done(self.javas.use(self.agent, "debian_17"))
        self.assertIsNone(instead(D17))


class Cache:
    """Keeps what it is given under any path."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def have(self, *_: Any) -> bool:
        return True

    async def take_jar(self, _agent: Agent, _cache: str, _path: str, *, name: str, **_more: Any) -> LibraryFile:
        self.names.append(name)
        return LibraryFile("0" * 64, name)


class Panels:
    """A panel that takes some time for each file."""

    def __init__(self, clock: Clock) -> None:
        self.pin, self.clock, self.takes = "pin-1", clock, 0.0

    async def known(self, *_: Any) -> tuple[str, str]:
        return "modern", self.pin

    async def download(self, *_: Any) -> int:
        self.clock.advance(self.takes)
        return 200


class KitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.store, self.cache = Clock(), MemoryStore(), Cache()
        self.panels = Panels(self.clock)
        self.agent = cast(Agent, FakeAgent())
        self.device = Device(name="node1", address="192.0.2.1")
        files, panels = cast(JavaFiles, self.cache), cast(PanelHttp, self.panels)
        self.javas = JavaConsoles(files, panels, self.store, self.clock, java_dir="/opt", archives="/a")

    def kit(self, *urls: str, device: Device | None = None) -> Deferred[Any]:
        jnlp = replace(VIEWER, jars=tuple(Jar(url=f"https://192.0.2.1/{url}") for url in urls))
        session = WebSession(family="x")
        return Deferred.fromCoroutine(
            self.javas.kit(self.agent, device or self.device, session, jnlp, D17, [])
        )

    def test_names_that_a_job_may_not_have(self) -> None:
        self.successResultOf(self.kit("a+b.jar", "%C3%A9:;.jar", f"{'x' * 200}.jar", "jars/"))
        names = ["00-a_b.jar", "01-_C3_A9__.jar", f"02-{'x' * 44}.jar", "03-"]
        self.assertEqual(self.cache.names, names)

    def test_a_file_counts_for_those_who_trust_that_panel_alone(self) -> None:
        for fetched in (1, 0):
            self.cache.names = []
            self.successResultOf(self.kit("a.jar"))
            self.assertEqual(len(self.cache.names), fetched)
        self.panels.pin = "pin-2"
        self.successResultOf(self.kit("a.jar"))
        self.successResultOf(self.kit("a.jar", device=replace(self.device, web_trust="insecure")))
        self.successResultOf(self.kit("a.jar", device=replace(self.device, web="https://192.0.2.1:8443")))
        self.assertEqual(len(self.cache.names), 3)

    def test_what_is_remembered_has_no_secret(self) -> None:
        self.successResultOf(self.kit("a.jar?session=sEcReT"))
        known = self.successResultOf(Deferred.fromCoroutine(self.store.list(JARS_KIND)))
        self.assertEqual(len(known), 1)
        self.assertNotIn("sEcReT", str(known))

    def test_not_for_ever(self) -> None:
        self.panels.takes = KIT_TIME / 2 - 1
        self.failureResultOf(self.kit(*(f"{number}.jar" for number in range(9))), BmcUnreachable)
        self.assertEqual(len(self.cache.names), 3)

    def test_more_than_a_job_may_be_told(self) -> None:
        jnlp = replace(VIEWER, arguments=tuple(Secret("\\" * (1 << 15)) for _ in range(4)))
        self.assertRaises(BadJnlp, launch_text, jnlp, [])
