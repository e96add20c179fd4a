"""Where things are inside a job: the paths of its sandbox, as the runner lays them out."""

from __future__ import annotations

from typing import Final

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

POLICIES: Final = "/etc/chromium/policies/managed"
"""The browser's managed policies: nothing but the job's own."""

READY: Final = f"{RUN}/ready"
"""A named pipe: a program with :attr:`~ipmiproxyd.model.Ready.TOLD` is ready once a line was written to it."""
