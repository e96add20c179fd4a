"""The gateway: every console on one port, on real sockets."""

from __future__ import annotations

import os
import random
import re
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.utils import getProcessOutputAndValue

from ipmiproxyd.errors import BadValue
from ipmiproxyd.relay import gateway as gateway_module
from ipmiproxyd.relay import host as host_module
from ipmiproxyd.relay.viewer import Viewer
from ipmiproxyd.relay.viewers import LEAVING
from tests.support.fake_console import FakeConsole
from tests.support.ports import free_ports
from tests.support.relay_case import RelayCase, open_sockets, reactor, until
from tests.support.relay_pages import INDEX
from tests.support.relay_talk import MIB, cut_text
from tests.support.relay_tls import HOST, GatewayCase
from tests.support.ws_client import RawClient, Refused, WsClient, ask, connect_raw


def request(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


class PlacesTests(GatewayCase):
    async def get(self, path: str, method: str = "GET") -> tuple[int, str, bytes]:
        return await ask(reactor, self.gateway, method, path)

    async def test_what_is_where(self) -> None:
        self.serve()
        status, head, body = await self.get("/")
        self.assertEqual(status, 200)
        self.assertTrue(body.startswith(b"ipmiproxyd") and body.count(b"\n") == 1, body)
        self.assertIn("text/plain", head)
        self.assertIn("frame-ancestors 'self'", head)
        self.assertEqual((await self.get("/c/c1/"))[2], INDEX.encode())
        self.assertEqual((await self.get("/c/c1/assets/app.js"))[0], 200)
        self.assertEqual((await self.get("/c/c1/api/status"))[0], 403)
        self.assertEqual((await self.get("/c/c1/nothing"))[0], 404)
        status, head, body = await self.get("/", "HEAD")
        self.assertEqual((status, body), (200, b""))
        self.assertEqual((await self.get("/", "POST"))[0], 405)

    async def test_a_slash_is_missing(self) -> None:
        self.serve()
        status, head, _ = await self.get("/c/c1")
        self.assertEqual(status, 308)
        self.assertIn("\r\nLocation: c1/\r\n", head)
        url = f"http://127.0.0.1:{self.gateway}/c/c1"
        told, _, status = await getProcessOutputAndValue("curl", ["-sSL", "--max-time", "20", url], os.environ)
        self.assertEqual((status, told), (0, INDEX.encode()))

    async def test_what_is_not_there(self) -> None:
        self.serve()
        for path in ("/c/nobody/", "/c/nobody", "/c/C1/", "/c/c1x/"):
            status, head, body = await self.get(path)
            self.assertEqual(status, 404)
            self.assertIn("text/html", head)
            self.assertIn(b"This console is closed", body)
            self.assertNotIn(path.split("/")[2].encode() + b"/", body)
        for path in ("/c/nobody/api/status", "/c/nobody/vnc", "/c/nobody/assets/app.js"):
            status, head, body = await self.get(path)
            self.assertEqual(status, 404)
            self.assertIn("application/json", head)
            self.assertIn(b'"message":"This console is closed."', body)
        for path in ("/c/", "/c/<b>/", "/c/%63%31/", "/c/../c/c1/", "/C/c1/", "/vnc", "/api/session", "/c//c1/", "/x"):
            status, _, body = await self.get(path)
            self.assertEqual((status, b'"not-found"' in body, b"<b>" in body), (404, True, False), path)

    async def test_curl_reads_the_page(self) -> None:
        self.serve()
        url = f"http://127.0.0.1:{self.gateway}/c/c1/"
        told, _, status = await getProcessOutputAndValue("curl", ["-sS", "--max-time", "20", url], os.environ)
        self.assertEqual((status, told), (0, INDEX.encode()))


class SideBySideTests(GatewayCase):
    async def test_two_consoles(self) -> None:
        """Each browser is at its own console, and one console's end is not the other's."""

        self.serve()
        second, port = self.serve_second()
        self.assertEqual((self.port.number, port.number), (None, None))
        one, first_end = await self.greeted(0)
        two, second_end = await self.greeted(1, console="c2")
        noise = random.Random(1).randbytes(2 * MIB)
        first_end.say(noise)
        second_end.say(noise[::-1])
        self.assertEqual(await two.hears(len(noise)), noise[::-1])
        self.assertEqual(await one.hears(len(noise)), noise)
        news = f"/api/status?since={second.snapshot().serial}"
        waiting = Deferred.fromCoroutine(self.ask("GET", news, console="c2", Authorization=f"Bearer {self.key('c2')}"))
        await until(lambda: second.waiting)

        await self.port.close("closed", "It was closed.")
        self.assertEqual(await one.is_closed(), (4000, "closed"))
        self.assertFalse(two.is_lost)
        before, text = len(second_end.heard), cut_text(noise[:100_000])
        two.say(text)
        await second_end.hears(before + len(text))
        second_end.say(b"still here")
        self.assertEqual(await two.hears(10), b"still here")
        second.change(message="news")
        self.assertEqual((await waiting)[1]["message"], "news")
        self.assertEqual((await self.ask("GET", "/api/status", console="c1"))[0], 404)
        with self.assertRaises(Refused):
            await self.join("any")

        await port.close("idle", "Nobody was here.")
        self.assertEqual(await two.is_closed(), (4000, "idle"))
        await gatherResults([first_end.lost, second_end.lost])

    async def test_a_key_is_good_for_its_own_console(self) -> None:
        self.serve()
        self.serve_second()
        key = self.key()
        self.assertEqual((await self.ask("GET", "/api/status", Authorization=f"Bearer {key}"))[0], 200)
        self.assertEqual((await self.ask("GET", "/api/status", console="c2", Authorization=f"Bearer {key}"))[0], 403)
        with self.assertRaises(Refused) as caught:
            await self.join(key, console="c2")
        self.assertEqual(caught.exception.status, 403)

    async def test_a_connection_goes_from_console_to_console(self) -> None:
        """It belongs to a console only for the time of a request."""

        self.serve()
        second, port = self.serve_second()
        client = await connect_raw(reactor, self.gateway, tls=self.tls)
        client.transport.write(request("/c/c1/"))
        await client.until(lambda: INDEX.encode() in client.data)
        client.transport.write(request("/c/c2/api/status?since=99", f"Authorization: Bearer {self.key('c2')}"))
        await until(lambda: second.waiting)
        self.assertEqual((len(self.port._sockets), len(port._sockets)), (0, 1))
        await self.port.close("closed", "It was closed.")
        self.assertFalse(client.is_lost)
        client.data.clear()
        await port.close("closed", "It was closed.")
        await client.until(lambda: b'"state":"closed"' in client.data)
        client.transport.write(request("/"))
        await client.until(lambda: client.data.endswith(gateway_module._GREETING))
        self.assertFalse(client.is_lost)

    async def test_a_websocket_is_its_consoles_alone(self) -> None:
        self.serve()
        crowd = self.host._gateway._site.sockets  # type: ignore[union-attr]
        client, _ = await self.greeted()
        self.assertEqual(len(crowd), 0)
        self.assertGreater(len(self.port._sockets), 0)
        await client.hang_up()
        await until(lambda: not self.port._sockets)
        self.assertEqual((len(crowd), crowd._clients), (0, {}))

    async def test_requests_at_once(self) -> None:
        """A second request on the same connection, while the first is being answered."""

        self.serve()
        second, port = self.serve_second()
        client = await connect_raw(reactor, self.gateway, tls=self.tls)
        bearer = f"Authorization: Bearer {self.key()}", f"Authorization: Bearer {self.key('c2')}"
        both = request("/c/c1/api/status?since=1", bearer[0]) + request("/c/c2/api/status?since=1", bearer[1])
        client.transport.write(both)
        await until(lambda: self.console.waiting)
        self.console.change(message="one")
        await until(lambda: second.waiting)
        self.assertEqual((len(self.port._sockets), len(port._sockets)), (0, 1))
        await client.hang_up()
        await until(lambda: not port._sockets)
        self.assertEqual(second.cancelled, 1)

    async def test_a_browser_full_of_consoles(self) -> None:
        """It has six connections: some of what they wait for comes soon, so that it can ask for something else."""

        self.patch(gateway_module, "BRIEF", 0.1)
        self.serve()
        bearer = f"Bearer {self.key()}"
        waiting = [
            Deferred.fromCoroutine(self.ask("GET", "/api/status?since=99", Authorization=bearer)) for _ in range(6)
        ]
        await until(lambda: [one.called for one in waiting].count(True) == 2)
        self.assertEqual([one.called for one in waiting].count(False), 4)
        self.console.change(message="news")
        await self.port.close("closed", "It was closed.")
        await gatherResults(waiting)
        self.assertEqual(self.host._gateway.consoles._asking, {})  # type: ignore[union-attr]

    async def test_the_daemon_ends(self) -> None:
        before = open_sockets()
        host = self.make_host([])
        self.port = host.open(self.console)
        client, end = await self.greeted()
        idle = await connect_raw(reactor, self.gateway, tls=self.tls)
        begun = reactor.seconds()
        await host.close("shutdown", "The gateway was stopped.")
        self.assertLess(reactor.seconds() - begun, 2.0, "nobody had to be cut")
        self.assertEqual(await client.is_closed(), (4000, "shutdown"))
        await gatherResults([end.lost, idle.lost])
        await until(lambda: open_sockets() == before)


class SecureSideBySideTests(SideBySideTests):
    secure = True


class BoundsTests(GatewayCase):
    async def crowd(self, count: int) -> list[RawClient]:
        clients = [await connect_raw(reactor, self.gateway) for _ in range(count)]
        self.clients += clients
        return clients

    async def answers(self, client: RawClient) -> bool:
        client.transport.write(request("/"))
        await client.until(lambda: client.data or client.is_lost)
        return not client.is_lost

    async def test_one_client_cannot_take_all(self) -> None:
        self.patch(host_module, "MAX_OF_CLIENT", 5)
        self.make_host([])
        clients = await self.crowd(6)
        self.assertEqual([await self.answers(client) for client in clients], [True] * 5 + [False])
        await clients[0].hang_up()
        (more,) = await self.crowd(1)
        self.assertTrue(await self.answers(more))

    async def test_behind_a_proxy_they_are_not_told_apart(self) -> None:
        self.patch(host_module, "MAX_OF_CLIENT", 2)
        self.make_host([], public_url="https://console.example")
        self.assertEqual([await self.answers(client) for client in await self.crowd(4)], [True] * 4)

    async def test_all_together(self) -> None:
        self.patch(gateway_module, "MAX_SOCKETS", 3)
        self.make_host([])
        clients = await self.crowd(4)
        self.assertEqual([await self.answers(client) for client in clients], [True] * 3 + [False])

    async def test_websockets_do_not_count(self) -> None:
        self.patch(host_module, "MAX_OF_CLIENT", 2)
        self.port = self.make_host([]).open(self.console)
        for number in range(5):
            await self.greeted(number)
        self.assertTrue(await self.answers((await self.crowd(1))[0]))


class TurnedAwayTests(GatewayCase):
    settings = {"viewers": 1}  # noqa: RUF012

    async def test_those_who_do_not_leave_are_few(self) -> None:
        """Nobody answers the close frames: each WebSocket stays for a while."""

        self.patch(WsClient, "_frame", lambda *_: None)
        self.serve()
        key = self.key()
        for _ in range(LEAVING):
            await self.join(key)
        for _ in range(3):
            with self.assertRaises(Refused) as caught:
                await self.join(key)
            self.assertEqual(caught.exception.status, 503)
        self.assertEqual(sum(isinstance(one, Viewer) for one in self.port._sockets), LEAVING)
        for client in self.clients:
            await client.hang_up()
        await until(lambda: not self.port._sockets)
        await self.join(key)


class BothTests(RelayCase):
    """Ports and a gateway."""

    async def test_a_console_is_on_both(self) -> None:
        gateway, number = free_ports(2)
        host = self.make_host([number], gateway=("", gateway))
        port = host.open(self.console)
        self.assertEqual(port.number, number)
        for address in ("127.0.0.1", "::1"):
            self.assertEqual((await ask(reactor, number, "GET", "/", host=address))[2], INDEX.encode())
            self.assertEqual((await ask(reactor, gateway, "GET", "/c/c1/", host=address))[2], INDEX.encode())
        self.assertEqual(host.url(port, "T"), f"http://{HOST}:{gateway}/c/c1/#t=T")
        await port.close("closed", "It was closed.")
        self.assertEqual((await ask(reactor, gateway, "GET", "/c/c1/"))[0], 404)

    async def test_there_are_more_consoles_than_ports(self) -> None:
        gateway, number = free_ports(2)
        host = self.make_host([number], gateway=("127.0.0.1", gateway))
        host.open(self.console)
        self.assertIsNone(host.open(FakeConsole("c2")).number)
        self.assertEqual((await ask(reactor, gateway, "GET", "/c/c2/"))[0], 200)

    async def test_the_port_is_taken(self) -> None:
        (gateway,) = free_ports(1)
        self.make_host([], gateway=("127.0.0.1", gateway))
        error = self.assertRaises(BadValue, self.make_host, [], gateway=("127.0.0.1", gateway))
        self.assertRegex(error.message, re.compile(f"relay.gateway.*{gateway}.*in use"))

    async def test_whose_pages_may_come(self) -> None:
        (gateway,) = free_ports(1)
        host = self.make_host([], gateway=("127.0.0.1", gateway), public_url="https://Console.example/kvm")
        host.open(self.console)

        async def status(origin: str) -> int:
            settings: dict[str, Any] = {"Origin": origin, "Authorization": f"Bearer {self.key()}"}
            return (await ask(reactor, gateway, "GET", "/c/c1/api/status", **settings))[0]

        for origin in ("https://console.example", f"http://{HOST}:{gateway}", f"http://127.0.0.1:{gateway}"):
            self.assertEqual(await status(origin), 200, origin)
        for origin in ("https://console.example:444", f"http://{HOST}", "https://evil.example", "null"):
            self.assertEqual(await status(origin), 403, origin)
