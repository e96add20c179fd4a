"""A TLS certificate of the relay's and its key: checked before they are used, and loaded again when they were renewed.
There is the relay's own, and those of proxies."""

from __future__ import annotations

import ipaddress
import os
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd.errors import BadValue

LOOK_EVERY: Final = 60.0
"""Seconds between two looks at the files."""
SOON: Final = 14 * 86400.0
"""Seconds before its end in which a certificate is spoken of."""
_MOST: Final = 1 << 20
"""Bytes that a file may have."""
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are good, all of them
OWN: Final = ("relay.certificate", "relay.key")
"""The settings of the relay's own certificate."""
OF_A_PROXY: Final = ("certificate", "key")
_FAULTS: Final = {
    "EE_KEY_TOO_SMALL": "its key is too short",
    "CA_KEY_TOO_SMALL": "its authority's key is too short",
    "CA_MD_TOO_WEAK": "its signature is too weak",
    "KEY_VALUES_MISMATCH": "the key does not belong to it",
}

log = Logger()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A certificate in use. ``hosts`` and ``addresses`` are what it is for; ``fingerprint`` is its SHA-256; ``ends`` is
    the last moment at which it is good."""

    context: ssl.SSLContext
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    fingerprint: bytes
    ends: datetime


class TlsContexts(Protocol):
    """What the connections of a listener are made with."""

    def context(self) -> ssl.SSLContext:
        """For a connection that begins now."""


class ServerTls:
    """What the relay's TLS connections are made with.

    The files are looked at again when somebody connects, at most once a minute and in a thread. What is there then
    and cannot be used is told in the log, and the old certificate stays.

    :param certificate: PEM: the server's own certificate first, then those up to the authority's.
    :param key: PEM, not encrypted; None if it is in the certificate's file.
    :param settings: what these two are called where they are set.
    :raises BadValue: they cannot be used.
    """

    def __init__(
        self, reactor: Any, certificate: Path, key: Path | None = None, settings: tuple[str, str] = OWN
    ) -> None:
        self._reactor = reactor
        self._certificate = certificate
        self._key = key or certificate
        self._settings = settings
        self._stamps = self._stamped()
        self._loaded = self._load()
        self._look_at = reactor.seconds() + LOOK_EVERY

    def context(self) -> ssl.SSLContext:
        """For a connection that begins now."""

        if self._reactor.seconds() >= self._look_at:
            self.look()
        return self._loaded.context

    @property
    def names(self) -> tuple[str, ...]:
        """The host names and addresses that it is for; a name may begin with ``*.``."""

        return (*self._loaded.hosts, *self._loaded.addresses)

    @property
    def dns_names(self) -> tuple[str, ...]:
        return self._loaded.hosts

    @property
    def fingerprint(self) -> bytes:
        return self._loaded.fingerprint

    def covers(self, host: str) -> bool:
        return any(_is_covered(host, name) for name in self.names)

    def look(self) -> Deferred[None]:
        """Look at the files now. Never fails."""

        self._look_at = self._reactor.seconds() + LOOK_EVERY
        looking = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._renewed)
        return looking.addCallbacks(self._replace, self._refused)

    def warnings(self, host: str) -> list[str]:
        """What browsers will not like about the certificate, today or soon.

        :param host: where they think they are; empty if that is not for us to know.
        """

        told = []
        if host and not self.covers(host):
            names = ", ".join(self.names) or "no name at all"
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
        return self._load()

    def _load(self) -> Loaded:
        return load(self._certificate, self._key, self._reactor.seconds(), self._settings)

    def _replace(self, loaded: Loaded | None) -> None:
        if loaded is not None:
            self._loaded = loaded
            log.info(
                "the certificate {file} was renewed and is good until {until}",
                file=self._certificate,
                until=f"{loaded.ends:%Y-%m-%d}",
            )

    def _refused(self, failure: Failure) -> None:
        if failure.check(BadValue):
            log.error("a new certificate is not used: {why}", why=failure.getErrorMessage())
        else:
            log.failure("a certificate could not be loaded again", failure)

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


def load(certificate: Path, key: Path, now: float, settings: tuple[str, str] = OWN) -> Loaded:
    """Read and check. Blocks. Raises BadValue.

    :param now: seconds since the epoch.
    """

    setting = settings[0]
    own = _own_certificate(setting, certificate)
    _check_key(settings, certificate, key, own)
    begins, ends, today = own.not_valid_before_utc, own.not_valid_after_utc, datetime.fromtimestamp(now, UTC)
    if ends <= today:
        raise BadValue(f"{setting}: {certificate} has expired on {ends:%Y-%m-%d}.", hint="Renew it.")
    if begins > today:
        raise BadValue(
            f"{setting}: {certificate} is not valid before {begins:%Y-%m-%d %H:%M} UTC.",
            hint="Is this machine's clock right?",
        )
    return Loaded(_context(setting, certificate, key), *_names(own), own.fingerprint(SHA256()), ends)


def _read(setting: str, path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = file.read(_MOST + 1) if is_file else b""
    except OSError as error:
        raise BadValue(
            f"{setting}: {path} cannot be read: {error.strerror}.",
            hint="The daemon's user has to be able to read it.",
        ) from None
    if not is_file or len(content) > _MOST:
        problem = "is too large" if is_file else "is not a plain file"
        raise BadValue(f"{setting}: {path} {problem}.", hint="Name a PEM file.")
    return content


def _own_certificate(setting: str, path: Path) -> x509.Certificate:
    content = _read(setting, path)
    try:
        return x509.load_pem_x509_certificates(content)[0]
    except (ValueError, UnsupportedAlgorithm):
        raise BadValue(
            f"{setting}: there is no certificate in {path}.",
            hint="It begins with -----BEGIN CERTIFICATE-----; a file in DER form has to be converted to PEM.",
        ) from None


def _check_key(settings: tuple[str, str], file: Path, path: Path, certificate: x509.Certificate) -> None:
    setting = settings[0 if path == file else 1]
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
        if path == file:
            hint += f" If it is in a file of its own, name that in {settings[1]}."
        raise BadValue(f"{setting}: there is no private key in {path}.", hint=hint) from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise BadValue(
            f"{setting}: the key in {path} does not belong to the certificate.",
            hint="The server's own certificate has to be the first in its file, before those of the authority.",
        )


def _context(setting: str, certificate: Path, key: Path) -> ssl.SSLContext:
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
            f"{setting}: {certificate} cannot be used: {_FAULTS.get(reason, reason)}.",
            hint="Get another one from your authority.",
        ) from None
    return context


def _names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hosts and addresses that browsers look at: not the common name."""

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return (), ()
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return tuple(alternatives.get_values_for_type(x509.DNSName)), tuple(map(str, addresses))


def _is_covered(host: str, name: str) -> bool:
    host, name = host.strip("[]").lower().removesuffix("."), name.lower()
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        first, _, rest = host.partition(".")
        return host == name or (name.startswith("*.") and bool(first) and rest == name[2:])
