"""From a bare Debian to an agent by one command, and back: on each release that can become one, with its own programs.

What differs between the releases is used here at least once: Python, bubblewrap, curl, nft, Xvnc, Chromium, OpenJDK and
OpenSSH.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from ipmiproxyd.config import Settings
from tests.simulator.server import SimulatedPanel
from tests.support import java_archive, leftovers
from tests.support.listing import differences, listing
from tests.support.roots_world import PASSWORD, RootsWorld
from tests.support.wire_client import Reply
from tests.support.ws_client import WsClient

JAVA: Final = Settings().java
"""Where Javas and their archives are."""
MOMENTS: Final = ("account", "key", "users", "runner", "sudo", "firewall", "kernel")
"""Stages that take no time: a random moment would hardly be in one."""
WAYS: Final = {
    "power": "",
    "engine": "given.pop|parts=",
    "apt": "^(/usr/bin/)?(apt-get|dpkg) ",
    "connection": "^sshd(-session)?: ",
}
"""Whose commands look like that is killed: all that run on the host; the engine alone, or what installs Python for it;
what it has started; those who serve the connection, and listen for others."""
PACKAGES: Final = 20.0
"""Seconds that the packages take, roughly."""


class ThereAndBack(RootsWorld):
    """A host's whole life as an agent."""

    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **RootsWorld.settings,
        "java": {"dir": str(JAVA.dir), "archives": str(JAVA.archives)},
        # Of a family whose ports nobody knows: nft is needed for so many.
        "vendor": {
            "plain": {"recognise": "Simulated BMC", "sign-in-path": "/login", "cookie": "SID", "html5-path": "/try"}
        },
    }

    async def goes(self) -> None:
        host = self.east.host
        self.put_archive()
        before = listing(host)
        told = await self.provisioned(dry_run="yes")
        self.assertTrue(told.body["changes"])
        self.assertEqual(differences(before, listing(host)), [])
        told = await self.provisioned(javas="8")
        self.assertIn("The Java jdk_8u121", told.body["changes"], told.body["warnings"])
        self.assertEqual((told.body["state"], told.body["isolation"]), ("connected", "users"))
        self.assertIn("packages", {line["stage"] for line in told.progress if 0 < line.get("percent", 0) < 100})

        await self.everything_is_fine()
        await self.consoles()
        agent = listing(host)
        self.assertEqual((await self.provisioned()).body["words"], "Nothing had to be changed.")
        self.assertEqual(differences(agent, listing(host)), [])
        self.assertTrue((await self.provisioned("unprovision", force="yes")).body["changes"])
        self.assertEqual(differences(before, listing(host)), [])
        await self.nothing_left()

    def put_archive(self) -> None:
        """The Java of Java consoles, as the vendors like it, comes in Oracle's."""

        place = self.east.host.path(str(JAVA.archives))
        place.mkdir(parents=True)
        content = java_archive.members("jdk1.8.0_121", "1.8.0_121", home="/usr")
        java_archive.write(place / "jdk-8u121-linux-x64.tar.gz", content)

    async def everything_is_fine(self) -> None:
        found = await self.client.must("agent check name=east device=east1")
        wrong = [one for one in found["findings"] if one["level"] != "ok"]
        # A simulated BMC opens its consoles' ports one by one.
        self.assertEqual([one for one in wrong if one["what"] != "bmc-console-ports"], [])
        await self.client.must("power on device=east1 agent=east wait=10s")
        self.assertEqual(await self.power(self.east), ("", "on"))

    async def consoles(self) -> None:
        """Of each kind one, with today's TLS and with yesterday's."""

        panel = self.east.servers[1].panel
        await self.typed("device=east1 type=java", panel, "kvm-key")
        new = await self.another_panel(2, "ami-api")
        await self.typed("device=east2 type=html5", new, "key")
        old = await self.another_panel(3, "generic", old=True)
        await self.typed("device=east3 type=panel", old, "key")
        await self.by("direct")
        opened = await self.opened("device=east1 agent=east")
        await self.use(opened["url"])
        await self.close(opened["console"])
        await self.by("ssh")

    async def by(self, transport: str) -> None:
        """The way to displays, which the host's firewall has to know."""

        await self.client.must(f"agent set name=east transport={transport}")
        self.assertTrue((await self.provisioned(transport=transport)).body["changes"])

    async def typed(self, words: str, panel: SimulatedPanel, kind: str) -> None:
        """A key that is pressed in a console comes to the panel."""

        opened = await self.opened(f"{words} agent=east")
        viewer = await self.use(opened["url"])
        for _ in range(100):
            if panel.record(kind):
                break
            await leftovers.pause(0.2)
            press(viewer, "a")
        self.assertIn("a", {told.get("key", told.get("char")) for told in panel.record(kind)}, words)
        await self.close(opened["console"])
        self.assert_unseen(PASSWORD)


class Debian11Tests(ThereAndBack):
    suite = "bullseye"

    async def test_there_and_back(self) -> None:
        await self.goes()


class Debian12Tests(ThereAndBack):
    suite = "bookworm"

    async def test_there_and_back(self) -> None:
        await self.goes()


class Debian13Tests(ThereAndBack):
    suite = "trixie"

    async def test_there_and_back(self) -> None:
        await self.goes()


class Killed(RootsWorld):
    """Provisioning is broken off at any moment, in any way. The next run completes it, and it can be taken back. SEED
    in the environment repeats the moments of another run."""

    panels = ()

    async def is_killed(self, times: int) -> None:
        seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
        self.dice, self.words = random.Random(seed), ""
        print(f"seed {seed}")
        before = listing(self.east.host)
        try:
            for _ in range(times):
                while not await self.is_killed_once():
                    await self.provisioned("unprovision")
                self.assertEqual((await self.provisioned()).body["state"], "connected")
                self.assertEqual(self.east.host.run("dpkg", "--audit"), "")
                self.assertEqual((await self.provisioned()).body["changes"], [])
                found = await self.client.must("agent check name=east trial=no")
                self.assertEqual(found["problems"], [])
                await self.provisioned("unprovision")
                self.assertEqual(differences(before, listing(self.east.host)), [])
        except BaseException as error:
            error.add_note(f"seed {seed}: {self.words}")
            raise

    async def is_killed_once(self) -> bool:
        """False if it was done before."""

        asked = self.client.ask(self.provision(), 300.0)
        stage = self.dice.choice([*MOMENTS, *len(MOMENTS) * [""]])
        way = self.dice.choice([way for way in WAYS if not stage or way != "apt"])
        seconds = self.dice.uniform(0.0, 0.2 if stage else PACKAGES)
        self.words = f"{way} {seconds:.2f} s after {stage or 'the beginning'}"
        self.client.progress.clear()
        while stage and not any(told["stage"] == stage for told in self.client.progress):
            await self.client.something(120.0)
        await leftovers.pause(seconds)
        self.kill_by(way)
        reply: Reply = await asked
        if way in ("power", "connection"):
            await self.east.host.sshd.all_ended()
            await self.east.host.sshd.start(self)
        print(f"{self.words}: {reply.code or 'it was done'}")
        return not reply.ok

    def kill_by(self, way: str) -> None:
        """Nothing of that kind may run just now."""

        host = self.east.host
        pids = [str(one.pid) for one in host.processes() if re.search(WAYS[way], one.command)]
        host.run("sh", "-c", 'kill -KILL "$@" 2>/dev/null || :', "sh", *(pids if way != "power" else ["-1"]))


class Killed11Tests(Killed):
    suite = "bullseye"

    async def test_killed(self) -> None:
        await self.is_killed(3)


class Killed12Tests(Killed):
    suite = "bookworm"

    async def test_killed(self) -> None:
        await self.is_killed(4)


class Killed13Tests(Killed):
    suite = "trixie"

    async def test_killed(self) -> None:
        await self.is_killed(3)


def press(viewer: WsClient, key: str) -> None:
    for down in (1, 0):
        viewer.say(bytes((4, down, 0, 0)) + ord(key).to_bytes(4, "big"))
