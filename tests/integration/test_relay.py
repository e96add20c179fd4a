"""The relay on real sockets."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.logger import capturedLogs
from zope.interface import implementer

from ipmiproxyd.errors import NoFreePort
from ipmiproxyd.model import ConsoleState, Grant
from ipmiproxyd.relay import host as host_module
from ipmiproxyd.relay import websocket
from tests.support.fake_console import FakeConsole
from tests.support.page_display import PageDisplay, Running
from tests.support.relay_case import (
    HELLO,
    RelayCase,
    free_ports,
    memory,
    open_sockets,
    reactor,
    until,
    until_steady,
)
from tests.support.ws_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Refused,
    ask,
    connect_raw,
    frame,
    open_socket,
)

KEY_PRESS = b"\x04\x01\x00\x00" + struct.pack(">I", 0x61)
UPDATE_REQUEST = struct.pack(">BBHHHH", 3, 0, 0, 0, 16, 16)
MIB = 1 << 20


def cut_text(text: bytes) -> bytes:
    return struct.pack(">B3xi", 6, len(text)) + text


@implementer(IStreamClientEndpoint)
class LateEndpoint:
    """Connects when it is told to."""

    def __init__(self, endpoint: UNIXClientEndpoint) -> None:
        self._endpoint = endpoint
        self._go: Deferred[None] = Deferred()
        self.cancelled = False

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        def cancel(_: Any) -> None:
            self.cancelled = True

        self._go = Deferred(cancel)
        return self._go.addCallback(lambda _: self._endpoint.connect(factory))

    def go(self) -> None:
        self._go.callback(None)


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
        await end.hears(len(HELLO + up))
        self.assertEqual(bytes(end.heard), HELLO + up)

    async def test_the_handshake(self) -> None:
        self.serve()
        client = await self.join()
        head = client.head.lower()
        self.assertIn("sec-websocket-protocol: binary\r\n", head)
        self.assertNotIn("sec-websocket-extensions", head)
        self.assertIn("server: ipmiproxyd\r\n", head)
        self.assertNotIn("key.", head)

    async def test_no_subprotocol_is_named_that_was_not_offered(self) -> None:
        self.serve()
        client = await open_socket(reactor, self.port.number, f"key.{self.key()}")
        self.clients.append(client)
        self.assertNotIn("sec-websocket-protocol", client.head.lower())

    async def test_a_fragmented_message(self) -> None:
        self.serve()
        client, end = await self.greeted()
        for opcode, part, last in ((BINARY, KEY_PRESS[:3], False), (CONTINUATION, KEY_PRESS[3:], True)):
            client.transport.write(frame(opcode, part, fin=last))
            client.send(PING, b"between")
        await end.hears(len(HELLO + KEY_PRESS))
        self.assertEqual(bytes(end.heard), HELLO + KEY_PRESS)

    async def test_who_is_there_and_who_is_active(self) -> None:
        self.serve()
        client, end = await self.greeted()
        client.say(UPDATE_REQUEST)
        await end.hears(len(HELLO + UPDATE_REQUEST))
        self.assertEqual(self.console.told, ["joined"])
        for _ in range(50):
            client.say(KEY_PRESS)
        await end.hears(len(HELLO + UPDATE_REQUEST + 50 * KEY_PRESS))
        self.assertEqual(self.console.told, ["joined", "active"])
        await client.hang_up()
        await end.lost
        self.assertEqual(self.console.told, ["joined", "active", "left"])

    async def test_the_end_of_a_polite_browser(self) -> None:
        self.serve()
        client, end = await self.greeted()
        client.say(KEY_PRESS)
        client.send(CLOSE, struct.pack(">H", 1000))
        self.assertEqual(await client.is_closed(), (1000, ""))
        await end.lost
        self.assertEqual(bytes(end.heard), HELLO + KEY_PRESS)
        self.assertEqual(self.console.told, ["joined", "active", "left"])

    async def test_several_viewers_each_with_an_own_connection(self) -> None:
        self.serve()
        (one, first), (two, second) = await self.greeted(0), await self.greeted(1)
        first.say(b"first")
        second.say(b"second")
        self.assertEqual((await one.hears(5), await two.hears(6)), (b"first", b"second"))
        self.assertEqual(self.console.snapshot().viewers, 2)
        await one.hang_up()
        await until(lambda: self.console.snapshot().viewers == 1)
        second.say(b"again")
        self.assertEqual(await two.hears(5), b"again")

    async def test_small_messages_are_not_kept_back(self) -> None:
        self.serve()
        client, _ = await self.greeted()
        handle = self.accepted(client).getHandle()
        self.assertTrue(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 120_000)

    async def test_a_display_on_tcp(self) -> None:
        port = reactor.listenTCP(0, self.display, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.console.display = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        self.serve()
        client, end = await self.greeted()
        end.say(b"hello")
        self.assertEqual(await client.hears(5), b"hello")


class AdmissionTests(RelayCase):
    settings = {"allowed_origins": ["https://panel.example"]}  # noqa: RUF012

    async def refusal(self, offered: str, **settings: Any) -> Refused:
        refused = await self.assertFailure(
            Deferred.fromCoroutine(open_socket(reactor, self.port.number, offered, **settings)), Refused
        )
        assert isinstance(refused, Refused)
        self.assertIn("Content-Security-Policy: default-src 'none'", refused.head)
        self.assertIn("Server: ipmiproxyd\r\n", refused.head)
        return refused

    async def test_from_the_link_to_the_screen_and_again(self) -> None:
        self.serve()
        url = self.host.url(self.port.number, self.grants.issue(Grant(console="c1")))
        match = re.fullmatch(r"http://relay\.example:(\d+)/#t=([\w-]{43})", url)
        assert match is not None
        self.assertEqual(int(match[1]), self.port.number)
        status, answer = await self.ask("POST", "/api/session", {"token": match[2]})
        self.assertEqual(status, 200)
        status, refusal = await self.ask("POST", "/api/session", {"token": match[2]})
        self.assertEqual((status, refusal["code"]), (403, "forbidden"))
        for index in range(2):
            client = await self.join(answer["key"])
            end = await self.display.viewer(index)
            end.say(b"RFB 003.008\n")
            self.assertEqual(await client.hears(12), b"RFB 003.008\n")
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
        offered, number = f"binary, key.{self.key()}", self.port.number
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
        self.assertEqual((await self.refusal(f"binary, key.{key}")).status, 503)

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
            client = await self.join(key)
            viewer = self.accepted(client).protocol
            self.assertNotIn(key, repr(vars(viewer)))
            await self.refusal(f"binary, key.{key}, key.{key}")
            await self.refusal(f"binary, key.{key}", Sec_WebSocket_Version="x")
            await self.port.close("closed", "The console was closed.")
        said = repr([dict(log) for log in logs])
        self.assertGreater(len(logs), 3)
        for secret in (token, key):
            self.assertNotIn(secret, said)


class LeavingTests(RelayCase):
    async def test_the_console_closes(self) -> None:
        self.serve()
        client, end = await self.greeted()
        key = self.key()
        waiting = Deferred.fromCoroutine(self.ask("GET", "/api/status?since=99", Authorization=f"Bearer {key}"))
        idle = await connect_raw(reactor, self.port.number)
        await until(lambda: self.console.waiting)
        begun = reactor.seconds()
        await self.port.close("idle", "Nobody was here for 10 minutes.")
        self.assertLess(reactor.seconds() - begun, 2.0, "nobody had to be cut")
        self.assertEqual(await client.is_closed(), (4000, "idle"))
        status, told = await waiting
        self.assertEqual(
            (status, told["state"], told["reason"], told["message"]),
            (200, "closed", "idle", "Nobody was here for 10 minutes."),
        )
        await gatherResults([end.lost, idle.lost])
        self.assertEqual(self.console.told, ["joined", "left"])

    async def test_the_display_goes_away(self) -> None:
        self.serve()
        client, end = await self.greeted()
        end.say(b"last words")
        end.drop()
        self.assertEqual(await client.is_closed(), (4001, "The display went away"))
        self.assertEqual(bytes(client.data), b"last words")
        self.assertEqual(self.console.told, ["joined", "left"])

    async def test_the_display_is_not_there(self) -> None:
        self.console.display = UNIXClientEndpoint(reactor, str(self.folder / "nothing"))
        self.serve()
        client = await self.join()
        self.assertEqual(await client.is_closed(), (4001, "The display cannot be reached"))
        self.assertEqual(self.console.told, ["joined", "left"])

    async def test_violations(self) -> None:
        self.serve()
        for index, (sent, code, words) in enumerate(
            (
                (frame(BINARY, HELLO + b"\x63"), 4002, "Unknown message type 99"),
                (frame(BINARY, b"GET / HTTP/1.1\r\n"), 4002, "RFB"),
                (frame(BINARY, HELLO + struct.pack(">B3xi", 6, 1 << 30)), 4002, "too long"),
                (frame(TEXT, b"hello"), 4002, "binary"),
                (frame(TEXT, b"\xff"), 1007, ""),
                (frame(BINARY, bytes(300 << 10)), 1009, ""),
                (frame(3, b"x"), 1002, ""),
                (frame(BINARY, b"x", rsv=4), 1002, ""),
                (frame(BINARY, b"x", mask=None), 1002, ""),
            )
        ):
            client = await self.join()
            end = await self.display.viewer(index)
            client.transport.write(sent)
            closed, reason = await client.is_closed()
            self.assertEqual(closed, code)
            self.assertIn(words, reason)
            await end.lost
            self.assertEqual(bytes(end.heard), b"", "nothing of it reached the display")
        self.assertEqual(self.console.told, ["joined", "left"] * 9)

    async def test_a_message_that_never_ends(self) -> None:
        self.serve()
        client = await self.join()
        client.transport.write(frame(BINARY, b"x", fin=False))
        for _ in range(5):
            client.transport.write(frame(CONTINUATION, bytes(60 << 10), fin=False))
        self.assertEqual((await client.is_closed())[0], 1009)

    async def test_gone_while_the_display_is_dialled(self) -> None:
        late = LateEndpoint(self.display.endpoint)
        self.console.display = late
        self.serve()
        client = await self.join()
        await client.hang_up()
        # A browser that waits is not read from, so its end is noticed once something is sent to it, or at the close.
        await self.port.close("closed", "The console was closed.")
        self.assertTrue(late.cancelled)
        self.assertEqual(self.console.told, ["joined", "left"])
        self.assertEqual(self.display.ends, [])

    async def test_a_display_that_never_answers(self) -> None:
        self.patch(websocket, "DIAL_TIME", 0.05)
        late = LateEndpoint(self.display.endpoint)
        self.console.display = late
        self.serve()
        client = await self.join()
        self.assertEqual(await client.is_closed(), (4001, "The display cannot be reached"))
        self.assertTrue(late.cancelled)

    async def test_a_browser_that_does_not_answer_the_close(self) -> None:
        self.patch(websocket, "LINGER", 0.1)
        self.serve()
        client, end = await self.greeted()
        client.polite = False
        end.drop()
        self.assertEqual(await client.is_closed(), (4001, "The display went away"))

    async def test_a_slow_browser_gets_all_before_the_close(self) -> None:
        self.serve()
        client, end = await self.greeted()
        client.pause()
        end.flood(64 * MIB)
        said = await until_steady(lambda: end.said)
        end._to_say = 0
        end.drop()
        client.resume()
        self.assertEqual(await client.is_closed(), (4001, "The display went away"))
        self.assertEqual(len(client.data), said)

    async def test_a_display_that_takes_nothing_more(self) -> None:
        self.patch(websocket, "DISPLAY_LINGER", 0.1)
        # The browser is not read from meanwhile: a ping finds out that it is gone.
        self.port = self.make_host(free_ports(1), ping=0.05).open(self.console)
        client, end = await self.greeted()
        end.pause()
        text = cut_text(bytes(200_000))
        Pusher(client.transport, frame(BINARY, text), 50)
        await until_steady(lambda: end.count)
        await client.hang_up()
        await until(lambda: not self.port._sockets)
        end.resume()
        await end.lost

    async def test_a_display_goes_away_while_the_browser_speaks(self) -> None:
        self.serve()
        client, end = await self.greeted()
        Pusher(client.transport, frame(BINARY, cut_text(bytes(100_000))), 400)
        await end.hears(MIB)
        end.drop()
        self.assertEqual(await client.is_closed(), (4001, "The display went away"))

    async def test_the_last_words_of_a_browser_arrive(self) -> None:
        self.serve()
        client, end = await self.greeted()
        end.pause()
        text = cut_text(bytes(250_000))
        client.say(text)
        relay = self.accepted(client)
        await until(lambda: relay not in reactor.getReaders())
        begun = reactor.seconds()
        closed = self.port.close("closed", "The console was closed.")
        end.resume()
        await closed
        self.assertLess(reactor.seconds() - begun, 2.0, "nobody had to be cut")
        self.assertEqual(await client.is_closed(), (4000, "closed"))
        await end.lost
        self.assertEqual(bytes(end.heard), HELLO + text)

    async def test_closing_is_idempotent(self) -> None:
        self.serve()
        client, _ = await self.greeted()
        given_up = self.port.close("closed", "The console was closed.")
        again = self.port.close("idle", "Something else.")
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        await again
        self.assertEqual(await client.is_closed(), (4000, "closed"))
        await self.port.close("idle", "Something else.")

    async def test_a_stuck_browser_holds_nothing_up(self) -> None:
        self.patch(host_module, "CLOSE_TIME", 0.3)
        before = open_sockets()
        self.serve()
        stuck, end = await self.greeted()
        stuck.pause()
        end.flood(32 * MIB)
        await until_steady(lambda: end.said)
        silent = await self.join()
        silent.polite = False
        half = await connect_raw(reactor, self.port.number)
        half.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        begun = reactor.seconds()
        await self.port.close("closed", "The console was closed.")
        self.assertLess(reactor.seconds() - begun, 1.0)
        self.assertEqual(silent.closed, (4000, "closed"))
        await end.lost
        stuck.resume()
        for client in (stuck, silent, half):
            await client.gone()
        self.assertEqual(open_sockets(), before)
        self.assertEqual(self.console.told, ["joined", "joined", "left", "left"])


class FlowTests(RelayCase):
    async def test_a_slow_browser_stops_the_display(self) -> None:
        self.serve()
        client, end = await self.greeted()
        client.pause()
        before = memory()
        end.flood(256 * MIB)
        taken = await until_steady(lambda: end.said)
        self.assertGreater(taken, 64 << 10)
        self.assertLess(taken, 32 * MIB)
        self.assertLess(memory() - before, 32 * MIB)
        end._to_say = 4 * MIB
        whole = taken + 4 * MIB
        client.resume()
        self.assertEqual(await client.hears(whole), bytes(whole))

    async def test_a_slow_display_stops_the_browser(self) -> None:
        self.serve()
        self.display.keeps = False
        client, end = await self.greeted()
        end.pause()
        before = memory()
        text = cut_text(bytes(MIB))
        message = (
            frame(BINARY, text[: 64 << 10]),
            *(frame(BINARY, text[at : at + (64 << 10)]) for at in range(64 << 10, len(text), 64 << 10)),
        )
        pump = Pusher(client.transport, b"".join(message), 256)
        taken = await until_steady(lambda: pump.said)
        self.assertLess(taken, 32)
        self.assertLess(memory() - before, 48 * MIB)
        pump.left = 4
        end.resume()
        await end.hears(len(HELLO) + (taken + 4) * len(text))
        self.assertEqual(self.console.told, ["joined", "active"])

    async def test_the_browser_waits_for_the_display(self) -> None:
        late = LateEndpoint(self.display.endpoint)
        self.console.display = late
        self.display.keeps = False
        self.serve()
        client = await self.join()
        before = memory()
        client.say(HELLO)
        text = cut_text(bytes(MIB))
        parts = b"".join(frame(BINARY, text[at : at + (64 << 10)]) for at in range(0, len(text), 64 << 10))
        pump = Pusher(client.transport, parts, 256)
        taken = await until_steady(lambda: pump.said)
        self.assertLess(taken, 32)
        self.assertLess(memory() - before, 48 * MIB)
        pump.left = 0
        late.go()
        end = await self.display.viewer()
        await end.hears(len(HELLO) + taken * len(text))
        self.assertIsNone(client.closed)

    async def test_pings_are_no_activity_and_end_nobody(self) -> None:
        host = self.make_host(free_ports(1), ping=0.05)
        self.port = host.open(self.console)
        client, end = await self.greeted()
        client.polite = False
        await client.until(lambda: client.pings >= 4)
        self.assertEqual(self.console.told, ["joined"])
        end.say(b"still here")
        self.assertEqual(await client.hears(10), b"still here")
        await client.hang_up()

    async def test_pings_do_not_pile_up(self) -> None:
        host = self.make_host(free_ports(1), ping=0.01)
        self.port = host.open(self.console)
        client, end = await self.greeted()
        client.pause()
        end.flood(32 * MIB)
        await until_steady(lambda: end.said)
        pings = client.pings
        await until_steady(lambda: end.said, turns=40)
        end._to_say = 0
        client.resume()
        await client.until(lambda: len(client.data) == end.said)
        # Those that were under way before the stop, and none of the forty turns in between.
        self.assertLess(client.pings - pings, 60)


class Pusher:
    """A producer that writes the same piece over and over."""

    def __init__(self, transport: Any, piece: bytes, times: int) -> None:
        self._transport = transport
        self._piece = piece
        self.left = times
        self.said = 0
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while self.left and not self._paused:
            self.left -= 1
            self.said += 1
            self._transport.write(self._piece)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self.left = 0


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
            status, _, page = await ask(reactor, self.port.number, "GET", "/", host=address)
            self.assertEqual((status, page[:15]), (200, b"<!doctype html>"))
        client = await self.join(
            host="::1", authority=f"[::1]:{self.port.number}", Origin=f"http://[::1]:{self.port.number}"
        )
        end = await self.display.viewer()
        end.say(b"six")
        self.assertEqual(await client.hears(3), b"six")

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
        self.assertEqual((await ask(reactor, second.number, "GET", "/"))[0], 200)

    async def test_urls(self) -> None:
        for public_host, authority in (
            ("kvm.example", "kvm.example"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
        ):
            host = self.make_host(free_ports(1), public_host=public_host)
            self.assertEqual(host.url(6081, "TOKEN"), f"http://{authority}:6081/#t=TOKEN")
        nameless = self.make_host(free_ports(1), public_host="")
        self.assertEqual(nameless.url(6081, "T"), f"http://{socket.gethostname()}:6081/#t=T")


class FuzzTests(RelayCase):
    """Whatever comes in, the next one is served, and no socket is left."""

    async def still_works(self, index: int) -> None:
        client = await self.join()
        await until(lambda: len(self.display.ends) > index)
        self.display.ends[-1].say(b"still here")
        self.assertEqual(await client.hears(10), b"still here")
        await client.hang_up()

    async def test_http(self) -> None:
        before = open_sockets()
        self.serve()
        dice = random.Random(7)
        key = self.key().encode()
        seeds = [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /api/status?since=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + b"\r\n\r\n",
            b'POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"token": ""}',
            b"GET /vnc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: binary, key." + key + b"\r\n\r\n",
        ]
        for turn in range(150):
            raw = await connect_raw(reactor, self.port.number)
            self.clients.append(raw)
            raw.transport.write(mutated(dice, seeds[turn % 4]) if turn % 5 else dice.randbytes(dice.randrange(1, 500)))
            if turn % 10 == 9:
                for client in self.clients:
                    await client.hang_up()
                self.clients.clear()
        await self.still_works(len(self.display.ends))
        await self.port.close("closed", "The console was closed.")
        for end in self.display.ends:
            await end.lost
        self.assertEqual(open_sockets(), before)
        self.assertEqual(self.console.told.count("joined"), self.console.told.count("left"))

    async def test_websocket(self) -> None:
        before = open_sockets()
        self.serve()
        dice = random.Random(11)
        key = self.key()
        for turn in range(120):
            client = await self.join(key)
            good = b"".join(frame(BINARY, part) for part in (HELLO, UPDATE_REQUEST, KEY_PRESS, cut_text(b"text")))
            noise = dice.randbytes(dice.randrange(1, 300))
            client.transport.write(
                (mutated(dice, good), frame(BINARY, noise), frame(BINARY, HELLO + noise), noise)[turn % 4]
            )
            client.send(CLOSE, struct.pack(">H", 1000))
            if turn % 4 in (1, 2):
                await client.gone()
            await client.hang_up()
            self.clients.clear()
        await until(lambda: self.console.snapshot().viewers == 0)
        await self.still_works(len(self.display.ends))
        await self.port.close("closed", "The console was closed.")
        for end in self.display.ends:
            await end.lost
        self.assertEqual(open_sockets(), before)
        self.assertEqual(self.console.told.count("joined"), self.console.told.count("left"))


def mutated(dice: random.Random, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(data))
        match dice.randrange(3):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                del data[at : at + dice.randrange(1, 8)]
            case _:
                data[at:at] = dice.randbytes(dice.randrange(1, 8))
        if not data:
            break
    return bytes(data)


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
        self.console.display = UNIXClientEndpoint(reactor, str(xvnc.socket))
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
        self.assertEqual(self.console.told, ["joined"])
        seen = xvnc.run("xev", "-root", "-event", "mouse")
        await until(lambda: seen.transport is not None)
        client.say(struct.pack(">BBHH", 5, 0, 10, 10) + struct.pack(">BBHH", 5, 0, 333, 222))
        await self.moves(client, seen)
        self.assertEqual(self.console.told[:2], ["joined", "active"])
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
