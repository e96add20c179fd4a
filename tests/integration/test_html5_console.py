"""HTML5 consoles, and panels that are signed out of as their browser is closed: the whole daemon, vendors' simulated
panels, and a real Chromium on a real display."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError

from ipmiproxyd.tools import bridge
from tests.support import leftovers
from tests.support.java_world import PASSWORD, USER, JavaWorld, PanelHere
from tests.support.ws_client import WsClient, connect_raw

PROXY = re.compile(rb"--proxy-server=" + re.escape(bridge.HERE.encode()) + rb":(\d+)")
BACKSPACE, TAB, RETURN, CONTROL = 0xFF08, 0xFF09, 0xFF0D, 0xFFE3


def press(viewer: WsClient, key: int) -> None:
    for down in (1, 0):
        viewer.say(bytes((4, down, 0, 0)) + key.to_bytes(4, "big"))


class Html5World(JavaWorld):
    timeout: ClassVar[float] = 60

    async def html5(self, kind: str, **more: Any) -> tuple[PanelHere, dict[str, Any]]:
        """A console that shows its page."""

        panel = await self.node(kind, kind, **more)
        opened = await self.opened(f"device={kind} type=html5")
        await panel.happens("request", path="/favicon.ico")  # Chromium's, for a page that is there
        return panel, opened

    async def key(self, panel: PanelHere, opened: dict[str, Any]) -> WsClient:
        """Press a key until the page, which may not have the keyboard yet, tells of it."""

        viewer = await self.use(opened["url"])
        while not panel.of("key"):
            await leftovers.pause(0.1)
            press(viewer, ord("a"))
        self.assertEqual((await panel.happens("key"))["key"], "a")
        return viewer

    def secrets(self, panel: PanelHere) -> tuple[str, ...]:
        return (PASSWORD, *panel.personality.sessions, *panel.personality.tokens)


class Html5Tests(Html5World):
    async def test_with_cookies(self) -> None:
        panel, opened = await self.html5("openbmc")
        await self.key(panel, opened)
        for secret in self.secrets(panel):
            self.assert_unseen(secret)
        shown = await self.show(opened["console"])
        self.assertTrue(shown["opened"] < shown["slot_since"] < shown["ready"], shown)
        self.assertIsNone(shown["slot_until"])
        self.assertEqual(panel.signs, (1, 0))
        self.assertEqual({told["tls"] for told in panel.of("request")}, {"TLSv1.3"})
        await self.close(opened["console"])
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))
        self.assertIsNone((await self.show(opened["console"]))["slot_since"])

    async def test_with_storage(self) -> None:
        """The page's script finds what it needs; the daemon is killed meanwhile."""

        panel, opened = await self.html5("ami-api")
        self.assertEqual((await panel.happens("request", path="/api/kvm/viewer"))["status"], 200)
        await self.key(panel, opened)
        for secret in self.secrets(panel):
            self.assert_unseen(secret)
        await self.kill_and_start()
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))

    async def test_without_a_display(self) -> None:
        panel = await self.node("openbmc")
        await self.client.must("device set name=node1 password=wrong")
        for code in ("bmc-auth", "bmc-auth"):
            await self.refused(code)
        self.assertEqual((len(panel.of("sign-in")), panel.signs), (1, (0, 0)))
        await self.client.must(f"device set name=node1 password='{PASSWORD}'")
        for mood, code in (("full", "bmc-no-slot"), ("locked", "bmc-locked"), ("broken", "bmc-error")):
            panel.personality.mood = mood
            await self.refused(code)
        self.assertEqual(panel.signs, (1, 1))
        java_only = await self.node("ami", "node2")
        await self.refused("bmc-unsupported", "node2")
        self.assertEqual(java_only.of("sign-in"), [])

    async def refused(self, code: str, device: str = "node1") -> None:
        reply = await self.open(f"device={device} type=html5")
        self.assertEqual(reply.code, code, reply.body)
        self.assertNotIn("display", [told["stage"] for told in reply.progress])


class PanelTests(Html5World):
    """Somebody signs in by hand."""

    settings: ClassVar[dict[str, Any]] = {
        "vendor": {
            "plain": {
                "recognise": "Simulated BMC",
                "sign-in-path": "/login",
                "cookie": "SID",
                "html5-path": "/try",
                "sign-out-path": "/logout",
                "sign-out-method": "POST",
            }
        }
    }

    async def signed_in(self, **more: Any) -> tuple[PanelHere, dict[str, Any]]:
        panel = await self.node("generic", **more)
        (self.folder / "panel0" / "power").write_text("1")  # what its first page shows
        opened = await self.opened()
        await panel.happens("request", path="/favicon.ico")
        viewer = await self.key(panel, opened)
        await leftovers.pause(0.2)
        for key in (*[BACKSPACE] * len(panel.of("key")), *map(ord, USER), TAB, *map(ord, PASSWORD), RETURN):
            press(viewer, key)
        await panel.happens("sign-in", ok=True)
        await panel.happens("request", path="/power")
        return panel, opened

    async def test_closed(self) -> None:
        panel, opened = await self.signed_in()
        self.assertEqual(panel.signs, (1, 0))
        await self.close(opened["console"])
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))

    async def test_old_one_and_the_daemon_is_killed(self) -> None:
        panel, _ = await self.signed_in(tls="legacy")
        await self.kill_and_start()
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))


class OldPanelTests(Html5World):
    """A panel whose TLS no browser speaks any more."""

    async def test_html5(self) -> None:
        panel, opened = await self.html5("ami-api", tls="legacy")
        self.assertEqual((await panel.happens("request", path="/api/kvm/viewer"))["status"], 200)
        viewer = await self.key(panel, opened)
        self.assertEqual({told["tls"] for told in panel.of("request")}, {"TLSv1"})
        for secret in self.secrets(panel):
            self.assert_unseen(secret)
        await self.check_bridge()
        for key, down in ((CONTROL, 1), (ord("w"), 1), (ord("w"), 0), (CONTROL, 0)):
            viewer.say(bytes((4, down, 0, 0)) + key.to_bytes(4, "big"))
        self.assertEqual((await self.closes(opened["console"]))["reason"], "job-failed")  # its window was closed
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))

    async def check_bridge(self) -> None:
        """Nobody else finds it."""

        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in leftovers.processes_of(self.jobs)]
        (port,) = {int(found[1]) for found in map(PROXY.search, commands) if found}
        await self.assertFailure(Deferred.fromCoroutine(connect_raw(reactor, port)), ConnectionRefusedError)
