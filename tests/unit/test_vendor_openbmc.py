"""OpenBMC's panels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcUnsupported
from ipmiproxyd.vendors.openbmc import FAMILIES
from tests.simulator.vendors.openbmc import OpenBmcPanel
from tests.support.vendor_suite import FamilySuite


class OpenBmcTests(FamilySuite, SynchronousTestCase):
    family = FAMILIES[0]
    kind = OpenBmcPanel
    moods = frozenset({"full", "locked"})

    def test_the_page_comes_signed_in(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        (known,) = panel.personality.sessions
        self.assertEqual(dict(page.cookies), {"SESSION": known, "XSRF-TOKEN": known[:20]})
        self.assertEqual(page.path, "/#/console/kvm")

    def test_a_console_that_is_switched_off(self) -> None:
        self.refused(BmcUnsupported, self.panel(console=False))

    def test_no_java(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertRaises(BmcUnsupported, panel.drive, self.family.jnlp(panel.site(), session))


class RedfishTests(OpenBmcTests):
    """A build without ``/login``."""

    settings: ClassVar[Mapping[str, Any]] = {"redfish_only": True}

    def test_the_form_is_chosen_before_anything_secret_is_sent(self) -> None:
        panel = self.panel()
        self.open(panel)
        self.assertEqual([(visit.method, visit.path) for visit in panel.visits], [
            ("GET", "/login"), ("POST", "/redfish/v1/SessionService/Sessions"),
        ])  # fmt: skip
