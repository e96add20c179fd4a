"""A small stand-in for the page's and noVNC's folders."""

from __future__ import annotations

from pathlib import Path

INDEX = "<!doctype html><title>Console</title>"
RFB = "export default class RFB {}\n" * 40


def write_pages(folder: Path) -> tuple[Path, Path]:
    """Fill ``folder``; returns (our page's folder, noVNC's folder). Beside what is served lies what must not be."""

    web, novnc = folder / "web", folder / "novnc"
    for path, text in {
        web / "index.html": INDEX,
        web / "app.js": "import '../novnc/core/rfb.js';\n",
        web / "app.css": "body { margin: 0 }\n",
        web / "__init__.py": "",
        web / "package.json": "{}",
        novnc / "core" / "rfb.js": RFB,
        novnc / "core" / "input" / "keyboard.js": "// keys\n",
        novnc / "core" / "README.md": "no",
        novnc / "vendor" / "pako" / "LICENSE": "MIT\n",
        novnc / "vendor" / "pako" / "lib" / "inflate.js": "// inflate\n",
        novnc / "docs" / "API.js": "no",
        novnc / "package.json": "{}",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return web, novnc
