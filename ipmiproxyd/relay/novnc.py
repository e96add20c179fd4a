"""Where noVNC's files are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ipmiproxyd.errors import BadValue, ToolMissing

WEB: Final = Path(__file__).resolve().parent.parent / "web"
_CORE: Final = "core/rfb.js"


def find_novnc(configured: str = "", places: tuple[Path, ...] | None = None) -> Path:
    """The folder that holds noVNC's ``core/rfb.js``: the configured one, or else the first of the usual places.

    :param configured: ``relay.novnc``; empty to search.
    :raises BadValue: the configured folder holds no noVNC.
    :raises ToolMissing: noVNC is in none of the usual places.
    """

    if configured:
        folder = Path(configured)
        if (folder / _CORE).is_file():
            return folder
        raise BadValue(
            f"relay.novnc: there is no {_CORE} in {folder}.",
            hint="Name the folder that contains noVNC's core and vendor folders.",
        )
    if places is None:
        places = (WEB / "novnc", WEB / "node_modules" / "@novnc" / "novnc", Path("/usr/share/novnc"))
    for folder in places:
        if (folder / _CORE).is_file():
            return folder
    raise ToolMissing(
        f"noVNC was not found (looked in {', '.join(map(str, places))}).",
        hint="Run 'make build', install Debian's novnc package, or set relay.novnc in the configuration.",
    )
