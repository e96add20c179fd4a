"""Conversations with panels: TLS as good as they can, one key, and an end to everything."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadCertificate, BmcError, BmcUnreachable, ProxyError, TlsTooOld
from ipmiproxyd.model import Command, Device, Outcome
from ipmiproxyd.tools.curl import TLS_PROFILES, Curl, NoCommonTls, Trust, parse_answer
from ipmiproxyd.tools.panel_http import ANEW, MAX_PAUSE, PanelHttp
from ipmiproxyd.vendors.talk import Answer, Pause, Request, Site, Talk
from tests.support.fake_rooms import FakeAgent
from tests.support.memory_store import MemoryStore

DEVICE = Device(name="node1", address="192.0.2.1")
MODERN, WEAK, LEGACY = TLS_PROFILES


class FakeCurl:
    """``speaks``: the profiles that the panel knows; ``answers`` by path."""

    def __init__(self) -> None:
        self.speaks = {MODERN, WEAK, LEGACY}
        self.pin: str | None = "pin-1"
        self.looks: list[str] = []
        self.asked: list[tuple[str, str, Trust]] = []
        self.answers: dict[str, Answer] = {}

    async def look(self, _agent: Any, _url: str, profile: str) -> str | None:
        self.looks.append(profile)
        if profile not in self.speaks:
            raise NoCommonTls("no")
        return self.pin

    async def ask(self, _agent: Any, _url: str, request: Request, profile: str, trust: Trust) -> Answer:
        self.asked.append((request.path, profile, trust))
        return self.answers.get(request.path, Answer(200))


class PanelHttpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1e9)
        self.curl = FakeCurl()
        fake: Any = self.curl
        self.panels = PanelHttp(fake, MemoryStore(), self.clock)
        self.agent = FakeAgent()

    def look(self) -> tuple[tuple[str, str | None], list[str]]:
        """What is found, and which profiles were tried."""

        self.curl.looks = []
        return self.successResultOf(Deferred.fromCoroutine(self.panels.trusted(self.agent, DEVICE))), self.curl.looks

    def talk(self, talk: Talk[Any], device: Device = DEVICE) -> Deferred[Any]:
        def make(_: Site) -> Talk[Any]:
            return talk

        return Deferred.fromCoroutine(self.panels.talk(self.agent, device, make))

    def test_modern_ones_are_never_spoken_to_otherwise(self) -> None:
        for _ in range(3):
            self.assertEqual(self.look(), ((MODERN, "pin-1"), [MODERN]))
            self.clock.advance(ANEW)

    def test_the_best_that_it_speaks_is_remembered(self) -> None:
        self.curl.speaks = {LEGACY}
        self.assertEqual(self.look(), ((LEGACY, "pin-1"), [MODERN, WEAK, LEGACY]))
        self.clock.advance(ANEW - 1)
        self.assertEqual(self.look(), ((LEGACY, "pin-1"), [LEGACY]))

    def test_better_ones_are_tried_again_some_day(self) -> None:
        self.curl.speaks = {LEGACY}
        self.look()
        self.curl.speaks = {MODERN, WEAK, LEGACY}
        self.assertEqual(self.look(), ((LEGACY, "pin-1"), [LEGACY]))
        self.clock.advance(ANEW)
        for _ in range(2):
            self.assertEqual(self.look(), ((MODERN, "pin-1"), [MODERN]))

    def test_none_of_them(self) -> None:
        self.curl.speaks = set()
        error = self.failureResultOf(Deferred.fromCoroutine(self.panels.trusted(self.agent, DEVICE)), TlsTooOld)
        self.assertIn("RC4", str(error.value.hint))

    def test_another_key_is_refused_until_the_old_one_is_forgotten(self) -> None:
        self.look()
        self.curl.pin = "pin-2"
        for _ in range(2):
            self.failureResultOf(Deferred.fromCoroutine(self.panels.trusted(self.agent, DEVICE)), BadCertificate)
        self.successResultOf(Deferred.fromCoroutine(self.panels.forget(self.agent, DEVICE)))
        self.assertEqual(self.look()[0], (MODERN, "pin-2"))

    def test_who_trusts_less_changes_nothing_for_others(self) -> None:
        self.look()
        self.curl.pin = "pin-2"
        for other in (replace(DEVICE, web_trust="insecure"), replace(DEVICE, web_trust="ca")):
            found = self.successResultOf(Deferred.fromCoroutine(self.panels.trusted(self.agent, other)))
            self.assertEqual(found, (MODERN, "pin-2"))
        self.curl.pin = None
        self.successResultOf(
            Deferred.fromCoroutine(self.panels.trusted(self.agent, replace(DEVICE, web="http://192.0.2.1")))
        )
        known = self.successResultOf(Deferred.fromCoroutine(self.panels.known(self.agent, DEVICE)))
        self.assertEqual(known, (MODERN, "pin-1"))
        shared = self.successResultOf(Deferred.fromCoroutine(self.panels.shared_with(DEVICE, "pin-2")))
        self.assertEqual(shared, [])
        self.curl.pin = "pin-2"
        self.failureResultOf(Deferred.fromCoroutine(self.panels.trusted(self.agent, DEVICE)), BadCertificate)

    def test_what_nobody_understands(self) -> None:
        def talk() -> Talk[int]:
            return int((yield Request("/")).text)

        self.assertIn("nobody understands", str(self.failureResultOf(self.talk(talk()), BmcError).value))

    def test_each_request_is_for_that_key_alone(self) -> None:
        def talk() -> Talk[int]:
            return (yield Request("/a")).status

        self.assertEqual(self.successResultOf(self.talk(talk())), 200)
        self.assertEqual(self.curl.asked, [("/a", MODERN, Trust("pin-1", by_authority=False))])

    def test_redirects(self) -> None:
        def talk(path: str) -> Talk[str]:
            return (yield Request(path, redirects=3)).path

        def to(place: str) -> Answer:
            return Answer(302, headers=(("location", place),))

        self.curl.answers = {"/a": to("b"), "/b": to("/c/"), "/loop": to("/loop"), "/x": to("https://192.0.2.2/")}
        self.curl.answers |= {"/y": to("http://192.0.2.1/"), "/z": to("file:///etc/passwd")}
        self.successResultOf(self.talk(talk("/a")))
        self.assertEqual([path for path, *_ in self.curl.asked], ["/a", "/b", "/c/"])
        self.curl.answers["/w"] = to("http://[")
        cases = [("/w", "nobody understands"), ("/loop", "without end")]
        for path, words in (*cases, ("/x", "another"), ("/y", "another"), ("/z", "another")):
            self.assertIn(words, str(self.failureResultOf(self.talk(talk(path)), BmcError).value))

    def test_a_conversation_without_end(self) -> None:
        def talk() -> Talk[None]:
            while True:
                yield Request("/")

        self.assertIn("does not end", str(self.failureResultOf(self.talk(talk()), BmcError).value))

    def test_pauses_are_not_for_ever(self) -> None:
        def talk() -> Talk[None]:
            yield Pause(1e6)

        talking = self.talk(talk())
        self.assertNoResult(talking)
        self.clock.advance(MAX_PAUSE)
        self.successResultOf(talking)


class OneRun(FakeAgent):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome
        self.command = Command(argv=())

    async def run(self, command: Command) -> Outcome:
        self.command = command
        return self.outcome


class TooMuchTests(SynchronousTestCase):
    """However a panel sends more than it may, it is told as that."""

    url = "https://192.0.2.1"
    request = Request("/x.jar", limit=1000)

    def fetch(self, outcome: Outcome) -> tuple[OneRun, Deferred[int]]:
        agent = OneRun(outcome)
        work = Curl().fetch(agent, self.url, self.request, MODERN, Trust(), "/cache/x")
        return agent, Deferred.fromCoroutine(work)

    def test_a_file(self) -> None:
        agent, fetching = self.fetch(Outcome(status=0, stdout=b"200"))
        self.assertEqual(self.successResultOf(fetching), 200)
        self.assertIn("--fsize=1000", agent.command.argv)
        for outcome in (Outcome(status=63), Outcome(status=None, signal=signal.SIGXFSZ)):
            error = self.failureResultOf(self.fetch(outcome)[1], BmcError)
            self.assertIn("more than", str(error.value))

    def test_a_page(self) -> None:
        for outcome in (
            Outcome(status=63),
            Outcome(status=None, signal=signal.SIGTERM, stdout=b"x" * (1 << 20)),
            Outcome(status=0, stdout=b"x" * (1 << 20)),
        ):
            work = Curl().ask(OneRun(outcome), self.url, self.request, MODERN, Trust())
            error = self.failureResultOf(Deferred.fromCoroutine(work), ProxyError)
            self.assertIs(error.type, BmcError)
            self.assertIn("more than", str(error.value))

    def test_what_would_go_elsewhere(self) -> None:
        """Some requests are made of what a panel has said."""

        for request in (
            Request("@192.0.2.9/"),
            Request(".example.org/"),
            Request(":8080/"),
            Request("/", cookies={"a": "b\0"}),
            Request("/", headers={"X-Auth-Token": "\ud800"}),
        ):
            agent = OneRun(Outcome(status=0))
            work = Curl().ask(agent, self.url, request, MODERN, Trust())
            error = self.failureResultOf(Deferred.fromCoroutine(work), BmcError)
            self.assertNotIn("192.0.2.9", str(error.value))
            self.assertEqual(agent.command.argv, ())

    def test_a_body_that_is_no_text(self) -> None:
        agent = OneRun(Outcome(status=0, stdout=b"HTTP/1.1 200 OK\r\n\r\n"))
        work = Curl().ask(agent, self.url, Request("/", method="POST", body=b"\xff"), MODERN, Trust())
        self.successResultOf(Deferred.fromCoroutine(work))
        self.assertIn(b'data-raw = "\xff"', agent.command.stdin)

    def test_a_body_of_many_heads(self) -> None:
        interim, head = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 201 Created\nA: b\n\n"
        begun = time.monotonic()
        answer = parse_answer(interim + head + b"x\r\n\r\ny", "/", self.url)
        self.assertEqual((answer.status, answer.header("a"), answer.body), (201, "b", b"x\r\n\r\ny"))
        many = parse_answer(b"HTTP/1 200\n\n" * 80_000, "/", self.url)
        self.assertEqual((many.status, many.body[:12]), (200, b"HTTP/1 200\n\n"))
        self.assertLess(time.monotonic() - begun, 2)

    def test_it_breaks_off(self) -> None:
        self.failureResultOf(self.fetch(Outcome(status=56))[1], BmcUnreachable)
        self.assertEqual(self.successResultOf(self.fetch(Outcome(status=22, stdout=b"404"))[1]), 404)
