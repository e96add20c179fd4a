"""What the settings say where a request says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipmiproxyd.model import Clipboard, ConsoleType


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """See the configuration's sections ``[consoles]`` and ``[agent]``.

    :ivar idle: seconds; None means never.
    :ivar max_time: seconds; None means never.
    :ivar clipboard: which way texts may go.
    :ivar login_buttons: whether a console's page may have the BMC's user name and password typed.
    :ivar agent: the name of the agent that reaches the BMCs, where a request names none.
    :ivar type: what a console shows, where neither a request nor a proxy says so.
    :ivar fall_back: the types that are tried one after the other where that of a proxy cannot work.
    :ivar debug: whether there may be consoles of type ``panel-debug``.
    :ivar limits: how many there may be, by of what; 0 for no limit.
    """

    idle: float | None = 600.0
    max_time: float | None = None
    clipboard: Clipboard = "both"
    login_buttons: bool = True
    agent: str = "local"
    type: ConsoleType = "panel"
    fall_back: tuple[ConsoleType, ...] = ("java", "html5", "panel")
    debug: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """For answers; times in seconds, None for never."""

        return {
            "agent": self.agent,
            "type": self.type,
            "idle": self.idle,
            "max": self.max_time,
            "clipboard": self.clipboard,
            "login_buttons": self.login_buttons,
            "fall_back": list(self.fall_back),
            "debug": self.debug,
        }
