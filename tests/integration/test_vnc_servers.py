"""Signing in at real VNC servers."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ipmiproxyd.errors import BadCertificate, BmcAuth, BmcUnreachable, BmcUnsupported, LimitReached, ProxyError
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.relay.backend import Backend, connect
from tests.support.vnc_servers import Authority, VncServers, reactor

UPDATE_REQUEST = struct.pack(">BxHi", 2, 1, 0) + struct.pack(">BBHHHH", 3, 0, 0, 0, 16, 16)


class Hears(Protocol):
    """Takes a backend over and waits for bytes."""

    def __init__(self) -> None:
        self.heard = b""
        self._count = 0
        self._waiting: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def hears(self, count: int) -> Deferred[bytes]:
        self._count = count
        self.dataReceived(b"")
        return self._waiting

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self._count and len(self.heard) >= self._count:
            self._count = 0
            self._waiting.callback(self.heard)

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class ServerCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.servers = VncServers(self)

    async def sign_in(self, server: VncServer) -> Backend:
        backend = await connect(server, reactor)
        self.addCleanup(backend.close)
        return backend

    async def is_used(self, server: VncServer) -> Backend:
        """Sign in and see the server's picture come."""

        backend = await self.sign_in(server)
        width, height, bits, *_, length = struct.unpack(">HHB15xI", backend.init[:24])
        self.assertEqual((len(backend.init), bits), (24 + length, 32))
        self.assertTrue(width and height)
        receiver = Hears()
        backend.take(receiver)
        backend.transport.resumeProducing()
        backend.transport.write(UPDATE_REQUEST)
        self.assertEqual((await receiver.hears(4 + 12))[0], 0)
        backend.close()
        return backend

    async def refusal(self, server: VncServer, kind: type[ProxyError]) -> ProxyError:
        refused = cast("Deferred[Any]", connect(server, reactor))
        error: ProxyError = await self.assertFailure(refused, kind)
        for text in (error.message, error.hint or ""):
            self.assertNotIn("secret", text)
        return error


class TigerTests(ServerCase):
    async def test_without_a_password(self) -> None:
        server = await self.servers.xvnc()
        backend = await self.is_used(server.vnc())
        self.assertFalse(backend.encrypted)
        await self.is_used(server.vnc("secret1"))

    async def test_on_a_unix_socket(self) -> None:
        await self.is_used((await self.servers.xvnc(unix=True)).vnc())

    async def test_with_a_password(self) -> None:
        server = await self.servers.xvnc("VncAuth", password="secret12345")
        await self.is_used(server.vnc("secret12345"))
        await self.is_used(server.vnc("secret12other"))  # eight characters count
        error = await self.refusal(server.vnc("secret"), BmcAuth)
        self.assertIn("Authentication failure", error.message)
        error = await self.refusal(server.vnc(), BmcAuth)
        self.assertIn("vnc_password", error.message)

    async def test_who_failed_too_often_is_told_so(self) -> None:
        server = await self.servers.xvnc("VncAuth", "-BlacklistThreshold", "2", password="secret")
        for _ in range(3):
            await self.refusal(server.vnc("wrong"), BmcAuth)
        error = await self.refusal(server.vnc("secret"), BmcAuth)
        self.assertIn("for a while: Too many security failures", error.message)

    async def test_no_further_viewer(self) -> None:
        server = await self.servers.xvnc("None", "-NeverShared", "-DisconnectClients=0")
        await self.sign_in(server.vnc())
        error = await self.refusal(server.vnc(), LimitReached)
        self.assertIn("already in use", error.message)

    async def test_vencrypt_without_certificates_is_left_alone(self) -> None:
        """This is how TigerVNC starts if nobody says otherwise."""

        server = await self.servers.xvnc("TLSVnc,VncAuth", password="secret")
        backend = await self.is_used(server.vnc("secret"))
        self.assertFalse(backend.encrypted)
        error = await self.refusal(server.vnc("secret", "00" * 32), BmcUnsupported)
        self.assertIn("TLSVnc, VncAuth", error.message)

    async def test_nothing_in_common(self) -> None:
        server = await self.servers.xvnc("TLSNone,TLSVnc", password="secret")
        error = await self.refusal(server.vnc("secret"), BmcUnsupported)
        self.assertIn("TLSNone, TLSVnc", error.message)

    async def test_what_comes_between_is_not_lost(self) -> None:
        """The server speaks while nobody has taken the connection over."""

        server = await self.servers.xvnc()
        backend = await self.sign_in(server.vnc())
        backend.transport.write(UPDATE_REQUEST)
        await self.is_used(server.vnc())  # by now it has answered the other, too
        transport, unread = backend.detach()
        transport.stopReading()
        stolen = socket.socket(fileno=os.dup(transport.fileno()))
        self.addCleanup(stolen.close)
        self.assertTrue(stolen.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        stolen.settimeout(10)
        self.assertEqual((unread + stolen.recv(100))[0], 0)
        transport.abortConnection()

    async def test_nobody_is_there(self) -> None:
        server = await self.servers.xvnc()
        await server.child.stop()
        error = await self.refusal(server.vnc(), BmcUnreachable)
        self.assertIn("Connection refused", error.message)
        gone = await self.servers.xvnc(unix=True)
        await gone.child.stop()
        await self.refusal(gone.vnc(), BmcUnreachable)

    async def test_the_server_ends(self) -> None:
        server = await self.servers.xvnc()
        backend = await self.sign_in(server.vnc())
        receiver = Hears()
        backend.take(receiver)
        backend.transport.resumeProducing()
        await server.child.stop()
        await receiver.lost


class CertificateTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.servers.folder)

    def trust(self) -> None:
        """Let the authority be one of the system's."""

        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(self.authority.file)
        if before is None:
            self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        else:
            self.addCleanup(os.environ.__setitem__, "SSL_CERT_FILE", before)

    async def test_a_pinned_certificate(self) -> None:
        certificate = self.authority.issue("idrac.example")
        server = await self.servers.xvnc("X509Vnc", password="secret", certificate=certificate)
        backend = await self.is_used(server.vnc("secret", certificate.fingerprint))
        self.assertTrue(backend.encrypted)
        await self.is_used(server.vnc("secret", certificate.fingerprint.upper()))
        error = await self.refusal(server.vnc("secret", "00" * 32), BadCertificate)
        self.assertIn("another certificate", error.message)
        self.assertIn(certificate.fingerprint, error.hint or "")
        error = await self.refusal(server.vnc("wrong", certificate.fingerprint), BmcAuth)
        self.assertIn("Authentication failure", error.message)

    async def test_no_password_inside(self) -> None:
        certificate = self.authority.issue("127.0.0.1")
        server = await self.servers.xvnc("X509None,None", certificate=certificate)
        self.assertTrue((await self.is_used(server.vnc("", certificate.fingerprint))).encrypted)

    async def test_a_certificate_for_an_address(self) -> None:
        server = await self.servers.xvnc("X509None", certificate=self.authority.issue("127.0.0.1"))
        error = await self.refusal(server.vnc(), BadCertificate)
        self.assertIn("an authority that is not known", error.message)
        self.trust()
        self.assertTrue((await self.is_used(server.vnc())).encrypted)
        error = await self.refusal(server.vnc(host="127.0.0.2"), BadCertificate)
        self.assertIn("not for 127.0.0.2", error.message)

    async def test_a_certificate_for_a_name(self) -> None:
        self.trust()
        certificate = self.authority.issue("idrac.example")
        server = await self.servers.xvnc("X509Vnc,VncAuth", password="secret", certificate=certificate)
        self.assertTrue((await self.is_used(server.vnc("secret", host="idrac.example"))).encrypted)
        error = await self.refusal(server.vnc("secret", host="other.example"), BadCertificate)
        self.assertIn("not for other.example", error.message)
        self.assertIn(certificate.fingerprint, error.hint or "")

    async def test_an_expired_certificate(self) -> None:
        self.trust()
        certificate = self.authority.issue("127.0.0.1", days=-1)
        server = await self.servers.xvnc("X509None", certificate=certificate)
        error = await self.refusal(server.vnc(), BadCertificate)
        self.assertIn("expired", error.message)
        await self.is_used(server.vnc("", certificate.fingerprint))  # who pins it wants just this one

    async def test_old_tls(self) -> None:
        certificate = self.authority.issue("127.0.0.1")
        old = ("-GnuTLSPriority", "NORMAL:-VERS-ALL:+VERS-TLS1.1")
        server = await self.servers.xvnc("X509None", *old, certificate=certificate)
        error = await self.refusal(server.vnc("", certificate.fingerprint), BmcUnsupported)
        self.assertIn("TLS with the VNC server failed", error.message)

    async def test_a_pin_demands_encryption(self) -> None:
        server = await self.servers.xvnc("None")
        error = await self.refusal(server.vnc("", "00" * 32), BmcUnsupported)
        self.assertIn("but None", error.message)

    async def test_qemu(self) -> None:
        certificate = self.authority.issue("127.0.0.1")
        for password in ("", "secret"):
            server = await self.servers.qemu(password=password, certificate=certificate)
            self.assertTrue((await self.is_used(server.vnc(password, certificate.fingerprint))).encrypted)


class OtherServersTests(ServerCase):
    async def test_x11vnc(self) -> None:
        await self.is_used((await self.servers.x11vnc()).vnc())

    async def test_x11vnc_with_a_password(self) -> None:
        server = await self.servers.x11vnc(password="secret")
        await self.is_used(server.vnc("secret"))
        error = await self.refusal(server.vnc("wrong"), BmcAuth)
        self.assertIn("password check failed", error.message)

    async def test_old_versions(self) -> None:
        for version in ("3.3", "3.7"):
            server = await self.servers.x11vnc("-rfbversion", version, password="secret")
            await self.is_used(server.vnc("secret"))
            await self.refusal(server.vnc("wrong"), BmcAuth)
            await self.is_used((await self.servers.x11vnc("-rfbversion", version)).vnc())

    async def test_qemu(self) -> None:
        for unix in (False, True):
            await self.is_used((await self.servers.qemu(unix=unix)).vnc())

    async def test_qemu_with_a_password(self) -> None:
        server = await self.servers.qemu(password="secret")
        await self.is_used(server.vnc("secret"))
        error = await self.refusal(server.vnc("wrong"), BmcAuth)
        self.assertIn("Authentication failed", error.message)
