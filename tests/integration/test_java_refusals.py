"""What a panel refuses is told as what it is, before any display is started, and no web session is left over."""

from __future__ import annotations

from typing import Any, Final

from ipmiproxyd.tools.curl import TLS_PROFILES
from tests.support import leftovers
from tests.support.java_world import PASSWORD, USER, JavaWorld, PanelHere
from tests.support.tls_refuser import TlsRefuser
from tests.support.wire_client import Reply

BEFORE: Final = {"page", "panel", "sign-in", "jnlp"}
"""The stages that a refusal may come in."""


class RefusalCase(JavaWorld):
    async def refused(self, name: str, panel: PanelHere | None, code: str, *words: str) -> Reply:
        """It is refused so, in words, before the display; nothing is left here or there."""

        reply = await self.ask_java(name)
        self.assertEqual(reply.code, code, f"{reply.body} {self.daemon.log_text()[-3000:]}")
        for word in words:
            self.assertIn(word, f"{reply.body['message']} {reply.body.get('hint')}")
        self.assertNotIn(PASSWORD, str(reply))
        self.assertLessEqual({told["stage"] for told in reply.progress}, BEFORE)
        self.assertEqual(leftovers.files_of(self.jobs), [])
        if panel is not None:
            self.assertEqual(panel.signs[0], panel.signs[1])
            self.assertEqual(panel.personality.sessions, {})
        return reply


class RefusalTests(RefusalCase):
    async def test_wrong_password(self) -> None:
        """It is asked once, and never again until it is another one, however often a console is opened."""

        panel = self.panel("supermicro")
        await self.device(panel, "node1", password="Wrong-1")
        await self.refused("node1", panel, "bmc-auth", "refused the user name or the password")
        again = await self.refused("node1", panel, "bmc-auth", "not been tried again")
        self.assertNotIn("Wrong-1", str(again))
        self.assertEqual(len(panel.of("sign-in")), 1)
        await self.client.must("device set name=node1 password=Wrong-2")
        await self.refused("node1", panel, "bmc-auth", "refused the user name or the password")
        self.assertEqual(len(panel.of("sign-in")), 2)

    async def test_moods(self) -> None:
        panels = {kind: await self.node(kind, kind) for kind in ("supermicro", "ilo4", "imm2", "ibmc-old", "idrac7")}
        cases = (
            ("supermicro", "full", "bmc-no-slot", "no free session"),
            ("ilo4", "full", "bmc-no-slot", "no free session"),
            ("imm2", "licence", "bmc-no-licence", "licence"),
            ("idrac7", "licence", "bmc-no-licence", "licence"),
            ("ibmc-old", "html5", "bmc-html5-only", "page"),
            ("supermicro", "html5", "bmc-html5-only", "page"),
            ("imm2", "locked", "bmc-locked", "300 seconds"),
            ("ilo4", "locked", "bmc-locked", "no sign-in"),
            ("supermicro", "broken", "bmc-error", "500"),
            ("imm2", "broken", "bmc-error", "500"),
        )
        for kind, mood, code, words in cases:
            panels[kind].personality.mood = mood
            await self.refused(kind, panels[kind], code, words)

    async def test_a_family_without_java(self) -> None:
        panel = await self.node("openbmc")
        await self.refused("node1", panel, "bmc-unsupported", "type=html5")
        self.assertEqual(panel.of("sign-in"), [])

    async def test_nothing_there(self) -> None:
        panel = await self.node("supermicro")
        await panel.leave()
        await self.refused("node1", panel, "bmc-unreachable", "Nothing answers")


class TlsTests(RefusalCase):
    async def test_old_panels_work_and_new_ones_stay_new(self) -> None:
        for name, tls in (("old", "legacy"), ("new", "modern")):
            panel = await self.node("supermicro", name, tls=tls)
            opened = await self.java(name)
            await panel.happens("kvm-connected")
            await self.close(opened["console"])
            self.assertEqual(panel.signs, (1, 1))
        old, new = ({told["tls"] for told in panel.of("request")} for panel in self.panels)
        self.assertEqual(old, {"TLSv1"})
        self.assertEqual(new, {"TLSv1.3"})
        looks = [await self.client.must(f"vendor probe device={name}") for name in ("old", "new")]
        self.assertEqual([look["tls"] for look in looks], ["legacy", "modern"])
        # Old TLS is found out by attempts that fail. What is remembered is where it begins: no attempt fails any more,
        # and there is nothing but the looks at the key that there are at a panel of today, too.
        before = [panel.without_request for panel in self.panels]
        self.assertGreater(before[0], before[1])
        for name in ("old", "new"):
            await self.client.must(f"vendor probe device={name}")
        looks_old, looks_new = (panel.without_request - had for panel, had in zip(self.panels, before, strict=True))
        self.assertEqual(looks_old, looks_new)

    async def test_a_panel_that_knows_only_what_nobody_speaks(self) -> None:
        """As one with RC4 or 3DES alone answers: there is no cipher in common. What it was offered is kept."""

        refuser = TlsRefuser(self)
        web = f"https://{refuser.place}"
        await self.client.must(f"device add name=node1 address=127.0.0.1 username={USER} password=x web={web}")
        reply = await self.refused("node1", None, "bmc-tls-too-old", "RC4")
        self.assertIn("no TLS", reply.body["message"])
        self.assertEqual(len(refuser.offers), len(TLS_PROFILES))
        # Only the last offers anything older than TLS 1.2.
        self.assertEqual([offer.oldest for offer in refuser.offers], [0x0303, 0x0303, 0x0301])

    async def test_a_change_of_its_key_is_refused(self) -> None:
        panel = await self.node("supermicro")
        await self.client.must("vendor probe device=node1")
        await panel.take_another_key()
        reply: Any = await self.refused("node1", panel, "bad-certificate", "another certificate")
        self.assertIn("vendor forget device=node1 agent=local", reply.body["hint"])
        self.assertEqual(panel.of("sign-in"), [])
