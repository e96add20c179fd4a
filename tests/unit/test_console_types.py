"""Types of consoles that cannot work and fall back, those that are not allowed, and what proxies add to a console."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.console.types import after, first_sentence
from ipmiproxyd.errors import (
    AgentUnreachable,
    BadValue,
    BmcAuth,
    BmcUnsupported,
    Forbidden,
    Html5Only,
    JobFailed,
    MissingArgument,
    NoLicence,
    ToolMissing,
    VendorUnknown,
)
from ipmiproxyd.model import CertificateFiles, ConsoleState, ConsoleType, Device
from tests.support.console_life import NODE, Life

ORDER: tuple[ConsoleType, ...] = ("java", "html5", "panel")


class OrderTests(SynchronousTestCase):
    def test_what_comes_after(self) -> None:
        self.assertEqual(after("java", ORDER), ("html5", "panel"))
        self.assertEqual(after("html5", ORDER), ("panel",))
        self.assertEqual(after("panel", ORDER), ())
        self.assertEqual(after("vnc", ORDER), ORDER)
        self.assertEqual(after("panel-debug", ORDER), ())
        self.assertEqual(after("java", ()), ())


class FallBackTests(Life):
    def fall(self, **how: Any) -> Mapping[str, Any]:
        return self.successResultOf(self.begin(**{"type": "java", "fall_back": ("html5", "panel"), **how}))

    def test_it_is_told(self) -> None:
        self.early = {
            "java": BmcUnsupported("Acme has no Java console."),
            "html5": NoLicence("The BMC has no licence."),
        }
        answer = self.fall()
        console = answer["console"]
        self.assertEqual((console.type, console.state), ("panel", ConsoleState.READY))
        first, second = answer["warnings"]
        self.assertEqual(
            first,
            "The Java console does not work here: Acme has no Java console. The HTML5 console is tried instead.",
        )
        self.assertIn("The HTML5 console does not work here: The BMC has no licence. The management panel is", second)
        self.assertEqual(
            [stage.name for stage in console.stages], ["page", "fall-back", "fall-back", "display", "app"]
        )
        self.assertEqual([told["text"] for told in self.told if told["stage"] == "fall-back"], [first, second])
        self.assertEqual(len(self.relay.opened), 1)
        self.assertEqual(self.manager.show(console.id).type, "panel")
        self.close(console)
        self.assert_nothing_left()

    def test_only_what_fails_has_failed_and_is_told_in_one_line(self) -> None:
        self.late = {"java": JobFailed("The program ended: exit 1. It said: " + "x" * 300)}
        answer = self.fall()
        words = "The Java console does not work here: The program ended: exit 1. The HTML5 console is tried instead."
        self.assertEqual(answer["warnings"], [words])
        stages = [(stage.name, stage.failed) for stage in answer["console"].stages]
        self.assertEqual(
            stages, [("page", False), ("display", False), ("app", True), ("fall-back", False), ("display", False),
                     ("app", False)]
        )  # fmt: skip

    def test_a_panel_of_no_known_kind_is_looked_at_once(self) -> None:
        self.early = {kind: VendorUnknown("The panel is of no known kind.") for kind in ("java", "html5")}
        answer = self.fall()
        self.assertEqual(answer["console"].type, "panel")
        (words,) = answer["warnings"]
        self.assertIn("The Java console does not work here: The panel is of no known kind. The management", words)
        self.failureResultOf(self.begin(type="java", fall_back=("html5",), existing="new"), VendorUnknown)

    def test_first_sentences(self) -> None:
        for text, first in (
            ("It ended. Then more.", "It ended."),
            ("At 10.0.0.1, e.g. there: no.", "At 10.0.0.1, e.g. there: no."),
            ("One\ntwo", "One"),
            ("x" * 300, "x" * 159 + "…"),
        ):
            self.assertEqual(first_sentence(text), first)

    def test_what_it_had_is_given_back_first(self) -> None:
        for error in (Html5Only("A page only."), JobFailed("The program ended."), ToolMissing("There is no Java.")):
            self.late = {"java": error}
            console = self.fall()["console"]
            self.assertEqual((console.type, self.pool.in_use), ("html5", 1))
            self.assertEqual(list(self.agent.running), [f"{console.id}-2"])
            self.assertIn(console.id, self.agent.stopped)
            self.close(console)
            self.assert_nothing_left()

    def test_what_cannot_be_given_back_now_is_later(self) -> None:
        self.late = {"java": Html5Only("A page only.")}
        self.agent.stop_errors = [AgentUnreachable("The agent does not answer.")]
        console = self.fall()["console"]
        self.assertEqual(sorted(self.agent.running), [console.id, f"{console.id}-2"])
        self.close(console)
        self.assert_nothing_left()

    def test_a_type_that_is_demanded_does_not(self) -> None:
        self.early = {"java": BmcUnsupported("Acme has no Java console.")}
        self.failureResultOf(self.begin(type="java"), BmcUnsupported)
        self.assert_nothing_left()

    def test_a_refused_sign_in_does_not(self) -> None:
        self.early = {"java": BmcAuth("The BMC refused the password.")}
        self.failureResultOf(self.begin(type="java", fall_back=("html5", "panel")), BmcAuth)
        self.assertNotIn("fall-back", [told["stage"] for told in self.told])
        self.assert_nothing_left()

    def test_the_last_reason_counts(self) -> None:
        self.early = {"java": Html5Only("A page only."), "html5": NoLicence("No licence.")}
        self.failureResultOf(self.begin(type="java", fall_back=("html5",)), NoLicence)
        self.assert_nothing_left()

    def test_vnc(self) -> None:
        how = {"type": "vnc", "fall_back": ("java",)}
        self.assertEqual(self.fall(**how)["console"].type, "java")
        self.assertEqual(self.fall(**how, clipboard="in", device=replace(NODE, vnc="kvm:1"))["console"].type, "java")
        there = Device(name="node18", address="192.0.2.18", vnc="192.0.2.18:5901")
        self.assertEqual(self.fall(**how, device=there)["console"].type, "vnc")
        self.failureResultOf(self.begin(type="vnc"), MissingArgument)

    def test_an_agent_without_a_browser(self) -> None:
        self.agent.browser = "none"
        for wanted in ("panel", "html5"):
            refused = self.failureResultOf(self.begin(type=wanted), ToolMissing).value
            self.assertIn("browser=none", refused.message)
        self.assertEqual((self.manager.list(), self.agent.launched), ([], []))
        self.assertEqual(self.fall()["console"].type, "java")
        vnc = {"device": Device(name="node18", address="192.0.2.18", vnc="192.0.2.18:5901"), "existing": "new"}
        self.assertEqual(self.fall(type="html5", fall_back=("panel", "vnc"), **vnc)["console"].type, "vnc")
        self.early = {"java": BmcUnsupported("Acme has no Java console.")}
        self.failureResultOf(self.begin(type="java", fall_back=("html5", "panel"), existing="new"), BmcUnsupported)

    def test_closed_in_between(self) -> None:
        self.late = {"java": Html5Only("A page only.")}
        self.agent.stop_gate = Deferred()
        opening = self.begin(type="java", fall_back=("panel",))
        self.assertNoResult(opening)
        opening.cancel()
        self.failureResultOf(opening)
        self.agent.stop_gate.callback(None)
        self.assert_nothing_left()

    def test_it_is_used_again(self) -> None:
        self.early = {"java": Html5Only("A page only.")}
        console = self.fall()["console"]
        again = self.fall()
        self.assertEqual((again["console"].id, again["reused"]), (console.id, True))
        self.assertEqual(len(again["warnings"]), 1)
        self.assertTrue(self.successResultOf(self.begin(type="html5"))["reused"])
        self.failureResultOf(self.begin(type="java"), Html5Only)

    def test_who_demands_a_type_does_not_join_one_that_may_fall_back(self) -> None:
        self.agent.gate = Deferred()
        self.begin(type="java", fall_back=("html5",))
        self.begin(type="java")
        self.assertEqual(len(self.agent.launched), 2)
        self.agent.gate.callback(None)


class AllowedTests(Life):
    debug_allowed = True

    def test_debug_mode_is_for_local_use(self) -> None:
        self.agent.name = "east"
        self.manager = self.make_manager()
        self.agent.name = "local"
        self.failureResultOf(self.begin(type="panel-debug", agent="east"), Forbidden)

    def test_a_type_that_nobody_knows_to_open(self) -> None:
        failure = self.failureResultOf(self.begin(type="panel-debug"), BadValue)
        self.assertIn("panel-debug", failure.value.message)
        self.assertEqual(self.relay.opened, [])


class ForbiddenTests(Life):
    def test_debug_mode_is_off(self) -> None:
        failure = self.failureResultOf(self.begin(type="panel-debug"), Forbidden)
        self.assertIn("[panel]", failure.value.hint)


class EncryptedTests(Life):
    FILES = CertificateFiles("/good.pem")

    def test_its_certificate(self) -> None:
        self.opened(encrypt=True, certificate=self.FILES)
        self.opened(encrypt=True)
        self.opened()
        self.assertEqual(self.relay.certificates, [self.FILES, None, None])
        self.assertEqual([one for one, _ in self.relay.judged], [self.FILES, None])

    def test_one_that_cannot_be_used(self) -> None:
        self.failureResultOf(self.begin(encrypt=True, certificate=CertificateFiles("/bad.pem")), BadValue)
        self.assert_nothing_left()

    def test_only_what_is_alike_is_shared(self) -> None:
        first = self.opened(encrypt=True, certificate=self.FILES)
        self.assertEqual(self.opened(encrypt=True, certificate=self.FILES).id, first.id)
        java = replace(NODE, java="jdk_7u80")
        ids = {self.opened(**how).id for how in ({}, {"type": "java"}, {"type": "java", "device": java})}
        self.assertEqual(len(ids | {first.id}), 4)
