"""The daemon and a simulated server, side by side, for tests of the whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.simulator.bmc import ADMIN, BmcUser
from tests.simulator.server import SimulatedServer
from tests.support import leftovers
from tests.support.daemon import DaemonProcess
from tests.support.scratch import scratch
from tests.support.visit import enter, visit
from tests.support.wire_client import Reply, WireClient
from tests.support.ws_client import WsClient

SMALL_PROGRAM: Final = "sh -c 'exec xmessage -buttons Fine:0 -geometry 400x300+50+50 a small program'"
"""Stands in for Chromium where a console's programs do not matter: one X client that shows a window."""


class World(TestCase):
    """A running daemon with one device, ``node1``. Everything ends with the test, and nothing may be left.

    :cvar settings: of the daemon.
    :cvar users: of the simulated server; the device signs in as the first.
    :cvar personality: of its panel, with ``attributes`` of it.
    :ivar reactor: connects viewers.
    """

    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    users: ClassVar[Sequence[BmcUser]] = (ADMIN,)
    personality: ClassVar[str] = "generic"
    attributes: ClassVar[Mapping[str, Any]] = {}
    reactor: Any = reactor

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        return Deferred.fromCoroutine(self._prepare())

    async def _prepare(self) -> None:
        self.folder = scratch(self)
        self.x_locks = leftovers.x_locks()
        self.server = SimulatedServer(
            self.folder / "node1", users=self.users, personality=self.personality, attributes=self.attributes
        )
        self.addCleanup(self.server.stop)
        await self.server.start()
        self.daemon = DaemonProcess(self.folder / "d", self.settings)
        self.addCleanup(self.daemon.stop)
        await self.daemon.start()
        self.client = await self.connect()
        await self.client.must(self.add_device("node1"))

    async def connect(self, daemon: DaemonProcess | None = None) -> WireClient:
        client = await (daemon or self.daemon).connect()
        self.addCleanup(client.close)
        return client

    def add_device(self, name: str, server: SimulatedServer | None = None) -> str:
        device = (server or self.server).device()
        words = {
            "name": name,
            "address": device.address,
            "port": str(device.port),
            "username": device.username,
            "password": device.password.reveal(),
            "cipher": device.cipher,
            "web": device.web,
        }
        return "device add " + " ".join(f"{key}={shlex.quote(value)}" for key, value in words.items())

    def open(self, words: str = "device=node1", client: WireClient | None = None) -> Deferred[Reply]:
        return (client or self.client).ask(f"console open {words}")

    async def opened(self, words: str = "device=node1", client: WireClient | None = None) -> dict[str, Any]:
        return await (client or self.client).must(f"console open {words}")

    async def use(self, url: str) -> WsClient:
        """Come to a console, as its URL allows, and press a key. The viewer stays until the test ends."""

        viewer = await visit(url, self.reactor)
        self.addCleanup(viewer.hang_up)
        self.assertEqual(await enter(viewer), (1280, 1024))
        for down in (1, 0):
            viewer.say(bytes((4, down, 0, 0)) + ord("a").to_bytes(4, "big"))
        return viewer

    def kill(self, console: str, program: str) -> None:
        """End one program of a console."""

        victims = [
            pid
            for pid, command in leftovers.sandboxed(self.jobs / console).items()
            if program in command.split(" ", 1)[0]
        ]
        self.assertTrue(victims, leftovers.processes_of(self.jobs / console))
        for pid in victims:
            leftovers.kill(pid)

    async def close(self, console: str) -> dict[str, Any]:
        return await self.client.must(f"console close console={console}")

    async def show(self, console: str) -> dict[str, Any]:
        return await self.client.must(f"console show console={console}")

    async def closes(self, console: str, limit: float = 15.0) -> dict[str, Any]:
        """Wait until a console has closed by itself; what is known of it then."""

        found: dict[str, Any] = {}

        def still_open() -> bool:
            return found.get("state") != "closed"

        waited = 0.0
        while still_open():
            found = await self.show(console)
            if not still_open():
                break
            if waited > limit:
                raise AssertionError(f"the console does not close: {found}")
            await leftovers.pause(0.05)
            waited += 0.05
        return found

    @property
    def jobs(self) -> Path:
        return self.daemon.jobs

    def relay_ports(self, daemon: DaemonProcess | None = None) -> tuple[int, int]:
        found = re.search(r'ports = "(\d+)-(\d+)"', (daemon or self.daemon).config.read_text())
        assert found is not None
        return int(found[1]), int(found[2])

    def assert_unseen(self, secret: str) -> None:
        """It stands in no command line, no environment, no log and no file of the daemon's but its settings."""

        self.assertEqual(leftovers.seen_in_processes(secret.encode()), [])
        for path in (self.daemon.log, *self.daemon.folder.rglob("*")):
            if path != self.daemon.config:
                self.assertNotIn(secret.encode(), leftovers.read(path), path)

    async def nothing_left(self, daemon: DaemonProcess | None = None) -> None:
        """No process, user's process, file, port or X lock of any console."""

        daemon = daemon or self.daemon
        jobs = daemon.jobs
        await leftovers.until_none(lambda: leftovers.processes_of(jobs / ""))
        await leftovers.until_none(lambda: leftovers.files_of(jobs))
        await leftovers.until_none(lambda: leftovers.listening(*self.relay_ports(daemon)))
        self.assertEqual(leftovers.x_locks() - self.x_locks, set())


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
