"""Where things are inside a job: the paths of its sandbox, as the runner lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ipmiproxyd.model import PolicyPlace

HOME: Final = "/home/console"
"""The console's own home, empty but for the job's files; in memory."""

RUN: Final = "/run/console"
"""The runner's own folder."""

XAUTHORITY: Final = f"{RUN}/xauthority"
"""The secret of the display, for Xvnc's ``-auth``. X clients have it in their environment."""

LIBRARY: Final = f"{RUN}/library"
"""What programs of the job's own are made of: copies of files from the agent's cache; read-only, in memory."""

VNC: Final = f"{RUN}/vnc"
"""The only folder that the agent's own users see too: ``<jobs>/<id>/vnc``."""

VNC_SOCKET: Final = f"{VNC}/socket"
"""Where Xvnc listens; the runner tells the agent's own path of it."""

DOOR: Final = f"{VNC}/door"
"""Where a program with :attr:`~ipmiproxyd.model.Program.door` listens, by the socket that it has as DOOR_FD."""

DOOR_FD: Final = 3

DISPLAY_FD: Final = 3
"""Where a program with :attr:`~ipmiproxyd.model.Ready.DISPLAY` writes its display's number."""

POLICIES: Final[Mapping[PolicyPlace, str]] = {
    "chromium-policy": "/etc/chromium/policies/managed",
    "chrome-policy": "/etc/opt/chrome/policies/managed",
    "edge-policy": "/etc/opt/edge/policies/managed",
    "brave-policy": "/etc/brave/policies/managed",
}
"""Where browsers' builds read their managed policies: there is nothing but the job's own."""

READY: Final = f"{RUN}/ready"
"""A named pipe: a program with :attr:`~ipmiproxyd.model.Ready.TOLD` is ready once a line was written to it."""
