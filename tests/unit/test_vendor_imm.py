"""IBM's IMM and IMM2."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcUnsupported, NoSlot
from ipmiproxyd.vendors.imm import Imm1, Imm2
from ipmiproxyd.vendors.talk import Answer, Request
from tests.simulator.vendors.imm import Imm1Panel, Imm2Panel
from tests.support.talk import PASSWORD, USER, PanelInProcess, drive
from tests.support.vendor_suite import FamilySuite


class Imm1Tests(FamilySuite, SynchronousTestCase):
    family = Imm1()
    kind = Imm1Panel
    moods = frozenset({"full", "licence"})

    def test_what_is_sent(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertEqual(panel.asked[0].body, f"{USER},{PASSWORD}".encode())
        self.assertEqual([session.cookies["session_id"]], list(panel.personality.sessions))

    def test_commas(self) -> None:
        panel = self.panel()
        site = panel.site(username="a,b", password="x")
        self.assertRaises(BmcUnsupported, panel.drive, self.family.sign_in(site))
        self.assertEqual(panel.asked, [])
        error = self.assertRaises(BmcAuth, panel.drive, self.family.sign_in(panel.site(password="x,y")))
        self.assertIn("comma", error.hint)

    def test_session_in_a_cookie(self) -> None:
        """Some firmware answers "ok" alone."""

        answers = [Answer(200, (("set-cookie", "session_id=abc; path=/"),), b"ok")]
        session = drive(self.family.sign_in(self.panel().site()), answers)
        self.assertEqual(session.cookies, {"session_id": "abc"})

    def test_500_is_not_a_refusal(self) -> None:
        self.not_let_in(BmcError, Answer(500))

    def test_signing_out_ends_the_viewer(self) -> None:
        panel = self.panel(kvm_port=3900)
        text = self.visit(panel).decode()
        for part in ("com.avocent.ibmc.kvm.Main", ">kmport=3900<", ">immversion=1<", ">passwd=<"):
            self.assertIn(part, text)
        self.assertEqual(panel.personality.tokens, {})  # type: ignore[attr-defined]


class Imm2Tests(FamilySuite, SynchronousTestCase):
    family = Imm2()
    kind = Imm2Panel
    moods = frozenset({"full", "locked", "licence"})

    def test_parameters_are_counted(self) -> None:
        for counts, asked in ((14, 1), (13, 2), (7, 3)):
            panel = self.panel(counts=counts)
            self.assertIn(b"<jnlp", self.visit(panel))
            viewers = [request.path for request in panel.asked if "/viewer(" in request.path]
            self.assertEqual(len(viewers), asked)
            self.assertIn("(10.0.0.7@443@0@1700000000000@1@0@1@jnlp@ADMIN@0@0@0@0@1).jnlp?ST1=", viewers[0])
            self.gave_back(panel)

    def test_no_count_fits(self) -> None:
        panel = self.panel(counts=3)
        self.refused(BmcError, panel)
        self.assertEqual(len([request for request in panel.asked if "/viewer(" in request.path]), 3)

    def test_ports_and_ipv6(self) -> None:
        panel = PanelInProcess(self.panel().personality, host="[fd00::7]:8443")
        session = panel.drive(self.family.sign_in(panel.site()))
        panel.drive(self.family.jnlp(panel.site(), session))
        self.assertIn("viewer([fd00::7]@8443@0@", panel.asked[-1].path)

    def test_signed_out_of_before_the_viewer_runs(self) -> None:
        self.assertEqual(self.family.signs_out, "after-jnlp")
        panel = self.panel()
        self.visit(panel)
        self.assertEqual(len(panel.personality.tokens), 1)  # type: ignore[attr-defined]

    def test_a_jar_comes_once_and_not_to_head(self) -> None:
        panel = self.panel(jars={"avctIBMViewer__V030321.jar": b"PK"})
        self.visit(panel)
        path = "/designs/imm/aessrp/avctIBMViewer__V030321.jar"
        self.assertEqual(panel.ask(Request(path, method="HEAD")).status, 405)
        self.assertEqual(panel.ask(Request(path)).body, b"PK")
        self.assertEqual(panel.ask(Request(path)).status, 405)

    def test_codes(self) -> None:
        for code, error in (("1", BmcAuth), ("5", NoSlot), ("13", BmcError), ("", BmcError)):
            body = json.dumps({"status": "ok", "authResult": code}).encode()
            self.not_let_in(error, Answer(200, (), body))
