"""The daemon with an agent over SSH: what works on its own machine works there, unchanged."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.defer import gatherResults

from tests.integration.test_html5_console import Html5World
from tests.simulator.bmc import BmcUser
from tests.support import leftovers
from tests.support.scratch import remove_root_jobs, root_jobs, scratch
from tests.support.ssh_case import AM_ROOT, allow_sudo
from tests.support.sshd import Sshd, login_account
from tests.support.vnc_servers import VncServers
from tests.support.world import SMALL_PROGRAM, World


class SshWorld(World):
    """The agent is called east.

    :cvar configured: it is in the daemon's configuration.
    :cvar python: its own.
    """

    timeout: ClassVar[float] = 60
    configured: ClassVar[bool] = True
    more: ClassVar[dict[str, Any]] = {}
    python: ClassVar[str] = "/usr/bin/python3"
    by_sudo: ClassVar[bool] = False

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
        self.jobs_folder = self.far / "jobs" / "main"
        if self.by_sudo:
            self.jobs_folder = root_jobs(place)
            self.addCleanup(remove_root_jobs, self.jobs_folder)
            allow_sudo(self, account.pw_name, place / "runner.py")
        self.east = {
            "host": "127.0.0.1",
            "port": self.sshd.port,
            "user": account.pw_name,
            "key": str(place / "ssh" / "key"),
            "host-keys": [self.sshd.host_key],
            "folder": str(self.far),
            "jobs-name": self.jobs.name,
            "runner": str(place / "runner.py"),
            "python": self.python,
        }
        self.settings = {  # type: ignore[misc]
            **self.more,
            **({"agents": {"east": self.east}} if self.configured else {}),
        }
        await super()._prepare()

    @property
    def jobs(self) -> Path:
        return self.jobs_folder

    async def nothing_left(self, *_: Any) -> None:
        await leftovers.until_none(lambda: leftovers.processes_of(self.jobs / ""))
        await leftovers.until_none(lambda: leftovers.files_of(self.jobs))
        self.assertEqual(leftovers.x_locks() - self.x_locks, set())


class SshWholeTests(SshWorld):
    python: ClassVar[str] = os.path.realpath(SshWorld.python)

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
        for program in ("Xvnc", "openbox", "chrom", f"{self.python} -I -S /run/console/library/ipmiproxyd-steer.py"):
            self.assertIn(program, commands)
        await self.close(opened["console"])
        await viewer.is_closed()
        await self.nothing_left()

    async def test_agents_are_looked_at(self) -> None:
        local, east = (await self.client.must("agent list"))["agents"]
        self.assertEqual((local["name"], east["name"], east["connected"]), ("local", "east", True))
        self.assertEqual((await self.client.must("agent check agent=east trial=no"))["problems"], [])
        self.assertEqual((await self.client.must("agent check agent=local trial=no"))["problems"], [])
        self.assertEqual((await self.client.ask("agent check agent=west")).code, "not-found")
        checked = await self.client.must("agent check name=local trial=no")
        self.assertIn("safer", checked["warnings"][0])
        self.assertEqual({one["from"] for one in (local, east, checked)}, {"config"})
        self.assertNotIn("passphrase", local)
        self.assertEqual((await self.client.must("agent show name=east"))["host_key"], [self.sshd.host_key])
        for line in ("set name=east notes=x", "remove name=east", "set name=local notes=x", "remove name=local"):
            self.assertEqual((await self.client.ask(f"agent {line}")).code, "forbidden")

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


class SshVncTests(SshWorld):
    async def test_vnc_server_that_the_agent_reaches(self) -> None:
        real = await VncServers(self).xvnc("VncAuth", password="secret12", size="1280x1024")
        await self.client.must(f"device set name=node1 vnc=127.0.0.1:{real.port} vnc_password=secret12")
        opened = await self.opened("device=node1 type=vnc agent=east")
        await self.use(opened["url"])
        await self.close(opened["console"])


class SshJavaTests(SshWorld):
    timeout: ClassVar[float] = 90
    users = (BmcUser("ADMIN", "s3cret-&+/=x"),)
    personality = "supermicro"

    async def test_java_console(self) -> None:
        opened = await self.opened("device=node1 type=java agent=east")
        await self.server.panel.recorded("kvm-connected", limit=20.0)
        await self.use(opened["url"])
        self.assertEqual((await self.server.panel.recorded("kvm-key", limit=20.0))["char"], "a")
        self.assert_unseen("s3cret-&+/=x")
        await self.close(opened["console"])
        await self.nothing_left()


class SshHtml5Tests(SshWorld, Html5World):
    async def test_html5_console(self) -> None:
        panel = await self.node("openbmc", "openbmc")
        opened = await self.opened("device=openbmc type=html5 agent=east")
        await self.key(panel, opened)
        await self.close(opened["console"])
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))


if AM_ROOT:

    class SshSudoTests(SshWorld):
        by_sudo = True
        more: ClassVar[dict[str, Any]] = {"panel": {"chromium": SMALL_PROGRAM}}

        async def test_many_at_once_over_one_connection(self) -> None:
            self.assertEqual((await self.client.must("agent list"))["agents"][1]["isolation"], "users")
            clients = [await self.connect() for _ in range(10)]
            opening = [
                self.open(f"device=node1 agent=east user=u{number}", client) for number, client in enumerate(clients)
            ]
            replies = await gatherResults(opening)
            self.assertEqual({reply.body.get("state") for reply in replies}, {"ready"}, replies)
            for reply in replies:
                await self.use(reply.body["url"])
            await self.client.must("console close device=node1")
            await self.nothing_left()


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

    async def test_agent_that_does_not_answer_at_the_start(self) -> None:
        """The daemon is ready all the same, and what was left there is ended once it answers."""

        await self.opened("device=node1 agent=east")
        await self.daemon.signal(signal.SIGKILL)
        os.kill(self.sshd.listener, signal.SIGSTOP)
        try:
            await self.daemon.start(15.0)
            client = await self.connect()
            here = await self.opened("device=node1", client)
            await client.must(f"console close console={here['console']}")
            self.assertTrue(leftovers.sandboxed(self.jobs))
        finally:
            os.kill(self.sshd.listener, signal.SIGCONT)
        await self.nothing_left()
