"""What the relay types, as the server hears it and as others are told of it."""

from __future__ import annotations

import struct
from typing import Any

from ipmiproxyd.model import Secret
from ipmiproxyd.relay import viewers as viewers_module
from tests.support.relay_case import RelayCase, until

SHIFT = b"\x00\x00\xff\xe1"


def key(down: bool, symbol: bytes) -> bytes:
    return struct.pack(">BBxx4s", 4, down, symbol)


class TypingTests(RelayCase):
    settings = {"typing_pace": 0.002}  # noqa: RUF012

    async def type(self, bearer: str, what: str, text: str = "") -> tuple[int, Any]:
        return await self.ask("POST", "/api/type", {"what": what, "text": text}, Authorization=f"Bearer {bearer}")

    async def test_no_window_of_the_typing_viewer_holds_a_key_down(self) -> None:
        self.serve()
        bearer = self.key()
        window, first = await self.greeted(key=bearer)
        await self.greeted(1, key=bearer)
        window.say(key(True, SHIFT))
        await first.hears(8)
        self.assertEqual((await self.type(bearer, "text", "a"))[0], 200)
        await first.hears(16)
        self.assertEqual(bytes(first.heard), key(True, SHIFT) + key(False, SHIFT))
        second = self.display.ends[1]
        await second.hears(16)
        self.assertEqual(bytes(second.heard), key(True, b"\0\0\0a") + key(False, b"\0\0\0a"))

    async def test_a_password_that_cannot_be_typed_is_not_told(self) -> None:
        self.serve()
        bearer = self.key(credentials=True)
        _, end = await self.greeted(key=bearer)
        for password in ("prefix\u0416", "x" * 5000):
            self.console.secrets["password"] = Secret(password)
            status, told = await self.type(bearer, "password")
            self.assertEqual((status, told["code"]), (400, "bad-value"))
            self.assertNotIn("\u0416", str(told))
            self.assertNotIn("5000", str(told))
        self.console.secrets["username"] = Secret("root\u0416")
        self.assertIn("\u0416", str(await self.type(bearer, "username")))
        self.assertEqual(bytes(end.heard), b"")

    async def test_typing_is_activity_as_long_as_it_lasts(self) -> None:
        self.patch(viewers_module, "ACTIVITY_EVERY", 0.01)
        self.serve()
        bearer = self.key()
        await self.greeted(key=bearer)
        self.assertEqual((await self.type(bearer, "text", "a" * 400))[0], 200)
        await until(lambda: "typing over" in self.console.told)
        self.assertGreater(self.console.told.count("active"), 2)
