"""Real VNC servers for tests: TigerVNC's Xvnc, x11vnc, QEMU; and certificates for them."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Secret
from ipmiproxyd.wire.rfb_hello import vnc_des
from tests.support.page_display import Running
from tests.support.ports import free_ports
from tests.support.scratch import scratch

reactor: Any = global_reactor

# With it VNC programs hide the password in their password file.
_FILE_KEY = bytes((23, 82, 107, 6, 35, 78, 88, 7))


def shown_password(hidden: bytes) -> str:
    """What stands in a VNC program's password file."""

    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in _FILE_KEY)
    decryptor = Cipher(TripleDES(3 * key), modes.ECB()).decryptor()  # three equal keys: DES
    return (decryptor.update(hidden) + decryptor.finalize()).rstrip(b"\0").decode("ascii")


# --- certificates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """PEM files on disk. ``fingerprint``: SHA-256 of the certificate, 64 hexadecimal digits."""

    certificate: Path
    key: Path
    fingerprint: str


class Authority:
    """Signs certificates for a test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = self._build(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self._own = made.add_extension(usage, True).sign(self._key, hashes.SHA256())
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, days: float = 1) -> Certificate:
        """For a host name or an address; with ``days`` below zero it has expired."""

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        try:
            known: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            known = x509.DNSName(name)
        made = (
            self._build(subject, key, days)
            .add_extension(x509.SubjectAlternativeName([known]), False)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
            .sign(self._key, hashes.SHA256())
        )
        folder = self._folder / f"certificate-{random.randrange(1 << 32):08x}"
        folder.mkdir()
        files = Certificate(
            folder / "server-cert.pem", folder / "server-key.pem", made.fingerprint(hashes.SHA256()).hex()
        )
        files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / "ca-cert.pem").write_bytes(self.file.read_bytes())  # QEMU wants it beside
        return files

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float = 1) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(now + datetime.timedelta(days=days))
        )


# --- servers ----------------------------------------------------------------------------------------------------------


@dataclass
class RealServer:
    """A VNC server that accepts connections; ended with its test.

    :ivar port: on 127.0.0.1; 0 if it listens on ``socket``.
    :ivar number: of its X display; -1 for QEMU.
    """

    child: Running
    port: int = 0
    socket: str = ""
    number: int = -1

    def vnc(self, password: str = "", fingerprint: str = "", host: str = "") -> VncServer:
        """How the relay is told of it. ``host`` is the name for its certificate, by default its address."""

        if self.socket:
            return VncServer(UNIXClientEndpoint(reactor, self.socket), host, Secret(password), fingerprint)
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.port)
        return VncServer(endpoint, host or "127.0.0.1", Secret(password), fingerprint)


class VncServers:
    """Starts servers for one test and ends them after it.

    :param address: where Xvnc listens.
    :param spawner: what starts them.
    """

    def __init__(self, test: TestCase, *, address: str = "127.0.0.1", spawner: Any = reactor) -> None:
        self._test = test
        self._address = address
        self._spawner = spawner
        self.folder = scratch(test)

    async def xvnc(
        self,
        security: str = "None",
        *options: str,
        password: str = "",
        certificate: Certificate | None = None,
        unix: bool = False,
        size: str = "320x240",
    ) -> RealServer:
        """TigerVNC. ``security``: its SecurityTypes."""

        number = random.randrange(2000, 50000)  # looking for a free one takes no lock
        port = 0 if unix else free_ports(1)[0]
        path = str(self.folder / f"vnc-{number}") if unix else ""
        where = ("-rfbport", str(port), "-interface", self._address)
        if unix:
            where = ("-rfbport", "-1", "-rfbunixpath", path)
        secrets: list[str] = []
        if password:
            secrets += ["-PasswordFile", str(self._password_file(password))]
        if certificate is not None:
            secrets += ["-X509Cert", str(certificate.certificate), "-X509Key", str(certificate.key)]
        child = self.start(
            [
                *("Xvnc", f":{number}", "-displayfd", "3", "-geometry", size, "-depth", "24", "-br", "-ac"),
                *("-nolisten", "tcp", "-SecurityTypes", security, *where, *secrets, *options),
            ],
            fds={0: "w", 1: "r", 2: "r", 3: "r"},
        )
        await child.until(lambda: "\n" in child.extra)
        return RealServer(child, port, path, number)

    async def x11vnc(self, *options: str, password: str = "") -> RealServer:
        """x11vnc (LibVNCServer) on a display of its own."""

        display = await self.xvnc(unix=True)
        port = free_ports(1)[0]
        secrets: list[str] = []
        if password:
            file = self.folder / f"x11vnc-{port}"
            file.write_text(password + "\n")
            secrets = ["-passwdfile", str(file)]
        child = self.start(
            [
                *("x11vnc", "-display", f":{display.number}", "-rfbport", str(port), "-localhost", "-forever"),
                *("-shared", "-no6", "-noipv6", "-norc", "-nopw", "-nonap", "-noxdamage", "-noshm", *secrets, *options),
            ],
            end="KILL",  # asked politely, it hangs now and then
        )
        await child.says(r"PORT=\d+")
        return RealServer(child, port, number=display.number)

    async def qemu(
        self,
        *arguments: str,
        password: str = "",
        certificate: Certificate | None = None,
        unix: bool = False,
        options: str = "",
    ) -> RealServer:
        """A machine that is never switched on: its screen says so. ``options``: of its ``-vnc``."""

        port = 0 if unix else free_ports(1)[0]
        path = str(self.folder / f"qemu-{random.randrange(1 << 32):08x}") if unix else ""
        vnc = (f"unix:{path}" if unix else f"127.0.0.1:{port - 5900}") + options
        objects: list[str] = []
        if password:
            file = self.folder / "qemu-password"
            file.write_text(password)
            objects += ["-object", f"secret,id=password,file={file}"]
            vnc += ",password-secret=password"
        if certificate is not None:
            folder = certificate.certificate.parent
            objects += ["-object", f"tls-creds-x509,id=tls,dir={folder},endpoint=server,verify-peer=no"]
            vnc += ",tls-creds=tls"
        child = self.start(
            [
                *("qemu-system-x86_64", "-S", "-nodefaults", "-vga", "std", "-m", "16", "-accel", "tcg"),
                *("-display", "none", *objects, "-vnc", vnc, *arguments),
            ]
        )
        server = RealServer(child, port, path)
        await self._listens(server)
        return server

    def start(
        self, argv: list[str], env: Mapping[str, str] | None = None, fds: Any = None, end: str = "TERM"
    ) -> Running:
        child = Running(reactor)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LANG": "C.UTF-8"}
        environment |= env or {}
        self._spawner.spawnProcess(child, argv[0], argv, environment, path=str(self.folder), childFDs=fds)
        self._test.addCleanup(lambda: Deferred.fromCoroutine(_stop(child, end)))
        return child

    async def run(self, server: RealServer, *argv: str) -> None:
        """Run an X program on the server's display to its end."""

        await self.start([*argv], {"DISPLAY": f":{server.number}"}).ended

    async def paint(self, server: RealServer, colour: tuple[int, int, int]) -> None:
        """The whole screen in one colour."""

        await self.run(server, "xsetroot", "-solid", f"#{bytes(colour).hex()}")

    def _password_file(self, password: str) -> Path:
        file = self.folder / f"password-{random.randrange(1 << 32):08x}"
        file.write_bytes(vnc_des(Secret(_FILE_KEY.decode()), password.encode()[:8].ljust(8, b"\x00")))
        file.chmod(0o600)
        return file

    async def _listens(self, server: RealServer) -> None:
        for _ in range(500):
            with contextlib.suppress(OSError):
                if server.socket:
                    with socket.socket(socket.AF_UNIX) as probe:
                        probe.connect(server.socket)
                else:
                    socket.create_connection(("127.0.0.1", server.port), 1).close()
                return
            await deferLater(reactor, 0.02)
        raise AssertionError(f"it does not listen; it said: {server.child.output}")


async def _stop(child: Running, signal: str) -> None:
    with contextlib.suppress(ProcessExitedAlready):
        if child.transport is not None:
            child.transport.signalProcess(signal)
    await child.stop()
