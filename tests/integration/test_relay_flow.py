"""Who is slow on the relay holds the other up, and nobody else; whatever comes in, no socket is left."""

from __future__ import annotations

import random
import struct

from ipmiproxyd.interfaces import VncServer
from tests.support.end_peer import resident
from tests.support.ports import free_ports
from tests.support.relay_case import HELLO, WELCOME, RelayCase, open_sockets, reactor, until, until_steady
from tests.support.relay_talk import KEY_PRESS, MIB, UPDATE_REQUEST, LateEndpoint, Pusher, cut_text
from tests.support.ws_client import (
    BINARY,
    CLOSE,
    connect_raw,
    frame,
)


class FlowTests(RelayCase):
    async def test_a_slow_browser_stops_the_display(self) -> None:
        self.serve()
        client, end = await self.greeted()
        client.pause()
        before = resident()
        end.flood(256 * MIB)
        taken = await until_steady(lambda: end.said)
        self.assertGreater(taken, 64 << 10)
        self.assertLess(taken, 32 * MIB)
        self.assertLess(resident() - before, 32 * MIB)
        end._to_say = 4 * MIB
        whole = taken + 4 * MIB
        client.resume()
        self.assertEqual(await client.hears(whole), bytes(whole))

    async def test_a_slow_display_stops_the_browser(self) -> None:
        self.serve()
        self.display.keeps = False
        client, end = await self.greeted()
        move = bytes((5, 0, 0, 1, 0, 1))  # texts before it would be no activity
        client.transport.write(frame(BINARY, move))
        await end.hears(len(move))
        end.pause()
        before = resident()
        text = cut_text(bytes(MIB))
        message = (
            frame(BINARY, text[: 64 << 10]),
            *(frame(BINARY, text[at : at + (64 << 10)]) for at in range(64 << 10, len(text), 64 << 10)),
        )
        pump = Pusher(client.transport, b"".join(message), 256)
        taken = await until_steady(lambda: pump.said)
        self.assertLess(taken, 32)
        self.assertLess(resident() - before, 48 * MIB)
        pump.left = 4
        end.resume()
        await end.hears(len(move) + (taken + 4) * len(text))
        first, *others = self.console.told
        self.assertEqual((first, set(others)), ("viewers 1", {"active"}))  # once a second

    async def test_the_browser_waits_for_the_display(self) -> None:
        late = LateEndpoint(self.display.endpoint)
        self.console.server = VncServer(late)
        self.display.keeps = False
        self.serve()
        client = await self.join()
        before = resident()
        client.say(HELLO)
        text = cut_text(bytes(MIB))
        parts = b"".join(frame(BINARY, text[at : at + (64 << 10)]) for at in range(0, len(text), 64 << 10))
        pump = Pusher(client.transport, parts, 256)
        taken = await until_steady(lambda: pump.said)
        self.assertLess(taken, 32)
        self.assertLess(resident() - before, 48 * MIB)
        pump.left = 0
        late.go()
        end = await self.display.viewer()
        await end.hears(taken * len(text))
        self.assertIsNone(client.closed)

    async def test_pings_are_no_activity_and_end_nobody(self) -> None:
        host = self.make_host(free_ports(1), ping=0.05)
        self.port = host.open(self.console)
        client, end = await self.greeted()
        client.polite = False
        await client.until(lambda: client.pings >= 4)
        self.assertEqual(self.console.told, ["viewers 1"])
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


class FuzzTests(RelayCase):
    """Whatever comes in, the next one is served, and no socket is left."""

    async def still_works(self, index: int) -> None:
        client = await self.join()
        client.say(HELLO)
        await client.hears(len(WELCOME))
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
            raw = await connect_raw(reactor, self.number)
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
        self.assertEqual(self.console.told[-1], "viewers 0")

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
        await until(lambda: not self.console.snapshot().viewers)
        await self.still_works(len(self.display.ends))
        await self.port.close("closed", "The console was closed.")
        for end in self.display.ends:
            await end.lost
        self.assertEqual(open_sockets(), before)
        self.assertEqual(self.console.told[-1], "viewers 0")


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
