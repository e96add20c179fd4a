"""Lenovo's XCC; and that the families of these modules do not take each other's panels for theirs."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, NoLicence
from ipmiproxyd.vendors import cimc, ibmc, ilom, imm, irmc, xcc
from ipmiproxyd.vendors.recognise import recognise
from ipmiproxyd.vendors.talk import Request
from ipmiproxyd.vendors.xcc import Xcc
from tests.simulator.vendors import cimc as cimc_panel
from tests.simulator.vendors import ibmc as ibmc_panel
from tests.simulator.vendors import ilom as ilom_panel
from tests.simulator.vendors import imm as imm_panel
from tests.simulator.vendors import irmc as irmc_panel
from tests.simulator.vendors.xcc import XccPanel
from tests.support.talk import PASSWORD, PanelInProcess, make_panel
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


class OthersPanelsTests(SynchronousTestCase):
    def test_each_is_taken_for_what_it_is(self) -> None:
        families = [one for module in (cimc, ibmc, ilom, imm, irmc, xcc) for one in module.FAMILIES]
        kinds = [XccPanel, *cimc_panel.PERSONALITIES, *ibmc_panel.PERSONALITIES, *ilom_panel.PERSONALITIES]
        kinds += [*imm_panel.PERSONALITIES, *irmc_panel.PERSONALITIES]
        self.assertEqual({one.key for one in families}, {kind.key for kind in kinds})
        for kind in kinds:
            panel = PanelInProcess(make_panel(kind, users={"admin": PASSWORD}))
            self.assertEqual(panel.drive(recognise(families)).family, kind.key)

    def test_generations_of_irmc(self) -> None:
        for firmware in ("s2", "s4", "form"):
            panel = PanelInProcess(make_panel(irmc_panel.IrmcPanel, firmware=firmware))
            self.assertEqual(panel.drive(recognise(irmc.FAMILIES)).family, "irmc")
