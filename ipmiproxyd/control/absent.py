"""How a daemon that does not run is started on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

SOCKET: Final = "/run/ipmiproxyd/control.sock"
"""Where the daemon that ``ipmiproxyctl setup`` prepares has its control socket."""
UNIT: Final = Path("/etc/systemd/system/ipmiproxyd.service")
ELSEWHERE: Final = "If it has another socket: --socket PATH"
BOOTED: Final = Path("/run/systemd/system")
"""Is there where systemd is process 1 (sd_booted(3))."""

_SETTING: Final = re.compile(r"^(ExecStart|User)=(.+)$", re.MULTILINE)


def start_command(unit: Path = UNIT, booted: Path = BOOTED) -> str:
    """The command for root; empty where ``ipmiproxyctl setup`` was never run."""

    try:
        found = dict(_SETTING.findall(unit.read_text(encoding="utf-8")))
    except OSError:
        return ""
    if booted.is_dir():
        return "systemctl start ipmiproxyd.socket ipmiproxyd.service"
    return f"runuser -u {found.get('User', 'root')} -- {found.get('ExecStart', 'ipmiproxyd')}"


def how_to_start(socket: str) -> str:
    """For whoever found no daemon at this control socket."""

    if socket != SOCKET:
        return "Start the daemon whose configuration file names it (control.socket), or name another: --socket PATH"
    command = start_command()
    if command:
        return f"Start it, as root: {command}. {ELSEWHERE}"
    return (
        "This machine is not set up for it yet: ipmiproxyctl setup, as root, does that; ipmiproxyd alone starts it. "
        f"{ELSEWHERE}"
    )
