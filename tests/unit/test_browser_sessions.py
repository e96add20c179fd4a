"""Sessions that only a browser knows: which cookies are believed, and what families make of them."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.console.browser_sessions import read_cookies
from ipmiproxyd.console.session import Holdings
from ipmiproxyd.console.web_sessions import FORGOTTEN_AFTER, WebSessions
from ipmiproxyd.model import Secret
from ipmiproxyd.vendors.registry import by_key
from ipmiproxyd.vendors.talk import Site

SITE = Site(host="bmc", address="10.0.0.7", username="u", password=Secret("p"))


class CookieTests(SynchronousTestCase):
    def test_what_a_program_could_say(self) -> None:
        told: dict[str, Any] = {"SID": "a b", "x\r\nHost: y": "1", "a": "1\r\nHost: y", "b": "1; c=2", "n": 1, "": "x"}
        self.assertEqual(read_cookies(json.dumps(told).encode()), {"SID": "a b"})
        for line in (b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff"):
            self.assertEqual(read_cookies(line), {})


class FamilyTests(SynchronousTestCase):
    def test_none_without_its_cookies(self) -> None:
        for family in by_key().values():
            self.assertIsNone(family.in_browser({"other": "x"}), family.key)

    def test_what_is_taken_for_a_session_can_be_signed_out_of(self) -> None:
        found = set()
        for family in by_key().values():
            cookies = dict.fromkeys([*family.browser_cookies, "QSESSIONID", "__Host-garc"], "abc")
            session = family.in_browser(cookies)
            if session is not None:
                request = next(family.sign_out(SITE, session))
                self.assertEqual(getattr(request, "cookies", {}) | cookies, cookies, family.key)
                found.add(family.key)
        self.assertGreater(len(found), 8)
        self.assertLess({"supermicro", "ami", "ami-api", "idrac7", "ilo4", "openbmc"}, found)


class SlotTests(SynchronousTestCase):
    def test_when_it_times_out(self) -> None:
        """Told where nothing else ends it."""

        clock = Clock()
        clock.advance(100)
        nobody: Any = None
        web = WebSessions(nobody, nobody, {}, clock)
        for family in by_key().values():
            console: Any = type("Console", (), {"has": Holdings()})()
            web.show(console, family)
            ends = family.signs_out == "none"
            until = 100 + (family.slot_seconds or FORGOTTEN_AFTER) if ends else None
            self.assertEqual((console.has.slot_since, console.has.slot_until), (100, until), family.key)
