"""Where a console's files may be on its panel, which of them an agent needs, and what may be unpacked from them."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from ipmiproxyd.errors import BadJnlp
from ipmiproxyd.wire.jnlp import Jar, Jnlp

PACKED: Final = ".pack.gz"

_MACHINES: Final = {
    "x86_64": {"x86_64", "amd64", "x86-64", "x64"},
    "aarch64": {"aarch64", "arm64"},
    "i386": {"i386", "i486", "i586", "i686", "x86"},
}

ENTRIES_LIMIT: Final = 256
"""Files in a jar of native libraries: those of real vendors hold fewer than ten."""
TOTAL_LIMIT: Final = 96 << 20
RATIO_LIMIT: Final = 100
"""How many times its packed size a file may have; libraries have less than ten."""

_FILE: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,64}")


def jar_urls(jar: Jar) -> tuple[str, ...]:
    """Where a jar may be, the likeliest first. Those that end in ``.pack.gz`` are to be unpacked.

    All of them are beside the one that the description names, so on a host that it was checked for."""

    parts = urlsplit(jar.url)
    paths = [parts.path]
    if jar.version:
        stem, dot, ending = parts.path.rpartition(".")
        under_version = f"{stem}__V{jar.version}{dot}{ending}" if dot else f"{parts.path}__V{jar.version}"
        paths.insert(0 if jar.versioned else 1, under_version)
    endings = (PACKED, "") if jar.packed else ("", PACKED)
    return tuple(
        urlunsplit((parts.scheme, parts.netloc, path + ending, parts.query, "")) for ending in endings for path in paths
    )


def needed(jnlp: Jnlp, machine: str) -> tuple[Jar, ...]:
    """The files for Linux on a machine: "x86_64", "aarch64" or "i386", which is what the chosen Java was made for.
    The one with the main class comes first. Raises BadJnlp if there is none."""

    names = _MACHINES.get(machine, {machine})
    found = [
        jar
        for jar in jnlp.jars
        if (not jar.os or any("linux".startswith(word.lower()) for word in jar.os))
        and (not jar.arch or not names.isdisjoint(word.lower() for word in jar.arch))
    ]
    if all(jar.native for jar in found):
        raise BadJnlp(f"The vendor's Java console has no files for Linux on {machine}.")
    once = {(jar.url, jar.version): jar for jar in found}.values()  # x86_64 and amd64 may name the same
    return tuple(sorted(once, key=lambda jar: (jar.native, not jar.main)))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a zip file's listing. ``mode``: as in stat, 0 where the file does not tell."""

    name: str
    size: int
    packed: int
    mode: int = 0


def libraries(listing: Sequence[Entry]) -> dict[str, str]:
    """What to unpack from a jar of native libraries: name in there → file name, all in one folder.

    Raises BadJnlp for a jar that no vendor would make: paths that climb, links, two files of one name, or one that
    grows without measure."""

    if len(listing) > ENTRIES_LIMIT:
        raise BadJnlp("A file with native libraries of the Java console holds too many files.")
    if sum(entry.size for entry in listing) > TOTAL_LIMIT:
        raise BadJnlp("A file with native libraries of the Java console is too large when unpacked.")
    found: dict[str, str] = {}
    for entry in listing:
        if _is_wild(entry):
            raise BadJnlp("A file with native libraries of the Java console holds what may not be unpacked.")
        name = entry.name.rsplit("/", 1)[-1]
        if entry.name.endswith("/") or entry.name.upper().startswith("META-INF/"):
            continue
        if not _FILE.fullmatch(name) or name in found.values():
            raise BadJnlp("A file with native libraries of the Java console holds names that are not allowed.")
        found[entry.name] = name
    return found


def _is_wild(entry: Entry) -> bool:
    climbs = any(part in ("..", ".") for part in entry.name.split("/"))
    strange = any(letter < " " or letter in "\\:" for letter in entry.name)
    kind = stat.S_IFMT(entry.mode)
    swells = entry.size > 1 << 16 and entry.size > RATIO_LIMIT * max(entry.packed, 1)
    negative = entry.size < 0 or entry.packed < 0
    return (
        not entry.name
        or entry.name.startswith("/")
        or climbs
        or strange
        or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
        or swells
        or negative
    )
