"""What holds for every family of panels. A test class names its family and its simulated panel::

    class SupermicroTests(FamilySuite, SynchronousTestCase):
        family = FAMILIES[0]
        kind = SupermicroPanel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from ipmiproxyd.errors import BmcAuth, BmcError, BmcLocked, Html5Only, NoLicence, NoSlot, ProxyError
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.recognise import recognise
from ipmiproxyd.vendors.talk import Answer, WebSession
from tests.simulator.personality import Personality
from tests.support.talk import PASSWORD, USER, PanelInProcess, drive, make_panel

E = TypeVar("E", bound=ProxyError)

MOODS: Final[Mapping[str, type[ProxyError]]] = {
    "full": NoSlot,
    "locked": BmcLocked,
    "licence": NoLicence,
    "html5": Html5Only,
}
"""What a panel that is told to be so means to who opens a console."""


class FamilySuite:
    """
    :cvar moods: what the simulated panel can be told to be, beside "" and "broken".
    :cvar password: of the panel's one user.
    """

    family: Family
    kind: type[Personality]
    moods: frozenset[str] = frozenset({"full"})
    password: str = PASSWORD
    settings: ClassVar[Mapping[str, Any]] = {}

    assertRaises: Callable[..., Any]
    assertEqual: Callable[..., Any]
    assertIn: Callable[..., Any]
    assertNotIn: Callable[..., Any]
    assertTrue: Callable[..., Any]

    def panel(self, mood: str = "", **settings: Any) -> PanelInProcess:
        users = {USER: self.password}
        return PanelInProcess(make_panel(self.kind, mood=mood, users=users, **{**self.settings, **settings}))

    def open(self, panel: PanelInProcess) -> WebSession:
        """Sign in, and back from where sessions are stored."""

        session = panel.drive(self.family.sign_in(panel.site()))
        return WebSession.from_document(session.to_document())

    def visit(self, panel: PanelInProcess) -> bytes:
        """A whole visit: sign in, take what a console needs, sign out whatever came of it."""

        session = self.open(panel)
        try:
            if "java" in self.family.consoles:
                return panel.drive(self.family.jnlp(panel.site(), session))
            return panel.drive(self.family.html5(panel.site(), session)).path.encode()
        finally:
            panel.drive(self.family.sign_out(panel.site(), session))

    def refused(self, error: type[E], panel: PanelInProcess) -> E:
        """The visit ends with this error, whose words hold no secret; the panel has as many sign-outs as sign-ins."""

        caught: E = self.assertRaises(error, self.visit, panel)
        self.assertTrue(isinstance(caught, error))
        self.assertNotIn(self.password, f"{caught.message} {caught.hint}")
        self.gave_back(panel)
        return caught

    def not_let_in(self, error: type[E], *answers: Answer) -> E:
        """Signing in, answered so, ends with this error, whose words hold no secret."""

        caught: E = self.assertRaises(error, drive, self.family.sign_in(self.panel().site()), answers)
        for secret in (USER, self.password):
            self.assertNotIn(secret, f"{caught.message} {caught.hint}")
        return caught

    def after_the_end(self) -> BmcError:
        """What who asks for the Java console is told once the session was signed out of."""

        panel = self.panel()
        session = self.open(panel)
        panel.drive(self.family.sign_out(panel.site(), session))
        caught: BmcError = self.assertRaises(BmcError, panel.drive, self.family.jnlp(panel.site(), session))
        return caught

    def gave_back(self, panel: PanelInProcess) -> None:
        signed_in, signed_out = panel.signs()
        if self.family.signs_out != "none":
            self.assertEqual(signed_out, signed_in)
            self.assertEqual(panel.personality.sessions, {})

    def test_is_recognised(self) -> None:
        panel = self.panel()
        found = panel.drive(recognise([self.family]))
        self.assertEqual(found.family, self.family.key)
        self.assertTrue(found.why)
        self.assertEqual(panel.signs(), (0, 0))

    def test_a_visit(self) -> None:
        panel = self.panel()
        given = self.visit(panel)
        if "java" in self.family.consoles:
            self.assertIn(b"<jnlp", given)
        self.assertEqual(panel.signs()[0], 1)
        self.gave_back(panel)

    def test_wrong_password_is_tried_once(self) -> None:
        panel = self.panel()
        site = panel.site(password="Nothing1")
        error = self.assertRaises(BmcAuth, panel.drive, self.family.sign_in(site))
        self.assertNotIn("Nothing1", f"{error.message} {error.hint}")
        self.assertEqual(len(panel.events("sign-in")), 1)
        self.assertEqual(panel.signs(), (0, 0))

    def test_a_session_that_is_gone_is_signed_out_of_in_peace(self) -> None:
        panel = self.panel()
        session = self.open(panel)
        for _ in range(2):
            panel.drive(self.family.sign_out(panel.site(), session))
        self.gave_back(panel)

    def test_each_refusal(self) -> None:
        for mood in self.moods:
            self.refused(MOODS[mood], self.panel(mood))

    def test_a_sudden_500(self) -> None:
        error = self.refused(BmcError, self.panel("broken"))
        self.assertIn("500", error.message)
