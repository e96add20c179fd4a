"""``daemon …``: the daemon as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.interfaces import Daemon


def commands(daemon: Daemon) -> list[Command]:
    async def status(_call: Call) -> Mapping[str, Any]:
        return await daemon.status()

    async def stop(_call: Call) -> Mapping[str, Any]:
        return await daemon.stop()

    return [
        Command(noun="daemon", verb="status", summary="Tell how the daemon and its agents are.", handler=status),
        Command(noun="daemon", verb="stop", summary="Close all consoles and end the daemon.", handler=stop),
    ]
