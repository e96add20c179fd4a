"""What the settings say where a request says nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ipmiproxyd.model import Clipboard


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """See the configuration's sections ``[consoles]`` and ``[agent]``.

    :ivar idle: seconds; None means never.
    :ivar max_time: seconds; None means never.
    :ivar clipboard: which way texts may go.
    :ivar login_buttons: whether a console's page may have the BMC's user name and password typed.
    :ivar agent: the name of the agent that reaches the BMCs, where a request names none.
    """

    idle: float | None = 600.0
    max_time: float | None = None
    clipboard: Clipboard = "both"
    login_buttons: bool = True
    agent: str = "local"
