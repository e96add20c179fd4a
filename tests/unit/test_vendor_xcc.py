"""Lenovo's XCC."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, NoLicence
from ipmiproxyd.vendors.talk import Request
from ipmiproxyd.vendors.xcc import Xcc
from tests.simulator.vendors.xcc import XccPanel
from tests.support.vendor_suite import FamilySuite


class XccTests(FamilySuite, SynchronousTestCase):
    family = Xcc()
    kind = XccPanel
    moods = frozenset({"full", "locked", "licence", "html5"})

    def test_the_number_comes_back(self) -> None:
        panel = self.panel()
        self.open(panel)
        self.assertTrue(panel.asked[1].headers["Content-Security-Policy"].startswith("nonce="))

    def test_the_bearer_and_the_cookie(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        panel.drive(self.family.jnlp(panel.site(), session))
        headers = panel.asked[-1].headers
        self.assertEqual(headers["Authorization"], f"Bearer {session.tokens['bearer']}")
        self.assertTrue(headers["X-XSRF-TOKEN"].endswith("="))

    def test_the_description_is_made_for_one_download(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        panel.drive(self.family.jnlp(panel.site(), session))
        last = panel.asked[-1]
        self.assertEqual(panel.ask(Request(last.path, headers=last.headers)).status, 404)

    def test_a_password_that_must_be_changed(self) -> None:
        panel = self.panel(must_change=True)
        error = self.refused(BmcError, panel)
        self.assertIn("change the password", error.message)
        self.assertEqual(panel.signs(), (1, 1))

    def test_html5(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        token = next(iter(panel.personality.tokens))  # type: ignore[attr-defined]
        self.assertEqual(page.path, f"/#/login?{token}&context=remote&mode=multi")
        site = panel.site(password="another")
        self.assertRaises(BmcAuth, panel.drive, self.family.html5(site, session))
        panel = self.panel("licence")
        self.assertRaises(NoLicence, panel.drive, self.family.html5(panel.site(), self.open(panel)))


class XccWithoutNonceTests(XccTests):
    settings = {"nonce": False}  # noqa: RUF012

    def test_the_number_comes_back(self) -> None:
        panel = self.panel()
        self.open(panel)
        self.assertNotIn("Content-Security-Policy", panel.asked[1].headers)
