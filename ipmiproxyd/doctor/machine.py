"""What an agent is, and what it has: in words, from what agents/looking.py tells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.model import CHROMIUM, NO_BROWSER

LEAST_MEMORY: Final = 512 << 20
"""Bytes below which an agent has hardly room for a console."""
CLOCK: Final = 30.0
"""Seconds that an agent's clock may be wrong before it is told."""
LITTLE_DISK: Final = 16 << 20
"""Bytes of disk below which that is told."""
LEAST_DISK: Final = 1 << 20
"""Bytes below which something will not work soon, or already does not."""
LEAST_FILES: Final = 16

PACKAGES: Final[Mapping[str, str]] = {
    "Xvnc": "tigervnc-standalone-server",
    "openbox": "openbox",
    "chromium": "chromium",
    "curl": "curl",
    "bwrap": "bubblewrap",
    "ipmitool": "ipmitool",
    "nft": "nftables",
}
"""Debian's packages by program."""
TRIED: Final[Mapping[str, Sequence[str]]] = {"debian": ("11", "12", "13")}
WRITTEN_FOR: Final[Mapping[str, Sequence[str]]] = {"ubuntu": ("22.04", "24.04")}
"""Systems that should do, and that nobody has tried yet."""
FONTS: Final = "fonts-dejavu-core"
NO_PROC: Final = (
    "Consoles cannot be fenced in: they can have no /proc of their own, as parts of the host's are masked or read-only"
)
NO_WIDE_FENCE: Final = "Consoles of boards that need any port (vendor=generic) cannot be fenced in"
WHOLE_PROC: Final = (
    "If it is a container: let it have all of /proc, and let it write there (docker: --security-opt "
    "systempaths=unconfined); or use a virtual machine."
)
_NEEDED: Final = ("jobs", "home", "cache")
"""Folders without which something does not work at all."""


def system(found: Mapping[str, Any]) -> list[Finding]:
    name = found["name"] or "an unknown system"
    python = ".".join(map(str, found["python"]))
    words = f"{name}, Linux {found['kernel']} on {found['machine']}, {found['processors']} processors, Python {python}."
    if found["version"] in TRIED.get(found["id"], ()):
        return [Finding("system", "ok", words)]
    advice = f"These are known to work: {_names(TRIED)}. Written for, and tried by nobody yet: {_names(WRITTEN_FOR)}."
    told = "Nobody has tried agents on it."
    if found["version"] in WRITTEN_FOR.get(found["id"], ()):
        told, advice = "Agents are written for it, and nobody has tried them on it yet.", ""
    return [Finding("system", "warning", f"{words} {told}", advice)]


def _names(systems: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name.title()} {', '.join(versions)}" for name, versions in systems.items())


def programs(
    wanted: Mapping[str, Sequence[str]], found: Mapping[str, Any], versions: Mapping[str, str]
) -> list[Finding]:
    """:param wanted: what for → programs."""

    lacking = [
        Finding(
            "programs",
            "fault",
            f"{program} {_how_missing(program, found['closed'], versions)}: {what} will not work.",
            install_advice(PACKAGES.get(program, program), versions),
        )
        for what, group in wanted.items()
        for program in group
        if program in found["missing"]
    ]
    lacking += [
        Finding(
            "programs",
            "fault",
            f"{program} is {real}, where no console sees it: only what is below /usr and /opt is there.",
            "Install it there, as a Debian package (a snap or a flatpak is of no use here).",
        )
        for program, real in found["outside"].items()
    ]
    there = [program for group in wanted.values() for program in group if program not in found["missing"]]
    told = ", ".join(f"{name} {_upstream(versions.get(PACKAGES.get(name, name), ''))}".rstrip() for name in there)
    return lacking or [Finding("programs", "ok", f"Every program that is needed is installed: {told}.")]


def browser(name: str) -> list[Finding]:
    """What is to be said of an agent's own choice."""

    if name == NO_BROWSER:
        words = "None, as is set (browser=none): the agent is not for consoles of type panel and html5."
        return [Finding("browser", "ok", words)]
    return [] if name == CHROMIUM else [Finding("browser", "ok", f"Panels are shown in {name}, which is untested.")]


def _how_missing(program: str, closed: Mapping[str, str], versions: Mapping[str, str]) -> str:
    if program in closed:
        return f"is there ({closed[program]}), but cannot be executed"
    package = PACKAGES.get(program, program)
    return f"is gone, though its package {package} is installed" if package in versions else "is not installed"


def install_advice(package: str, versions: Mapping[str, str]) -> str:
    """The command for a package of which something is missing: one that is installed is left as it is otherwise."""

    again = " --reinstall" if package in versions else ""
    return f"apt-get install{again} --no-install-recommends {package}"


def _upstream(version: str) -> str:
    """A Debian version without what Debian has added."""

    return re.split(r"[-+~]", version.rpartition(":")[2])[0]


def namespaces(found: Mapping[str, Any]) -> list[Finding]:
    if found["problem"]:
        words = f"Consoles cannot be fenced in: the kernel allows no user namespaces ({found['problem']})."
        return [Finding("namespaces", "fault", words, namespaces_advice(found["settings"]))]
    if found["proc"]:
        return [Finding("namespaces", "fault", f"{NO_PROC} ({found['proc']}).", WHOLE_PROC)]
    if found["fixed"]:
        return [Finding("namespaces", "fault", f"{NO_WIDE_FENCE}: /proc/sys/net is read-only there.", WHOLE_PROC)]
    return [Finding("namespaces", "ok", "Consoles can be fenced in: the kernel allows user namespaces.")]


def namespaces_advice(settings: Mapping[str, str]) -> str:
    """Which setting of the kernel is in the way."""

    wrong = {
        "kernel.unprivileged_userns_clone": "1" if settings.get("kernel.unprivileged_userns_clone") == "0" else "",
        "kernel.apparmor_restrict_unprivileged_userns": "0"
        if settings.get("kernel.apparmor_restrict_unprivileged_userns", "0") != "0"
        else "",
        **{
            name: "10000"
            for name in ("user.max_user_namespaces", "user.max_net_namespaces")
            if settings.get(name, "").isdecimal() and int(settings[name]) < 100
        },
    }
    lines = [f"{name}={value}" for name, value in wrong.items() if value]
    if lines:
        return f"As root there: put {' and '.join(lines)} into /etc/sysctl.d/60-ipmiproxyd-agent.conf; sysctl --system"
    return (
        "No setting of the kernel's explains that: a container or a security module (SELinux, AppArmor, seccomp) "
        "around the whole host may forbid it."
    )


def memory(found: Mapping[str, Any]) -> list[Finding]:
    words = f"{found['free'] >> 20} of {found['all'] >> 20} MiB of memory are free."
    if found["free"] < LEAST_MEMORY:
        return [Finding("memory", "warning", words, "A console takes up to 2 GiB: close some, or add memory.")]
    return [Finding("memory", "ok", words)]


def disks(found: Sequence[Mapping[str, Any]]) -> list[Finding]:
    bad = [finding for one in found if (finding := _disk(one)) is not None]
    room = ", ".join(f"{one['free'] >> 20} MiB at {one['path']}" for one in found)
    return bad or [Finding("disk", "ok", f"There is room on every disk that is needed: {room}.")]


def _disk(one: Mapping[str, Any]) -> Finding | None:
    path, what = one["path"], " and ".join(one["what"])
    needed = any(name in _NEEDED for name in one["what"])
    if one["read_only"]:
        return Finding("disk", "fault", f"{path} ({what}) can only be read.", "Mount it so that it can be written to.")
    if 0 <= one["files"] < LEAST_FILES:
        words = f"{path} ({what}) has no room for further files, however small."
    elif one["free"] < LEAST_DISK:
        words = f"{path} ({what}) is full: {one['free'] >> 10} KiB are free, and what is to be written there fails."
    elif one["free"] < LITTLE_DISK:
        words, needed = f"{path} ({what}) is almost full: {one['free'] >> 20} MiB are free.", False
    else:
        return None
    return Finding("disk", "fault" if needed else "warning", words, f"Make room there: df -h {path}; df -i {path}")


def clock(theirs: float, before: float, after: float) -> list[Finding]:
    wrong = max(before - theirs, theirs - after, 0.0)
    if wrong <= CLOCK:
        return [Finding("clock", "ok", "Its clock goes as ours.")]
    way = "behind" if theirs < before else "ahead of"
    words = f"Its clock is {wrong:.0f} s {way} ours: certificates may seem to be invalid, and logs do not fit together."
    return [Finding("clock", "warning", words, "Let both hosts keep time by NTP: timedatectl set-ntp true")]


def fonts(count: int, versions: Mapping[str, str]) -> list[Finding]:
    if count:
        return [Finding("fonts", "ok", "There are fonts for panels and Java programs.")]
    return [
        Finding(
            "fonts",
            "fault",
            "There is no font: panels and Java programs show boxes in the place of letters, or do not start.",
            install_advice(FONTS, versions),
        )
    ]
