"""How a viewer's session ends."""

from __future__ import annotations

import struct

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint

from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.relay import host as host_module
from ipmiproxyd.relay import takeover
from ipmiproxyd.relay import viewer as viewer_module
from ipmiproxyd.relay.ends import READ
from tests.support.ports import free_ports
from tests.support.relay_case import HELLO, RelayCase, open_sockets, reactor, until, until_steady
from tests.support.relay_talk import MIB, LateEndpoint, Pusher, cut_text
from tests.support.ws_client import (
    BINARY,
    TEXT,
    connect_raw,
    frame,
)


class LeavingTests(RelayCase):
    async def test_the_console_closes(self) -> None:
        self.serve()
        client, end = await self.greeted()
        key = self.key()
        waiting = Deferred.fromCoroutine(self.ask("GET", "/api/status?since=99", Authorization=f"Bearer {key}"))
        idle = await connect_raw(reactor, self.number)
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
        self.assertEqual(self.console.told, ["viewers 1", "viewers 0"])

    async def test_the_display_goes_away(self) -> None:
        self.serve()
        client, end = await self.greeted()
        end.say(b"last words")
        end.drop()
        self.assertEqual(await client.is_closed(), (4001, "The display went away"))
        self.assertEqual(bytes(client.data), b"last words")
        self.assertEqual(self.console.told, ["viewers 1", "viewers 0"])

    async def test_the_display_is_not_there(self) -> None:
        self.console.server = VncServer(UNIXClientEndpoint(reactor, str(self.folder / "nothing")))
        self.serve()
        client = await self.join()
        self.assertEqual(await client.is_closed(), (4001, "The display cannot be reached"))
        self.assertEqual(self.console.told, ["viewers 1", "viewers 0"])

    async def test_violations(self) -> None:
        self.serve()
        for index, (sent, code, words) in enumerate(
            (
                (frame(BINARY, HELLO + b"\x63"), 4002, "Unknown message type 99"),
                (frame(BINARY, b"GET / HTTP/1.1\r\n"), 4002, "RFB"),
                (frame(BINARY, HELLO + struct.pack(">B3xi", 6, 1 << 30)), 4002, "too long"),
                (frame(TEXT, b"hello"), 1003, "binary"),
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
        self.assertEqual(self.console.told, ["viewers 1", "viewers 0"] * 8)

    async def test_gone_while_the_display_is_dialled(self) -> None:
        late = LateEndpoint(self.display.endpoint)
        self.console.server = VncServer(late)
        self.serve()
        client = await self.join()
        await client.hang_up()
        # A browser that waits is not read from, so its end is noticed once something is sent to it, or at the close.
        await self.port.close("closed", "The console was closed.")
        self.assertTrue(late.cancelled)
        self.assertEqual(self.console.told, ["viewers 1", "viewers 0"])
        self.assertEqual(self.display.ends, [])

    async def test_a_violation_while_the_display_is_dialled(self) -> None:
        late = LateEndpoint(self.display.endpoint)
        self.console.server = VncServer(late)
        self.serve()
        client = await self.join(early=frame(BINARY, b"GET / HTTP/1.1\r\n"))
        self.assertEqual((await client.is_closed())[0], 4002)
        self.assertTrue(late.cancelled)

    async def test_a_display_that_never_answers(self) -> None:
        self.patch(host_module, "DIAL_TIME", 0.05)
        late = LateEndpoint(self.display.endpoint)
        self.console.server = VncServer(late)
        self.serve()
        client = await self.join()
        self.assertEqual(await client.is_closed(), (4001, "The display cannot be reached"))
        self.assertTrue(late.cancelled)

    async def test_a_browser_that_does_not_answer_the_close(self) -> None:
        self.patch(viewer_module, "LINGER", 0.1)
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
        self.patch(viewer_module, "DISPLAY_LINGER", 0.1)
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
        self.patch(takeover, "UP_READ", READ)  # all of them are read before any is kept back
        self.serve()
        client, end = await self.greeted()
        end.pause()
        text = cut_text(bytes(250_000))
        client.say(text)
        relay = self.accepted(client)
        await until(lambda: relay not in self.readers())
        begun = reactor.seconds()
        closed = self.port.close("closed", "The console was closed.")
        end.resume()
        await closed
        self.assertLess(reactor.seconds() - begun, 2.0, "nobody had to be cut")
        self.assertEqual(await client.is_closed(), (4000, "closed"))
        await end.lost
        self.assertGreater(len(end.heard), 100_000)
        self.assertTrue(text.startswith(end.heard), "what the relay had read, in order")

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
        half = await connect_raw(reactor, self.number)
        half.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        begun = reactor.seconds()
        await self.port.close("closed", "The console was closed.")
        self.assertLess(reactor.seconds() - begun, 2.5)
        self.assertEqual(await silent.is_closed(), (4000, "closed"))
        await end.lost
        stuck.resume()
        for client in (stuck, silent, half):
            await client.gone()
        self.assertEqual(open_sockets(), before)
        self.assertEqual(self.console.told, ["viewers 1", "viewers 2", "viewers 1", "viewers 0"])
