"""Power by ipmitool: what is run, how often, by whom at once, and what is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import (
    BadValue,
    BmcAuth,
    BmcError,
    BmcState,
    BmcUnreachable,
    BmcUnsupported,
    LimitReached,
    TimedOut,
)
from ipmiproxyd.interfaces import Power
from ipmiproxyd.model import BMC_CIPHER, BMC_REFUSED, Device, Secret
from ipmiproxyd.tools.ipmitool import ACTIONS, ENTERPRISE_NUMBERS, IpmiPower
from ipmiproxyd.tools.turns import QUEUE_PER_KEY
from tests.support.fake_bmc import (
    FELL_SILENT,
    NO_HOST,
    NO_POWER_STATE,
    FakeAgent,
    FakeBmc,
    option,
)
from tests.support.memory_store import MemoryStore

DEVICE = Device(name="node17", address="192.0.2.7", username="ADMIN", password=Secret("secret1"), cipher="3")
AUTO = Device(name="node17", address="192.0.2.7", username="ADMIN", password=Secret("secret1"))
WRONG = Device(name="node17", address="192.0.2.7", username="ADMIN", password=Secret("hunter2"), cipher="3")


class PowerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.bmc = FakeBmc()
        self.agent = FakeAgent(self.bmc)
        self.power = self.make()
        self.lines: list[Mapping[str, Any]] = []

    def make(self, **settings: Any) -> IpmiPower:
        return IpmiPower(lambda _name: self.agent, self.store, cast(IReactorTime, self.clock), **settings)

    def status(self, device: Device = DEVICE, **more: Any) -> Deferred[str]:
        return Deferred.fromCoroutine(self.power.status(device, **more))

    def act(self, action: str, device: Device = DEVICE, **more: Any) -> Deferred[Mapping[str, Any]]:
        return Deferred.fromCoroutine(self.power.act(device, action, progress=self.lines.append, **more))


class CommandLineTests(PowerCase):
    def test_is_a_power(self) -> None:
        power: Power = self.power
        self.assertIsNotNone(power)

    def test_status(self) -> None:
        self.assertEqual(self.successResultOf(self.status()), "off")
        command = self.agent.commands[0]
        self.assertEqual(command.argv[:2], ("ipmitool", "-v"))
        expected = {"-I": "lanplus", "-H": "192.0.2.7", "-p": "623", "-U": "ADMIN", "-L": "ADMINISTRATOR", "-C": "3"}
        self.assertEqual({flag: option(command, flag) for flag in expected}, expected)
        self.assertEqual(option(command, "-f"), "/dev/stdin")
        self.assertEqual(command.argv[-3:], ("chassis", "power", "status"))
        self.assertEqual(command.stdin, b"secret1\n")

    def test_lan_has_no_cipher_suite(self) -> None:
        device = Device(address="192.0.2.7", password=Secret("secret1"), interface="lan", privilege="operator")
        self.successResultOf(self.status(device))
        self.assertNotIn("-C", self.agent.commands[0].argv)
        self.assertEqual(option(self.agent.commands[0], "-I"), "lan")
        self.assertEqual(option(self.agent.commands[0], "-L"), "OPERATOR")

    def test_empty_password_is_a_line(self) -> None:
        """Without a line ipmitool would prompt."""

        self.bmc.password = ""
        self.successResultOf(self.status(Device(address="192.0.2.7", cipher="3")))
        self.assertEqual(self.agent.commands[0].stdin, b"\n")

    def test_kg_goes_by_stdin_only(self) -> None:
        device = Device(address="192.0.2.7", password=Secret("secret1"), kg=Secret("4b6579FF0000"), cipher="3")
        self.successResultOf(self.status(device))
        command = self.agent.commands[0]
        self.assertEqual(command.argv[:2], ("sh", "-c"))
        self.assertEqual(command.stdin, b"secret1\nKey\xff\n")
        self.assertNotIn("secret1", "".join(command.argv))
        self.assertNotIn("Key", "".join(command.argv))
        self.assertNotIn("4b65", "".join(command.argv))

    def test_what_ipmitool_would_cut_is_refused(self) -> None:
        fields: dict[str, Any]
        for fields in (
            {"password": Secret("x" * 21)},
            {"password": Secret("é" * 11)},
            {"password": Secret("x" * 17), "interface": "lan"},
            {"password": Secret("a\tb")},
            {"password": Secret("a\nb")},
            {"username": "x" * 17},
            {"kg": Secret("aa00bb")},
            {"kg": Secret("aa0abb")},
            {"cipher": "0"},
        ):
            failure = self.failureResultOf(self.status(Device(address="bmc", **fields)), BadValue)
            self.assertNotIn("xxx", failure.getErrorMessage())
        self.assertEqual(self.agent.commands, [])

    def test_what_just_fits_is_taken(self) -> None:
        for interface, length in (("lanplus", 20), ("lan", 16)):
            self.bmc.password = "x" * length
            fields: dict[str, Any] = {"interface": interface, "password": Secret("x" * length), "cipher": "3"}
            self.assertEqual(self.successResultOf(self.status(Device(address="bmc", **fields))), "off")

    def test_no_secret_in_the_command_as_it_prints(self) -> None:
        self.successResultOf(self.status())
        self.assertNotIn("secret1", repr(self.agent.commands))

    def test_enterprise_numbers_are_not_empty(self) -> None:
        """An empty file makes ipmitool fail."""

        self.assertTrue(ENTERPRISE_NUMBERS.startswith("0\n  Reserved\n"))


class ActionTests(PowerCase):
    def test_actions(self) -> None:
        for action, plan in ACTIONS.items():
            self.bmc.power = plan.needs
            self.assertEqual(self.successResultOf(self.act(action)), {"action": action, "power": None})
            self.assertEqual(self.bmc.actions.pop(), action)

    def test_already_in_that_state(self) -> None:
        for action in ACTIONS:
            self.bmc.power = "on" if action == "on" else "off"
            message = self.failureResultOf(self.act(action), BmcState).getErrorMessage()
            self.assertIn("node17", message)
            self.assertIn("already" if action in ("on", "off") else "needs it on", message)
        self.assertEqual(self.bmc.actions, [])

    def test_unknown_action(self) -> None:
        self.failureResultOf(self.act("explode"), BadValue)
        self.assertEqual(self.agent.commands, [])

    def test_progress(self) -> None:
        self.successResultOf(self.act("on"))
        self.assertEqual([line["stage"] for line in self.lines], ["check", "act"])

    def test_silence_after_the_action_is_not_repeated(self) -> None:
        """It may have been carried out: a second "cycle" would be another one."""

        self.bmc.power = "on"
        tool = self.agent.tool
        self.agent.tool = lambda command: (
            FakeBmc._failed("Unable to set Chassis Power Control to Cycle\n")
            if command.argv[-1] == "cycle"
            else tool(command)
        )
        self.failureResultOf(self.act("cycle"), BmcUnreachable)
        self.assertEqual(self.agent.words, ["status", "cycle"])


class PatienceTests(PowerCase):
    def test_dead_host_is_asked_once(self) -> None:
        self.bmc.failures = [NO_HOST]
        self.failureResultOf(self.status(AUTO), BmcUnreachable)
        self.assertEqual(len(self.agent.commands), 1)
        self.assertLess(self.agent.commands[0].timeout, 5)

    def test_lost_answer_is_asked_for_again_with_more_patience(self) -> None:
        self.bmc.failures = [NO_POWER_STATE]
        self.assertEqual(self.successResultOf(self.status()), "off")
        first, second = (int(option(command, "-R") or 0) for command in self.agent.commands)
        self.assertGreater(second, first)

    def test_only_once_more(self) -> None:
        self.bmc.failures = [FELL_SILENT, FELL_SILENT, FELL_SILENT]
        self.failureResultOf(self.status(), BmcUnreachable)
        self.assertEqual(len(self.agent.commands), 2)


class CipherTests(PowerCase):
    def tried(self) -> list[str | None]:
        return [option(command, "-C") for command in self.agent.commands]

    def remembered(self) -> list[int]:
        return [document["cipher"] for document in self.store.documents.get(BMC_CIPHER, {}).values()]

    def test_auto_tries_in_order_and_remembers(self) -> None:
        self.successResultOf(self.status(AUTO))
        self.successResultOf(self.status(AUTO))
        self.assertEqual(self.tried(), ["17", "3", "3"])
        self.assertEqual(self.remembered(), [3])

    def test_each_agent_remembers_by_itself(self) -> None:
        self.successResultOf(self.status(AUTO))
        self.successResultOf(self.status(AUTO, agent="other"))
        self.assertEqual(self.tried(), ["17", "3", "17", "3"])

    def test_action_uses_what_the_question_found(self) -> None:
        self.successResultOf(self.act("on", AUTO))
        self.assertEqual(list(zip(self.agent.words, self.tried(), strict=True))[-1], ("on", "3"))

    def test_remembered_suite_that_is_refused_is_tried_anew(self) -> None:
        self.successResultOf(self.status(AUTO))
        self.bmc.ciphers = (17,)
        self.successResultOf(self.status(AUTO))
        self.assertEqual(self.tried(), ["17", "3", "3", "17"])
        self.assertEqual(self.remembered(), [17])

    def test_none_accepted(self) -> None:
        self.bmc.ciphers = (0, 1, 2)
        message = self.failureResultOf(self.status(AUTO), BmcUnsupported).getErrorMessage()
        self.assertIn("17, 3", message)
        self.assertEqual(self.tried(), ["17", "3"])
        self.assertEqual({option(command, "-I") for command in self.agent.commands}, {"lanplus"})

    def test_silence_may_be_the_suites_fault(self) -> None:
        self.bmc.silent_ciphers = (17,)
        self.assertEqual(self.successResultOf(self.status(AUTO)), "off")
        self.assertEqual(self.tried(), ["17", "3"])

    def test_wrong_password_ends_the_search(self) -> None:
        self.bmc.ciphers = (17, 3)
        device = Device(address="192.0.2.7", password=Secret("hunter2"))
        self.failureResultOf(self.status(device), BmcAuth)
        self.assertEqual(self.tried(), ["17"])
        self.assertEqual(self.remembered(), [])

    def test_fixed_suite_is_the_only_one(self) -> None:
        device = Device(address="192.0.2.7", password=Secret("secret1"), cipher="17")
        self.failureResultOf(self.status(device), BmcUnsupported)
        self.assertEqual(self.tried(), ["17"])
        self.assertEqual(self.remembered(), [])

    def test_remembered_suite_that_is_no_longer_allowed(self) -> None:
        self.successResultOf(self.status(AUTO))
        self.power = self.make(ciphers=(17,))
        self.failureResultOf(self.status(AUTO), BmcUnsupported)
        self.assertEqual(self.tried(), ["17", "3", "17"])


class RefusalTests(PowerCase):
    def test_refused_credentials_are_not_repeated(self) -> None:
        first = self.failureResultOf(self.status(WRONG), BmcAuth).getErrorMessage()
        second = self.failureResultOf(self.act("on", WRONG), BmcAuth).getErrorMessage()
        self.assertEqual(self.bmc.sign_ins, 1)
        self.assertIn(first, second)
        self.assertIn("not been tried again", second)

    def test_other_credentials_are_tried(self) -> None:
        self.failureResultOf(self.status(WRONG), BmcAuth)
        self.assertEqual(self.successResultOf(self.status(DEVICE)), "off")
        self.failureResultOf(self.status(WRONG), BmcAuth)
        self.assertEqual(self.bmc.sign_ins, 2)

    def test_user_name_is_one_of_the_credentials(self) -> None:
        self.failureResultOf(self.status(WRONG), BmcAuth)
        other = Device(address="192.0.2.7", username="oper", password=Secret("hunter2"), cipher="3")
        self.failureResultOf(self.status(other), BmcAuth)
        self.assertEqual(self.bmc.sign_ins, 2)

    def test_another_bmc_is_another_matter(self) -> None:
        self.failureResultOf(self.status(WRONG), BmcAuth)
        other = Device(address="192.0.2.8", username="ADMIN", password=Secret("hunter2"), cipher="3")
        self.failureResultOf(self.status(other), BmcAuth)
        self.assertEqual(self.bmc.sign_ins, 2)

    def test_force(self) -> None:
        self.failureResultOf(self.status(WRONG), BmcAuth)
        self.failureResultOf(self.status(WRONG, force=True), BmcAuth)
        self.assertEqual(self.bmc.sign_ins, 2)
        self.bmc.password = "hunter2"
        self.assertEqual(self.successResultOf(self.status(WRONG, force=True)), "off")
        self.assertEqual(self.successResultOf(self.status(WRONG)), "off")
        self.assertEqual(self.store.documents[BMC_REFUSED], {})

    def test_who_waits_for_a_refused_one_does_not_repeat_it(self) -> None:
        self.agent.holding = True
        first, second = self.status(WRONG), self.status(WRONG)
        self.agent.release()
        self.failureResultOf(first, BmcAuth)
        self.failureResultOf(second, BmcAuth)
        self.assertEqual(self.bmc.sign_ins, 1)

    def test_only_what_the_bmc_has_judged(self) -> None:
        self.bmc.failures = [NO_HOST]
        self.failureResultOf(self.status(), BmcUnreachable)
        self.assertEqual(self.successResultOf(self.status()), "off")

    def test_password_is_not_in_the_store(self) -> None:
        self.failureResultOf(self.status(WRONG), BmcAuth)
        self.assertIn("salt", next(iter(self.store.documents[BMC_REFUSED].values())))
        self.assertNotIn("hunter2", repr(self.store.documents))

    def test_memory_is_bounded(self) -> None:
        for number in range(40):
            device = Device(address="192.0.2.7", password=Secret(f"wrong{number}"), cipher="3")
            self.failureResultOf(self.status(device), BmcAuth)
        (document,) = self.store.documents[BMC_REFUSED].values()
        self.assertEqual(len(document["refused"]), 16)
        newest = Device(address="192.0.2.7", password=Secret("wrong39"), cipher="3")
        self.failureResultOf(self.status(newest), BmcAuth)
        self.assertEqual(self.bmc.sign_ins, 40)


class TurnTests(PowerCase):
    def setUp(self) -> None:
        super().setUp()
        self.agent.holding = True

    @staticmethod
    def device(number: int) -> Device:
        return Device(address=f"192.0.2.{number}", password=Secret("secret1"), cipher="3")

    def test_one_at_a_time_per_bmc(self) -> None:
        first, second = self.status(), self.status()
        self.assertEqual(len(self.agent.held), 1)
        self.agent.release()
        self.successResultOf(first)
        self.assertEqual(len(self.agent.held), 1)
        self.agent.release()
        self.successResultOf(second)

    def test_nobody_comes_between_the_question_and_the_action(self) -> None:
        self.act("on")
        self.status()
        for _ in range(3):
            self.agent.release()
        self.assertEqual(self.agent.words, ["status", "on", "status"])

    def test_other_bmcs_do_not_wait(self) -> None:
        for number in range(5):
            self.status(self.device(number + 1))
        self.assertEqual(len(self.agent.held), 5)

    def test_bounded_over_all(self) -> None:
        self.power = self.make(parallel=3)
        results = [self.status(self.device(number + 1)) for number in range(8)]
        most = 0
        while self.agent.held:
            most = max(most, len(self.agent.held))
            self.agent.release()
        self.assertEqual(most, 3)
        self.assertEqual([self.successResultOf(result) for result in results], ["off"] * 8)

    def test_waiting_has_a_limit(self) -> None:
        first, second = self.status(), self.status()
        self.clock.advance(20)
        self.assertIn("192.0.2.7", self.failureResultOf(second, TimedOut).getErrorMessage())
        self.assertNoResult(first)
        self.agent.release()
        self.successResultOf(first)
        self.agent.holding = False
        self.assertEqual(self.successResultOf(self.status()), "off")

    def test_queue_has_a_limit(self) -> None:
        waiting = [self.status() for _ in range(QUEUE_PER_KEY + 1)]
        self.failureResultOf(self.status(), LimitReached)
        for result in waiting:
            result.cancel()
            self.failureResultOf(result, CancelledError)

    def test_cancelled_run_gives_its_turn_back(self) -> None:
        first, second = self.status(), self.status()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.agent.cancelled, 1)
        self.agent.release()
        self.successResultOf(second)

    def test_cancelled_waiter_leaves_the_queue(self) -> None:
        first, second, third = self.status(), self.status(), self.status()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.agent.release()
        self.successResultOf(first)
        self.agent.release()
        self.successResultOf(third)
        self.assertEqual(len(self.agent.commands), 2)

    def test_nothing_is_kept_of_a_turn(self) -> None:
        for number in range(5):
            self.status(self.device(number + 1))
        while self.agent.held:
            self.agent.release()
        self.assertEqual(self.power._turns._locks, {})


class WaitTests(PowerCase):
    def slow(self, action: str, power: str) -> None:
        """The BMC accepts the action, and then reports ``power`` until told otherwise."""

        self.bmc.power = ACTIONS[action].needs
        self.bmc.leads_to[action] = power

    def test_waits_until_the_state_is_reported(self) -> None:
        self.slow("soft", "on")
        result = self.act("soft", wait=30)
        self.clock.pump([1] * 5)
        self.assertNoResult(result)
        self.bmc.power = "off"
        self.clock.pump([1] * 3)
        self.assertEqual(self.successResultOf(result), {"action": "soft", "power": "off"})
        waiting = [line for line in self.lines if line["stage"] == "wait"]
        self.assertEqual({line["power"] for line in waiting}, {"on", "off"})
        self.assertEqual(sorted(line["ms"] for line in self.lines), [line["ms"] for line in self.lines])

    def test_gives_up_in_time(self) -> None:
        self.slow("soft", "on")
        result = self.act("soft", wait=30)
        self.clock.pump([0.5] * 59)
        self.assertNoResult(result)
        self.clock.advance(0.5)
        self.assertIn("still reports that the server is on", self.failureResultOf(result, TimedOut).getErrorMessage())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_asks_seldom(self) -> None:
        self.slow("soft", "on")
        result = self.act("soft", wait=60)
        self.clock.pump([0.25] * 240)
        self.failureResultOf(result, TimedOut)
        self.assertLess(len(self.agent.commands), 30)

    def test_question_under_way_when_the_time_is_up(self) -> None:
        result = self.act("on", wait=5)
        self.agent.holding = True
        self.bmc.power = "off"
        self.clock.pump([0.5] * 10)
        self.failureResultOf(result, TimedOut)
        self.assertEqual(self.agent.cancelled, 1)

    def test_silence_meanwhile_is_no_reason_to_give_up(self) -> None:
        result = self.act("on", wait=30)
        self.bmc.failures = [NO_HOST, "Set Session Privilege Level to ADMINISTRATOR failed: Node busy\n"]
        self.clock.pump([1] * 10)
        self.assertEqual(self.successResultOf(result)["power"], "on")

    def test_refusal_meanwhile_is(self) -> None:
        result = self.act("on", wait=30)
        self.bmc.password = "changed"
        self.clock.pump([1] * 3)
        self.failureResultOf(result, BmcAuth)

    def test_cycle_waits_for_off_and_on(self) -> None:
        self.slow("cycle", "on")
        result = self.act("cycle", wait=60)
        self.clock.pump([1] * 3)
        self.assertNoResult(result)
        self.bmc.power = "off"
        self.clock.pump([1] * 20)
        self.assertNoResult(result)
        self.bmc.power = "on"
        self.clock.pump([1] * 3)
        self.assertEqual(self.successResultOf(result), {"action": "cycle", "power": "on"})

    def test_cycle_too_short_to_be_seen(self) -> None:
        self.slow("cycle", "on")
        result = self.act("cycle", wait=60)
        self.clock.pump([1] * 15)
        self.assertEqual(self.successResultOf(result)["power"], "on")

    def test_reset_and_diag_have_nothing_to_await(self) -> None:
        for action in ("reset", "diag"):
            self.bmc.power = "on"
            self.assertEqual(self.successResultOf(self.act(action, wait=30)), {"action": action, "power": None})

    def test_others_are_served_meanwhile(self) -> None:
        self.slow("soft", "on")
        self.act("soft", wait=30).addErrback(lambda failure: failure.trap(TimedOut))
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(self.status()), "on")
        self.clock.pump([1] * 31)

    def test_cancelled(self) -> None:
        self.slow("soft", "on")
        result = self.act("soft", wait=30)
        self.clock.advance(1)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ErrorTests(PowerCase):
    def test_busy(self) -> None:
        self.bmc.failures = ["Get Chassis Power Status failed: Node busy\n"]
        self.failureResultOf(self.status(), BmcError)
