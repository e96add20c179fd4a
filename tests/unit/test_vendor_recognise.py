"""What kind of panel it is, from what it shows without a sign-in."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd import vendors
from ipmiproxyd.errors import BmcUnreachable, VendorUnknown
from ipmiproxyd.vendors import ami, ami_api, openbmc, supermicro
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.generic import read_generic
from ipmiproxyd.vendors.recognise import Recognised, recognise
from ipmiproxyd.vendors.registry import BUILT_IN
from ipmiproxyd.vendors.talk import Answer, Request
from tests.simulator.personality import Personality
from tests.simulator.vendors import PERSONALITIES
from tests.simulator.vendors.ami import AmiPanel
from tests.simulator.vendors.ami_api import AmiApiPanel
from tests.simulator.vendors.openbmc import OpenBmcPanel
from tests.simulator.vendors.supermicro import SupermicroPanel
from tests.support.talk import PanelInProcess, drive, make_panel

FAMILIES = (*supermicro.FAMILIES, *ami.FAMILIES, *ami_api.FAMILIES, *openbmc.FAMILIES)
KINDS = (SupermicroPanel, AmiPanel, AmiApiPanel, OpenBmcPanel)


def own(key: str, text: str, path: str = "/") -> Family:
    told = {"sign-in-path": "/in", "cookie": "S", "jnlp-path": "/k", "recognise": text, "recognise-path": path}
    return read_generic(key, told)


class RecogniseTests(SynchronousTestCase):
    def look(self, answers: Callable[[Request], Answer], *families: Family, hint: int | None = None) -> Recognised:
        self.asked: list[Request] = []
        return drive(recognise([*families, *FAMILIES], hint), answers, log=self.asked)

    def test_each_panel_is_what_it_is(self) -> None:
        for kind in KINDS:
            for hint in (None, 10876, 20974, 674):
                panel = PanelInProcess(make_panel(kind))
                found = panel.drive(recognise(FAMILIES, hint))
                self.assertEqual(found.family, kind.key)
                self.assertEqual(found.looked_at, ("/",))
                self.assertEqual(len(panel.asked), 1)

    def test_the_plain_panel_is_of_no_kind(self) -> None:
        panel = PanelInProcess(make_panel(Personality))
        error = self.assertRaises(VendorUnknown, panel.drive, recognise(FAMILIES))
        self.assertIn("/page/login.html: 404", error.details["seen"])
        self.assertRegex(error.message, "^The panel is of no known kind; its title is “[^”]*”[.]$")
        self.assertIn("vendor=", error.hint or "")
        paths = [request.path for request in panel.asked]
        self.assertEqual(len(paths), len(set(paths)))
        self.assertEqual(panel.signs(), (0, 0))

    def test_redirects_are_followed_within_the_panel(self) -> None:
        def answers(request: Request) -> Answer:
            if request.path == "/":
                return Answer(302, (("location", "http://bmc.local/page/login.html?x=1"),))
            return Answer(200, (), b"")

        self.assertEqual(self.look(answers).family, "ami")
        self.assertEqual([request.path for request in self.asked], ["/", "/page/login.html?x=1"])

    def test_redirects_that_do_not_end(self) -> None:
        count = iter(range(1000))
        for target in (lambda: "/", lambda: f"/{next(count)}", lambda: "elsewhere", lambda: "https://other"):

            def answers(_request: Request, where: Callable[[], str] = target) -> Answer:
                return Answer(302, (("location", where()),))

            self.assertRaises(VendorUnknown, self.look, answers)
            self.assertLess(len(self.asked), 30)

    def test_ours_and_the_configuration_s(self) -> None:
        page = b'<script src="/source.min.js"></script> Acme'
        found = self.look(lambda _request: Answer(200, (), page), own("acme", "Acme"))
        self.assertEqual(found.family, "acme")

    def test_two_that_look_alike(self) -> None:
        page = b'<script src="/source.min.js"></script> OpenBMC'
        error = self.assertRaises(VendorUnknown, self.look, lambda _request: Answer(200, (), page))
        self.assertIn("ami-api or openbmc", error.message)
        self.assertEqual(self.look(lambda _request: Answer(200, (), page), hint=49622).family, "ami-api")

    def test_a_page_that_breaks_off_is_passed_over(self) -> None:
        def answers(request: Request) -> Answer:
            if request.path == "/page/login.html":
                return Answer(200, (), b'<script src="../lib/xmit.js">')
            raise BmcUnreachable("The connection broke.")

        self.assertEqual(self.look(answers).family, "ami")

        def dead(_request: Request) -> Answer:
            raise BmcUnreachable("Nothing answers.")

        self.assertRaises(BmcUnreachable, self.look, dead)

    def test_a_title_is_told_without_its_tricks(self) -> None:
        page = b"<title>A\x1b[2J\n B" + b"x" * 300 + b"</title><title>Old \x07 Board</title>"
        error = self.assertRaises(VendorUnknown, self.look, lambda _request: Answer(200, (), page))
        self.assertNotIn("\x1b", error.message)
        self.assertLess(len(error.message), 400)


class EveryFamilyTests(SynchronousTestCase):
    def test_no_panel_is_taken_for_another(self) -> None:
        self.assertEqual(len({family.key for family in BUILT_IN}), len(BUILT_IN))
        for family in BUILT_IN:
            for number in (None, *sorted(family.manufacturers)):
                panel = PanelInProcess(make_panel(PERSONALITIES[family.key]))
                self.assertEqual(panel.drive(recognise(BUILT_IN, number)).family, family.key, number)
                self.assertEqual(panel.events("sign-in"), [])

    def test_none_was_forgotten(self) -> None:
        modules = [import_module(f"{vendors.__name__}.{one.name}") for one in iter_modules(vendors.__path__)]
        found = [one for module in modules for one in getattr(module, "FAMILIES", ())]
        self.assertEqual({one.key for one in found}, {one.key for one in BUILT_IN})
