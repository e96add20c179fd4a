"""Exit status 0 if what is installed of ipmiproxyd is just what a wheel has in it:  python same_files.py WHEEL"""

from __future__ import annotations

import sys
import zipfile
from collections import Counter
from importlib.metadata import distribution
from pathlib import PurePosixPath

BY_PIP = {"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"}
"""What pip adds to what it installs, besides the commands."""


def files(record: str) -> Counter[tuple[str, str]]:
    """Name and hash of each file with a hash, by the text of a RECORD."""

    rows = (line.rsplit(",", 2) for line in record.splitlines())
    found = [(PurePosixPath(path), digest) for path, digest, _ in rows if digest]
    return Counter(
        (path.name, digest) for path, digest in found if path.name not in BY_PIP and path.parent.name != "bin"
    )


def main(wheel: str) -> int:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        shipped = files(archive.read(name).decode())
    return int(shipped != files(distribution("ipmiproxyd").read_text("RECORD") or ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
