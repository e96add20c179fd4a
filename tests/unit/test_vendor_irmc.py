"""Fujitsu's iRMC."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcAuth, BmcError, BmcUnsupported, NoSlot
from ipmiproxyd.model import Secret
from ipmiproxyd.vendors import digest
from ipmiproxyd.vendors.irmc import FAMILIES, Irmc, IrmcS5
from ipmiproxyd.vendors.recognise import recognise
from ipmiproxyd.vendors.talk import Answer, Request
from tests.simulator.vendors.irmc import IrmcPanel, IrmcS5Panel
from tests.support.talk import PanelInProcess, drive
from tests.support.vendor_suite import FamilySuite


class DigestPanel(PanelInProcess):
    """Answers challenges as curl does: without credentials first."""

    def ask(self, request: Request) -> Answer:
        first = super().ask(request)
        asked = digest.challenge(first.header("www-authenticate"))
        if request.digest is None or first.status != 401 or not asked:
            return first
        user, password = request.digest
        hashed = [f"{user}:{asked['realm']}:{password.reveal()}", f"{request.method}:{request.path}"]
        one, two = (hashlib.md5(text.encode()).hexdigest() for text in hashed)
        response = hashlib.md5(f"{one}:{asked['nonce']}:00000001:curl:auth:{two}".encode()).hexdigest()
        fields = {**asked, "username": user, "uri": request.path, "cnonce": "curl", "response": response}
        value = ", ".join(f'{name}="{text}"' for name, text in fields.items() if name != "qop")
        headers = {**request.headers, "Authorization": f"Digest {value}, qop=auth, nc=00000001"}
        return super().ask(replace(request, digest=None, headers=headers))


class IrmcTests(FamilySuite, SynchronousTestCase):
    family = Irmc()
    kind = IrmcPanel
    moods = frozenset({"locked", "html5", "licence"})

    def panel(self, mood: str = "", **settings: Any) -> PanelInProcess:
        return DigestPanel(super().panel(mood, **settings).personality)

    def test_what_the_jnlp_holds(self) -> None:
        text = self.visit(self.panel(kvm_port=5901)).decode()
        for part in ("JViewer_S4.jar", "<argument>-kvmtoken<", "<argument>-webcookie<", "<argument>5901<"):
            self.assertIn(part, text)

    def test_is_not_another_generation(self) -> None:
        self.assertEqual(self.panel().drive(recognise(FAMILIES)).family, "irmc")

    def test_no_page(self) -> None:
        panel = self.panel()
        self.assertRaises(BmcUnsupported, panel.drive, self.family.html5(panel.site(), self.open(panel)))


class IrmcS2Tests(IrmcTests):
    """The description comes only by the link on the first page."""

    settings = {"firmware": "s2"}  # noqa: RUF012

    def test_what_the_jnlp_holds(self) -> None:
        panel = self.panel(kvm_port=80)
        text = self.visit(panel).decode()
        self.assertIn(">VncPort=80<", text)
        self.assertEqual(panel.asked[-1].path, "/avr.jnlp?lang=0&sid=&kind=kvm")


class IrmcFormTests(IrmcTests):
    """Newer firmware of the S4."""

    settings = {"firmware": "form"}  # noqa: RUF012
    moods = frozenset({"full", "locked", "html5", "licence"})

    def test_a_challenge_is_answered_once(self) -> None:
        panel = self.panel()
        self.visit(panel)
        posts = [request for request in panel.asked if request.method == "POST"]
        self.assertEqual(["Authorization" in request.headers for request in posts], [False, True])
        self.assertEqual(panel.ask(posts[1]).status, 401)

    def test_no_challenge(self) -> None:
        self.not_let_in(BmcError, Answer(302, (("location", "/login"),)), Answer(200, (), b"<html>?</html>"))


class IrmcS5Tests(FamilySuite, SynchronousTestCase):
    family = IrmcS5()
    kind = IrmcS5Panel
    moods = frozenset({"full", "locked", "html5", "licence"})

    def test_other_places_of_the_session(self) -> None:
        """Only a path within Redfish is asked to end it."""

        for place, known in (("/redfish/v1/SessionService/Sessions/7", True), ("https://x/elsewhere", False)):
            headers = (("x-auth-token", "t"), ("location", place))
            session = drive(self.family.sign_in(self.panel().site()), [Answer(201, headers, b"{}")])
            log: list[Any] = []
            drive(self.family.sign_out(self.panel().site(), session), [Answer(200)], log=log)
            self.assertEqual([request.path for request in log], [place] if known else [])

    def test_refusals(self) -> None:
        for status, body, error in (
            (401, b"", BmcAuth),
            (400, b'{"error": {}}', BmcAuth),
            (503, b'{"error": {"code": "Base.1.0.SessionLimitExceeded"}}', NoSlot),
            (500, b"", BmcError),
            (200, b"", BmcError),
        ):
            self.not_let_in(error, Answer(status, (), body))


class DigestTests(SynchronousTestCase):
    def test_the_example_of_the_rfc(self) -> None:
        asked = digest.challenge(
            'Digest realm="testrealm@host.com", qop="auth,auth-int", '
            'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
        )
        value = digest.authorization(
            asked, "Mufasa", Secret("Circle Of Life"), method="GET", path="/dir/index.html", cnonce="0a4f113b"
        )
        self.assertIn('response="6629fae49393a05397450978507c4ef1"', value)
        self.assertIn('opaque="5ccc069c403ebaf9f0171e9517f40e41"', value)

    def test_other_schemes(self) -> None:
        self.assertEqual(digest.challenge('Basic realm="x"'), {})
        self.assertEqual(digest.challenge(""), {})

    def test_without_qop(self) -> None:
        value = digest.authorization(
            {"realm": "r", "nonce": "n"}, 'a"b', Secret("p"), method="GET", path="/", cnonce="c"
        )
        self.assertNotIn("cnonce", value)
        self.assertIn(r'username="a\"b"', value)


class ChallengeTests(SynchronousTestCase):
    def test_time_is_linear(self) -> None:
        begun = time.monotonic()
        for part in ("a", 'a="', "a ", 'a ="\\'):
            digest.challenge("Digest " + part * (100_000 // len(part)))
        self.assertLess(time.monotonic() - begun, 2)
        self.assertEqual(digest.challenge('Digest realm="x y", Nonce=1'), {"realm": "x y", "nonce": "1"})
