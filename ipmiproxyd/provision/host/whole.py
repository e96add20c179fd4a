"""Packages of which somebody has taken something away: programs that may not be executed, files that are gone."""

from __future__ import annotations

import os
import re
import stat

from ipmiproxyd.provision.host import apt
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ipmiproxyd.provision.host.system import Host
    from ipmiproxyd.provision.host.work import Work

PARTS = ("", "-common", "-headless")
"""Packages that have most of what is called by the name without that."""
LOOKED_AT = re.compile(r"(?:/usr)?/(?:s?bin|lib\w*|share/fonts)/.*")
"""Without configuration, which may be anybody's, and documentation, which a site may leave out."""
PROGRAM = re.compile(r"(?:/usr)?/s?bin/[^/]*")
ON_PURPOSE = ("/var/lib/dpkg/diversions", "/var/lib/dpkg/statoverride")
"""Where dpkg was told what is otherwise than in a package."""
AGAIN = ("install", "--reinstall", *apt.INSTALL[1:])
TOLD = 3  # files of a package


def with_parts(names: Collection[str]) -> list[str]:
    return [f"{name}{part}" for name in names for part in PARTS]


def put_right(work: Work, names: Collection[str], ours: Collection[str]) -> None:
    """Install those again that are not whole. Where apt cannot, that is told.

    :param ours: what apt may bring to another version with them.
    """
    if not (found := broken(work.host, names)):
        return
    words = f"Packages are installed again, as of their files some are gone or may not be used: {_told(found)}"
    if work.dry_run:
        work.tell(words)
        return
    why = "that did not help"
    try:
        apt.update(work)
        plan, argv = apt.plan(work.host, [*AGAIN, *found]), [*AGAIN, *found]
        more = {*plan.new, *plan.removed, *plan.upgraded} - {*ours, *found}
        if more or not found.keys() <= {*plan.upgraded}:
            raise FailedError("packages-failed", f"apt would change {apt.names(more)}, too" if more else "apt has none")
        if work.tell(words):
            apt.do(work, argv)
    except FailedError as error:
        if error.code != "packages-failed":
            raise
        why = error.message
    if left := broken(work.host, names):
        line = f"apt-get install --reinstall {' '.join(left)}"
        work.teller.warning(f"Of these packages files are gone or may not be used: {_told(left)} ({why}). Say: {line}")


def broken(host: Host, names: Collection[str]) -> Mapping[str, list[str]]:
    """The files that are gone, or cannot be read or executed by everybody, by their package."""
    excused = {word for path in ON_PURPOSE for word in (host.read(path) or "").split()}
    found = {}
    for name in with_parts(names):
        paths = {path for path in apt.info(host, name, "list").splitlines() if LOOKED_AT.fullmatch(path)}
        if bad := [path for path in sorted(paths - excused) if not _is_of_use(host.path(path), path)]:
            found[name] = bad
    return found


def _is_of_use(place: str, path: str) -> bool:
    try:
        mode = os.lstat(place).st_mode
    except OSError:
        return False
    is_readable = stat.S_ISLNK(mode) or bool(mode & stat.S_IROTH)
    is_program = stat.S_ISREG(mode) and PROGRAM.fullmatch(path)
    return is_readable and (not is_program or bool(mode & stat.S_IXOTH))


def _told(found: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{name} ({apt.names(paths, TOLD)})" for name, paths in found.items())
