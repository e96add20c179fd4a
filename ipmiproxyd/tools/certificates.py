"""Certificates that nobody has signed but their own key: for what is to be trusted by one of us alone, who knows it."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ipmiproxyd.model import Secret

_LIFE: Final = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """Both as PEM.

    :ivar fingerprint: SHA-256 of the certificate in 64 hexadecimal digits.
    """

    certificate: str
    key: Secret
    fingerprint: str


def self_signed(host: str) -> SelfSigned:
    """A new certificate for a host's name or address. Takes less than a millisecond."""

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
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SelfSigned(
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        Secret(private.decode("ascii")),
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _subject(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
