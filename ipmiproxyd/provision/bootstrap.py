"""Python for a host that has none: what works there afterwards is written in it."""

from __future__ import annotations

from typing import Final

from ipmiproxyd.errors import Busy, PackagesFailed, SystemUnsupported
from ipmiproxyd.model import Outcome

PYTHON: Final = "/usr/bin/python3"
"""The system's own."""
LIMIT: Final = 1200.0
"""Seconds that it may take; somebody else's apt is waited for, too."""
WOULD: Final = {
    "provision": "Python, and what is found to be missing then",
    "unprovision": "Python, which is removed again with all that is on record",
}
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
flock -n 9 || exit 11
if [ ! -e $folder/bootstrap ]; then
    dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' >$folder/bootstrap.new
    sync
    mv $folder/bootstrap.new $folder/bootstrap
fi
date +%s >>$folder/bootstrap.runs
umask 022
unset ID VERSION_ID
export DEBIAN_FRONTEND=noninteractive
options='-o DPkg::Lock::Timeout=300'
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


def judge(name: str, outcome: Outcome) -> None:
    """Raises what hindered it on the agent of this name."""

    if outcome.status == UNSUPPORTED:
        system = outcome.stdout.decode("utf-8", "replace").strip()[:100]
        raise SystemUnsupported(
            f"The agent {name} runs {system}, which is not one of Debian 11, 12, 13 and Ubuntu 22.04, 24.04.",
            hint="Set it up by hand: see the appendix of docs/agents.md.",
        )
    if outcome.status == HELD:
        raise Busy(f"The agent {name} is being provisioned already.", hint="Try again when that is done.")
    if not outcome.ok:
        words = "it took too long" if outcome.timed_out else outcome.last_words
        raise PackagesFailed(
            f"Python could not be installed on the agent {name}: {words}.",
            hint="See that its apt works there (apt-get update), then say it again.",
        )
