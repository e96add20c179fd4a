"""The daemon that runs on this machine, if one does."""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipmiproxyd.control.talk import Conversation, TalkError
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.trouble import SetupError
from ipmiproxyd.wire.control import Refused

END_LIMIT: Final = 100.0
"""Seconds that its end may take; systemd gives it 90."""


@dataclass(frozen=True)
class Running:
    """:ivar consoles: how many are open.
    :ivar since: when it was started, as ``time.time()``.
    """

    pid: int
    consoles: int
    since: float
    socket: Path


def find_running(machine: Machine, socket: Path) -> Running | None:
    """None if none runs. It is not started by being asked for, as systemd would do."""

    if not machine.is_live:
        return None
    if machine.runs_systemd:
        told = machine.run("systemctl", "show", "--property=ActiveState", "--value", "ipmiproxyd.service").strip()
        if told not in ("active", "reloading", "deactivating"):
            return None
    try:
        with Conversation(str(socket)) as talk:
            status = _asked(talk, b"daemon status\n")
    except TalkError:
        return None
    return Running(status["pid"], status["consoles"]["total"], time.time() - status["uptime"], socket)


def stop(machine: Machine, running: Running) -> None:
    """Close its consoles and end it. Raises SetupError."""

    try:
        process = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return
    try:
        with Conversation(str(running.socket)) as talk:
            if machine.runs_systemd:  # it would be started again by whoever comes next
                machine.run("systemctl", "stop", "ipmiproxyd.socket")
            _asked(talk, b"daemon stop\n")
        if not select.select([process], [], [], END_LIMIT)[0]:
            raise SetupError("The daemon has closed its consoles and does not end.")
    except TalkError as error:
        raise SetupError(f"The daemon could not be stopped: {error.message}") from None
    finally:
        os.close(process)


def _asked(talk: Conversation, line: bytes) -> Any:
    reply = talk.request(line, lambda _: None)
    if isinstance(reply, Refused):
        raise TalkError(reply.message, reply.hint)
    return reply.data
