"""The types of consoles: what people call them, where each is allowed, and which takes the place of which."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ipmiproxyd.errors import (
    BadJnlp,
    BadValue,
    BmcUnsupported,
    Forbidden,
    Html5Only,
    JobFailed,
    MissingArgument,
    NoLicence,
    ProxyError,
    ToolMissing,
    VendorUnknown,
)
from ipmiproxyd.model import NO_BROWSER, ConsoleType, OpenRequest

LABELS: Final[Mapping[ConsoleType, str]] = {
    "java": "automatically download and run the Java console",
    "panel": "start a web browser with access to the management panel",
    "panel-debug": "start a web browser in debug mode, for local use",
    "html5": "show the panel's HTML5 console, signed in",
    "vnc": "show the server's own VNC server",
}
"""What forms call them: the first three as EasyDCIM does."""

NAMES: Final[Mapping[ConsoleType, str]] = {
    "java": "Java console",
    "html5": "HTML5 console",
    "panel": "management panel",
    "panel-debug": "management panel in debug mode",
    "vnc": "VNC server",
}

CANNOT_WORK: Final = (BmcUnsupported, Html5Only, NoLicence, ToolMissing, BadJnlp, VendorUnknown, JobFailed)
"""Why another type may do better. A refused sign-in is not among them: it would be the same for every type."""

NEED_A_BROWSER: Final[Sequence[ConsoleType]] = ("panel", "panel-debug", "html5")

NEED_A_FAMILY: Final[Sequence[ConsoleType]] = ("java", "html5")
"""What takes a panel that is recognised."""

SENTENCE: Final = 160
"""Characters of a reason that stands among others."""


def first_sentence(text: str) -> str:
    """Of a message, on one line: what its page has room for."""

    words = re.split(r"(?<=[.!?])\s+(?=[^a-z])|\n", text.strip(), maxsplit=1)[0]
    return words if len(words) <= SENTENCE else words[: SENTENCE - 1].rstrip() + "…"


def still_worth(types: Sequence[ConsoleType], error: ProxyError) -> list[ConsoleType]:
    """Those that may work where another one did not: a panel that nobody knows is not looked at once more."""

    return [one for one in types if not (isinstance(error, VendorUnknown) and one in NEED_A_FAMILY)]


def after(wanted: ConsoleType, order: Sequence[ConsoleType]) -> tuple[ConsoleType, ...]:
    """The types to fall back to, in this order: those behind ``wanted``, or all if it is not in there. The browser in
    debug mode is nothing that one falls back from."""

    if wanted == "panel-debug":
        return ()
    rest = order[order.index(wanted) + 1 :] if wanted in order else order
    return tuple(rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Types:
    """Which types there may be.

    :ivar debug: consoles of type ``panel-debug`` are allowed.
    :ivar is_local: whether an agent is the daemon's own machine.
    """

    debug: bool
    is_local: Callable[[str], bool]

    def allow(self, wanted: ConsoleType, agent: str) -> None:
        """Raises Forbidden for a type that may not be opened on this agent."""

        if wanted != "panel-debug":
            return
        if not self.debug:
            raise Forbidden(
                "The browser's debug mode is switched off.",
                hint="It is for use on the gateway's own machine: set debug = true in [panel] of the configuration.",
            )
        if not self.is_local(agent):
            raise Forbidden(
                f"The browser's debug mode is for local use only, and {agent} is another machine.",
                hint="Use type=panel, or the local agent.",
            )


def without_hopeless(request: OpenRequest, browser: str) -> OpenRequest:
    """With only such types to fall back to as the agent has the browser for, if they need one."""

    if browser != NO_BROWSER:
        return request
    return replace(request, fall_back=tuple(one for one in request.fall_back if one not in NEED_A_BROWSER))


def hindrance(request: OpenRequest, browser: str) -> ProxyError | None:
    """What is wrong with a request for a console of its type, if anything is.

    :param browser: the agent's.
    """

    if request.type in NEED_A_BROWSER and browser == NO_BROWSER:
        return ToolMissing(
            f"The {NAMES[request.type]} needs a browser, and the agent {request.agent} is to have none (browser=none).",
            hint=f"Use type=java or type=vnc, or give it one: agent provision name={request.agent} browser=chromium",
        )
    if request.type != "vnc":
        return None
    if not request.device.vnc:
        return MissingArgument(
            f"No VNC server is known for {request.device.label}.",
            hint="Give vnc=host:port on the request, or store it: device set name=… vnc=host:port",
        )
    if request.clipboard in ("off", "in"):
        return BadValue(
            f"clipboard={request.clipboard} cannot be promised for a VNC server that is not ours.",
            hint="Its texts reach the browser unread: say clipboard=out or clipboard=both, "
            "and switch its clipboard off in the VNC server itself.",
        )
    return None
