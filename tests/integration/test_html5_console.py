"""HTML5 consoles, and panels that are signed out of as their browser is closed: the whole daemon, vendors' simulated
panels, and a real Chromium on a real display."""

from __future__ import annotations

import signal
from typing import Any, ClassVar

from tests.support.java_world import PASSWORD, USER, JavaWorld, PanelHere

TAB, RETURN = 0xFF09, 0xFF0D


class Html5World(JavaWorld):
    timeout: ClassVar[float] = 60

    async def html5(self, kind: str, **more: Any) -> tuple[PanelHere, dict[str, Any]]:
        """A console that shows its page."""

        panel = await self.node(kind, **more)
        opened = await self.opened("device=node1 type=html5")
        await panel.happens("request", path="/favicon.ico")  # Chromium's, for a page that is there
        return panel, opened

    async def key(self, panel: PanelHere, opened: dict[str, Any]) -> None:
        await self.use(opened["url"])
        self.assertEqual((await panel.happens("key"))["key"], "a")

    def secrets(self, panel: PanelHere) -> tuple[str, ...]:
        return (PASSWORD, *panel.personality.sessions, *panel.personality.tokens)

    async def restarted(self) -> None:
        await self.daemon.signal(signal.SIGKILL)
        await self.daemon.start()
        self.client = await self.connect()
        await self.until_gone()


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
        await self.restarted()
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

    async def signed_in(self) -> tuple[PanelHere, dict[str, Any]]:
        panel = await self.node("generic")
        (self.folder / "panel0" / "power").write_text("1")  # what its first page shows
        opened = await self.opened()
        await panel.happens("request", path="/favicon.ico")
        viewer = await self.use(opened["url"])
        await panel.happens("text", value="a")
        for key in (0xFF08, *map(ord, USER), TAB, *map(ord, PASSWORD), RETURN):
            for down in (1, 0):
                viewer.say(bytes((4, down, 0, 0)) + key.to_bytes(4, "big"))
        await panel.happens("sign-in", ok=True)
        await panel.happens("request", path="/power")
        return panel, opened

    async def test_closed(self) -> None:
        panel, opened = await self.signed_in()
        self.assertEqual(panel.signs, (1, 0))
        await self.close(opened["console"])
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))

    async def test_the_daemon_is_killed(self) -> None:
        panel, _ = await self.signed_in()
        await self.restarted()
        await self.nothing_left()
        self.assertEqual(panel.signs, (1, 1))
