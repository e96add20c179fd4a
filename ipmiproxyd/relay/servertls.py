"""The relay's own TLS certificate and key: checked before they are used, and loaded again when they were renewed."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd.errors import BadValue

LOOK_EVERY: Final = 60.0
"""Seconds between two looks at the files."""
SOON: Final = 14 * 86400.0
"""Seconds before its end in which a certificate is spoken of."""
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are good, all of them
_FAULTS: Final = {
    "EE_KEY_TOO_SMALL": "its key is too short",
    "CA_KEY_TOO_SMALL": "its authority's key is too short",
    "CA_MD_TOO_WEAK": "its signature is too weak",
    "KEY_VALUES_MISMATCH": "the key does not belong to it",
}

log = Logger()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A certificate in use. ``names`` are host names and addresses; ``ends`` is the last moment at which it is good."""

    context: ssl.SSLContext
    names: tuple[str, ...]
    ends: datetime


class ServerTls:
    """What the relay's TLS connections are made with.

    The files are looked at again when somebody connects, at most once a minute and in a thread. What is there then
    and cannot be used is told in the log, and the old certificate stays.

    :param certificate: PEM: the server's own certificate first, then those up to the authority's.
    :param key: PEM, not encrypted; None if it is in the certificate's file.
    :raises BadValue: they cannot be used.
    """

    def __init__(self, reactor: Any, certificate: Path, key: Path | None = None) -> None:
        self._reactor = reactor
        self._certificate = certificate
        self._key = key or certificate
        self._stamps = self._stamped()
        self._loaded = load(self._certificate, self._key, reactor.seconds())
        self._look_at = reactor.seconds() + LOOK_EVERY

    def context(self) -> ssl.SSLContext:
        """For a connection that begins now."""

        if self._reactor.seconds() >= self._look_at:
            self._look_at = self._reactor.seconds() + LOOK_EVERY
            looking = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._renewed)
            looking.addCallbacks(self._replace, self._refused)
        return self._loaded.context

    def warnings(self, host: str) -> list[str]:
        """What browsers will not like about the certificate, today or soon.

        :param host: where they think they are; empty if that is not for us to know.
        """

        told = []
        if host and not any(_is_covered(host, name) for name in self._loaded.names):
            names = ", ".join(self._loaded.names) or "no name at all"
            told.append(f"The certificate {self._certificate} is for {names}, but the consoles' URLs name {host}.")
        left = self._loaded.ends.timestamp() - self._reactor.seconds()
        if left < SOON:
            days = int(left // 86400)
            when = "has expired" if left <= 0 else f"expires in {days} day{'' if days == 1 else 's'}"
            told.append(f"The certificate {self._certificate} {when} ({self._loaded.ends:%Y-%m-%d}).")
        return told

    def _renewed(self) -> Loaded | None:
        """In a thread."""

        stamps = self._stamped()
        if stamps == self._stamps:
            return None
        self._stamps = stamps
        return load(self._certificate, self._key, self._reactor.seconds())

    def _replace(self, loaded: Loaded | None) -> None:
        if loaded is not None:
            self._loaded = loaded
            log.info("the relay's certificate was renewed and is good until {until}", until=f"{loaded.ends:%Y-%m-%d}")

    def _refused(self, failure: Failure) -> None:
        if failure.check(BadValue):
            log.error("the relay's new certificate is not used: {why}", why=failure.getErrorMessage())
        else:
            log.failure("the relay's certificate could not be loaded again", failure)

    def _stamped(self) -> Sequence[tuple[int, int, int]]:
        """Changes when the files do."""

        return [_stamp(path) for path in (self._certificate, self._key)]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size


# --- loading ----------------------------------------------------------------------------------------------------------


def load(certificate: Path, key: Path, now: float) -> Loaded:
    """Read and check. Blocks. Raises BadValue.

    :param now: seconds since the epoch.
    """

    own = _own_certificate(certificate)
    _check_key("relay.certificate" if key == certificate else "relay.key", key, own)
    begins, ends, today = own.not_valid_before_utc, own.not_valid_after_utc, datetime.fromtimestamp(now, UTC)
    if ends <= today:
        raise BadValue(f"relay.certificate: {certificate} has expired on {ends:%Y-%m-%d}.", hint="Renew it.")
    if begins > today:
        raise BadValue(
            f"relay.certificate: {certificate} is not valid before {begins:%Y-%m-%d %H:%M} UTC.",
            hint="Is this machine's clock right?",
        )
    return Loaded(_context(certificate, key), _names(own), ends)


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadValue(
            f"{setting}: {path} cannot be read: {error.strerror}.",
            hint="The daemon's user has to be able to read it.",
        ) from None


def _own_certificate(path: Path) -> x509.Certificate:
    content = _read("relay.certificate", path)
    try:
        return x509.load_pem_x509_certificates(content)[0]
    except (ValueError, UnsupportedAlgorithm):
        raise BadValue(
            f"relay.certificate: there is no certificate in {path}.",
            hint="It begins with -----BEGIN CERTIFICATE-----; a file in DER form has to be converted to PEM.",
        ) from None


def _check_key(setting: str, path: Path, certificate: x509.Certificate) -> None:
    content = _read(setting, path)
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise BadValue(
            f"{setting}: the key in {path} is encrypted.",
            hint="Nobody can type a passphrase at the daemon's start: store it decrypted, for the daemon's user alone.",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        hint = "It begins with -----BEGIN PRIVATE KEY----- or the like."
        if setting == "relay.certificate":
            hint += " If it is in a file of its own, name that in relay.key."
        raise BadValue(f"{setting}: there is no private key in {path}.", hint=hint) from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise BadValue(
            f"{setting}: the key in {path} does not belong to the certificate.",
            hint="The server's own certificate has to be the first in its file, before those of the authority.",
        )


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # All that is left is good: the browser knows best what its processor does fast.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "OpenSSL refuses it"
        raise BadValue(
            f"relay.certificate: {certificate} cannot be used: {_FAULTS.get(reason, reason)}.",
            hint="Get another one from your authority.",
        ) from None
    return context


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Those that browsers look at: not the common name."""

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return (*alternatives.get_values_for_type(x509.DNSName), *map(str, addresses))


def _is_covered(host: str, name: str) -> bool:
    host, name = host.strip("[]").lower().removesuffix("."), name.lower()
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        first, _, rest = host.partition(".")
        return host == name or (name.startswith("*.") and bool(first) and rest == name[2:])
