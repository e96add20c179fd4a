"""OpenSSH's files of known hosts: which keys they vouch for. Reads; never writes."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipmiproxyd.agents.ssh_keys import fingerprint

LIMIT: Final = 4 << 20
"""Bytes of a file that are read."""


@dataclass(frozen=True, slots=True)
class Known:
    """Fingerprints of a host's keys: those that are its own, and those that were revoked."""

    trusted: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()


def known_host(files: Iterable[Path], host: str, port: int) -> Known:
    """What the files tell of a host. Blocks. A file that cannot be read tells nothing."""

    name = host.lower() if port == 22 else f"[{host.lower()}]:{port}"
    trusted: set[str] = set()
    revoked: set[str] = set()
    for file in files:
        for line in _lines(file):
            words = line.split()
            marker = words.pop(0) if words and words[0].startswith("@") else ""
            if len(words) < 3 or marker not in ("", "@revoked") or not _is_for(words[0], name):
                continue
            try:
                key = fingerprint(base64.b64decode(words[2], validate=True))
            except (binascii.Error, ValueError):
                continue
            (revoked if marker else trusted).add(key)
    return Known(frozenset(trusted - revoked), frozenset(revoked))


def _lines(file: Path) -> Sequence[str]:
    try:
        with file.expanduser().open("rb") as open_file:
            text = open_file.read(LIMIT).decode("utf-8", "replace")
    except (OSError, RuntimeError):
        return ()
    return [line for line in text.split("\n") if not line.lstrip().startswith("#")]


def _is_for(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _is_hash_of(patterns, name)
    fits = False
    for pattern in patterns.lower().split(","):
        if fnmatch.fnmatchcase(name, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            fits = True
    return fits


def _is_hash_of(hashed: str, name: str) -> bool:
    try:
        salt, wanted = (base64.b64decode(part, validate=True) for part in hashed[3:].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), hashlib.sha1), wanted)
