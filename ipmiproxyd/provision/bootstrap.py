"""Python for a host that has none: what works there afterwards is written in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ipmiproxyd.errors import Busy, PackagesFailed, SystemUnsupported
from ipmiproxyd.model import Outcome, Report
from ipmiproxyd.provision.host import installing, kernel
from ipmiproxyd.provision.host.firewall import KEY as TABLE
from ipmiproxyd.provision.host.record import BUSY_HINT
from ipmiproxyd.provision.host.system import System
from ipmiproxyd.provision.host.talk import FailedError

PYTHON: Final = "/usr/bin/python3"
"""The system's own."""
LIMIT: Final = 1200.0
"""Seconds that it may take; somebody else's apt is waited for, too."""
WOULD_UNDO: Final = "Python, which is removed again with all that is on record"
UNSEEN: Final = (
    "The host has no Python: this is told as far as it can be without, and what is there already is listed, too"
)
UNSUPPORTED: Final = 10
HELD: Final = 11

SCRIPT: Final = r"""
set -e
exec 3>&1 >&2
ID='' VERSION_ID='' PRETTY_NAME='this system'
[ ! -e /etc/os-release ] || . /etc/os-release
case $ID:$VERSION_ID in
    debian:11 | debian:12 | debian:13 | ubuntu:22.04 | ubuntu:24.04) ;;
    *) echo "$PRETTY_NAME" >&3; exit 10 ;;
esac
trap '' HUP PIPE
umask 077
folder=/var/lib/ipmiproxyd-agent parts=
mkdir -p $folder
exec 9<$folder
if ! flock -n 9; then
    begun=$(tail -n 1 $folder/bootstrap.runs 2>/dev/null)
    [ -z "$begun" ] || date -d "@$begun" +', since %T %Z' >&3
    exit 11
fi
if [ ! -e $folder/bootstrap ]; then
    dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' >$folder/bootstrap.new
    sync
    mv $folder/bootstrap.new $folder/bootstrap
fi
date +%s >>$folder/bootstrap.runs
umask 022
unset ID VERSION_ID
export DEBIAN_FRONTEND=noninteractive
options='-o DPkg::Lock::Timeout=300 -o APT::Keep-Downloaded-Packages=false'
if [ -n "$1" ]; then
    parts=$(mktemp -d)
    chmod 755 "$parts"
    trap 'rm -rf "$parts"' EXIT
    cp -a /etc/apt/sources.list.d/. "$parts"
    echo "$1" >"$parts/ipmiproxyd.list"
    options="$options -o Dir::Etc::SourceParts=$parts"
fi
dpkg --configure -a --force-confdef --force-confold || :
apt-get $options update
options="$options -y --no-install-recommends -o Dpkg::Options::=--force-confold"
apt-get $options --no-remove --fix-broken install || :
apt-get $options install python3
"""


def argv(repository: str) -> tuple[str, ...]:
    return ("sh", "-c", SCRIPT, "sh", repository)


def would(document: Mapping[str, Any], os_release: str) -> Report:
    """What provisioning changes on such a host, as far as that can be told from here. Raises SystemUnsupported.

    :param document: the engine's.
    """

    try:
        system = System.told(os_release)
        packages = installing.usual(system, document["browser"])
    except FailedError as error:
        raise SystemUnsupported(f"{error.message}.", hint=error.hint) from None
    account, displays = document["account"], document["displays"]
    changes = [
        "Python",
        f"Packages, with what they need: {', '.join(sorted(packages))}",
        f"The account {account}",
        f"The daemon's key for the account {account}",
        f"The folder for Javas: {document['java_dir']}",
    ]
    if document["users"] != "never":
        changes += [
            f"Unix users for displays: {' to '.join(_ends(document['prefix'], displays))}",
            f"The runner, version {document['runner']['version']}: {document['runner']['path']}",
            "The account may start the runner as root: a rule in /etc/sudoers.d",
        ]
    changes += [f"The table {TABLE} of the firewall", f"Settings of the kernel that are in the way: {kernel.FILE}"]
    return Report(tuple(changes), (UNSEEN,))


def _ends(prefix: str, numbers: Sequence[int]) -> list[str]:
    ends = sorted({min(numbers), max(numbers)}) if numbers else []
    return [f"{prefix}{number}" for number in ends]


def judge(name: str, outcome: Outcome) -> None:
    """Raises what hindered it on the agent of this name."""

    if outcome.status == UNSUPPORTED:
        system = outcome.stdout.decode("utf-8", "replace").strip()[:100]
        raise SystemUnsupported(
            f"The agent {name} runs {system}, which is not one of Debian 11, 12, 13 and Ubuntu 22.04, 24.04.",
            hint="Set it up by hand: see the appendix of docs/agents.md.",
        )
    if outcome.status == HELD:
        since = outcome.stdout.decode("utf-8", "replace").strip()[:100]
        raise Busy(f"Another run is at work on the agent {name}{since}.", hint=BUSY_HINT)
    if not outcome.ok:
        words = "it took too long" if outcome.timed_out else outcome.last_words
        raise PackagesFailed(
            f"Python could not be installed on the agent {name}: {words}.",
            hint="See that its apt works there (apt-get update), then say it again.",
        )
