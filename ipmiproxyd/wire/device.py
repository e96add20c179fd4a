"""A device's fields: what is valid in them, and device ⇄ stored document."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from ipmiproxyd.model import Device, Interface, Privilege, Secret, TcpStream, WebTrust
from ipmiproxyd.wire.fields import (
    JAVA,
    JAVA_WORDS,
    LOCATION,
    NAME,
    NAME_WORDS,
    Check,
    check_all,
    check_changes,
    choice,
    matching,
    secret,
    text,
)

_VENDOR = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_KG = re.compile(r"(?:[0-9A-Fa-f]{2}){0,20}")
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")

SIGN_IN: Final = frozenset({"address", "port", "username", "password", "interface", "cipher", "privilege", "kg"})
"""The fields that decide how a sign-in by IPMI goes."""


def checked(device: Device) -> Device:
    """The device with its addresses, its location and its fingerprint in one spelling.

    :raises BadValue: some fields are not valid; all of them are named.
    """

    check_all(_CHECKS, device)
    return replace(
        device,
        address=_one_spelling(device.address),
        vnc=device.vnc and _joined(vnc_address(device.vnc)),
        location=device.location.strip(),
        vnc_fingerprint=device.vnc_fingerprint.replace(":", "").lower(),
    )


def changed(device: Device, changes: Mapping[str, Any]) -> Device:
    """The device with some fields replaced, and checked.

    :raises BadValue: no such field, or its new value is not valid.
    """

    check_changes(_CHECKS, "device", device.name, changes)
    return checked(replace(device, **changes))


def to_document(device: Device) -> dict[str, Any]:
    return {field.name: getattr(device, field.name) for field in fields(Device)}


def from_document(document: Mapping[str, Any]) -> Device:
    """Fields that are missing have their defaults; unknown ones are passed over (a later version wrote them)."""

    return Device(**{field.name: document[field.name] for field in fields(Device) if field.name in document})


def is_host(text: str) -> bool:
    """An IPv4 address, an IPv6 address without brackets or zone, or a host name."""

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        labels = text.removesuffix(".").split(".")
        # A name whose last label is a number is a mistyped address: no top-level domain is one.
        return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
    return not (address.is_multicast or address.is_unspecified or "%" in text)


def vnc_address(text: str) -> TcpStream:
    """Where a device's ``vnc`` leads: ``host:port``, an IPv6 address in brackets.

    :raises ValueError: it leads nowhere.
    """

    parts = urlsplit(f"//{text}")
    host, port = parts.hostname or "", parts.port
    # Put together again it must be the same: so nothing else stands in it.
    if not port or not is_host(host) or _joined(TcpStream(host, port)) != text.lower():
        raise ValueError("not the address of a VNC server")
    return TcpStream(_one_spelling(host), port)


def _joined(address: TcpStream) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _one_spelling(host: str) -> str:
    """Locks and remembered facts belong to an address: it must not have two spellings."""

    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.removesuffix(".").lower()


# --- the checks: each gives what is wrong, or None -------------------------------------------------------------------

def _address(value: object) -> str | None:
    return None if isinstance(value, str) and is_host(value) else "is neither an IP address nor a host name"


def _port(value: object) -> str | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535
    return None if fits else "is not a port number (1 to 65535)"


def _cipher(value: object) -> str | None:
    if value == "0":
        return "cipher suite 0 lets anybody in without a password and is never used"
    fits = isinstance(value, str) and (value == "auto" or (re.fullmatch(r"[1-9][0-9]?", value) and int(value) <= 17))
    return None if fits else "is neither auto nor the number of a cipher suite (1 to 17)"


def _kg(value: object) -> str | None:
    fits = isinstance(value, Secret) and _KG.fullmatch(value.reveal()) is not None
    return None if fits else "is not a key of up to 20 bytes in hexadecimal digits"


def _web(value: object) -> str | None:
    if value == "":
        return None
    wrong = "is not the address of a web panel (https://host or https://host:port)"
    if not isinstance(value, str) or len(value) > 512:
        return wrong
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return wrong
    if "@" in parts.netloc:
        return "may not hold a user name or password (there are web_username and web_password)"
    # Put together again it must be the same: so nothing else stands in it.
    netloc = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    same = value.lower().removesuffix("/") == f"{parts.scheme}://{netloc}{parts.path}".lower().removesuffix("/")
    fits = parts.scheme in ("https", "http") and is_host(host) and port != 0 and _PATH.fullmatch(parts.path)
    return None if same and fits else wrong


def _vnc(value: object) -> str | None:
    wrong = "is not the address of a VNC server (host:port, an IPv6 address in brackets)"
    if not isinstance(value, str) or len(value) > 512:
        return wrong
    try:
        if value:
            vnc_address(value)
    except ValueError:
        return wrong
    return None


_CHECKS: Final[dict[str, Check]] = {
    "name": matching(NAME, NAME_WORDS, empty=True),
    "address": _address,
    "port": _port,
    "username": text(256),
    "password": secret(256),
    "interface": choice(get_args(Interface)),
    "cipher": _cipher,
    "privilege": choice(get_args(Privilege)),
    "kg": _kg,
    "web": _web,
    "web_username": text(256),
    "web_password": secret(256),
    "web_trust": choice(get_args(WebTrust)),
    "java": matching(JAVA, JAVA_WORDS, empty=True),
    "vnc": _vnc,
    "vnc_password": secret(256),
    "vnc_fingerprint": matching(_FINGERPRINT, "is not a SHA-256 fingerprint (64 hexadecimal digits)", empty=True),
    "location": LOCATION,
    "vendor": matching(_VENDOR, "is not the name of a vendor's family, or auto"),
    "notes": text(4096, lines=True),
}
