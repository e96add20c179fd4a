"""The relay on real sockets: bytes, admission, ports, and a real display."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.logger import capturedLogs

from ipmiproxyd.errors import NoFreePort
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import ConsoleState, Grant
from ipmiproxyd.relay.backend import DEAD_AFTER_MS
from ipmiproxyd.relay.viewer import Viewer
from tests.support.fake_console import FakeConsole
from tests.support.page_display import PageDisplay, Running
from tests.support.ports import free_ports
from tests.support.relay_case import HELLO, WELCOME, RelayCase, reactor, until
from tests.support.relay_talk import KEY_PRESS, KEY_RELEASE, MIB, UPDATE_REQUEST, cut_text
from tests.support.ws_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    Refused,
    ask,
    frame,
    open_socket,
)


class RelayingTests(RelayCase):
    async def test_bytes_pass_both_ways_unchanged(self) -> None:
        self.serve()
        client, end = await self.greeted()
        noise = random.Random(1).randbytes(3 * MIB)
        down, up = noise[:-100], cut_text(noise[100:])
        end.say(down)
        for at in range(0, len(up), 200_000):
            client.say(up[at : at + 200_000])
        self.assertEqual(await client.hears(len(down)), down)
        await end.hears(len(up))
        self.assertEqual(bytes(end.heard), up)

    async def test_the_handshake(self) -> None:
        self.serve()
        client = await self.join()
        head = client.head.lower()
        self.assertIn("sec-websocket-protocol: binary\r\n", head)
        self.assertNotIn("sec-websocket-extensions", head)
        self.assertIn("server: ipmiproxyd\r\n", head)
        self.assertNotIn("key.", head)

    async def test_who_does_not_wait_for_the_answer_is_heard(self) -> None:
        self.serve()
        client = await self.join(early=frame(BINARY, HELLO) + frame(BINARY, KEY_PRESS))
        self.assertEqual(await client.hears(len(WELCOME)), WELCOME)
        end = await self.display.viewer()
        client.say(KEY_RELEASE)
        await end.hears(16)
        self.assertEqual(bytes(end.heard), KEY_PRESS + KEY_RELEASE)

    async def test_a_request_behind_a_websockets_is_none(self) -> None:
        self.serve()
        client = await self.join(early=b"POST /api/close HTTP/1.1\r\n\r\n")
        self.assertEqual((await client.is_closed())[0], 1002)
        self.assertNotIn("close", self.console.told)

    async def test_no_subprotocol_is_named_that_was_not_offered(self) -> None:
        self.serve()
        client = await open_socket(reactor, self.number, f"key.{self.key()}")
        self.clients.append(client)
        self.assertNotIn("sec-websocket-protocol", client.head.lower())

    async def test_a_fragmented_message(self) -> None:
        self.serve()
        client, end = await self.greeted()
        for opcode, part, last in ((BINARY, KEY_PRESS[:3], False), (CONTINUATION, KEY_PRESS[3:], True)):
            client.transport.write(frame(opcode, part, fin=last))
            client.send(PING, b"between")
        await end.hears(len(KEY_PRESS))
        self.assertEqual(bytes(end.heard), KEY_PRESS)

    async def test_who_is_there_and_who_is_active(self) -> None:
        self.serve()
        client, end = await self.greeted()
        client.say(UPDATE_REQUEST)
        await end.hears(len(UPDATE_REQUEST))
        self.assertEqual(self.console.told, ["viewers 1"])
        for _ in range(50):
            client.say(KEY_PRESS)
        await end.hears(len(UPDATE_REQUEST + 50 * KEY_PRESS))
        self.assertEqual(self.console.told, ["viewers 1", "active"])
        await client.hang_up()
        await end.lost
        self.assertEqual(self.console.told, ["viewers 1", "active", "viewers 0"])

    async def test_the_end_of_a_polite_browser(self) -> None:
        self.serve()
        client, end = await self.greeted()
        client.say(KEY_PRESS)
        client.send(CLOSE, struct.pack(">H", 1000))
        self.assertEqual(await client.is_closed(), (1000, ""))
        await end.lost
        self.assertEqual(bytes(end.heard), KEY_PRESS + KEY_RELEASE, "no key stays down")
        self.assertEqual(self.console.told, ["viewers 1", "active", "viewers 0"])

    async def test_several_viewers_each_with_an_own_connection(self) -> None:
        self.serve()
        (one, first), (two, second) = await self.greeted(0), await self.greeted(1)
        first.say(b"first")
        second.say(b"second")
        self.assertEqual((await one.hears(5), await two.hears(6)), (b"first", b"second"))
        self.assertEqual(len(self.console.snapshot().viewers), 2)
        await one.hang_up()
        await until(lambda: len(self.console.snapshot().viewers) == 1)
        second.say(b"again")
        self.assertEqual(await two.hears(5), b"again")

    async def test_small_messages_are_not_kept_back(self) -> None:
        self.serve()
        client, _ = await self.greeted()
        handle = self.accepted(client)._socket
        assert handle is not None
        self.assertTrue(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 45_000)

    async def test_a_display_on_tcp(self) -> None:
        port = reactor.listenTCP(0, self.display, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.console.server = VncServer(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))
        self.serve()
        client, end = await self.greeted()
        end.say(b"hello")
        self.assertEqual(await client.hears(5), b"hello")
        (viewer,) = (one for one in self.port._sockets if isinstance(one, Viewer))
        handle = viewer._display._socket  # type: ignore[union-attr]
        self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), DEAD_AFTER_MS)


class AdmissionTests(RelayCase):
    settings = {"allowed_origins": ["https://panel.example"]}  # noqa: RUF012

    async def refusal(self, offered: str, **settings: Any) -> Refused:
        refused = await self.assertFailure(
            Deferred.fromCoroutine(open_socket(reactor, self.number, offered, **settings)), Refused
        )
        assert isinstance(refused, Refused)
        self.assertIn("Content-Security-Policy: default-src 'none'", refused.head)
        self.assertIn("Server: ipmiproxyd\r\n", refused.head)
        return refused

    async def test_from_the_link_to_the_screen_and_again(self) -> None:
        self.serve()
        url = self.host.url(self.port, self.grants.issue(Grant(console="c1")))
        match = re.fullmatch(r"http://relay\.example:(\d+)/#t=([\w-]{43})", url)
        assert match is not None
        self.assertEqual(int(match[1]), self.number)
        status, answer = await self.ask("POST", "/api/session", {"token": match[2]})
        self.assertEqual(status, 200)
        status, refusal = await self.ask("POST", "/api/session", {"token": match[2]})
        self.assertEqual((status, refusal["code"]), (403, "forbidden"))
        for _ in range(2):
            client = await self.join(answer["key"])
            client.say(HELLO)
            self.assertEqual(await client.hears(len(WELCOME)), WELCOME)
            await client.hang_up()
        status, told = await self.ask("GET", "/api/status", Authorization=f"Bearer {answer['key']}")
        self.assertEqual((status, told["state"]), (200, "ready"))

    async def test_keys(self) -> None:
        self.serve()
        for offered in ("", "binary", "binary, key.wrong", f"binary, key.{self.key('c2')}"):
            refused = await self.refusal(offered)
            self.assertEqual((refused.status, json.loads(refused.body)["code"]), (403, "forbidden"))
        key = self.key()
        self.grants.revoke("c1")
        self.assertEqual((await self.refusal(f"binary, key.{key}")).status, 403)
        self.assertEqual(self.console.told, [])

    async def test_origins(self) -> None:
        self.serve()
        offered, number = f"binary, key.{self.key()}", self.number
        for origin in ("http://evil.example", "null", f"http://evil.example:{number}"):
            self.assertEqual((await self.refusal(offered, Origin=origin)).status, 403)
        for origin in (f"http://127.0.0.1:{number}", f"http://relay.example:{number}", "https://panel.example"):
            self.clients.append(await open_socket(reactor, number, offered, Origin=origin))

    async def test_not_ready(self) -> None:
        self.serve()
        self.console.change(state=ConsoleState.OPENING)
        refused = await self.refusal(f"binary, key.{self.key()}")
        self.assertEqual((refused.status, json.loads(refused.body)["code"]), (409, "bmc-state"))

    async def test_too_many(self) -> None:
        self.serve()
        key = self.key()
        for _ in range(16):
            await self.join(key)
        client = await self.join(key)
        self.assertEqual(await client.is_closed(), (4004, "Too many viewers are on this console already"))
        self.assertEqual(len(self.console.snapshot().viewers), 16)

    async def test_handshakes_that_are_none(self) -> None:
        self.serve()
        offered = f"binary, key.{self.key()}"
        for status, change in (
            (426, {"Upgrade": ""}),
            (400, {"Upgrade": "h2c"}),
            (400, {"Connection": "close"}),
            (400, {"Sec_WebSocket_Version": "8"}),
            (400, {"Sec_WebSocket_Version": ""}),
            (400, {"Sec_WebSocket_Key": "short"}),
        ):
            self.assertEqual((await self.refusal(offered, **change)).status, status, change)
        self.assertEqual(self.console.told, [])
        await self.join()

    async def test_no_secret_in_the_log(self) -> None:
        with capturedLogs() as logs:
            self.serve()
            token = self.grants.issue(Grant(console="c1"))
            _, answer = await self.ask("POST", "/api/session", {"token": token})
            key = answer["key"]
            await self.ask("POST", "/api/session", {"token": token})
            await self.ask("GET", "/api/status", Authorization=f"Bearer {key}")
            await self.join(key)
            await self.refusal(f"binary, key.{key}, key.{key}")
            await self.refusal(f"binary, key.{key}", Sec_WebSocket_Version="x")
            await self.port.close("closed", "The console was closed.")
        said = repr([dict(log) for log in logs])
        self.assertGreater(len(logs), 3)
        for secret in (token, key):
            self.assertNotIn(secret, said)


class PortTests(RelayCase):
    async def test_a_port_that_another_program_holds(self) -> None:
        held_v6, held_v4, free = free_ports(3)
        other = socket.create_server(("::1", held_v6), family=socket.AF_INET6)
        self.addCleanup(other.close)
        another = socket.create_server(("127.0.0.1", held_v4))
        self.addCleanup(another.close)
        host = self.make_host([held_v6, held_v4, free], listen=["0.0.0.0", "::"])
        port = host.open(self.console)
        self.assertEqual(port.number, free)
        with self.assertRaises(NoFreePort):
            host.open(FakeConsole("c2"))

    async def test_both_families_on_every_address(self) -> None:
        host = self.make_host(free_ports(1), listen=["0.0.0.0", "::"])
        self.port = host.open(self.console)
        for address in ("127.0.0.1", "::1"):
            status, _, page = await ask(reactor, self.number, "GET", "/", host=address)
            self.assertEqual((status, page[:15]), (200, b"<!doctype html>"))
        client = await self.join(
            host="::1", authority=f"[::1]:{self.number}", Origin=f"http://[::1]:{self.port.number}"
        )
        client.say(HELLO)
        self.assertEqual(await client.hears(len(WELCOME)), WELCOME)

    async def test_rests_and_is_free_at_once(self) -> None:
        port = self.serve()
        await port.close("closed", "The console was closed.")
        other = socket.create_server(("127.0.0.1", port.number))
        other.close()
        second = self.serve(FakeConsole("c2"))
        self.assertNotEqual(second.number, port.number)
        with self.assertRaises(NoFreePort) as caught:
            self.host.open(FakeConsole("c3"))
        self.assertIn("1 in use, 1 resting, 0 held", caught.exception.message)

    async def test_two_hosts_side_by_side(self) -> None:
        ports = free_ports(2)
        one, two = self.make_host(ports), self.make_host(ports)
        first, second = one.open(self.console), two.open(FakeConsole("c2"))
        self.assertEqual([first.number, second.number], ports)
        for port in (first, second):
            self.port = port
            status, _ = await self.ask("GET", "/api/status", Authorization=f"Bearer {self.key()}")
            self.assertEqual(status, 200 if port is first else 403)
        await one.close("shutdown", "The gateway was stopped.")
        self.port = second
        self.assertEqual((await ask(reactor, self.number, "GET", "/"))[0], 200)


class OwnDisplay(PageDisplay):
    """On a number that no other test hits upon: looking for a free one, Xvnc takes no lock, and the later of two that
    look at once takes the X socket away from the earlier."""

    def _spawn(self, argv: list[str], env: dict[str, str], fds: Any = None) -> Running:
        number = [f":{random.randrange(2000, 50000)}"] if argv[0] == "Xvnc" else []
        return super()._spawn([argv[0], *number, *argv[1:]], env, fds)


class XvncTests(RelayCase):
    async def test_a_real_display(self) -> None:
        xvnc = OwnDisplay(reactor, self.folder)
        self.addCleanup(lambda: Deferred.fromCoroutine(xvnc.stop()))
        await xvnc.start()
        self.console.server = VncServer(UNIXClientEndpoint(reactor, str(xvnc.socket)))
        self.serve()
        client = await self.join()
        self.assertEqual(await client.hears(12), b"RFB 003.008\n")
        client.say(b"RFB 003.008\n")
        self.assertEqual(await client.hears(2), b"\x01\x01")
        client.say(b"\x01")
        self.assertEqual(await client.hears(4), bytes(4))
        client.say(b"\x01")
        width, height, *_, length = struct.unpack(">HH16sI", await client.hears(24))
        self.assertEqual((width, height), (1024, 768))
        await client.hears(length)
        client.say(struct.pack(">BxHi", 2, 1, 0) + struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        kind, rectangles = struct.unpack(">BxH", await client.hears(4))
        self.assertEqual(kind, 0)
        pixels = 0
        for _ in range(rectangles):
            _, _, wide, high, encoding = struct.unpack(">HHHHi", await client.hears(12))
            self.assertEqual(encoding, 0)
            await client.hears(4 * wide * high)
            pixels += wide * high
        self.assertEqual(pixels, width * height)
        self.assertEqual(self.console.told, ["viewers 1"])
        seen = xvnc.run("xev", "-root", "-event", "mouse")
        await until(lambda: seen.transport is not None)
        client.say(struct.pack(">BBHH", 5, 0, 10, 10) + struct.pack(">BBHH", 5, 0, 333, 222))
        await self.moves(client, seen)
        self.assertEqual(self.console.told[:2], ["viewers 1", "active"])
        await xvnc.stop()
        self.assertEqual(await client.is_closed(), (4001, "The display went away"))

    async def moves(self, client: Any, seen: Any) -> None:
        """xev may begin to look only after the first movement: go on until it has seen one."""

        step = 0

        def seen_one() -> bool:
            nonlocal step
            step += 1
            client.say(struct.pack(">BBHH", 5, 0, 300 + step % 7, 222))
            return bool(re.search(r"MotionNotify.*?root:\(30\d,222\)", seen.output, re.DOTALL))

        await until(seen_one)
