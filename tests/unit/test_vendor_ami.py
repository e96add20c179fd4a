"""AMI MegaRAC's older panels."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcPrivilege, NoSlot
from ipmiproxyd.vendors.ami import FAMILIES
from ipmiproxyd.vendors.recognise import recognise
from ipmiproxyd.vendors.talk import Answer
from tests.simulator.vendors.ami import AmiPanel
from tests.support.vendor_suite import FamilySuite


class AmiTests(FamilySuite, SynchronousTestCase):
    family = FAMILIES[0]
    kind = AmiPanel

    def test_what_the_jnlp_holds(self) -> None:
        panel = self.panel(kvm_port=7578)
        text = self.visit(panel).decode()
        for part in ("com.ami.kvm.jviewer.JViewer", "<argument>-kvmtoken<", "<argument>7578<", "release/JViewer.jar"):
            self.assertIn(part, text)

    def test_the_session_is_sent_as_its_script_would(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        self.assertEqual(dict(session.cookies), {"SessionCookie": next(iter(panel.personality.sessions))})
        self.assertEqual(set(session.tokens), {"csrf"})
        panel.drive(self.family.jnlp(panel.site(), session))
        self.assertTrue(panel.asked[-1].ignore_length)
        self.assertEqual(panel.asked[-1].path, "/Java/jviewer.jnlp?EXTRNIP=10.0.0.7&JNLPSTR=JViewer")
        self.assertEqual(panel.asked[-1].headers["CSRFTOKEN"], session.tokens["csrf"])

    def test_older_firmware(self) -> None:
        for asks_for in ("", "ext_ip"):
            panel = self.panel(arguments="positional", csrf=False, asks_for=asks_for)
            self.assertIn(b"<argument>10.0.0.7<", self.visit(panel))
            self.gave_back(panel)

    def test_a_description_without_arguments_is_filled_in(self) -> None:
        panel = self.panel(arguments="none")
        session = self.open(panel)
        text = panel.drive(self.family.jnlp(panel.site(), session)).decode()
        token = next(iter(panel.personality.tokens))  # type: ignore[attr-defined]
        cookie = session.cookies["SessionCookie"]
        self.assertIn(f"<argument>7578</argument><argument>{token}</argument><argument>{cookie}</argument>", text)
        self.assertIn('codebase="https://10.0.0.7/Java"', text)

    def test_recognised_by_its_redirect(self) -> None:
        panel = self.panel(first="redirect")
        self.assertEqual(panel.drive(recognise(FAMILIES)).family, "ami")

    def test_a_session_that_ended_meanwhile(self) -> None:
        self.assertIn("405", self.after_the_end().message)

    def test_what_the_sign_in_may_say(self) -> None:
        for said, error in (
            ("{ 'SESSION_COOKIE' : 'Failure_Login_IPMI_Then_LDAP_then_Active_Directory' }, HAPI_STATUS:0", BmcAuth),
            ("[ {} ], HAPI_STATUS:7", BmcAuth),
            ("[ {} ], HAPI_STATUS:-1", BmcAuth),
            ("{ 'SESSION_COOKIE' : 'abc' }, HAPI_STATUS:-1", BmcAuth),
            ("[ {} ], HAPI_STATUS:3", NoSlot),
            ("[ {} ], HAPI_STATUS:212", BmcPrivilege),
            ("[ {} ], HAPI_STATUS:0x00D4", BmcPrivilege),
            ("<html>something else</html>", BmcError),
        ):
            self.not_let_in(error, Answer(200, (), said.encode()))
