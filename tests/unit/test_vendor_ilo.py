"""HP's iLO 3 and iLO 4, HPE's iLO 5 and iLO 6."""

from __future__ import annotations

import json
import xml.dom.minidom

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcLocked, BmcPrivilege, BmcUnsupported, Html5Only, NoLicence, NoSlot
from ipmiproxyd.vendors.ilo import FAMILIES, Ilo, Ilo3, Ilo4, Ilo5, Ilo6
from ipmiproxyd.vendors.talk import Answer, Request, WebSession
from tests.simulator.vendors.ilo import Ilo3Panel, Ilo4Panel, Ilo5Panel, Ilo6Panel
from tests.support.talk import drive
from tests.support.vendor_suite import FamilySuite


class IloSuite(FamilySuite):
    family: Ilo
    kind: type[Ilo3Panel]
    moods = frozenset({"full", "licence", "locked"})

    def test_the_client_makes_the_cookie(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertEqual([session.cookies["sessionKey"]], list(panel.personality.sessions))

    def test_what_the_sign_in_may_say(self) -> None:
        for status, said, error in (
            (403, {"message": "Invalid login attempt"}, BmcAuth),
            (200, {"message": "no"}, BmcAuth),
            (401, {}, BmcAuth),
            (403, {"message": "Login Delay", "details": "Wait 10 seconds."}, BmcLocked),
            (403, {"message": "no session available"}, NoSlot),
            (503, {}, NoSlot),
            (404, {}, BmcError),
            (500, {}, BmcError),
        ):
            self.not_let_in(error, Answer(status, (), json.dumps(said).encode()))

    def test_the_locked_time_is_told(self) -> None:
        self.assertIn("10 seconds", self.refused(BmcLocked, self.panel("locked")).message)

    def test_no_right_to_the_console(self) -> None:
        self.refused(BmcPrivilege, self.panel(privileged=False))

    def test_is_not_another_generation(self) -> None:
        panel = self.panel()
        seen = {"/xmldata?item=all": panel.ask(Request("/xmldata?item=all"))}
        self.assertEqual([one.key for one in FAMILIES if one.recognise(seen)], [self.family.key])

    def test_a_silent_one_is_taken_for_an_ilo_4(self) -> None:
        panel = self.panel(anonymous=False)
        seen = {path: panel.ask(Request(path)) for path in self.family.probes}
        self.assertEqual([one.key for one in FAMILIES if one.recognise(seen)], ["ilo4"])


class AppletSuite(IloSuite):
    def test_the_template_is_filled_in(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        given = panel.drive(self.family.jnlp(panel.site(), session))
        jnlp = xml.dom.minidom.parseString(given).documentElement
        assert jnlp is not None
        self.assertEqual(jnlp.getAttribute("codebase"), "https://10.0.0.7/")
        jar = jnlp.getElementsByTagName("jar")[0].getAttribute("href")
        self.assertEqual(jar, f"https://10.0.0.7/html/{panel.personality.jar_name}")  # type: ignore[attr-defined]
        params = {one.getAttribute("name"): one.getAttribute("value") for one in jnlp.getElementsByTagName("param")}
        self.assertEqual(params["RCINFO1"], session.cookies["sessionKey"])
        self.assertEqual(params["RCINFOLANG"], "en")
        self.assertNotIn(b"<%", given)

    def test_what_is_filled_in_stays_a_value(self) -> None:
        session = WebSession(family="", cookies={}, tokens={"key": '"/><evil a="&', "port": "", "console": "1"})
        template = b'<x id="jnlpTemplate"><![CDATA[<jnlp a="<%= this.sessionKey %>" b="<%= this.new %>"/>]]></x>'
        given = drive(self.family.jnlp(self.panel().site(), session), [Answer(200, (), template)])
        self.assertEqual(given, b'<jnlp a="&quot;/&gt;&lt;evil a=&quot;&amp;" b=""/>')

    def test_a_descriptor_from_the_applet_page(self) -> None:
        panel = self.panel(pages_with="applet", kvm_port=17990)
        session = self.open(panel)
        given = panel.drive(self.family.jnlp(panel.site(), session))
        jnlp = xml.dom.minidom.parseString(given).documentElement
        assert jnlp is not None
        params = {one.getAttribute("name"): one.getAttribute("value") for one in jnlp.getElementsByTagName("param")}
        self.assertEqual(
            params,
            {
                "INFO0": "7AC3BDEBC9AC64E85734454B53BB73CE",
                "INFO1": "17990",
                "INFO2": "composite",
                "RCINFO1": session.cookies["sessionKey"],
                "RCINFO6": "17990",
                "RCINFOLANG": "en",
            },
        )
        jar = jnlp.getElementsByTagName("jar")[0].getAttribute("href")
        self.assertEqual(jar, f"html/{panel.personality.jar_name}")  # type: ignore[attr-defined]
        applet = jnlp.getElementsByTagName("applet-desc")[0]
        self.assertEqual(applet.getAttribute("main-class"), "com.hp.ilo2.intgapp.intgapp")

    def test_a_console_in_use(self) -> None:
        session = WebSession(family="", tokens={"key": "k", "port": "", "console": "1"})
        answers = [Answer(200, (), b"<html>Remote Console is unavailable</html>")]
        self.assertRaises(NoSlot, drive, self.family.jnlp(self.panel().site(), session), answers)

    def test_a_session_that_ended_meanwhile(self) -> None:
        self.assertIn("ended", self.after_the_end().message)


class PageSuite(IloSuite):
    def test_html5(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        page = panel.drive(self.family.html5(panel.site(), session))
        self.assertEqual(page.path, panel.personality.html5_path)  # type: ignore[attr-defined]
        self.assertIn("Sign out", panel.ask(Request(page.path, cookies=page.cookies)).text)
        self.assertEqual(page.cookies["sessionKey"], session.cookies["sessionKey"])

    def test_html5_without_licence(self) -> None:
        panel = self.panel("licence")
        session = self.open(panel)
        self.assertRaises(NoLicence, panel.drive, self.family.html5(panel.site(), session))

    def test_no_html5(self) -> None:
        session = WebSession(family="", tokens={"key": "k", "port": "", "console": "1"})
        talk = self.family.html5(self.panel().site(), session)
        self.assertRaises(BmcUnsupported, drive, talk, lambda _request: Answer(404))


class Ilo3Tests(AppletSuite, SynchronousTestCase):
    family = Ilo3()
    kind = Ilo3Panel

    def test_neither_java_nor_a_page(self) -> None:
        self.refused(BmcUnsupported, self.panel(pages_with="nothing"))


class Ilo4Tests(AppletSuite, PageSuite, SynchronousTestCase):
    family = Ilo4()
    kind = Ilo4Panel


class Ilo5Tests(AppletSuite, PageSuite, SynchronousTestCase):
    family = Ilo5()
    kind = Ilo5Panel
    moods = IloSuite.moods | {"html5"}


class Ilo6Tests(PageSuite, SynchronousTestCase):
    family = Ilo6()
    kind = Ilo6Panel

    def test_no_java(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertRaises(Html5Only, panel.drive, self.family.jnlp(panel.site(), session))
