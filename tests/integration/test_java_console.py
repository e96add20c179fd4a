"""Java consoles on the whole daemon: a vendor's simulated panel, a real Java, a real display."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.web.http import Request as HttpRequest

from tests.support import leftovers
from tests.support.java_world import PASSWORD, JavaWorld, PanelHere
from tests.support.viewer import open_page

BACKGROUND = (12, 60, 96)
"""The colour of the simulated viewer's screen."""


def asks(text: str, method: str = "GET") -> Callable[[HttpRequest], bool]:
    return lambda request: request.method.decode() == method and text in request.uri.decode()


class BrowserTests(JavaWorld):
    """From the command to the key, in a real browser: each kind of program once."""

    async def visit(self, kind: str) -> None:
        panel = await self.node(kind)
        opened = await self.java()
        await panel.happens("kvm-connected")
        page = await open_page(self, opened["url"])
        await page.phase("connected")
        await page.wait_pixel((640, 900), BACKGROUND)
        await page.click_at(640, 500)
        await panel.happens("kvm-click")
        await page.type("k")
        self.assertEqual((await panel.happens("kvm-key"))["char"], "k")
        self.assertEqual(panel.signs[0], 1)
        self.assert_secrets_unseen(panel, opened)
        await self.close(opened["console"])
        await page.phase("over")
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))
        self.assertEqual(panel.personality.sessions, {})

    def assert_secrets_unseen(self, panel: PanelHere, *replies: Any) -> None:
        told = json.dumps(replies)
        traces = []
        for path in Path("/tmp").glob("hsperfdata_*/*"):
            with contextlib.suppress(FileNotFoundError):  # that of somebody else's Java, which has just ended
                traces.append(path.read_bytes())
        for secret in {PASSWORD, *panel.personality.sessions, *panel.personality.tokens}:
            self.assert_unseen(secret)
            self.assertNotIn(secret, told)
            for trace in traces:
                self.assertNotIn(secret.encode(), trace)

    async def test_application(self) -> None:
        await self.visit("supermicro")

    async def test_applet(self) -> None:
        await self.visit("ibmc-old")

    async def test_signed_out_of_before_it_runs(self) -> None:
        await self.visit("ilom")


class LeavingTests(JavaWorld):
    """However a console ends, its web session does."""

    async def test_the_daemon_is_killed(self) -> None:
        """While a console is open, and while one is being opened."""

        panel = await self.node("supermicro")
        await self.java()
        await panel.happens("kvm-connected")
        other = await self.node("ilo4", "node2")
        hold = other.hold(asks(".jar"))
        self.ask_java("node2").addErrback(lambda _: None)
        await hold.wait()
        self.assertEqual((panel.signs, other.signs), ((1, 0), (1, 0)))
        await self.kill_and_start()
        await self.nothing_left()
        hold.release()
        self.assertEqual((panel.signs, other.signs), ((1, 1), (1, 1)))

    async def test_whoever_opens_it_hangs_up(self) -> None:
        """During each stage. No secret is in a command line or an environment meanwhile."""

        panel = await self.node("supermicro")
        stages = (asks("/cgi/login.cgi", "POST"), asks("url_type=jwsk"), asks("iKVM"), asks("liblinux"))
        await self.hangs_up(panel, asks("/"), 0)
        for count, stage in enumerate(stages, 1):
            await self.hangs_up(panel, stage, count)
        self.assertEqual([name for name in self.cached if name.startswith(".")], [])
        client = await self.connect()
        self.ask_java(client=client).addErrback(lambda _: None)
        while not any(told["stage"] == "java" for told in client.progress):
            await client.something()
        client.hang_up()
        await self.until_gone()
        await self.nothing_left()
        self.assertEqual(panel.signs, (5, 5))

    async def hangs_up(self, panel: PanelHere, stage: Callable[[HttpRequest], bool], count: int) -> None:
        client = await self.connect()
        hold = panel.hold(stage)
        self.ask_java(client=client).addErrback(lambda _: None)
        await hold.wait()
        for secret in (PASSWORD, *panel.personality.sessions):
            self.assertEqual(leftovers.seen_in_processes(secret.encode()), [])
        client.hang_up()
        while any(console["state"] == "opening" for console in (await self.listed())):
            await leftovers.pause(0.02)
        hold.release()
        await self.until_gone()
        self.assertEqual(panel.signs, (count, count))

    async def listed(self) -> list[dict[str, Any]]:
        consoles: list[dict[str, Any]] = (await self.client.must("console list"))["consoles"]
        return consoles

    async def test_the_panel_is_away_when_it_is_closed(self) -> None:
        panel = await self.node("supermicro")
        opened = await self.java()
        await panel.leave()
        self.assertEqual([console["state"] for console in (await self.close(opened["console"]))["closed"]], ["lost"])
        await self.nothing_left()
        panel.listen()
        await self.kill_and_start()
        self.assertEqual(panel.signs, (1, 1))
