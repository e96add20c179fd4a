"""Huawei's iBMC."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcLocked, BmcPrivilege, BmcUnsupported, NoSlot
from ipmiproxyd.vendors.ibmc import Ibmc, IbmcOld
from ipmiproxyd.vendors.talk import Answer, Request
from tests.simulator.vendors.ibmc import IbmcOldPanel, IbmcPanel
from tests.support.talk import drive
from tests.support.vendor_suite import FamilySuite


class IbmcOldTests(FamilySuite, SynchronousTestCase):
    family = IbmcOld()
    kind = IbmcOldPanel
    moods = frozenset({"full", "locked", "html5"})

    def test_the_first_page_comes_first(self) -> None:
        panel = self.panel()
        self.assertEqual(panel.ask(Request("/bmc/pages/remote/kvm.php?kvmway=0")).status, 403)
        self.visit(panel)
        self.assertEqual(panel.asked[1].path, "/login.html")

    def test_codes(self) -> None:
        for code, error in ((130, BmcAuth), (131, BmcLocked), (136, BmcPrivilege), (137, BmcError), (144, NoSlot)):
            panel = self.panel(code=code)
            self.assertRaises(error, self.open, panel)
        caught = self.assertRaises(BmcError, self.open, self.panel(code=999))
        self.assertIn("999", caught.message)

    def test_the_description_is_good_once(self) -> None:
        panel = self.panel(kvm_port=2198)
        session = self.open(panel)
        text = panel.drive(self.family.jnlp(panel.site(), session)).decode()
        for part in (
            "com.kvm.KVMApplet",
            'name="verifyValueExt"',
            'name="port" value="2198"',
            "vconsole.jar?authParam=",
        ):
            self.assertIn(part, text)
        self.assertRaises(BmcError, panel.drive, self.family.jnlp(panel.site(), session))

    def test_the_token_goes_with_the_sign_out(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        panel.drive(self.family.sign_out(panel.site(), session))
        given = dict(panel.asked[-1].form or ())
        self.assertEqual((given["func"], given["token"]), ("DelSession", session.cookies["SessionId3"][::-1]))

    def test_html5(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        self.assertEqual(page.path, "/bmc/pages/remote/kvm_by_html5.html")
        self.assertEqual(page.cookies["SessionId3"], session.cookies["SessionId3"])
        panel = self.panel(html5=False)
        self.assertRaises(BmcUnsupported, panel.drive, self.family.html5(panel.site(), self.open(panel)))

    def test_session_without_a_cookie(self) -> None:
        """The session's number is in the body as well."""

        answers = [Answer(200), Answer(200, (), b'[{"AddSession": [0, "abc"]}]')]
        session = drive(self.family.sign_in(self.panel().site()), answers)
        self.assertEqual(session.cookies, {"SessionId3": "abc"})


class IbmcTests(FamilySuite, SynchronousTestCase):
    family = Ibmc()
    kind = IbmcPanel
    moods = frozenset({"full", "locked", "html5"})

    def test_the_token_against_forged_requests(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        panel.drive(self.family.jnlp(panel.site(), session))
        self.assertEqual(panel.asked[-1].headers["X-Csrf-Token"], session.tokens["csrf"])
        forged = Request(panel.asked[-1].path, method="POST", body=b"{}", cookies=session.cookies)
        self.assertEqual(panel.ask(forged).status, 401)

    def test_token_in_a_header(self) -> None:
        headers = (("token", "t"), ("set-cookie", "SessionId=s; path=/"))
        answers = [Answer(200, headers, b'{"Session": {"SessionID": "../x"}}')]
        session = drive(self.family.sign_in(self.panel().site()), answers)
        panel = self.panel()
        panel.drive(self.family.sign_out(panel.site(), session))
        self.assertEqual(panel.asked[0].path, "/UI/Rest/Sessions/..%2Fx")

    def test_refusals(self) -> None:
        for status, body, error in (
            (401, b"", BmcAuth),
            (403, b'{"error":[{"code":"UserLocked"}]}', BmcLocked),
            (401, b'{"error":[{"code":"SessionLimitExceeded"}]}', NoSlot),
            (401, b'{"error":[{"code":"UserPasswordExpired"}]}', BmcError),
            (500, b"", BmcError),
            (200, b"[]", BmcError),
        ):
            self.not_let_in(error, Answer(status, (), body))
