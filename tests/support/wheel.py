"""ipmiproxyd as it is packed, without the network: with the setuptools and the dependencies that are here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from twisted.internet.utils import getProcessOutputAndValue

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = ("ipmiproxyd", "twisted", "etc", "systemd", "setup.cfg", "pyproject.toml", "README.md")
NOT_SOURCES: Final = shutil.ignore_patterns("__pycache__", "node_modules", "dropin.cache", "novnc", "novnc.??????")

NOVNC: Final = {
    "core/rfb.js": "// core",
    "core/util/browser.js": "// util",
    "vendor/pako/lib/zlib/inflate.js": "// pako",
    "LICENSE.txt": "MPL",
}
"""What is not Python and has to be in the wheel; a stand-in for noVNC, which is fetched and not part of the sources."""


def copy_sources(folder: Path) -> None:
    """The sources, in a new folder."""

    folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=NOT_SOURCES)
        else:
            shutil.copy(ROOT / name, folder / name)
    for name, text in NOVNC.items():
        path = folder / "ipmiproxyd" / "web" / "novnc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


async def run_python(home: Path, python: Path | str, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a Python; it finds nothing in the folder where it runs."""

    environment: Mapping[str, str] = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    out, err, ended = await getProcessOutputAndValue(str(python), arguments, environment, str(home))
    return ended, str((out + err).decode())


async def pip(home: Path, python: Path | str, *arguments: str) -> None:
    """pip for some Python, without the network."""

    common = ("-m", "pip", "--quiet", "--python", str(python))
    ended, said = await run_python(home, sys.executable, *common, *arguments, "--no-deps", "--no-build-isolation")
    if ended:
        raise AssertionError(f"pip {arguments} ended with {ended}: {said}")


async def build_wheel(home: Path, sources: Path) -> Path:
    """A wheel of these sources, in a folder of its own."""

    await pip(home, sys.executable, "wheel", "--wheel-dir", str(home / "wheels"), str(sources))
    [wheel] = (home / "wheels").iterdir()
    return wheel
