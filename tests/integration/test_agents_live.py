"""Agents that come and go while the daemon runs."""

from __future__ import annotations

import shlex
import signal
from typing import Any, ClassVar

from tests.integration.test_ssh_whole import SshWorld
from tests.support import leftovers
from tests.support.sshd import make_key
from tests.support.viewer import Page, open_page
from tests.support.world import SMALL_PROGRAM


class AgentsLiveTests(SshWorld):
    configured = False
    more: ClassVar[dict[str, Any]] = {"panel": {"chromium": SMALL_PROGRAM}}

    def line(self, **changes: str) -> str:
        words = {
            "host": "127.0.0.1",
            "port": str(self.sshd.port),
            **{name: str(self.east[name]) for name in ("user", "key", "folder", "runner")},
            "jobs_name": str(self.east["jobs-name"]),
            **changes,
        }
        return " ".join(f"{name}={shlex.quote(value)}" for name, value in words.items() if value)

    async def refused(self, line: str, code: str) -> dict[str, Any]:
        reply = await self.client.ask(line)
        self.assertEqual(reply.code, code, reply.body)
        return reply.body

    async def names(self) -> list[str]:
        return [one["name"] for one in (await self.client.must("agent list"))["agents"]]

    async def row(self) -> dict[str, Any]:
        _, east = (await self.client.must("agent list"))["agents"]
        self.assertEqual((east["name"], east["kind"], east["from"]), ("east", "ssh", "store"))
        return dict(east)

    async def test_from_the_first_look_to_the_last(self) -> None:
        shown = await self.refused(f"agent add name=east {self.line()}", "agent-host-key-unknown")
        self.assertEqual(shown["host_keys"], [{"kind": "ED25519", "fingerprint": self.sshd.host_key}])
        self.assertIn(f"host_key={self.sshd.host_key}", shown["hint"])
        await self.refused(f"agent add name=east {self.line(host_key='SHA256:' + 43 * 'a')}", "agent-host-key")
        other = self.sshd.folder / "other"
        make_key(other)
        pinned = self.line(host_key=self.sshd.host_key)
        await self.refused(f"agent add name=east {self.line(host_key=self.sshd.host_key, key=str(other))}", "agent-key")
        self.assertIn("another name", (await self.refused(f"agent add name=local {pinned}", "exists"))["hint"])
        await self.refused(f"agent add name=east check=no {self.line()}", "missing-argument")
        self.assertEqual(await self.names(), ["local"])

        added = await self.client.must(f"agent add name=east {pinned}")
        self.assertEqual((added["state"], added["passphrase"]), ("connected", ""))
        self.assertEqual(added["host_key"], [self.sshd.host_key])
        self.assertIn("safer", added["warnings"][-1])
        opened = await self.opened("device=node1 agent=east")
        viewer = await self.use(opened["url"])
        self.assertEqual(((await self.row())["consoles"], (await self.row())["limits"]["displays"]), (1, 40))
        await self.refused("agent remove name=east", "in-use")
        await self.refused("agent set name=east group=daemon", "in-use")
        await self.client.must("agent set name=east notes='rack 4'")
        self.assertEqual((await self.client.must("agent show name=east"))["notes"], "rack 4")

        self.sshd.let_in(other.with_suffix(".pub"))
        before = self.sshd.serving()
        changed = await self.client.must(f"agent set name=east key={other}")
        self.assertEqual((changed["state"], changed["key"]), ("connected", str(other)))
        await leftovers.until_none(lambda: set(before) & set(self.sshd.serving()))
        self.assertEqual((await self.show(opened["console"]))["state"], "ready")
        await self.use((await self.client.must(f"console url console={opened['console']}"))["url"])
        self.assertEqual((await self.client.must("power status device=node1 agent=east"))["power"], "off")

        page = await self.waits_with_a_page(opened["console"])
        self.assertEqual((await self.client.must("agent remove name=east force=yes"))["warnings"], [])
        await viewer.is_closed()
        await page.phase("over")
        self.assertEqual(await page.text("#card-title"), "The place where the console ran was taken away")
        await self.nothing_left()
        self.assertEqual((await self.closes(opened["console"]))["reason"], "agent-removed")
        await leftovers.until_none(self.sshd.serving)
        self.assertEqual(await self.names(), ["local"])
        await self.refused("console open device=node1 agent=east", "not-found")
        await self.refused("power status device=node1 agent=east", "not-found")

    async def test_one_agent_by_two_names(self) -> None:
        """The second is refused; and if nobody looked, it does nothing there."""

        pinned = self.line(host_key=self.sshd.host_key)
        await self.client.must(f"agent add name=east {pinned}")
        opened = await self.opened("device=node1 agent=east")
        there = self.line(host_key=self.sshd.host_key, host="localhost")
        for line in (pinned, there):
            self.assertIn("as the agent east", (await self.refused(f"agent add name=west {line}", "exists"))["message"])
        added = await self.client.must(f"agent add name=west check=no {there}")
        self.assertEqual((added["state"], added["code"]), ("unreachable", "agent-unreachable"))
        self.assertIn("as the agent east", added["warnings"][0])
        await self.refused("power status device=node1 agent=west", "agent-unreachable")
        self.assertEqual((await self.show(opened["console"]))["state"], "ready")
        await self.client.must("agent remove name=west")
        self.assertEqual((await self.client.must("agent set name=east transport=direct"))["state"], "connected")

    async def test_agent_that_would_be_of_no_use(self) -> None:
        pinned = self.line(host_key=self.sshd.host_key)
        for more, code in (
            ("python=/usr/bin/python9", "tool-missing"),
            ("python=/usr/bin/false", "agent-unreachable"),
            ("users=always", "agent-unreachable"),
        ):
            await self.refused(f"agent add name=east {pinned} {more}", code)
        self.assertEqual(await self.names(), ["local"])

    async def waits_with_a_page(self, console: str) -> Page:
        """While the agent is away the console's page says so; it goes on once the agent is back."""

        page = await open_page(self, (await self.client.must(f"console url console={console}"))["url"])
        await page.phase("connected")
        serving = self.sshd.serving()
        await self.sshd.stop()
        for pid in serving:
            leftovers.kill(pid)
        await page.wait("document.getElementById('card-text').textContent.includes('the console runs is lost')")
        self.assertTrue(await page.visible("#close-button"))
        told = await self.show(console)
        self.assertEqual((told["state"], told["agent_away"]), ("ready", True))
        await self.sshd.start(self)
        await page.phase("connected", limit=20.0)
        self.assertFalse((await self.show(console))["agent_away"])
        return page

    async def test_restart_keeps_them(self) -> None:
        """With an encrypted key: its passphrase is stored so that nobody else can read it."""

        locked = self.sshd.folder / "locked"
        make_key(locked, passphrase="open sesame")
        self.sshd.let_in(locked.with_suffix(".pub"))
        line = self.line(key=str(locked), host_key=self.sshd.host_key)
        words = await self.refused(f"agent add name=east {line}", "agent-key")
        self.assertIn("passphrase is not set", words["message"])
        await self.client.must(f"agent add name=east {line} passphrase='open sesame'")
        self.assert_unseen("open sesame")
        await self.daemon.signal(signal.SIGTERM)
        await self.sshd.finish()
        await self.daemon.start()
        self.client = await self.connect()
        row = await self.row()
        self.assertEqual((row["state"], row["code"], row["runner"]), ("unreachable", "agent-unreachable", ""))
        await self.sshd.start(self)
        self.addCleanup(self.sshd.cut)
        await leftovers.until_none(lambda: not self.sshd.serving())
        self.assertEqual((await self.client.must("power status device=node1 agent=east"))["power"], "off")
        shown = await self.client.must("agent show name=east")
        self.assertEqual((shown["state"], shown["passphrase"], shown["runner"]), ("connected", "set", "sent"))
