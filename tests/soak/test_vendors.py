"""Every family that has a Java console, on the whole daemon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ipmiproxyd.vendors.registry import by_key
from tests.simulator.vendors import DRIVERS, PERSONALITIES
from tests.support import leftovers
from tests.support.java_world import JavaWorld, PanelHere
from tests.support.ports import port_range
from tests.support.wire_client import Reply


def with_java() -> Iterable[tuple[str, bool]]:
    """The simulated panels, and whether they can be signed out of."""

    families = by_key()
    for kind in PERSONALITIES:
        family = families.get(DRIVERS.get(kind, kind))
        if family is not None and "java" in family.consoles:
            yield kind, family.signs_out != "none"


class EveryFamilyTests(JavaWorld):
    timeout: ClassVar[float] = 900
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"relay": {"ports": port_range(200)}}
    """Used ones rest for a while."""

    async def test_from_the_command_to_the_key(self) -> None:
        for kind, signs_out in with_java():
            panel = await self.node(kind, kind)
            opened = await self.java(kind)
            await panel.happens("kvm-connected")
            await self.click_and_type(panel, opened["url"])
            for secret in (*panel.personality.sessions, *panel.personality.tokens):
                self.assert_unseen(secret)
            await self.close(opened["console"])
            self.gave_back(kind, panel, signs_out)
            await self.nothing_left()

    async def test_the_daemon_is_killed(self) -> None:
        for kind, signs_out in with_java():
            panel = await self.node(kind, kind)
            await self.java(kind)
            await panel.happens("kvm-connected")
            await self.kill_and_start()
            self.gave_back(kind, panel, signs_out)
            await self.nothing_left()

    async def test_refusals(self) -> None:
        for kind, signs_out in with_java():
            panel = await self.node(kind, kind)
            full = (("full", "bmc-no-slot"),) if signs_out else ()  # it has no sessions then
            for mood, code in (*full, ("broken", "bmc-error")):
                panel.personality.mood = mood
                self.check(kind, await self.ask_java(kind), code)
                self.gave_back(kind, panel, signs_out)
            panel.personality.mood = ""
            await self.client.must(f"device set name={kind} password=Wrong-1")
            tried = len(panel.of("sign-in"))
            for _ in range(2):
                self.check(kind, await self.ask_java(kind), "bmc-auth")
            self.assertEqual(len(panel.of("sign-in")), tried + 1, kind)
            self.gave_back(kind, panel, signs_out)

    def check(self, kind: str, reply: Reply, code: str) -> None:
        self.assertEqual(reply.code, code, f"{kind}: {reply.body}")
        self.assertNotIn("display", [told["stage"] for told in reply.progress], kind)
        self.assertEqual(leftovers.files_of(self.jobs), [], kind)

    def gave_back(self, kind: str, panel: PanelHere, signs_out: bool) -> None:
        if signs_out:
            self.assertEqual(panel.signs[0], panel.signs[1], kind)
            self.assertEqual(panel.personality.sessions, {}, kind)
