"""What a run of ``ipmitool -v`` means.

ipmitool's exit status is 1 whatever went wrong, and its last line is the same for a wrong password and for a dead
host: only the texts that ``-v`` adds tell them apart. They stand here as tables, the most telling first. The texts
are those of ipmitool 1.8.18 and 1.8.19.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

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

PowerState = Literal["on", "off"]

NO_TERMINAL_STATUS: Final = 97
"""Exit status by which our own small shell script says that it refuses to run on a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What one text means. ``message`` and ``hint`` may name {bmc}, {user} and {detail}.

    :ivar refused: the BMC judged these credentials and refused them: they are not to be tried again.
    :ivar next_cipher: nothing was judged yet, and another cipher suite may be accepted.
    :ivar signed_in: the session was open, so the credentials and the cipher suite are right.
    :ivar repeat: an answer was lost or late; asking once more, with more patience, may help.
    """

    error: type[ProxyError]
    message: str
    hint: str | None = None
    refused: bool = False
    next_cipher: bool = False
    signed_in: bool = False
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that did not do what it should: what it means, and the error to tell the user."""

    meaning: Meaning
    error: ProxyError


_PASSWORD = Meaning(
    error=BmcAuth,
    message="The BMC {bmc} refused the password of user {user}.",
    hint="Correct the password; force=yes tries the same one again.",
    refused=True,
)
_USER = Meaning(
    error=BmcAuth,
    message="The BMC {bmc} does not know the user {user}, or does not let this user in over the network.",
    hint="Correct the user name, or enable IPMI over LAN for the user; force=yes tries the same one again.",
    refused=True,
)
_KG = Meaning(
    error=BmcAuth,
    message="The BMC {bmc} accepts the password of user {user}, but its K_G key is another one.",
    hint="Correct kg= (in hexadecimal digits), or leave it empty if the BMC has none.",
    refused=True,
)
_ROLE = Meaning(
    error=BmcPrivilege,
    message="The BMC {bmc} does not grant user {user} the requested privilege level.",
    hint="Ask for a lower one (privilege=operator), or raise the user's privilege in the BMC.",
)
_CIPHER = Meaning(
    error=BmcUnsupported,
    message="The BMC {bmc} refuses the cipher suite.",
    hint="Try cipher=auto, or cipher=3.",
    next_cipher=True,
)
_FULL = Meaning(
    error=BmcError,
    message="All IPMI sessions of the BMC {bmc} are in use.",
    hint="Try again in a minute: forgotten sessions time out.",
)
_SILENT = Meaning(
    error=BmcUnreachable,
    message="The BMC {bmc} does not answer.",
    hint="Is the address right, is the BMC powered, and does the network let UDP through to this port?",
)
_FELL_SILENT = Meaning(
    error=BmcUnreachable,
    message="The BMC {bmc} answers, but stopped answering while the session was being opened.",
    hint="It may be restarting or overloaded; try again in a minute.",
    next_cipher=True,
    repeat=True,
)
_LOOKUP = Meaning(
    error=BmcUnreachable,
    message="The agent finds no address for the name of the BMC {bmc}.",
    hint="Correct the host name, or give the IP address.",
)
_NO_ROUTE = Meaning(
    error=BmcUnreachable,
    message="The agent has no way to the BMC {bmc}.",
    hint="Is the agent connected to the BMC network?",
)

_TEXTS: Final[tuple[tuple[str, Meaning], ...]] = (
    ("RAKP 2 HMAC is invalid", _PASSWORD),
    ("RAKP 4 message has invalid integrity check value", _KG),
    ("unauthorized name", _USER),
    ("invalid name length", _USER),
    ("Invalid user name", _USER),
    ("NULL user name not enabled", _USER),
    ("unauthorized role requested", _ROLE),
    ("invalid role", _ROLE),
    ("Requested privilege level exceeds limit", _ROLE),
    ("No slot available to support user due to maximum privilege", _ROLE),
    ("RAKP 4 message indicates an error : invalid integrity check value", _PASSWORD),
    ("RAKP 2 message indicates an error : invalid integrity check value", _PASSWORD),
    ("insufficient resources for", _FULL),
    ("No session slot available", _FULL),
    ("No slot available for given user", _FULL),
    ("no matching cipher suite", _CIPHER),
    ("invalid authentication algorithm", _CIPHER),
    ("invalid integrity algorithm", _CIPHER),
    ("invalid confidentiality algorithm", _CIPHER),
    ("no matching authentication", _CIPHER),
    ("no matching integrity", _CIPHER),
    ("is not what we requested", _CIPHER),
    (
        "Error in open session response message : illegal parameter",
        Meaning(
            error=BmcUnsupported,
            message="The BMC {bmc} refuses the kind of session that was asked for.",
            hint="Try cipher=auto or cipher=3, and a lower privilege.",
            next_cipher=True,
        ),
    ),
    (
        "Unsupported cipher suite ID",
        Meaning(
            error=BmcUnsupported,
            message="The ipmitool on the agent does not know this cipher suite.",
            hint="Try cipher=auto, or cipher=3.",
            next_cipher=True,
        ),
    ),
    (
        "This BMC does not support IPMI v2",
        Meaning(
            error=BmcUnsupported,
            message="The BMC {bmc} does not speak IPMI 2.0.",
            hint="interface=lan speaks IPMI 1.5, without encryption: use it only on a network of its own.",
        ),
    ),
    (
        "No supported authtypes found",
        Meaning(
            error=BmcUnsupported,
            message="The BMC {bmc} offers no way to sign in by IPMI 1.5.",
            hint="Try interface=lanplus.",
        ),
    ),
    (
        # IPMI 1.5 has no word for a wrong password: the BMC drops the packet.
        "Activate Session command failed",
        Meaning(
            error=BmcAuth,
            message="The BMC {bmc} fell silent at the sign-in of user {user}: over IPMI 1.5 this means that it "
            "refused the password.",
            hint="Correct the password; force=yes tries the same one again.",
            refused=True,
        ),
    ),
    (
        # Some BMCs never answer for a user that they do not know. That is likely here, but not certain.
        "no response from RAKP 1 message",
        Meaning(
            error=BmcAuth,
            message="The BMC {bmc} answers, but not to the sign-in of user {user}: most likely it does not know "
            "this user.",
            hint="Correct the user name. If it is right, the BMC may be overloaded: try again in a minute.",
        ),
    ),
    ("Address lookup for", _LOOKUP),
    ("Could not open socket", _NO_ROUTE),
    ("Get Auth Capabilities error", _SILENT),
    ("Get Auth Capabilities command failed", _SILENT),
    (
        "Unable to get Chassis Power Status",
        Meaning(
            error=BmcUnreachable,
            message="The BMC {bmc} accepted the sign-in, but did not tell the power state.",
            hint="It may be overloaded; try again in a minute.",
            signed_in=True,
            repeat=True,
        ),
    ),
    (
        "Unable to set Chassis Power Control",
        Meaning(
            error=BmcUnreachable,
            message="The BMC {bmc} did not confirm the power action: it may have been carried out, or not.",
            hint="Look at the power state before repeating it.",
            signed_in=True,
        ),
    ),
    ("no response from RAKP 3 message", _FELL_SILENT),
    ("Unable to establish", _FELL_SILENT),
)
"""(a part of ipmitool's text, what it means), the most telling first."""

# Texts that hold a completion code of the BMC. ipmitool also prints such codes for questions of its own, which may
# fail without harm ("Invalid completion code received: …"): those are no concern of ours.
_REFUSALS: Final = re.compile(
    r"^(?P<what>Set Chassis Power Control to \S+|Get Chassis Power Status|Set Session Privilege Level to \S+"
    r"|Get Auth Capabilities (?:error|command)|Get Session Challenge command|Activate Session error)"
    r"(?: failed)?:\s*(?P<reason>\S.*?)\s*$",
    re.MULTILINE,
)
_SIGN_IN: Final = ("Get Auth", "Get Session", "Activate Session")

_UNSUPPORTED = Meaning(
    error=BmcUnsupported, message="The BMC {bmc} does not support this action ({detail}).", signed_in=True
)
_PRIVILEGE = Meaning(
    error=BmcPrivilege,
    message="The user {user} has not the right to do this on the BMC {bmc}.",
    hint="Ask for a higher level (privilege=administrator), or raise the user's privilege in the BMC.",
    signed_in=True,
)
_BUSY = Meaning(
    error=BmcError,
    message="The BMC {bmc} is busy ({detail}).",
    hint="Try again in a minute.",
    signed_in=True,
)
_OTHER = Meaning(error=BmcError, message="The BMC {bmc} answered with an error: {detail}.", signed_in=True)

_REASONS: Final[dict[str, Meaning]] = {
    "Invalid command": _UNSUPPORTED,
    "Invalid command on LUN": _UNSUPPORTED,
    "Invalid data field in request": _UNSUPPORTED,
    "Parameter out of range": _UNSUPPORTED,
    "Cannot execute command, command disabled": _UNSUPPORTED,
    "Insufficient privilege level": _PRIVILEGE,
    "Command not supported in present state": Meaning(
        error=BmcState,
        message="The BMC {bmc} does not do this in the server's present state.",
        hint="Look at the power state first.",
        signed_in=True,
    ),
    "Node busy": _BUSY,
    "Timeout": _BUSY,
    "Out of space": _BUSY,
    "BMC initialization in progress": _BUSY,
    "Device firmware in update mode": _BUSY,
    "SDR Repository in update mode": _BUSY,
}
"""The BMC's completion code, in ipmitool's words."""

_NO_SESSION = Meaning(error=BmcError, message="The BMC {bmc} refused the session: {detail}.")
_TOO_SLOW = Meaning(
    error=TimedOut,
    message="The BMC {bmc} took too long to answer.",
    hint="It may be overloaded; try again in a minute.",
    next_cipher=True,
    repeat=True,
)
_KILLED = Meaning(error=InternalError, message="ipmitool on the agent was ended by signal {detail}.")
_MISSING = Meaning(
    error=ToolMissing, message="The agent cannot run ipmitool.", hint="Install the package ipmitool on the agent."
)
_TERMINAL = Meaning(
    error=InternalError, message="The agent runs ipmitool on a terminal, on which a K_G key cannot be handed over."
)
_ENDS: Final = {NO_TERMINAL_STATUS: _TERMINAL, 126: _MISSING, 127: _MISSING}
"""Exit statuses of the shell and its like: ipmitool itself has only 0 and 1."""

_UNKNOWN = Meaning(error=BmcError, message="ipmitool failed on the BMC {bmc}: {detail}.")

_STATE = re.compile(r"^Chassis Power is (on|off)\s*$", re.MULTILINE)
_CONTROL = re.compile(r"^Chassis Power Control: ", re.MULTILINE)
_CHATTER = ("Loading IANA", "Running Get", "Discovered IPMB", "Invalid completion code", "Get HPM.x")
_DETAIL_LIMIT = 160


def power_state(outcome: Outcome, device: Device) -> PowerState | Failure:
    """The meaning of ``chassis power status``."""

    found = _STATE.search(_text(outcome.stdout))
    if found is None:
        return failure(outcome, device)
    return "on" if found[1] == "on" else "off"


def power_control(outcome: Outcome, device: Device) -> Failure | None:
    """The meaning of ``chassis power on`` and its like; None: the BMC has accepted it."""

    return None if _CONTROL.search(_text(outcome.stdout)) else failure(outcome, device)


def failure(outcome: Outcome, device: Device) -> Failure:
    """The meaning of a run that did not print what it should."""

    text = _text(outcome.stderr) + "\n" + _text(outcome.stdout)
    meaning, detail = _by_reason(text) or _by_text(text) or _by_end(outcome, text)
    words = {"bmc": device.bmc, "user": device.username or '""', "detail": detail}
    hint = None if meaning.hint is None else meaning.hint.format(**words)
    return Failure(meaning, meaning.error(meaning.message.format(**words), hint=hint))


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace")


def _by_reason(text: str) -> tuple[Meaning, str] | None:
    found = _REFUSALS.search(text)
    if found is None:
        return None
    what, reason = found["what"], found["reason"][:_DETAIL_LIMIT]
    meaning = _REASONS.get(reason, _OTHER)
    if meaning is not _BUSY and what.startswith("Set Session Privilege"):
        meaning = _ROLE
    elif what.startswith(_SIGN_IN):
        known = _by_text(reason)
        meaning = known[0] if known else _ROLE if meaning is _PRIVILEGE else _NO_SESSION
    return meaning, reason


def _by_text(text: str) -> tuple[Meaning, str] | None:
    return next(((meaning, part) for part, meaning in _TEXTS if part in text), None)


def _by_end(outcome: Outcome, text: str) -> tuple[Meaning, str]:
    """ipmitool said nothing that is known: tell how it ended."""

    if outcome.timed_out:
        return _TOO_SLOW, ""
    if outcome.signal is not None:
        return _KILLED, str(outcome.signal)
    if outcome.status in _ENDS:
        return _ENDS[outcome.status], ""
    said = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_CHATTER)]
    last = "".join(mark for mark in said[-1] if mark.isprintable()) if said else f"exit status {outcome.status}"
    return _UNKNOWN, last[:_DETAIL_LIMIT].rstrip(".")
