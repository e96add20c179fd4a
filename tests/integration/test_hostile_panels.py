"""Panels that mean harm: each is refused with a code and words, and nothing is touched but the agent's cache."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any, Final

from tests.support import leftovers
from tests.support.java_world import PASSWORD, JavaWorld, PanelHere
from tests.support.tls_refuser import TlsRefuser

TRICKS: Final = {
    "entities": ("bad-jnlp", "document type or entities"),
    "file": ("bad-jnlp", "document type or entities"),
    "climb": ("bad-jnlp", "outside of its folder"),
    "coded": ("bad-jnlp", "outside of its folder"),
    "elsewhere": ("bad-jnlp", "another place than the panel: 127.0.0.2"),
    "file-url": ("bad-jnlp", "kind that is not allowed"),
    "option": ("bad-jnlp", "main class"),
    "long": ("bad-jnlp", "too long"),
    "page": ("bmc-html5-only", "as a page"),
    "redirects": ("bmc-html5-only", "as a page"),
    "circle": ("bmc-error", "302"),
    "no-jar": ("bad-jnlp", "no jar"),
    "huge": ("bmc-error", "more than"),
    "endless": ("bmc-error", "more than"),
    "bomb": ("bad-jnlp", "may not be unpacked"),
    "climbing": ("bad-jnlp", "may not be unpacked"),
    "flood": ("bmc-error", "more than"),
}
"""What is answered to each, by the panel's user: a code, and words of the message."""

_IN_CACHE: Final = re.compile(r"[0-9a-f]{64}")
_OF_THE_STORE: Final = re.compile(r".*\.db(-wal|-shm)?")


class HostileTests(JavaWorld):
    async def one(self, **attributes: Any) -> PanelHere:
        users = dict.fromkeys((*TRICKS, "shell", "kind"), PASSWORD)
        panel = self.panel("hostile", users, **attributes)
        for user in users:
            await self.device(panel, user, user)
        return panel

    def files(self) -> set[str]:
        """All of the daemon's, and what a file of a panel's could be in the folder that everybody writes to."""

        kept = {
            str(path)
            for path in self.daemon.folder.rglob("*")
            if not _IN_CACHE.fullmatch(path.name) and not _OF_THE_STORE.fullmatch(path.name)
        }
        return kept | {str(path) for pattern in ("*iKVM*", "*canary*") for path in Path("/tmp").glob(pattern)}

    async def test_each_trick(self) -> None:
        elsewhere = TlsRefuser(self, "127.0.0.2")
        panel = await self.one(evil=elsewhere.place)
        await self.client.must("vendor probe device=kind")
        before = self.files()
        for user, (code, words) in TRICKS.items():
            reply = await self.ask_java(user)
            self.assertEqual(reply.code, code, f"{user}: {reply.body}")
            self.assertIn(words, reply.body["message"], user)
            self.assertEqual(self.files(), before, user)
            self.assertNotIn("display", [told["stage"] for told in reply.progress], user)
        self.assertEqual(elsewhere.offers, [])
        self.assertEqual({name for name in self.cached if not _IN_CACHE.fullmatch(name)}, set())
        # Whoever signs in and is not told that in a readable answer cannot sign out.
        self.assertEqual(list(panel.personality.sessions.values()), ["flood"])
        opened = await self.java("kind")
        await panel.happens("kvm-connected")
        await self.close(opened["console"])
        await self.nothing_left()

    async def test_no_shell_reads_the_arguments(self) -> None:
        canary = f"/tmp/canary-{secrets.token_hex(6)}"
        run = f"touch {canary}"
        token = f"""$({run})`{run}`;{run}|{run}&{run} > {canary} "'\\ ${{IFS}}%s * ~ \\n -version #"""
        panel = await self.one(token=token)
        opened = await self.java("shell")
        await panel.happens("kvm-connected")
        self.assertEqual(panel.of("kvm-refused"), [])
        self.assertFalse(Path(canary).exists())
        for pid in leftovers.sandboxed(self.jobs):
            self.assertFalse(Path(f"/proc/{pid}/root{canary}").exists())
        self.assert_unseen(canary)
        await self.close(opened["console"])
        await self.nothing_left()

    async def test_a_first_page_that_leads_astray(self) -> None:
        elsewhere = TlsRefuser(self, "127.0.0.2")
        panel = await self.one(leads_to="/?")
        reply = await self.ask_java("kind")
        self.assertEqual(reply.code, "vendor-unknown", reply.body)
        for place, words in (("/?", "redirects without end"), (f"https://{elsewhere.place}/", "to another place")):
            panel.personality.leads_to = place  # type: ignore[attr-defined]
            await self.client.must("device set name=kind vendor=supermicro")
            reply = await self.ask_java("kind")
            self.assertEqual(reply.code, "bmc-error")
            self.assertIn(words, reply.body["message"])
        self.assertEqual((elsewhere.offers, panel.of("sign-in")), ([], []))
