"""Cisco's CIMC."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcError, BmcPrivilege
from ipmiproxyd.vendors.cimc import Cimc
from ipmiproxyd.vendors.talk import Answer, Request, WebSession
from tests.simulator.vendors.cimc import CimcPanel
from tests.support.talk import PASSWORD, PanelInProcess, drive
from tests.support.vendor_suite import FamilySuite

SESSION = WebSession(family="cimc", tokens={"cookie": "c"})


class CimcTests(FamilySuite, SynchronousTestCase):
    family = Cimc()
    kind = CimcPanel
    moods = frozenset({"full", "locked", "html5"})

    def test_the_credentials_are_escaped(self) -> None:
        for password in ("\"'<>&;\r\n\t\\ü€", ']]><x y="', "&amp;"):
            users = {"a<&\"'>": password}
            panel = self.panel()
            panel.personality.users = users
            site = panel.site(username="a<&\"'>")
            panel.drive(self.family.sign_in(site))
            self.assertEqual(panel.signs(), (1, 0), password)
            body = panel.asked[0].body or b""
            self.assertTrue(body.startswith(b"<aaaLogin ") and body.isascii())
            self.assertEqual(ET.fromstring(body).attrib["inPassword"], password)

    def test_the_tokens_not_the_password_are_in_the_address(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        text = panel.drive(self.family.jnlp(panel.site(), session)).decode()
        self.assertIn("/kvm.jnlp?cimcAddr=10.0.0.7&cimcName=console&tkn1=", panel.asked[-1].path)
        self.assertEqual(len(panel.personality.tokens), 2)  # type: ignore[attr-defined]
        for request in panel.asked:
            self.assertNotIn("s3cret", request.path)
        for part in ("com.avocent.nuova.kvm.Main", ">tempunpw=1<", "jnlp.packEnabled", "/software"):
            self.assertIn(part, text)
        self.assertNotIn(PASSWORD, text)
        panel.drive(self.family.sign_out(panel.site(), session))
        self.assertEqual(panel.personality.tokens, {})  # type: ignore[attr-defined]

    def test_ipv6(self) -> None:
        panel = PanelInProcess(self.panel().personality, host="[fd00::7]")
        session = panel.drive(self.family.sign_in(panel.site()))
        panel.drive(self.family.jnlp(panel.site(), session))
        self.assertIn("cimcAddr=%5Bfd00%3A%3A7%5D&", panel.asked[-1].path)

    def test_html5(self) -> None:
        for page in ("/html/kvmViewer.html", "/html/kvm.html"):
            panel = self.panel(page=page)
            session = self.open(panel)
            shown = panel.drive(self.family.html5(panel.site(), session))
            self.assertTrue(shown.path.startswith(f"{page}?cimcAddr=10.0.0.7&"))
            self.assertNotIn("tkn1", repr(shown))
        panel = self.panel(page="/elsewhere")
        self.assertRaises(BmcError, panel.drive, self.family.html5(panel.site(), self.open(panel)))

    def test_software_refuses_head(self) -> None:
        panel = self.panel(jars={"avctNuova.jar.pack.gz": b"x"})
        path = "/software/avctNuova.jar.pack.gz"
        self.assertEqual(panel.ask(Request(path, method="HEAD")).status, 403)
        self.assertEqual(panel.ask(Request(path)).body, b"x")

    def test_a_lost_session(self) -> None:
        panel = self.panel()
        error = self.assertRaises(BmcError, panel.drive, self.family.jnlp(panel.site(), SESSION))
        self.assertIn("try again", error.hint)

    def test_no_right(self) -> None:
        body = b'<aaaGetComputeAuthTokens errorCode="5" errorDescr="Insufficient privilege"/>'
        site = self.panel().site()
        self.assertRaises(BmcPrivilege, drive, self.family.jnlp(site, SESSION), [Answer(200, (), body)])

    def test_hostile_answers(self) -> None:
        bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><aaaLogin outCookie="&b;"/>'
        declared = '<?xml version="1.0" encoding="UTF-16"?>'
        for body in (
            bomb.encode(),
            (declared + bomb).encode("utf-16"),
            b"",
            b"<aaaLogin outCookie=",
            b"<html/>",
            b'<aaaLogin outCookie="&x;"/>',
        ):
            self.not_let_in(BmcError, Answer(200, (), body))
