"""Dell's iDRAC6, iDRAC7 and iDRAC8."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcLocked, BmcPrivilege, BmcUnsupported, NoLicence, NoSlot
from ipmiproxyd.vendors.idrac import FAMILIES, Idrac6, Idrac7, Idrac8
from ipmiproxyd.vendors.talk import Answer, Request, WebSession
from tests.simulator.vendors.idrac import Idrac6OldPanel, Idrac6Panel, Idrac7Panel, Idrac8Panel, IdracPanel
from tests.support.talk import PanelInProcess, drive
from tests.support.vendor_suite import FamilySuite


class IdracSuite(FamilySuite):
    """
    :cvar before: requests before the sign-in.
    """

    moods = frozenset({"full", "licence"})
    before = 0

    def test_user_comes_before_password(self) -> None:
        panel = self.panel()
        self.open(panel)
        body = next(visit.body for visit in panel.visits if visit.path == "/data/login")
        self.assertTrue(body.startswith(b"user=ADMIN&password="))
        self.assertNotIn(b"+", body)  # a space is %20, as the page's script writes it

    def test_what_the_jnlp_holds(self) -> None:
        panel = self.panel(kvm_port=5900)
        text = self.visit(panel).decode()
        for part in ("com.avocent.idrac.kvm.Main", "<argument>ip=10.0.0.7<", "kmport=5900", "/software/avctKVM.jar"):
            self.assertIn(part, text)

    def test_no_brackets_around_an_ipv6_address(self) -> None:
        panel = PanelInProcess(self.panel().personality, host="[fd00::7]:8443")
        self.assertIn(b"<argument>ip=fd00::7<", self.visit(panel))
        self.assertIn("/viewer.jnlp(fd00::7@1@console@", next(one.path for one in panel.asked if "jnlp" in one.path))

    def test_what_the_sign_in_may_say(self) -> None:
        for said, error in (
            ("<authResult>1</authResult>", BmcAuth),
            ("<authResult>1</authResult><blockingTime>0</blockingTime>", BmcAuth),
            ("<authResult>1</authResult><blockingTime>30</blockingTime>", BmcLocked),
            ("<authResult>2</authResult>", BmcAuth),
            ("<authResult>4</authResult>", BmcPrivilege),
            ("<authResult>5</authResult>", NoSlot),
            ("<authResult>99</authResult>", BmcError),
            ("RAC0218: The maximum number of user sessions is reached.", NoSlot),
            ("", BmcError),
            ("<authResult>0</authResult>", BmcError),  # without a cookie
        ):
            self.not_let_in(error, *[Answer(200)] * self.before, Answer(200, (), said.encode()))

    def test_a_session_that_ended_meanwhile(self) -> None:
        self.assertIn("ended", self.after_the_end().message)

    def test_why_there_is_no_console(self) -> None:
        for told, error in (
            ("<kvmEnabled>0</kvmEnabled>", BmcUnsupported),
            ("<kvmActSes>6</kvmActSes><kvmMaxSessions>6</kvmMaxSessions>", NoSlot),
            ("<kvmActSes>1</kvmActSes><kvmMaxSessions>6</kvmMaxSessions>", BmcError),
            ("<ameaPresent>0</ameaPresent>", NoLicence),
        ):

            def answers(request: Request, told: str = told) -> Answer:
                return Answer(200, (), told.encode()) if request.path.startswith("/data?") else Answer(404)

            session = WebSession(family=self.family.key)
            talk = self.family.jnlp(self.panel().site(), session)
            self.assertRaises(error, drive, talk, answers)

    def test_is_not_another_generation(self) -> None:
        panel = self.panel()
        page = panel.ask(Request("/login.html"))
        discover = panel.ask(Request("/cgi-bin/discover"))
        for seen in ({"/login.html": page}, {"/cgi-bin/discover": discover}):
            self.assertEqual([one.key for one in FAMILIES if one.recognise(seen)], [self.family.key])


class Idrac6Tests(IdracSuite, SynchronousTestCase):
    family = Idrac6()
    kind: type[IdracPanel] = Idrac6Panel
    before = 2

    def test_the_first_cookie_is_replaced(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertEqual(list(session.cookies.values()), list(panel.personality.sessions))
        self.assertTrue(panel.visits[-1].cookies["_appwebSessionId_"])
        self.assertEqual(set(session.tokens), {"ST1", "ST2"})

    def test_no_html5(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertRaises(BmcUnsupported, panel.drive, self.family.html5(panel.site(), session))


class Idrac6OldTests(Idrac6Tests):
    kind = Idrac6OldPanel
    password = "p@ss(w),o:r?d=&#+%\\1 §"

    def test_the_first_cookie_is_replaced(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertEqual(session.tokens, {})
        self.visit(panel)
        viewer = next(one.path for one in panel.asked if "viewer" in one.path)
        self.assertEqual(viewer, "/viewer.jnlp(10.0.0.7@0@console@1700000000000)")

    def test_the_password_is_in_the_descriptor(self) -> None:
        panel = self.panel()
        self.assertIn(b"<argument>user=ADMIN</argument>\n    <argument>passwd=p@ss(", self.visit(panel))


class Idrac7Tests(IdracSuite, SynchronousTestCase):
    family: Idrac7 | Idrac8 = Idrac7()
    kind: type[IdracPanel] = Idrac7Panel
    moods = frozenset({"full", "licence", "locked", "html5"})

    def test_both_tokens(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        pairs = panel.personality.pairs  # type: ignore[attr-defined]
        self.assertEqual([(session.tokens["ST1"], session.tokens["ST2"])], list(pairs.values()))

    def test_pages_only_for_who_takes_gzip(self) -> None:
        page = Request("/login.html", headers={"Accept-Encoding": "identity"})
        self.assertEqual(self.panel().ask(page).status, 404)

    def test_default_password_page_carries_the_tokens_too(self) -> None:
        said = b"<authResult>0</authResult><forwardUrl>defaultCred.html?ST1=ab12,ST2=cd34</forwardUrl>"
        answer = Answer(200, (("set-cookie", "-http-session-=1::http.session::ff; path=/"),), said)
        session = drive(self.family.sign_in(self.panel().site()), [answer])
        self.assertEqual(session.tokens, {"ST1": "ab12", "ST2": "cd34"})
        self.assertEqual(session.cookies, {"-http-session-": "1::http.session::ff"})

    def test_the_locked_time_is_told(self) -> None:
        self.assertIn("30 seconds", self.refused(BmcLocked, self.panel("locked")).message)

    def test_html5(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        parts = urlsplit(page.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.assertEqual(parts.path, "/virtualconsolehtml5.html")
        self.assertEqual((query["ipAddr"], query["aimSession"], query["TokenName"]), ("10.0.0.7", "1", "ST1"))
        self.assertEqual(page.cookies, session.cookies)
        self.assertNotIn(query["TokenKey"], repr(page))
        answer = panel.ask(Request(page.path, cookies=page.cookies))
        self.assertIn("Sign out", answer.text)

    def test_no_html5_on_old_firmware(self) -> None:
        panel = self.panel(html5=False)
        session = self.open(panel)
        caught = self.assertRaises(BmcUnsupported, panel.drive, self.family.html5(panel.site(), session))
        self.assertIn("type=java", caught.hint)

    def test_html5_without_licence(self) -> None:
        panel = self.panel("licence")
        session = self.open(panel)
        self.assertRaises(NoLicence, panel.drive, self.family.html5(panel.site(), session))

    def test_html5_where_java_is_off(self) -> None:
        panel = self.panel("html5")
        session = self.open(panel)
        self.assertTrue(panel.drive(self.family.html5(panel.site(), session)).path)


class Idrac8Tests(Idrac7Tests):
    family = Idrac8()
    kind = Idrac8Panel
