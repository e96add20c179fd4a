"""Sun's and Oracle's ILOM."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, NoSlot
from ipmiproxyd.vendors.ilom import Ilom, IlomOld
from ipmiproxyd.vendors.talk import Answer
from tests.simulator.vendors.ilom import IlomOldPanel, IlomPanel
from tests.support.vendor_suite import FamilySuite


class IlomOldTests(FamilySuite, SynchronousTestCase):
    family = IlomOld()
    kind = IlomOldPanel

    def test_the_script_sets_the_cookies(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertEqual(session.cookies, {"ILOM_SESSION": next(iter(panel.personality.sessions)), "langsetting": "EN"})

    def test_all_requests_suit_its_server(self) -> None:
        panel = self.panel()
        self.visit(panel)
        self.assertTrue(all(request.http10 and request.ignore_length for request in panel.asked))

    def test_more_colours(self) -> None:
        panel = self.panel(described="/cgi-bin/jnlpgenerator-16")
        self.assertIn(b"<argument>16</argument>", self.visit(panel))
        self.gave_back(panel)

    def test_the_viewer_lives_on(self) -> None:
        self.assertEqual(self.family.signs_out, "after-jnlp")
        panel = self.panel(kvm_port=7578)
        text = self.visit(panel).decode()
        for part in ("Java/JavaRConsole.jar", "Java/RedirLib.jar", "ADMIN-sp-1", "<argument>10.0.0.7<"):
            self.assertIn(part, text)
        self.assertEqual(len(panel.personality.tokens), 1)  # type: ignore[attr-defined]


class IlomTests(IlomOldTests):
    family = Ilom()  # type: ignore[assignment]
    kind = IlomPanel

    def test_the_script_sets_the_cookies(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertEqual(session.cookies, {"ORA_ILOM_SESSION_SP": next(iter(panel.personality.sessions))})

    def test_more_colours(self) -> None:
        self.assertIn(b"<argument>16</argument>", self.visit(self.panel()))

    def test_the_token_in_a_field(self) -> None:
        self.assertIn(b"<jnlp", self.visit(self.panel(hidden=True)))

    def test_the_driver_of_one_signs_in_at_the_other(self) -> None:
        """The form is chosen by what the page shows."""

        panel = self.panel()
        panel.drive(IlomOld().sign_in(panel.site()))
        self.assertEqual(panel.signs(), (1, 0))

    def test_failures_lead_back(self) -> None:
        page = Answer(200, (("set-cookie", "ORA_ILOM_LOGIN=x"),), b'setElementValue("loginToken", "t")')
        back = "/iPages/i_login.asp?msg="
        for answer, error in (
            (Answer(200, (), f"location.href='{back}2';".encode()), BmcAuth),
            (Answer(303, (("location", f"https://10.0.0.7{back}5"),)), NoSlot),
            (Answer(200, (), b"<html></html>"), BmcError),
        ):
            self.not_let_in(error, page, answer)
