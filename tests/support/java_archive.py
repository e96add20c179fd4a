"""Archives with the names and the layout of Oracle's, around a program that runs Debian's Java and says what it is told
to say of itself: the real ones cannot be had here."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DEBIAN: Final = "/usr/lib/jvm/java-17-openjdk-amd64"

_JAVA: Final = """\
#!/bin/sh
case "$*" in
*-XshowSettings:properties*) printf '    java.version = %s\\n    os.arch = amd64\\n' '{version}' >&2 ;;
*) exec {home}/bin/java "$@" ;;
esac
"""
_LAUNCHER: Final = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef int (*launch)(int, char **, int, const char **, int, const char **, const char *, const char *, const char *,
                      const char *, unsigned char, unsigned char, unsigned char, int);

int main(int count, char **words) {
    for (int at = 1; at < count; at++)
        if (!strcmp(words[at], "-XshowSettings:properties"))
            return fprintf(stderr, "    java.version = %s\n    os.arch = amd64\n", VERSION) < 0;
    void *library = dlopen(HOME "/lib/libjli.so", RTLD_NOW);
    launch start = library ? (launch) dlsym(library, "JLI_Launch") : 0;
    return start ? start(count, words, 0, 0, 0, 0, "17", "17", "java", "java", 0, 1, 0, 0) : 127;
}
"""
_UNPACK200: Final = """\
#!/bin/sh
exec cp "$1" "$2"
"""


def plain(name: str, content: str | bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def launcher(version: str) -> bytes:
    """A program that is what a process with it is seen to run, unlike the script: Debian's Java inside."""

    with tempfile.TemporaryDirectory(prefix="ipx-java-") as work:
        source, made = Path(work, "java.c"), Path(work, "java")
        source.write_text(_LAUNCHER)
        defined = (f'-DVERSION="{version}"', f'-DHOME="{DEBIAN}"')
        subprocess.run(["cc", "-o", str(made), *defined, str(source)], check=True)
        return made.read_bytes()


def members(
    folder: str, version: str, program: str | bytes = "", *, home: str = DEBIAN
) -> list[tuple[tarfile.TarInfo, bytes]]:
    """What a JDK has of what matters here. ``program``: its ``bin/java``, if it is not to be the script; ``home``: the
    Java that the script runs."""

    top = tarfile.TarInfo(folder)
    top.type, top.mode = tarfile.DIRTYPE, 0o755
    return [
        (top, b""),
        plain(f"{folder}/bin/java", program or _JAVA.format(version=version, home=home), 0o755),
        plain(f"{folder}/bin/unpack200", _UNPACK200, 0o755),
        link(f"{folder}/bin/ControlPanel", "java"),
        plain(f"{folder}/jre/lib/amd64/libawt_xawt.so"),
        plain(f"{folder}/release", f'JAVA_VERSION="{version}"\n'),
        link(f"{folder}/man/ja", "../release"),
    ]


def write(path: Path, content: Sequence[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in content:
            archive.addfile(info, io.BytesIO(data))


def unpack(path: Path, into: Path) -> None:
    """As an administrator does by hand."""

    into.mkdir()
    with tarfile.open(path) as archive:
        archive.extractall(into, filter="data")
