"""The daemon that runs on this machine, if one does."""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipmiproxyd.control.talk import Conversation, NobodyThere, TalkError
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.trouble import SetupError
from ipmiproxyd.wire.control import Refused

END_LIMIT: Final = 100.0
"""Seconds that its end may take; systemd gives it 90."""
ANSWER_LIMIT: Final = 10.0
ENDED: Final = ("inactive", "failed")
"""States of a unit of which nothing runs."""


@dataclass(frozen=True)
class Running:
    """:ivar consoles: how many are open.
    :ivar since: when it was started, as ``time.time()``.
    """

    pid: int
    consoles: int
    since: float
    socket: Path


class NoAnswer(SetupError):
    """Somebody is at the control socket, and does not say what a daemon would."""


def find_running(machine: Machine, socket: Path) -> Running | None:
    """None if none runs. It is not started by being asked for, as systemd would do. Raises NoAnswer."""

    if not machine.is_live or _is_stopped(machine):
        return None
    try:
        with Conversation(str(socket), silence=ANSWER_LIMIT) as talk:
            status = _asked(talk, b"daemon status\n")
        return Running(status["pid"], status["consoles"]["total"], time.time() - status["uptime"], socket)
    except NobodyThere:
        return None
    except TalkError as error:
        raise NoAnswer(f"A daemon seems to run, and does not answer: {error.message}") from None
    except (KeyError, TypeError):
        raise NoAnswer("A daemon seems to run, and does not answer as it should.") from None


def _is_stopped(machine: Machine) -> bool:
    """systemd has its socket, and would start it."""

    if not machine.runs_systemd:
        return False
    told = machine.run("systemctl", "show", "--property=ActiveState", "--value", "ipmiproxyd.service").strip()
    return told in ENDED


def stop(machine: Machine, running: Running) -> None:
    """Close its consoles and end it. Raises SetupError."""

    try:
        process = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return
    try:
        with Conversation(str(running.socket), silence=END_LIMIT) as talk:
            if machine.runs_systemd:  # it would be started again by whoever comes next
                machine.run("systemctl", "stop", "ipmiproxyd.socket")
            _asked(talk, b"daemon stop\n")
        if not select.select([process], [], [], END_LIMIT)[0]:
            raise SetupError("The daemon has closed its consoles and does not end.", "--force ends it.")
    except TalkError as error:
        raise SetupError(f"The daemon could not be stopped: {error.message}", "--force ends it.") from None
    finally:
        os.close(process)


def _asked(talk: Conversation, line: bytes) -> Any:
    reply = talk.request(line, lambda _: None)
    if isinstance(reply, Refused):
        raise TalkError(reply.message, reply.hint)
    return reply.data
