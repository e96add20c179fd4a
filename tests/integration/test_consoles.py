"""Many consoles at once, and every way in which they may end: nothing of them is left."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults

from tests.support import leftovers
from tests.support.daemon import DaemonProcess
from tests.support.ports import port_range
from tests.support.wire_client import Reply
from tests.support.world import SMALL_PROGRAM, World

SMALL: Mapping[str, Any] = {"chromium": SMALL_PROGRAM}


class ManyConsolesTests(World):
    """Consoles with a small program: what they show does not matter here."""

    timeout: ClassVar[float] = 120
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"panel": SMALL}

    async def no_consoles(self) -> None:
        while listed := (await self.client.must("console list"))["consoles"]:
            await self.closes(listed[0]["console"])

    async def test_twenty_opened_at_once_and_ended_in_every_way(self) -> None:
        opened: list[Reply] = await gatherResults([self.open("device=node1 existing=new") for _ in range(20)])
        self.assertEqual([reply.code for reply in opened], [""] * 20, [reply.body for reply in opened])
        consoles = [reply.body["console"] for reply in opened]
        self.assertEqual(len(set(consoles)), 20)
        await gatherResults([Deferred.fromCoroutine(self.use(reply.body["url"])) for reply in opened])
        self.assertEqual((await self.client.must("daemon status"))["viewers"], 20)
        random.shuffle(consoles)
        for console in consoles[:4]:
            self.kill(console, "xmessage")
        for console in consoles[4:8]:
            self.kill(console, "Xvnc")
        closing = gatherResults([self.client.ask(f"console close console={console}") for console in consoles[8:]])
        for reply in await closing:
            self.assertEqual(reply.code, "", reply.body)
        for console in consoles[:8]:
            ended = await self.closes(console)
            self.assertEqual(ended["reason"], "job-failed")
            self.assertRegex(ended["message"], "Chromium|Xvnc|xmessage")
        await self.nothing_left()
        self.assertEqual((await self.opened())["state"], "ready")

    async def test_client_hangs_up_in_the_middle(self) -> None:
        """Wherever the opening is just then."""

        for stage in ("page", "panel", "display", "browser"):
            client = await self.daemon.connect()
            opening = client.ask("console open device=node1 existing=new")
            opening.addErrback(lambda _: None)
            while not any(told["stage"] == stage for told in client.progress):
                await client.something()
            client.hang_up()
            await self.no_consoles()
            await self.nothing_left()

    async def test_closed_while_opening(self) -> None:
        opening = self.open()
        other = await self.connect()
        listed: list[dict[str, Any]] = []
        while not listed:
            listed = (await other.must("console list"))["consoles"]
        await other.must(f"console close console={listed[0]['console']}")
        self.assertIn((await opening).code, ("cancelled", ""))
        await self.nothing_left()

    async def test_program_that_ends_at_once(self) -> None:
        await self.daemon.stop()
        daemon = DaemonProcess(self.folder / "e", {"panel": {"chromium": "sh -c 'echo no such screen >&2; exit 3'"}})
        self.addCleanup(daemon.stop)
        await daemon.start()
        client = await self.connect(daemon)
        reply = await client.ask(f"console open address=127.0.0.1 web={self.server.panel.url}")
        self.assertEqual(reply.code, "job-failed")
        self.assertIn("exit status 3", reply.body["message"])
        self.assertIn("no such screen", reply.body["message"])
        await self.nothing_left(daemon)

    async def test_idle_console_closes(self) -> None:
        opened = await self.opened("device=node1 idle=1s")
        self.assertEqual((await self.closes(opened["console"]))["reason"], "idle")
        await self.nothing_left()

    async def test_restart_keeps_the_jobs_and_the_next_start_closes_them(self) -> None:
        opened = await self.opened()
        self.assertEqual(await self.daemon.signal(signal.SIGTERM), -signal.SIGTERM)
        self.assertTrue(leftovers.sandboxed(self.jobs / opened["console"]))
        await self.daemon.start()
        await self.nothing_left()

    async def test_killed_daemon(self) -> None:
        """Three consoles are open and one is being opened: they go on, and the next daemon closes them."""

        consoles = [(await self.opened("device=node1 existing=new"))["console"] for _ in range(3)]
        client = await self.daemon.connect()
        client.ask("console open device=node1 existing=new").addErrback(lambda _: None)
        while not any(told["stage"] == "display" for told in client.progress):
            await client.something()
        self.assertEqual(await self.daemon.signal(signal.SIGKILL), -signal.SIGKILL)
        for console in consoles:
            self.assertTrue(leftovers.sandboxed(self.jobs / console))
        await self.daemon.start()
        await self.nothing_left()
        client = await self.connect()
        self.assertEqual((await client.must("console list"))["consoles"], [])
        self.assertEqual((await client.must("console open device=node1"))["state"], "ready")


    async def test_stop_whose_client_hangs_up(self) -> None:
        await self.opened()
        client = await self.daemon.connect()
        client.ask("daemon stop").addErrback(lambda _: None)
        await leftovers.pause(0.02)
        client.hang_up()
        self.assertEqual(await self.daemon.ended(), 0)
        await self.nothing_left()

    async def test_display_is_used_again_at_once(self) -> None:
        """Also by a request that comes while its last user is still on the way out."""

        consoles = [(await self.opened("device=node1 existing=new"))["console"] for _ in range(3)]
        other = await self.connect()
        for console in consoles:
            closing = self.client.ask(f"console close console={console}")
            self.assertEqual((await self.open("device=node1 existing=new", other)).code, "")
            await closing


class TcpDisplayTests(World):
    timeout: ClassVar[float] = 60
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "panel": SMALL,
        "displays": {"range": "146-149", "vnc": "tcp"},
    }

    async def test_vnc_on_a_tcp_port(self) -> None:
        opened = await self.opened()
        display = (await self.show(opened["console"]))["display"]
        self.assertEqual(leftovers.listening(6046, 6049), {5900 + display})
        await self.close(opened["console"])
        self.assertEqual(leftovers.listening(6046, 6049), set())
        await self.nothing_left()


class LeaseTests(World):
    timeout: ClassVar[float] = 60
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"panel": SMALL, "agent": {"lease": "2s"}}

    async def test_no_daemon_comes_back(self) -> None:
        opened = await self.opened()
        await self.daemon.signal(signal.SIGKILL)
        await leftovers.until_none(lambda: leftovers.sandboxed(self.jobs / opened["console"]))


class ExhaustionTests(World):
    timeout: ClassVar[float] = 60
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "panel": SMALL,
        "displays": {"range": "141-142"},
        "relay": {"ports": port_range(3), "port_rest": "0s"},
    }

    async def test_displays_then_ports(self) -> None:
        consoles = [(await self.opened("device=node1 existing=new"))["console"] for _ in range(2)]
        self.assertEqual((await self.open("device=node1 existing=new")).code, "no-free-display")
        await self.close(consoles[0])
        consoles[0] = (await self.opened("device=node1 existing=new"))["console"]
        await self.nothing_more_than(consoles)

    async def nothing_more_than(self, consoles: list[str]) -> None:
        listed = (await self.client.must("console list"))["consoles"]
        self.assertEqual(sorted(console["console"] for console in listed), sorted(consoles))


class PortTests(World):
    timeout: ClassVar[float] = 60
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "panel": SMALL,
        "relay": {"ports": port_range(2), "port_rest": "1m"},
    }

    async def test_ports_rest(self) -> None:
        first = await self.opened("device=node1 existing=new")
        await self.opened("device=node1 existing=new")
        self.assertEqual((await self.open("device=node1 existing=new")).code, "no-free-port")
        await self.close(first["console"])
        refused = await self.open("device=node1 existing=new")
        self.assertEqual(refused.code, "no-free-port")
        self.assertIn("1 resting", refused.body["message"])


class ChromiumTests(World):
    timeout: ClassVar[float] = 90

    async def test_three_at_once(self) -> None:
        opened: list[Reply] = await gatherResults([self.open("device=node1 existing=new") for _ in range(3)])
        self.assertEqual([reply.code for reply in opened], [""] * 3)
        await gatherResults([Deferred.fromCoroutine(self.use(reply.body["url"])) for reply in opened])
        consoles = [reply.body["console"] for reply in opened]
        self.kill(consoles[0], "Xvnc")
        self.kill(consoles[1], "chromium")
        await self.close(consoles[2])
        for console in consoles[:2]:
            self.assertEqual((await self.closes(console))["reason"], "job-failed")
        await self.nothing_left()


class TwoDaemonsTests(World):
    timeout: ClassVar[float] = 60
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"panel": SMALL, "displays": {"range": "143-145"}}

    async def test_side_by_side(self) -> None:
        """Both may use the same displays, and neither sees or touches the other's consoles."""

        other = DaemonProcess(self.folder / "o", self.settings)
        self.addCleanup(other.stop)
        await other.start()
        theirs = await self.connect(other)
        await theirs.must(self.add_device("node1"))
        mine = [await self.opened(), await theirs.must("console open device=node1")]
        self.assertNotEqual(mine[0]["console"], mine[1]["console"])
        for client, console in ((self.client, mine[0]), (theirs, mine[1])):
            listed = (await client.must("console list"))["consoles"]
            self.assertEqual([one["console"] for one in listed], [console["console"]])
        await theirs.must("daemon stop")
        await other.ended()
        await self.nothing_left(other)
        self.assertEqual((await self.show(mine[0]["console"]))["state"], "ready")
