"""Documents ⇄ text, with every :class:`~ipmiproxyd.model.Secret` encrypted.

A secret stands in the text as ``{"$secret": "<Fernet token>"}`` (AES-128-CBC with HMAC-SHA-256). The key is a file
of its own, readable by the daemon alone, so that a copy of the database gives no password away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken

from ipmiproxyd.errors import InternalError
from ipmiproxyd.model import Secret

MARK: Final = "$secret"


class DocumentCodec:
    """Turns documents into JSON text and back."""

    def __init__(self, key: bytes) -> None:
        self._box = Fernet(key)

    def encode(self, document: Mapping[str, Any]) -> str:
        return json.dumps(document, default=self._seal, separators=(",", ":"), ensure_ascii=False)

    def decode(self, text: str) -> dict[str, Any]:
        """:raises InternalError: a secret was encrypted with another key."""

        loaded: dict[str, Any] = json.loads(text, object_hook=self._unseal)
        return loaded

    def _seal(self, value: object) -> dict[str, str]:
        if isinstance(value, Secret):
            return {MARK: self._box.encrypt(value.reveal().encode()).decode("ascii")}
        raise TypeError(f"{type(value).__name__} cannot stand in a document")

    def _unseal(self, value: dict[str, Any]) -> Any:
        if value.keys() != {MARK}:
            return value
        try:
            return Secret(self._box.decrypt(value[MARK]).decode())
        except (InvalidToken, TypeError):
            raise InternalError(
                "The stored secrets were encrypted with another key.",
                hint="Put the key file back that belongs to this state folder.",
            ) from None


def load_or_make_key(path: Path, *, may_make: bool) -> bytes:
    """The key in ``path``; made there (mode 0600) when it is missing and ``may_make``.

    :raises InternalError: the key is missing though secrets exist, or others can read it.
    """

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if not may_make:
            raise InternalError(
                f"The key file {path} is missing, so the stored secrets cannot be read.",
                hint="Put the key file back, or remove the state folder and add the devices again.",
            ) from None
        return _make_key(path)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise InternalError(
                f"The key file {path} can be read by other users.", hint=f"chmod 0600 {path}"
            )
        key = file.read().strip()
    try:
        Fernet(key)
    except ValueError:
        raise InternalError(f"The key file {path} is damaged.") from None
    return key


def _make_key(path: Path) -> bytes:
    """Under its name only once it is whole: half a key would keep every later start from working."""

    key = Fernet.generate_key()
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key + b"\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    return key
