"""What can be found out about any agent by running a program there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.threads import deferToThread

from ipmiproxyd.agents import looking
from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.scripts import script_argv, script_input
from ipmiproxyd.errors import AgentUnreachable
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Command

LEAST_MEMORY: Final = 512 << 20
"""Bytes below which an agent has hardly room for a console."""
CLOCK: Final = 30.0
"""Seconds that an agent's clock may be wrong before it is told."""

_PACKAGES: Final = {
    "Xvnc": "tigervnc-standalone-server",
    "bwrap": "bubblewrap",
    "nft": "nftables",
}


async def look_around(
    agent: Agent, python: str, programs: Mapping[str, Sequence[str]], reactor: Any
) -> list[Finding]:
    """Programs, Python, namespaces, memory and clock.

    :param programs: what is needed: what for → programs.
    """

    text = await deferToThread(Path(looking.__file__).read_text)
    wanted = [program for group in programs.values() for program in group]
    before = reactor.seconds()
    outcome = await agent.run(Command(argv=script_argv(python), stdin=script_input(text, {"programs": wanted})))
    try:
        found: Mapping[str, Any] = json.loads(outcome.stdout)
    except ValueError:
        raise AgentUnreachable(f"Python does not work on the agent {agent.name}: {outcome.last_words}.") from None
    return [
        Finding("python", "ok", f"{python} is Python {'.'.join(map(str, found['python']))}."),
        *_programs(programs, found["missing"]),
        _namespaces(found["namespaces"]),
        _memory(found["memory"]),
        _clock(found["time"], before, reactor.seconds()),
    ]


def _programs(programs: Mapping[str, Sequence[str]], missing: Sequence[str]) -> list[Finding]:
    lacking = [
        Finding(
            "programs",
            "fault",
            f"{program} is not installed: {what} will not work.",
            f"apt-get install --no-install-recommends {_PACKAGES.get(program, program)}",
        )
        for what, group in programs.items()
        for program in group
        if program in missing
    ]
    return lacking or [Finding("programs", "ok", "Every program that is needed is installed.")]


def _namespaces(problem: str) -> Finding:
    if not problem:
        return Finding("namespaces", "ok", "Consoles can be fenced in: the kernel allows user namespaces.")
    return Finding(
        "namespaces",
        "fault",
        f"Consoles cannot be fenced in: the kernel allows no user namespaces ({problem}).",
        "Set kernel.unprivileged_userns_clone=1 (or user.max_user_namespaces, or "
        "kernel.apparmor_restrict_unprivileged_userns=0) in /etc/sysctl.d, whichever the host has.",
    )


def _memory(free: int) -> Finding:
    if free < 0:
        return Finding("memory", "warning", "The host does not tell how much memory is free.")
    words = f"{free >> 20} MiB of memory are free."
    if free < LEAST_MEMORY:
        return Finding("memory", "warning", words, "A console takes up to 2 GiB: close some, or add memory.")
    return Finding("memory", "ok", words)


def _clock(theirs: float, before: float, after: float) -> Finding:
    wrong = max(before - theirs, theirs - after, 0.0)
    if wrong <= CLOCK:
        return Finding("clock", "ok", "Its clock goes as ours.")
    way = "behind" if theirs < before else "ahead of"
    return Finding("clock", "warning", f"Its clock is {wrong:.0f} s {way} ours.", "Let both hosts keep time by NTP.")
