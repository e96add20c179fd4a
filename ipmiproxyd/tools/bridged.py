"""Old panels in today's browser: its program behind ``bridge.py``, which speaks their TLS."""

from __future__ import annotations

import datetime
import ipaddress
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ipmiproxyd.agents.sandbox import LIBRARY
from ipmiproxyd.model import JobFile, Program, Secret
from ipmiproxyd.tools import bridge
from ipmiproxyd.tools.curl import spki_pin
from ipmiproxyd.vendors.ports import Port, ranges

LEAST: Final = {"weak-keys": "TLSv1_2", "legacy": "TLSv1"}
"""The profiles of TLS that a browser does not speak, and how old they are."""

_BRIDGE: Final = "ipmiproxyd-bridge.py"
_LIFE: Final = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """What the bridge shows to the browser of one console, which accepts nothing else.

    :ivar pin: as a browser takes it.
    """

    pem: str
    pin: str

    @classmethod
    def make(cls, host: str) -> OwnCertificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ipmiproxyd")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _LIFE)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.SubjectAlternativeName([_subject(host)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        public = certificate.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls((private + public).decode("ascii"), spki_pin(public))


def _subject(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Bridges:
    """Puts programs behind a bridge.

    :param python: an agent's Python, 3.9 or later.
    """

    def __init__(self, *, python: str) -> None:
        self._python = python
        self._text = Path(bridge.__file__).read_text()

    def behind(
        self, program: Program, url: str, ports: tuple[Port, ...], pin: str, profile: str, own: OwnCertificate
    ) -> tuple[Program, JobFile]:
        """``program``, a browser's, with the bridge in front of it. ``pin``: of the panel at ``url``."""

        parts = urlsplit(url)
        told = {
            "host": (parts.hostname or "").lower(),
            "ports": ranges([parts.port or 443, *ports]),
            "pin": pin,
            "least": LEAST[profile],
            "certificate": own.pem,
            "then": program.stdin.reveal() if program.stdin else "",
        }
        argv = (self._python, "-I", "-S", f"{LIBRARY}/{_BRIDGE}", *program.argv)
        return (
            replace(program, argv=argv, stdin=Secret(json.dumps(told))),
            JobFile(place="library", name=_BRIDGE, text=self._text),
        )
