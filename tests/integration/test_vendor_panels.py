"""Every family's driver on its simulated panel, by the agent's own curl over TLS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.web.server import Site

from ipmiproxyd.errors import BmcAuth
from ipmiproxyd.model import Device, Secret
from ipmiproxyd.tools.curl import Curl
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.vendors.registry import by_key
from ipmiproxyd.wire.jnlp import parse
from tests.integration.test_local_agent import LocalCase
from tests.simulator.panel import Panel, Recorder, Settings, make_certificate
from tests.simulator.vendors import DRIVERS, PERSONALITIES
from tests.support.memory_store import MemoryStore

reactor = cast(Any, global_reactor)
USER, PASSWORD = "ADMIN", 's3cret & +/=\\"ü'


class Served:
    """A panel in this process, and the device that it belongs to."""

    def __init__(self, case: LocalCase, kind: str, **attributes: Any) -> None:
        folder = case.folder / f"panel{len(list(case.folder.iterdir()))}"
        folder.mkdir()
        self.events: list[tuple[str, Any]] = []
        settings = Settings(personality=kind, users={USER: PASSWORD}, chassis=str(folder), attributes=attributes)
        record = Recorder(folder / "record.jsonl")

        def tell(event: str, more: Any) -> None:
            self.events.append((event, more))
            record(event, more)

        self.panel = Panel(settings, cast(Recorder, tell))
        case.addCleanup(lambda: Deferred.fromCoroutine(self.panel.stop()))
        port = reactor.listenSSL(0, Site(self.panel), make_certificate("127.0.0.1")[0].options(), interface="127.0.0.1")
        case.addCleanup(port.stopListening)
        url = f"https://127.0.0.1:{port.getHost().port}"
        self.device = Device(address="127.0.0.1", web=url, username=USER, password=Secret(PASSWORD))

    def count(self, kind: str, **more: Any) -> int:
        return sum(1 for event, told in self.events if event == kind and more.items() <= told.items())


class VendorPanelTests(LocalCase):
    timeout: ClassVar[float] = 100

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.store = MemoryStore()
        self.http = PanelHttp(Curl(), self.store, reactor)
        self.desk = VendorDesk(self.http, self.store, by_key(), {"local": self.agent})

    async def visit(self, served: Served) -> str:
        """Recognise, sign in, fetch what a console needs, sign out. Returns the family's key."""

        agent, device = self.agent, served.device
        family = (await self.desk.family(agent, device)).family
        session = await self.desk.sign_in(agent, device, family)
        if "java" in family.consoles:
            raw = await self.http.talk(agent, device, lambda site: family.jnlp(site, session))
            self.assertTrue(parse(raw, base=device.web_url).jars)
        if "html5" in family.consoles and "java" not in family.consoles:
            page = await self.http.talk(agent, device, lambda site: family.html5(site, session))
            self.assertTrue(page.path.startswith("/"))
        await self.http.talk(agent, device, lambda site: family.sign_out(site, session))
        if family.signs_out != "none":
            self.assertEqual(served.count("sign-out"), served.count("sign-in", ok=True), family.key)
        self.assertEqual(served.count("sign-in"), 1)
        return family.key

    async def test_every_family(self) -> None:
        kinds = [kind for kind in PERSONALITIES if kind not in ("generic", "acme")]
        for kind in kinds:
            served = Served(self, kind)
            try:
                key = await self.visit(served)
            except Exception as error:
                raise AssertionError(f"{kind}: {error!r}") from error
            self.assertEqual(key, DRIVERS.get(kind, kind))
        self.assertGreater(len(kinds), 20)

    async def test_a_refused_sign_in_is_not_repeated(self) -> None:
        served = Served(self, "supermicro")
        wrong = replace(served.device, password=Secret("wrong"))
        family = (await self.desk.family(self.agent, wrong)).family
        for _ in range(3):
            await self.assertFailure(Deferred.fromCoroutine(self.desk.sign_in(self.agent, wrong, family)), BmcAuth)
        self.assertEqual(served.count("sign-in"), 1)
        await self.desk.sign_in(self.agent, served.device, family)
        await self.desk.forget(self.agent, wrong)
        await self.assertFailure(Deferred.fromCoroutine(self.desk.sign_in(self.agent, wrong, family)), BmcAuth)
        self.assertEqual(served.count("sign-in", ok=False), 2)
