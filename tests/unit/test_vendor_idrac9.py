"""Dell's iDRAC9."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import (
    BmcAuth,
    BmcError,
    BmcLocked,
    BmcPrivilege,
    BmcUnsupported,
    Html5Only,
    NoLicence,
    NoSlot,
)
from ipmiproxyd.vendors.idrac9 import Idrac9
from ipmiproxyd.vendors.talk import Answer, Request, WebSession
from tests.simulator.vendors.idrac9 import Idrac9Panel
from tests.support.talk import PASSWORD, USER, PanelInProcess, drive
from tests.support.vendor_suite import FamilySuite


class Idrac9Tests(FamilySuite, SynchronousTestCase):
    family = Idrac9()
    kind = Idrac9Panel
    moods = frozenset({"full", "licence", "html5", "locked"})

    def page(self, panel: PanelInProcess) -> str:
        """Open the HTML5 console; its path."""

        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        self.assertIn("Sign out", panel.ask(Request(page.path, cookies=page.cookies)).text)
        self.assertNotIn("Sign out", panel.ask(Request(page.path, cookies=page.cookies)).text)  # it holds once
        panel.drive(self.family.sign_out(panel.site(), session))
        self.gave_back(panel)
        return page.path

    def test_credentials_are_in_headers_only(self) -> None:
        panel = self.panel()
        self.open(panel)
        (visit,) = panel.visits
        self.assertEqual((visit.headers["user"], visit.headers["password"]), (f'"{USER}"', f'"{PASSWORD}"'))
        self.assertEqual((visit.body, visit.uri), (b"", "/sysmgmt/2015/bmc/session"))

    def test_a_password_cannot_add_a_header(self) -> None:
        site = self.panel().site(password="one\r\ntwo: three")
        self.assertRaises(BmcUnsupported, drive, self.family.sign_in(site), [])

    def test_default_password_is_a_warning(self) -> None:
        panel = self.panel(default_password=True)
        self.assertIn(b"<jnlp", self.visit(panel))
        self.gave_back(panel)

    def test_the_token_is_sent_back(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        blind = WebSession(family=session.family, cookies=session.cookies)
        self.assertRaises(BmcError, panel.drive, self.family.jnlp(panel.site(), blind))
        panel.drive(self.family.sign_out(panel.site(), blind))
        self.assertEqual(panel.signs(), (1, 0))
        panel.drive(self.family.sign_out(panel.site(), session))
        self.gave_back(panel)

    def test_what_the_sign_in_may_say(self) -> None:
        for status, said, error in (
            (401, {"authResult": 1}, BmcAuth),
            (401, {"authResult": 1, "blockingTime": 60}, BmcLocked),
            (200, {"authResult": 1}, BmcAuth),
            (503, {}, NoSlot),
            (400, {"error": "RAC0218: The maximum number of user sessions is reached."}, NoSlot),
            (201, {"authResult": 0}, BmcError),  # without a cookie
            (404, {}, BmcError),
        ):
            self.not_let_in(error, Answer(status, (), json.dumps(said).encode()))

    def test_firmware_without_java(self) -> None:
        self.refused(Html5Only, self.panel(java=False))

    def test_html5(self) -> None:
        path = self.page(self.panel())
        self.assertTrue(path.startswith("/restgui/vconsole/index.html?ip=10.0.0.7&kvmport=443&title="))

    def test_html5_on_a_port_of_the_panel(self) -> None:
        panel = PanelInProcess(self.panel().personality, host="10.0.0.7:8443")
        self.assertTrue(self.page(panel).startswith("/restgui/vconsole/"))

    def test_html5_by_a_temporary_account(self) -> None:
        panel = self.panel(port=5900)
        parts = urlsplit(self.page(panel))
        query = parse_qs(parts.query)
        self.assertEqual((parts.path, query["username"]), ("/console", [USER]))
        self.assertNotIn(PASSWORD, parts.query)

    def test_html5_on_another_port_only(self) -> None:
        panel = self.panel(port=5900, redfish=False)
        session = self.open(panel)
        self.assertRaises(BmcUnsupported, panel.drive, self.family.html5(panel.site(), session))

    def test_html5_without_licence(self) -> None:
        panel = self.panel("licence")
        session = self.open(panel)
        self.assertRaises(NoLicence, panel.drive, self.family.html5(panel.site(), session))

    def test_why_there_is_no_console(self) -> None:
        session = WebSession(family="idrac9")
        site = self.panel().site()
        for status, error in ((401, BmcError), (403, BmcPrivilege), (503, NoSlot), (500, BmcError)):
            for talk in (self.family.jnlp(site, session), self.family.html5(site, session)):
                self.assertRaises(error, drive, talk, [Answer(status)])
        for talk in (self.family.jnlp(site, session), self.family.html5(site, session)):
            answers = [Answer(200, (), b'{"Location": ""}'), Answer(404)]
            self.assertRaises(BmcUnsupported, drive, talk, answers)

    def test_is_not_an_older_one(self) -> None:
        for info, known in (("13G", False), ("14G", True)):
            answer = Answer(200, (), json.dumps({"Attributes": {"FwVer": "1", "ServerGen": info}}).encode())
            self.assertEqual(bool(self.family.recognise({"/sysmgmt/2015/bmc/info": answer})), known)
        self.assertEqual(self.family.recognise({"/": Answer(200, (), b"[1, 2]")}), "")
