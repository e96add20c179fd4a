"""Supermicro's panels with ATEN firmware."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcUnsupported, NoSlot
from ipmiproxyd.vendors.supermicro import FAMILIES
from tests.simulator.vendors.supermicro import SupermicroPanel
from tests.support.vendor_suite import FamilySuite


class SupermicroTests(FamilySuite, SynchronousTestCase):
    family = FAMILIES[0]
    kind = SupermicroPanel
    moods = frozenset({"full", "html5"})

    def test_the_later_of_two_cookies_is_the_session(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertEqual([session.cookies["SID"]], list(panel.personality.sessions))

    def test_what_the_jnlp_holds(self) -> None:
        panel = self.panel(kvm_port=5901)
        session = self.open(panel)
        text = panel.drive(self.family.jnlp(panel.site(), session)).decode()
        for part in ("tw.com.aten.ikvm.KVMMain", "<argument>10.0.0.7<", "<argument>5901<", "iKVM__V1.69.38.0x0.jar"):
            self.assertIn(part, text)
        self.assertEqual(len(panel.personality.tokens), 1)  # type: ignore[attr-defined]
        panel.drive(self.family.sign_out(panel.site(), session))
        self.assertEqual(panel.personality.tokens, {})  # type: ignore[attr-defined]

    def test_every_place_of_the_jnlp(self) -> None:
        for place, requests in (("man_ikvm", 2), ("", 6), ("session", 8), ("post", 9)):
            panel = self.panel(jnlp_at=place)
            self.assertIn(b"<jnlp", self.visit(panel))
            self.assertEqual(len(panel.asked), requests + 3, place)
            self.gave_back(panel)

    def test_a_500_shortly_after_the_sign_in_is_waited_out(self) -> None:
        panel = self.panel(stumbles=1)
        self.assertIn(b"<jnlp", self.visit(panel))
        self.assertEqual(panel.pauses, [1.0])

    def test_no_html5_on_old_firmware(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertRaises(BmcUnsupported, panel.drive, self.family.html5(panel.site(), session))

    def test_a_full_panel_by_its_slots(self) -> None:
        panel = self.panel(slots=1)
        self.open(panel)
        self.assertRaises(NoSlot, self.open, panel)


class CodedFormTests(SupermicroTests):
    """Firmware whose login page packs the fields in base64."""

    settings: ClassVar[Mapping[str, Any]] = {"firmware": "x11"}

    def test_no_html5_on_old_firmware(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        self.assertEqual(dict(page.cookies), {"SID": session.cookies["SID"]})
        self.assertEqual(page.path, "/cgi/url_redirect.cgi?url_name=man_ikvm_html5_bootstrap")

    def test_what_is_sent(self) -> None:
        panel = self.panel()
        self.open(panel)
        form = panel.asked[-1].form or ()
        self.assertEqual([name for name, _ in form], ["name", "pwd", "check"])
        self.assertEqual(form[0][1], "QURNSU4=")


class RedfishTests(SupermicroTests):
    """Firmware that signs in by Redfish only."""

    settings: ClassVar[Mapping[str, Any]] = {"firmware": "x13"}

    def test_no_html5_on_old_firmware(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        self.assertRegex(page.path, r"^/redfish/[0-9a-f]+\.IKVM$")

    def test_every_place_of_the_jnlp(self) -> None:
        panel = self.panel(jnlp_at="man_ikvm")
        self.assertIn(b"<jnlp", self.visit(panel))

    def test_the_form_was_not_judged(self) -> None:
        panel = self.panel()
        self.assertRaises(BmcAuth, panel.drive, self.family.sign_in(panel.site(password="Nothing1")))
        self.assertEqual([visit.path for visit in panel.visits if visit.method == "POST"], [
            "/cgi/login.cgi", "/redfish/v1/SessionService/Sessions",
        ])  # fmt: skip
        self.assertEqual(len(panel.events("sign-in")), 1)
