"""Debian packages that a test makes, and a repository of them in a folder: ``deb [trusted=yes] file:FOLDER ./``."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path


def build(repository: Path, name: str, *, needs: str = "", files: Mapping[str, str] = {}, postinst: str = "") -> None:
    """Put a package into a repository.

    :param needs: what its Depends says.
    :param files: contents, by their paths on the host; those in /etc are its configuration, those in a bin programs.
    :param postinst: of a shell script.
    """

    tree = repository / f"{name}.tree"
    control = tree / "DEBIAN"
    control.mkdir(parents=True)
    about = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Test <test@example.com>\n"
    about += f"Depends: {needs}\n" if needs else ""
    (control / "control").write_text(f"{about}Description: {name}\n")
    for path, content in files.items():
        file = tree / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o755 if "/bin/" in path else 0o644)
    if conffiles := [path for path in files if path.startswith("/etc/")]:
        (control / "conffiles").write_text("".join(f"{path}\n" for path in conffiles))
    if postinst:
        (control / "postinst").write_text(f"#!/bin/sh\nset -e\n{postinst}\n")
        (control / "postinst").chmod(0o755)
    deb = repository / f"{name}.deb"
    argv = ["dpkg-deb", "--build", "-Znone", "--root-owner-group", str(tree), str(deb)]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    data = deb.read_bytes()
    about += f"Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    with (repository / "Packages").open("a") as index:
        index.write(f"{about}Description: {name}\n\n")
