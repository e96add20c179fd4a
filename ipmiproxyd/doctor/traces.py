"""What is on an agent beside what it needs: users, keys, rules, and what others left behind. In words, from what
agents/looking.py tells."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from ipmiproxyd.agents.findings import Finding

USERS_LIMIT: Final = 400
"""Unix users that the runner makes at most."""
Knock = Literal["silent", "answered", ""]
"""Nothing came back; somebody listens there, or says that nobody does; nobody has tried."""


def users(found: Mapping[str, Any], displays: Sequence[int]) -> list[Finding]:
    if found["foreign"]:
        names = ", ".join(found["foreign"])
        level: Any = "fault" if len(found["foreign"]) >= len(displays) else "warning"
        return [
            Finding(
                "users",
                level,
                f"These Unix users were not made by ipmiproxyd, and their displays are never used: {names}.",
                "Remove them there (userdel), or set another agent.user_prefix or displays.range for the daemon.",
            )
        ]
    if found["ours"] >= USERS_LIMIT:
        words = f"There are {found['ours']} Unix users for displays, and no more are made."
        return [Finding("users", "warning", words, "Remove those of other prefixes and of displays that are not used.")]
    there = "1 Unix user for displays is" if found["ours"] == 1 else f"{found['ours']} Unix users for displays are"
    return [Finding("users", "ok", f"{there} there; others are made when needed.")]


def x_locks(found: Sequence[Mapping[str, Any]]) -> list[Finding]:
    if not found:
        return [Finding("x-locks", "ok", "No X server has left a lock behind.")]
    paths = [one["path"] for one in found]
    return [
        Finding(
            "x-locks",
            "warning",
            f"X servers that have ended left locks behind: {', '.join(paths)}. Consoles do not mind: each has "
            "a /tmp of its own. Displays of these numbers that others start there do not come up.",
            f"As root there: rm {shlex.join(paths)}",
        )
    ]


def leftovers(
    agent: str, lost: Sequence[str], strangers: Sequence[str], processes: Mapping[str, int]
) -> list[Finding]:
    """:param lost: jobs that nobody keeps; ``strangers``: those that run and belong to no console; ``processes``: how
    many there are of a display's user without a job."""

    found = []
    remedy = f"agent check name={agent} fix=yes"
    if lost:
        found.append(
            Finding(
                "leftovers",
                "warning",
                f"The keepers of these jobs were killed, and left their folders: {', '.join(lost)}.",
                f"{remedy} clears them away.",
            )
        )
    if strangers:
        found.append(
            Finding(
                "leftovers",
                "warning",
                f"These jobs run, and belong to no console: {', '.join(strangers)}.",
                f"They end by their lease; {remedy} ends them at once.",
            )
        )
    if processes:
        told = ", ".join(f"{count} of {user}" for user, count in sorted(processes.items()))
        found.append(
            Finding(
                "leftovers",
                "warning",
                f"Processes of displays' users run without a console: {told}.",
                f"{remedy} ends them.",
            )
        )
    return found or [Finding("leftovers", "ok", "Nothing is left of earlier consoles.")]


def firewall(found: Mapping[str, Any], *, knock: Knock, is_direct: bool) -> list[Finding]:
    """:param knock: what became of a connection to a VNC port from the daemon's host, where nobody but root there can
    tell whether the rules are loaded."""

    findings = []
    if found["open"] and not is_direct:
        ports = ", ".join(map(str, found["open"]))
        findings.append(
            Finding(
                "firewall",
                "warning",
                f"Something listens at the VNC port {ports} for other hosts. It is none of our displays.",
                "Find out what it is: ss -tlnp",
            )
        )
    force = found["force"]
    if found["file"] and (force == "no" or knock == "answered"):
        seen = "not in force" if force == "no" else "seem not to be in force: such a port answers"
        findings.append(
            Finding(
                "firewall",
                "warning",
                f"The firewall's rules for VNC ports (/etc/ipmiproxyd-agent.nft) are there, but {seen}.",
                "As root there: systemctl restart ipmiproxyd-agent-firewall, or nft -f /etc/ipmiproxyd-agent.nft",
            )
        )
    if findings:
        return findings
    if not found["file"]:
        words = "No rules of ours; nothing listens at VNC ports for other hosts, as displays are UNIX sockets."
        if is_direct:
            words = "No rules of ours: each display keeps others out by itself, by TLS and a password."
        return [Finding("firewall", "ok", words)]
    if force == "yes":
        return [Finding("firewall", "ok", "The rules for VNC ports are loaded.")]
    words = "The rules for VNC ports are there; only root there can tell whether they are loaded."
    if knock == "silent":
        words += " From the daemon's host nobody reaches these ports."
    return [Finding("firewall", "ok", words)]


def account(found: Mapping[str, Any]) -> list[Finding]:
    if not found["keys"]:
        return []
    if not found["wide"]:
        return [Finding("key", "ok", f"The keys of {found['user']} are restricted to what is needed.")]
    return [
        Finding(
            "key",
            "warning",
            f"Some keys that let {found['user']} in may do more than is needed: {', '.join(found['wide'])}.",
            f"Write restrict,port-forwarding and a blank in front of them in {found['path']}.",
        )
    ]
