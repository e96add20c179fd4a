"""What goes wrong with an agent: each with its code and its words. Consoles are closed by it or go on, nothing half."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

from tests.support import leftovers
from tests.support.hosts import RUNNER
from tests.support.hosts_world import HostsWorld
from tests.support.sshd import make_key

KNOWN_WITHIN = 20.0


class TroubleWorld(HostsWorld):
    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1),)

    async def cut(self) -> None:
        """The connection is lost, and the daemon knows."""

        self.east.host.cut()
        while (await self.agent_told("east"))["connected"]:
            await leftovers.pause(0.02)

    async def refused(self, code: str, *words: str) -> None:
        """Neither power nor a console can be had, for this reason, as soon as it is known."""

        begun = time.monotonic()
        while (answer := await self.power(self.east))[0] != code or words[0] not in answer[1]:
            self.assertLess(time.monotonic() - begun, KNOWN_WITHIN, answer)
            await leftovers.pause(0.1)
        told = await self.agent_told("east")
        self.assertEqual((told["connected"], told["code"]), (False, code))
        reply = await self.client.ask("console open device=east1 agent=east existing=new")
        self.assertEqual(reply.code, code, reply.body)
        for part in words:
            self.assertIn(part, f"{reply.body['message']} {reply.body.get('hint', '')}")

    async def goes_on(self, opened: dict[str, Any]) -> None:
        """A console whose connection was lost is as it was; then it is closed."""

        await self.until_power(self.east)
        self.assertEqual((await self.show(opened["console"]))["state"], "ready")
        await self.use((await self.client.must(f"console url console={opened['console']}"))["url"])
        await self.close(opened["console"])
        await self.nothing_left()


class SshdTests(TroubleWorld):
    async def test_sshd(self) -> None:
        """Started anew, nobody notices. Killed with its connections, consoles wait for it."""

        sshd = self.east.host.sshd
        opened = await self.opened("device=east1 agent=east")
        viewer = await self.use(opened["url"])
        await sshd.stop()
        await sshd.start(self)
        self.assertEqual(await self.power(self.east), ("", "off"))
        self.assertFalse(viewer.is_lost)

        await sshd.stop()
        await self.cut()
        await viewer.gone()
        await self.refused("agent-unreachable", "Connection refused")
        await sshd.start(self)
        await self.goes_on(opened)

    async def test_keys(self) -> None:
        """A host key that changes, and a key of ours that is not let in any more."""

        sshd = self.east.host.sshd
        opened = await self.opened("device=east1 agent=east")
        keys = {path.name: path.read_bytes() for path in sshd.folder.iterdir()}
        other = make_key(sshd.folder / "host_key")
        await self.change_keys()
        await self.refused("agent-host-key", "another host key", self.east.address, other, "somebody may be in between")

        (sshd.folder / "host_key").write_bytes(keys["host_key"])
        (sshd.folder / "authorized_keys").write_text("")
        await self.change_keys()
        await self.refused("agent-key", "does not let ipmiproxyd in with this key", "authorized_keys")

        (sshd.folder / "authorized_keys").write_bytes(keys["authorized_keys"])
        sshd.put_keys()
        await self.goes_on(opened)

    async def change_keys(self) -> None:
        sshd = self.east.host.sshd
        sshd.put_keys()
        await sshd.stop()
        await sshd.start(self)
        await self.cut()


class HostTests(TroubleWorld):
    async def test_full_disk(self) -> None:
        """A console that runs goes on, and power works; another console is refused, and leaves nothing."""

        opened = await self.opened("device=east1 agent=east")
        with self.east.host.full_disks():
            for _ in range(2):
                reply = await self.client.ask("console open device=east1 agent=east existing=new")
                self.assertEqual(reply.code, "agent-full", reply.body)
                self.assertIn("disk is full: 0 KiB are free at /run/", reply.body["message"])
                self.assertIn("df -h /run/", reply.body["hint"])
                self.assertEqual(await self.power(self.east), ("", "off"))
                await self.use((await self.client.must(f"console url console={opened['console']}"))["url"])
                await self.cut()
                await self.until_power(self.east)
            await self.close(opened["console"])
            await self.nothing_left()
        opened = await self.opened("device=east1 agent=east")
        await self.close(opened["console"])
        await self.nothing_left()

    async def test_reboot(self) -> None:
        opened = await self.opened("device=east1 agent=east")
        viewer = await self.use(opened["url"])
        await self.east.reboot()
        closed = await self.closes(opened["console"], limit=40.0)
        self.assertEqual(closed["reason"], "job-failed")
        self.assertIn("started anew", closed["message"])
        await viewer.gone()
        await self.nothing_left()
        again = await self.opened("device=east1 agent=east")
        await self.use(again["url"])
        await self.close(again["console"])
        await self.nothing_left()

    async def test_runner(self) -> None:
        """Missing, or another one than the daemon's."""

        opened = await self.opened("device=east1 agent=east")
        runner = self.east.host.path(RUNNER)
        runner.unlink()
        await self.cut()
        await self.refused("agent-unreachable", RUNNER)
        self.east.host.install_runner()
        runner.write_text(runner.read_text() + "\n")
        await self.refused("agent-outdated", "another one than the daemon's", RUNNER)
        self.east.host.install_runner()
        await self.goes_on(opened)
