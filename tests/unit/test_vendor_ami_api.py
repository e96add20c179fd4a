"""AMI MegaRAC's newer panels."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcLocked, NoSlot
from ipmiproxyd.vendors.ami_api import FAMILIES
from ipmiproxyd.vendors.talk import Answer
from tests.simulator.vendors.ami_api import AmiApiPanel
from tests.support.vendor_suite import FamilySuite


class AmiApiTests(FamilySuite, SynchronousTestCase):
    family = FAMILIES[0]
    kind = AmiApiPanel
    moods = frozenset({"full", "locked", "html5"})

    def test_every_place_of_the_jnlp(self) -> None:
        for place, requests in (
            ("/api/remote_control/get/kvm/launch", 2),
            ("/api/asrr/java-console", 3),
            ("/video/jviewer.jnlp", 5),
        ):
            panel = self.panel(jnlp_at=place)
            self.assertIn(b"<jnlp", self.visit(panel))
            self.assertEqual(len(panel.asked), requests + 3, place)
            self.gave_back(panel)

    def test_the_token_is_sent_as_header_and_as_cookie(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        panel.drive(self.family.jnlp(panel.site(), session))
        last = panel.asked[-1]
        self.assertEqual(last.headers["X-CSRFTOKEN"], session.tokens["csrf"])
        self.assertEqual(last.cookies["__Host-garc"], session.tokens["csrf"])
        self.assertEqual(last.cookies["QSESSIONID"], next(iter(panel.personality.sessions)))

    def test_the_html5_viewer_finds_what_it_needs(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        self.assertEqual(page.path, "/viewer.html")
        self.assertEqual(page.cookies["QSESSIONID"], session.cookies["QSESSIONID"])
        self.assertEqual(page.storage["garc"], session.tokens["csrf"])
        self.assertEqual(page.storage["privilege_id"], "4")
        token = json.loads(page.storage["token"])["token"]
        self.assertIn(token, panel.personality.tokens)  # type: ignore[attr-defined]

    def test_html5_on_a_panel_that_breaks(self) -> None:
        panel = self.panel("broken")
        session = self.open(panel)
        error = self.assertRaises(BmcError, panel.drive, self.family.html5(panel.site(), session))
        self.assertIn("500", error.message)

    def test_all_consoles_in_use(self) -> None:
        panel = self.panel(kvm_slots=0)
        self.refused(NoSlot, panel)

    def test_a_session_that_ended_meanwhile(self) -> None:
        self.assertIn("ended", self.after_the_end().message)

    def test_what_the_sign_in_may_say(self) -> None:
        for status, said, error in (
            (200, {"ok": 1}, BmcAuth),
            (200, {"cc": 7, "error": "Invalid Authentication"}, BmcAuth),
            (401, {}, BmcAuth),
            (401, {"error": "Maximum number of sessions already in use", "code": 15000}, NoSlot),
            (401, {"error": "Account locked"}, BmcLocked),
            (500, {}, BmcError),
            (200, {"ok": 0, "CSRFToken": "abc"}, BmcError),
        ):
            self.not_let_in(error, Answer(200), Answer(status, (), json.dumps(said).encode()))
