"""Answering an HTTP Digest challenge (RFC 2617, MD5), where curl's own way does not suit the panel."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from ipmiproxyd.model import Secret

# The first part: else a header of one long word would take the square of its length.
_FIELD = re.compile(r'(?<![a-z-])([a-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))', re.IGNORECASE)


def challenge(header: str) -> dict[str, str]:
    """The fields of a ``WWW-Authenticate: Digest …``; empty if it is another scheme."""

    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "digest":
        return {}
    return {name.lower(): quoted or plain for name, quoted, plain in _FIELD.findall(rest)}


def authorization(asked: Mapping[str, str], user: str, password: Secret, *, method: str, path: str, cnonce: str) -> str:
    """The value of ``Authorization`` that answers a challenge for the first time."""

    realm, nonce = asked.get("realm", ""), asked.get("nonce", "")
    first = _md5(f"{user}:{realm}:{password.reveal()}")
    second = _md5(f"{method}:{path}")
    fields = {"username": _escaped(user), "realm": realm, "nonce": nonce, "uri": path}
    if "auth" in re.split(r"[\s,]+", asked.get("qop", "")):
        response = _md5(f"{first}:{nonce}:00000001:{cnonce}:auth:{second}")
        more = f', qop=auth, nc=00000001, cnonce="{cnonce}"'
    else:
        response = _md5(f"{first}:{nonce}:{second}")
        more = ""
    if "opaque" in asked:
        fields["opaque"] = asked["opaque"]
    text = ", ".join(f'{name}="{value}"' for name, value in fields.items())
    return f'Digest {text}, response="{response}"{more}'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
