"""What ipmitool's texts mean. They are copies of what ipmitool 1.8.19 really printed, unless marked otherwise."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import (
    BmcAuth,
    BmcError,
    BmcPrivilege,
    BmcState,
    BmcUnreachable,
    BmcUnsupported,
    InternalError,
    ProxyError,
    TimedOut,
    ToolMissing,
)
from ipmiproxyd.model import Device, Outcome
from ipmiproxyd.wire.ipmitool import Failure, failure, power_control, power_state

DEVICE = Device(address="192.0.2.7", username="ADMIN")

CHATTER = """\
Loading IANA PEN Registry...
Get HPM.x Capabilities request failed, compcode = d4
Running Get VSO Capabilities my_addr 0x20, transit 0, target 0x20
Invalid completion code received: Insufficient privilege level
Discovered IPMB address 0x0
"""
NO_SESSION = "Error: Unable to establish IPMI v2 / RMCP+ session\n"
NO_LAN_SESSION = "Error: Unable to establish LAN session\nError: Unable to establish IPMI v1.5 / RMCP session\n"
OPEN_ERROR = "Error in open session response message : "


def failed(stderr: str, *, status: int | None = 1, timed_out: bool = False, signal: int | None = None) -> Failure:
    outcome = Outcome(
        status=status, signal=signal, stderr=b"Loading IANA PEN Registry...\n" + stderr.encode(), timed_out=timed_out
    )
    return failure(outcome, DEVICE)


class PowerStateTests(SynchronousTestCase):
    def test_on_and_off(self) -> None:
        for word in ("on", "off"):
            outcome = Outcome(status=0, stdout=f"Chassis Power is {word}\n".encode(), stderr=CHATTER.encode())
            self.assertEqual(power_state(outcome, DEVICE), word)

    def test_state_only_as_a_line_of_its_own(self) -> None:
        outcome = Outcome(status=0, stdout=b"Chassis Power is on fire\n")
        self.assertIsInstance(power_state(outcome, DEVICE), Failure)

    def test_control_accepted(self) -> None:
        outcome = Outcome(status=0, stdout=b"Chassis Power Control: Down/Off\n", stderr=CHATTER.encode())
        self.assertIsNone(power_control(outcome, DEVICE))

    def test_control_without_a_word_is_no_success(self) -> None:
        self.assertIsInstance(power_control(Outcome(status=0), DEVICE), Failure)


class FailureTests(SynchronousTestCase):
    def assert_error(
        self, stderr: str, error: type[ProxyError], words: str, *flags: str, status: int | None = 1
    ) -> None:
        """``flags``: those of the meaning that are set, and no others."""

        found = failed(stderr, status=status)
        self.assertIs(type(found.error), error, stderr)
        self.assertIn(words, found.error.message)
        for flag in ("refused", "next_cipher", "signed_in", "repeat"):
            self.assertEqual(getattr(found.meaning, flag), flag in flags, f"{flag}: {stderr}")

    def test_wrong_password_and_unknown_user_are_told_apart(self) -> None:
        self.assert_error("> RAKP 2 HMAC is invalid\n" + NO_SESSION, BmcAuth, "refused the password of", "refused")
        self.assert_error(
            "RAKP 2 message indicates an error : unauthorized name\n" + NO_SESSION,
            BmcAuth,
            "does not know the user ADMIN",
            "refused",
        )

    def test_wrong_kg(self) -> None:
        text = "> RAKP 4 message has invalid integrity check value\n" + NO_SESSION
        self.assert_error(text, BmcAuth, "K_G", "refused")

    def test_lan_refusals(self) -> None:
        self.assert_error("Activate Session command failed\n" + NO_LAN_SESSION, BmcAuth, "password", "refused")
        self.assert_error("Invalid user name\n" + NO_LAN_SESSION, BmcAuth, "does not know the user", "refused")
        # From ipmitool's source:
        self.assert_error(
            "Activate Session error:\tNo session slot available\n" + NO_LAN_SESSION, BmcError, "sessions"
        )
        self.assert_error(
            "Activate Session error:\tRequested privilege level exceeds limit\n" + NO_LAN_SESSION,
            BmcPrivilege,
            "privilege",
        )
        self.assert_error(
            "Activate Session error:\tInsufficient privilege level\n" + NO_LAN_SESSION, BmcPrivilege, "privilege"
        )
        self.assert_error("Activate Session error:\tUnknown (0xc7)\n" + NO_LAN_SESSION, BmcError, "Unknown (0xc7)")

    def test_silent_at_the_user_name_is_not_certain(self) -> None:
        text = "> Error: no response from RAKP 1 message\n" * 4 + "Set Session Privilege Level to USER failed\n"
        self.assert_error(text + NO_SESSION, BmcAuth, "most likely")

    def test_privilege(self) -> None:
        self.assert_error(
            CHATTER + "Set Chassis Power Control to Up/On failed: Insufficient privilege level\n",
            BmcPrivilege,
            "has not the right",
            "signed_in",
        )
        # From ipmitool's source:
        self.assert_error(
            "RAKP 2 message indicates an error : unauthorized role requested\n" + NO_SESSION, BmcPrivilege, "privilege"
        )
        self.assert_error(
            "Set Session Privilege Level to ADMINISTRATOR failed: Unknown (0x81)\n" + NO_SESSION,
            BmcPrivilege,
            "privilege",
        )

    def test_no_host(self) -> None:
        self.assert_error(
            "Get Auth Capabilities error\nError issuing Get Channel Authentication Capabilities request\n" + NO_SESSION,
            BmcUnreachable,
            "192.0.2.7:623 does not answer",
        )
        self.assert_error("Get Auth Capabilities command failed\n" + NO_LAN_SESSION, BmcUnreachable, "does not answer")

    def test_no_address(self) -> None:
        self.assert_error(
            "Address lookup for nosuch.invalid failed\nCould not open socket!\n" + NO_SESSION,
            BmcUnreachable,
            "finds no address",
        )
        self.assert_error("Could not open socket!\n" + NO_SESSION, BmcUnreachable, "has no way")

    def test_fell_silent(self) -> None:
        privilege = "Set Session Privilege Level to ADMINISTRATOR failed\n"
        self.assert_error(privilege + NO_SESSION, BmcUnreachable, "stopped answering", "next_cipher", "repeat")
        self.assert_error(
            "> Error: no response from RAKP 3 message\n" * 4 + privilege + NO_SESSION,
            BmcUnreachable,
            "stopped answering",
            "next_cipher",
            "repeat",
        )

    def test_silent_after_the_sign_in(self) -> None:
        self.assert_error(
            CHATTER + "Unable to get Chassis Power Status\nClose Session command failed\n",
            BmcUnreachable,
            "did not tell the power state",
            "signed_in",
            "repeat",
        )
        self.assert_error(
            CHATTER + "Unable to set Chassis Power Control to Cycle\n",
            BmcUnreachable,
            "may have been carried out, or not",
            "signed_in",
        )

    def test_cipher_refusals(self) -> None:
        for text in (
            OPEN_ERROR + "invalid authentication algorithm\n",
            OPEN_ERROR + "no matching cipher suite\n",
            OPEN_ERROR + "invalid integrity algorithm\n",
            OPEN_ERROR + "illegal parameter\n",
            "Authentication algorithm 0x01 is not what we requested 0x03\n",
            "Unsupported cipher suite ID : 99\n",
        ):
            self.assert_error(text + NO_SESSION, BmcUnsupported, "", "next_cipher")

    def test_sessions_full(self) -> None:
        self.assert_error(
            OPEN_ERROR + "insufficient resources for session\n" + NO_SESSION, BmcError, "sessions of the BMC"
        )

    def test_only_ipmi_1_5(self) -> None:
        found = failed("This BMC does not support IPMI v2 / RMCP+\n" + NO_SESSION)
        self.assertIs(type(found.error), BmcUnsupported)
        self.assertIn("interface=lan", found.error.hint or "")

    def test_the_commands_own_refusals(self) -> None:
        for reason, error in (
            ("Invalid data field in request", BmcUnsupported),
            ("Invalid command", BmcUnsupported),
            ("Command not supported in present state", BmcState),
            ("Node busy", BmcError),
            ("Unspecified error", BmcError),
        ):
            self.assert_error(
                CHATTER + f"Set Chassis Power Control to Diag failed: {reason}\n", error, "192.0.2.7:623", "signed_in"
            )

    def test_chatter_of_a_good_session_means_nothing(self) -> None:
        """ipmitool's own questions may be refused for lack of privilege: the user's was not."""

        self.assert_error(CHATTER, BmcError, "exit status 1")

    def test_unknown_text_is_told(self) -> None:
        self.assert_error("Something \x1b[1mnew\nLast words.\n", BmcError, "Last words.")
        self.assertNotIn("..", failed("Last words.\n").error.message)

    def test_long_text_is_cut(self) -> None:
        self.assertLess(len(failed("x" * 100_000).error.message), 300)

    def test_ends(self) -> None:
        self.assertIs(type(failed("", status=None, signal=15, timed_out=True).error), TimedOut)
        self.assertIs(type(failed("", status=None, signal=11).error), InternalError)
        for text, status in (
            ("sh: 8: exec: ipmitool: not found\n", 127),
            ("setsid: failed to execute ipmitool: Permission denied\n", 126),
        ):
            self.assert_error(text, ToolMissing, "cannot run ipmitool", status=status)
        self.assert_error("", InternalError, "on a terminal", status=97)

    def test_what_was_said_before_the_limit_counts(self) -> None:
        found = failed("> Error: no response from RAKP 1 message\n", status=None, signal=15, timed_out=True)
        self.assertIs(type(found.error), BmcAuth)

    def test_user_without_a_name(self) -> None:
        outcome = Outcome(status=1, stderr=b"> RAKP 2 HMAC is invalid\n")
        self.assertIn('user ""', failure(outcome, Device(address="192.0.2.7")).error.message)
