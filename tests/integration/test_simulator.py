"""The simulated server: what tests and the demo rely on."""

from __future__ import annotations

import json
import stat
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS, IResponse
from zope.interface import implementer

from tests.simulator.bmc import ADMIN
from tests.simulator.pages import CANVAS, TEXT_BOX, TITLE
from tests.simulator.panel import RECORD, SETTINGS, serve
from tests.simulator.server import SimulatedPanel, SimulatedServer
from tests.support.scratch import scratch


@implementer(IPolicyForHTTPS)
class Trusting:
    """Trusts one certificate, and checks the address in it."""

    def __init__(self, certificate: Path) -> None:
        self._trusted = ssl.Certificate.loadPEM(certificate.read_bytes())

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return ssl.optionsForClientTLS(hostname.decode(), trustRoot=self._trusted)


class Browser:
    """Just enough of one: cookies, forms, no following of redirects."""

    def __init__(self, panel: SimulatedPanel) -> None:
        self._url = panel.url
        self._agent = Agent(cast(Any, reactor), Trusting(panel.folder / "panel.crt"))
        self.cookie = ""

    async def fetch(self, path: str, form: dict[str, str] | None = None, body: bytes | None = None) -> tuple[int, str]:
        """Status and body."""

        status, text, _ = await self.visit(path, form, body)
        return status, text

    async def visit(
        self, path: str, form: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, str, Headers]:
        headers = Headers({"Cookie": [self.cookie]} if self.cookie else {})
        if form is not None:
            headers.setRawHeaders("Content-Type", ["application/x-www-form-urlencoded"])
            body = urlencode(form).encode()
        response = await self._request(path, headers, body)
        for cookie in response.headers.getRawHeaders("Set-Cookie", []):
            self.cookie = cookie.partition(";")[0]
        return response.code, (await readBody(response)).decode(), response.headers

    def _request(self, path: str, headers: Headers, body: bytes | None) -> Deferred[IResponse]:
        producer = None if body is None else FileBodyProducer(BytesIO(body))
        method = b"GET" if body is None else b"POST"
        return self._agent.request(method, f"{self._url}{path}".encode(), headers, producer)

    async def sign_in(self, password: str = ADMIN.password) -> int:
        return (await self.fetch("/login", {"user": ADMIN.name, "password": password}))[0]


class PageTests(TestCase):
    """The panel's pages, served by this process, since its own takes a while to start."""

    def setUp(self) -> None:
        self.server = SimulatedServer(scratch(self) / "node1", hint="Only <for> tests")
        self.server.chassis.make()
        self.panel = self.server.panel
        listening = serve(self.panel.settings, self.panel.folder, cast(Any, reactor))
        self.addCleanup(listening.stopListening)
        self.panel.url = f"https://127.0.0.1:{cast(Any, listening.getHost()).port}"
        self.browser = Browser(self.panel)

    async def test_sign_in_page(self) -> None:
        status, text = await self.browser.fetch("/")
        self.assertEqual(status, 200)
        self.assertIn(f"<title>{TITLE}</title>", text)
        self.assertIn("name=password", text)
        self.assertIn("Only &lt;for&gt; tests", text)

    async def test_sign_in_and_out(self) -> None:
        self.assertEqual(await self.browser.sign_in(), 303)
        status, text = await self.browser.fetch("/power")
        self.assertEqual(status, 200)
        self.assertIn("The server is off", text)
        await self.browser.fetch("/logout", {})
        self.assertEqual((await self.browser.fetch("/power"))[0], 303)
        (event,) = self.panel.record("sign-in")
        self.assertEqual((event["user"], event["ok"]), (ADMIN.name, True))

    async def test_wrong_password(self) -> None:
        self.assertEqual(await self.browser.sign_in("wrong"), 403)
        self.assertEqual((await self.browser.fetch("/power"))[0], 303)
        self.assertEqual([event["ok"] for event in self.panel.record("sign-in")], [False])

    async def test_password_is_not_recorded(self) -> None:
        await self.browser.sign_in()
        record = (self.panel.folder / RECORD).read_text()
        self.assertIn("sign-in", record)
        self.assertNotIn(ADMIN.password, record)

    async def test_panel_and_bmc_switch_the_same_box(self) -> None:
        await self.browser.sign_in()
        await self.browser.fetch("/power", {"action": "on"})
        self.assertEqual(self.server.chassis.power, "on")
        self.assertIn("The server is on", (await self.browser.fetch("/power"))[1])
        (event,) = self.server.chassis.events()
        self.assertEqual((event.by, event.what), ("panel", "power 1"))

    async def test_switching_needs_a_sign_in(self) -> None:
        await self.browser.fetch("/power", {"action": "on"})
        self.assertEqual(self.server.chassis.power, "off")

    async def test_keyboard_and_mouse_page(self) -> None:
        status, text = await self.browser.fetch("/try")
        self.assertEqual(status, 200)
        for x, y, width, height in (TEXT_BOX, CANVAS):
            self.assertIn(f"left: {x}px; top: {y}px; width: {width}px", text)
            self.assertIn(f"height: {height}px", text)

    async def test_what_a_page_reports_is_recorded(self) -> None:
        events = [
            {"kind": "text", "field": "text", "value": "hé"},
            {"kind": "drag", "button": 0, "points": [[1, 2], [30, 40]]},
            {"kind": "sign-in", "user": "forged", "ok": True},
        ]
        status, _ = await self.browser.fetch("/record", body=json.dumps(events).encode())
        self.assertEqual(status, 204)
        drag = await self.panel.recorded("drag", lambda event: len(event["points"]) > 1)
        self.assertEqual(drag["points"][-1], [30, 40])
        self.assertEqual(self.panel.record("text")[0]["value"], "hé")
        self.assertEqual(self.panel.record("sign-in"), [])

    async def test_nonsense_is_not_recorded(self) -> None:
        for body in (b"", b"{", b"7", b'["x"]', b"[{}]", b"\xff"):
            self.assertEqual((await self.browser.fetch("/record", body=body))[0], 400, body)

    async def test_waiting_for_what_does_not_happen(self) -> None:
        with self.assertRaises(AssertionError):
            await self.panel.recorded("drag", limit=0.1)

    async def test_other_pages(self) -> None:
        for path, needle in (
            ("/popup", "window.close()"),
            ("/hold", "beforeunload"),
            ("/hold?alert=1", ";alert("),
            ("/links", "file:///etc/passwd"),
            ("/download", "simulated"),
        ):
            status, text = await self.browser.fetch(path)
            self.assertEqual(status, 200, path)
            self.assertIn(needle, text)
        _, _, headers = await self.browser.visit("/download")
        self.assertIn("attachment", headers.getRawHeaders("Content-Disposition", [""])[0])
        self.assertEqual((await self.browser.fetch("/nowhere"))[0], 404)
        self.assertEqual(self.panel.record("request")[-1]["status"], 404)


class ServerTests(TestCase):
    """The whole server, in its own processes."""

    async def test_life(self) -> None:
        server = SimulatedServer(scratch(self) / "node1")
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        await server.start()
        pids = (server.bmc.pid, server.panel.pid)
        self.check_secrets(server, pids)
        self.check_device(server)
        self.assertEqual(await Browser(server.panel).sign_in(), 303)
        await server.panel.recorded("sign-in", lambda event: event["ok"])
        server.chassis.switch("power", "1")

        await server.stop()
        await server.stop()
        self.check_gone(pids)

        await server.start()
        self.assertEqual(server.chassis.power, "on")
        self.assertEqual(server.chassis.done(), ["power 1"])

    def check_secrets(self, server: SimulatedServer, pids: tuple[int, ...]) -> None:
        for name in (SETTINGS, "lan.conf"):
            self.assertEqual(stat.S_IMODE((server.panel.folder / name).stat().st_mode), 0o600, name)
        for pid in pids:
            for shown in ("cmdline", "environ"):
                self.assertNotIn(ADMIN.password.encode(), Path(f"/proc/{pid}/{shown}").read_bytes())

    def check_gone(self, pids: tuple[int, ...]) -> None:
        for pid in pids:
            self.assertFalse(Path(f"/proc/{pid}").exists())

    def check_device(self, server: SimulatedServer) -> None:
        device = server.device(name="other")
        self.assertEqual((device.name, device.port, device.web_url), ("other", server.bmc.port, server.panel.url))
        self.assertEqual(device.password.reveal(), ADMIN.password)

    async def test_failed_start_leaves_nothing(self) -> None:
        server = SimulatedServer(scratch(self) / "node1", personality="no-such")
        with self.assertRaises(RuntimeError):
            await server.start()
        self.assertFalse(server.bmc.running)
