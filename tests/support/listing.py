"""All that is on a host, so that it can be compared with what was there before."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.support.hosts import AgentHost

PASSED_OVER: Final = re.compile(
    # What every use of a host writes, with or without us: logs, and who was there.
    r"/var/log/.*|/run/ipmiproxyd-jobs/main/alive|/tmp/.*|/dev/.*|/proc/.*|/sys/.*|/srv/packages/.*"
    # What the tools for users, ucf, apt and dpkg remember of any work at all. Packages are looked at by dpkg-query.
    r"|/etc/(?:passwd|group|shadow|gshadow|subuid|subgid)-|/var/lib/ucf/hashfile\.\d"
    r"|/var/lib/apt/.*|/var/cache/apt/.*|/var/cache/debconf/.*"
    r"|/var/lib/dpkg/(?:status|available|statoverride|diversions)(?:-old)?|/var/lib/dpkg/(?:lock.*|triggers/.*)"
    # What is made anew of other files whenever packages come or go.
    r"|/etc/ld\.so\.cache|/var/cache/ldconfig/.*|/usr/share/(?:mime|info|applications)/.*cache"
)
"""Not compared; files below folders that are."""


def listing(host: AgentHost) -> Mapping[str, str]:
    """By a path or a word: mode, owner, content. Users and groups are files; so are the rules of sudo."""

    found = dict(_files(host.path("/"), host.path("/")))
    found |= {path: told for path, told in _files(host.path("/run"), host.path("/")) if "ipmiproxyd" in path}
    packages = host.run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n").splitlines()
    found |= {f"package {name}": told for name, _, told in (line.partition(" ") for line in packages)}
    return found | {"nft": host.nft()}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """In words, one line for each."""

    names = sorted(before.keys() | after.keys())
    pairs = [(name, before.get(name, "nothing"), after.get(name, "nothing")) for name in names]
    return [f"{name}: {old} → {new}" for name, old, new in pairs if old != new]


def _files(folder: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Of one file system."""

    device = folder.stat().st_dev
    left = [folder]
    while left:
        for entry in os.scandir(left.pop()):
            path = f"/{os.path.relpath(entry.path, root)}"
            status = entry.stat(follow_symlinks=False)
            if PASSED_OVER.fullmatch(path):
                continue
            yield path, f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid} {_content(entry, status)}"
            if entry.is_dir(follow_symlinks=False) and status.st_dev == device:
                left.append(Path(entry.path))


def _content(entry: os.DirEntry[str], status: os.stat_result) -> str:
    if entry.is_symlink():
        return os.readlink(entry.path)
    if not stat.S_ISREG(status.st_mode):
        return ""
    with open(entry.path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
