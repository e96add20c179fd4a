"""The page's files, read once. What is served is a table of paths: nothing else can be asked for."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipmiproxyd.errors import ToolMissing

_TYPES: Final = {
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
}
_PLAIN: Final = b"text/plain; charset=utf-8"

PAGE: Final = b"no-store"
OWN: Final = b"no-cache"  # asked for again at every load, answered with 304
NOVNC: Final = b"max-age=300"  # some fifty modules: a reload shall not ask for each


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it goes out. ``packed`` is the same in gzip."""

    body: bytes
    packed: bytes
    type: bytes
    tag: bytes
    cache: bytes


def load_files(web: Path, novnc: Path) -> Mapping[bytes, StaticFile]:
    """Everything that a relay port serves, by URL path.

    :param web: the folder of our own page: ``index.html`` and scripts and styles beside it.
    :param novnc: the folder with noVNC's ``core`` and ``vendor``.
    :raises ToolMissing: there is no ``index.html``.
    """

    index = web / "index.html"
    if not index.is_file():
        raise ToolMissing(f"The console page is missing: there is no {index}.", hint="Install ipmiproxyd anew.")
    files = {b"/": _read(index, PAGE)}
    for path in sorted(web.iterdir()):
        if path.suffix in (".js", ".css") and path.is_file():
            files[f"/assets/{path.name}".encode()] = _read(path, OWN)
    for part in ("core", "vendor"):
        for path in _walk(novnc / part):
            files[f"/novnc/{path.relative_to(novnc).as_posix()}".encode()] = _read(path, NOVNC)
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (path.suffix in _TYPES or path.stem.upper() in ("LICENSE", "LICENCE", "COPYING")):
            yield path


def _read(path: Path, cache: bytes) -> StaticFile:
    body = path.read_bytes()
    return StaticFile(
        body=body,
        packed=gzip.compress(body, mtime=0),
        type=_TYPES.get(path.suffix, _PLAIN),
        tag=hashlib.sha256(body).hexdigest()[:32].encode(),
        cache=cache,
    )
