"""The daemon with an agent over SSH: what works on its own machine works there, unchanged."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

from tests.support import leftovers
from tests.support.scratch import scratch
from tests.support.sshd import Sshd, login_account
from tests.support.world import SMALL_PROGRAM, World

AM_ROOT = os.geteuid() == 0


class SshWorld(World):
    """The agent is called east."""

    timeout: ClassVar[float] = 60
    more: ClassVar[dict[str, Any]] = {}

    async def _prepare(self) -> None:
        place = scratch(self)
        place.chmod(0o711)
        for name in ("ssh", "mine"):
            (place / name).mkdir(mode=0o711)
        account = login_account()
        if AM_ROOT:
            os.chown(place / "mine", account.pw_uid, account.pw_gid)
        self.sshd = Sshd(place / "ssh")
        await self.sshd.start(self)
        self.far = place / "mine" / "agent"
        east = {
            "host": "127.0.0.1",
            "port": self.sshd.port,
            "user": account.pw_name,
            "key": str(place / "ssh" / "key"),
            "host-keys": [self.sshd.host_key],
            "folder": str(self.far),
            "jobs-dir": str(self.jobs),
        }
        self.settings = {**self.more, "agents": {"east": east}}  # type: ignore[misc]
        await super()._prepare()

    @property
    def jobs(self) -> Path:
        return self.far / "jobs"

    async def nothing_left(self, *_: Any) -> None:
        await leftovers.until_none(lambda: leftovers.processes_of(self.jobs / ""))
        await leftovers.until_none(lambda: leftovers.files_of(self.jobs))
        self.assertEqual(leftovers.x_locks() - self.x_locks, set())


class SshWholeTests(SshWorld):
    async def test_power(self) -> None:
        await self.client.must("power on device=node1 agent=east wait=10s")
        self.assertEqual((await self.client.must("power status device=node1 agent=east"))["power"], "on")
        self.assertEqual((await self.client.ask("power status device=node1 agent=west")).code, "not-found")

    async def test_panel_console(self) -> None:
        opened = await self.opened("device=node1 agent=east")
        viewer = await self.use(opened["url"])
        shown = await self.show(opened["console"])
        self.assertEqual((shown["agent"], shown["state"], shown["viewers"]), ("east", "ready", 1))
        commands = " ".join(leftovers.sandboxed(self.jobs / opened["console"]).values())
        for program in ("Xvnc", "openbox", "chrom"):
            self.assertIn(program, commands)
        await self.close(opened["console"])
        await viewer.is_closed()
        await self.nothing_left()

    async def test_agents_are_looked_at(self) -> None:
        local, east = (await self.client.must("agent list"))["agents"]
        self.assertEqual((local["name"], east["name"], east["connected"]), ("local", "east", True))
        self.assertEqual((await self.client.must("agent check agent=east"))["problems"], [])
        self.assertEqual((await self.client.must("agent check agent=local"))["problems"], [])
        self.assertEqual((await self.client.ask("agent check agent=west")).code, "not-found")

    async def test_agent_that_is_away(self) -> None:
        serving = self.sshd.serving()
        await self.sshd.stop()
        for pid in serving:
            leftovers.kill(pid)
        reply = await self.client.ask("power status device=node1 agent=east")
        self.assertEqual(reply.code, "agent-unreachable")
        self.assertEqual((await self.client.must("power status device=node1"))["power"], "off")
        east = (await self.client.must("agent list"))["agents"][1]
        self.assertEqual((east["connected"], east["code"]), (False, "agent-unreachable"))


class SshLostTests(SshWorld):
    more: ClassVar[dict[str, Any]] = {"panel": {"chromium": SMALL_PROGRAM}}

    async def test_console_outlives_its_connection(self) -> None:
        opened = await self.opened("device=node1 agent=east")
        viewer = await self.use(opened["url"])
        self.sshd.cut()
        await viewer.is_closed()
        again = await self.client.must(f"console url console={opened['console']}")
        await self.use(again["url"])
        self.assertEqual((await self.show(opened["console"]))["state"], "ready")

    async def test_console_of_an_earlier_run_is_closed(self) -> None:
        await self.opened("device=node1 agent=east")
        await self.daemon.signal(signal.SIGKILL)
        self.assertTrue(leftovers.sandboxed(self.jobs))
        await self.daemon.start()
        await self.nothing_left()
