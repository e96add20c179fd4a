"""TLS towards VNC servers, and whether a server's certificate is the right one."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Any, Final

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.errors import BadCertificate, BmcUnsupported, ProxyError

_UNKNOWN: Final = "it is signed by an authority that is not known here"
# What OpenSSL finds wrong with a chain (X509_V_ERR_…), in words.
_FAULTS: Final = {
    9: "it is not valid yet", 10: "it has expired", 18: "it is signed by itself", 19: _UNKNOWN, 20: _UNKNOWN,
    21: _UNKNOWN, 23: "it was revoked", 66: "its key is too weak", 67: "its authority's key is too weak",
    68: "its signature is too weak",
}  # fmt: skip


@implementer(IOpenSSLClientConnectionCreator)
class CertificateCheck:
    """TLS 1.2 or later as the client, with the check of the server's certificate as soon as the handshake is done:
    against a fingerprint; without one, against the system's authorities and the server's name or address.

    :ivar passed: the certificate is good.
    """

    def __init__(self, host: str, fingerprint: str) -> None:
        self._host = host
        self._fingerprint = fingerprint
        self._faults: list[int] = []
        self._tls: Any = None
        self.passed = False

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N803 - the interface's name
        self._tls = tlsProtocol
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if not self._fingerprint:
            context.set_default_verify_paths()
        context.set_verify(SSL.VERIFY_PEER, self._note_fault)
        context.set_info_callback(self._handshake)
        connection = SSL.Connection(context, None)
        if self._host and _address(self._host) is None:
            connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection

    def _note_fault(self, _connection: object, _certificate: object, number: int, _depth: int, good: int) -> bool:
        """What is wrong with the chain; judged at the handshake's end, when all is known."""

        if not good:
            self._faults.append(number)
        return True

    def _handshake(self, connection: SSL.Connection, where: int, _ret: int) -> None:
        if where & SSL.SSL_CB_HANDSHAKE_DONE and not self.passed:
            try:
                self._judge(connection)
                self.passed = True
            except ProxyError:
                self._tls.failVerification(Failure())
            except Exception:  # whatever a certificate contains: it is not trusted
                error = BadCertificate("The VNC server's certificate cannot be read.")
                self._tls.failVerification(Failure(error))

    def _judge(self, connection: SSL.Connection) -> None:
        """Raises BadCertificate."""

        certificate = connection.get_peer_certificate()
        if certificate is None:
            raise BadCertificate("The VNC server has shown no certificate.")
        shown = hashlib.sha256(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)).hexdigest()
        if self._fingerprint:
            if shown != self._fingerprint.lower():
                device = f"If it was renewed, compare it on the device, and set the device's vnc_fingerprint={shown}"
                ours = "It is not the console's display that answers there: who is between the daemon and the agent?"
                raise BadCertificate(
                    "The VNC server has shown another certificate than the expected one.",
                    hint=device if self._host else ours,
                )
            return
        why = self._doubt(connection)
        if why:
            raise BadCertificate(
                f"The VNC server's certificate cannot be trusted: {why}.",
                hint=f"If it is the right one all the same, set the device's vnc_fingerprint={shown}",
            )

    def _doubt(self, connection: SSL.Connection) -> str:
        """What speaks against the certificate, in words."""

        if self._faults:
            number = self._faults[0]
            return _FAULTS.get(number, f"OpenSSL's verification error {number}")
        certificate = connection.get_peer_certificate(as_cryptography=True)
        try:
            if certificate is None:
                return "there is none"
            if _address(self._host) is None:
                verify_certificate_hostname(certificate, self._host)
            else:
                verify_certificate_ip_address(certificate, self._host)
        except (VerificationError, CertificateError):
            return f"it is not for {self._host}"
        return ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def tls_failed(error: BaseException | None) -> ProxyError:
    """The handshake did not come to its end."""

    reasons = [entry[-1] for entry in error.args[0]] if isinstance(error, SSL.Error) and error.args else []
    words = ", ".join(filter(None, reasons))
    if not words:
        words = "it closed the connection" if isinstance(error, ConnectionDone) else "the connection was lost"
    return BmcUnsupported(
        f"TLS with the VNC server failed: {words}.", hint="It has to speak TLS 1.2 or later, with a certificate."
    )
