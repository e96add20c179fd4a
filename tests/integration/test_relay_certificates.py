"""Consoles that are served with certificates of their own: on their ports, and on a gateway, which chooses by name."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from ipmiproxyd.errors import BadValue, NoFreePort
from ipmiproxyd.model import CertificateFiles
from ipmiproxyd.relay import certificates, servertls
from ipmiproxyd.relay.host import WebRelayPort
from tests.support.fake_console import FakeConsole
from tests.support.ports import free_ports
from tests.support.relay_case import RelayCase
from tests.support.relay_tls import GatewayCase, Made


def fingerprint(certificate: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def shown(port: int, name: str | None = None) -> str:
    """Blocks: the fingerprint of what a client is shown that asks for the host ``name``."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while tls.recv(65536):
            pass
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


class CertificateCase(RelayCase):
    def certificate(self, name: str, *names: str, **how: Any) -> tuple[CertificateFiles, str]:
        made = Made(self.folder, name, names=tuple(f"DNS:{one}" for one in names), **how)
        return CertificateFiles(str(made.certificate), str(made.key)), fingerprint(made.certificate)

    async def open(self, certificate: CertificateFiles | None, console: str = "c1") -> WebRelayPort:
        await self.host.prepare(certificate)
        return self.host.open(FakeConsole(console, self.display.endpoint), certificate)

    async def refused(self, work: Any, *words: str) -> None:
        error = await self.assertFailure(Deferred.fromCoroutine(work), BadValue)
        for word in words:
            self.assertIn(word, error.message)
        self.assertTrue(error.hint)


class PortTests(CertificateCase):
    """Without TLS of the relay's own."""

    async def test_each_its_own(self) -> None:
        (first, one), (second, two) = self.certificate("a", "a.example"), self.certificate("b", "b.example")
        await self.host.judge(first, ())
        a, b = await self.open(first), await self.open(second, "c2")
        for port, print_ in ((a, one), (b, two)):
            assert port.number is not None
            self.assertEqual(await deferToThread(shown, port.number), print_)
            self.assertEqual(self.host.url(port, "T"), f"https://relay.example:{port.number}/#t=T")
        (told,) = self.host.warnings(a)
        self.assertIn("is for a.example, but the consoles' URLs name relay.example", told)
        self.assertRaises(NoFreePort, self.host.open, FakeConsole("c3"), first)
        await a.close("closed", "")
        self.assertEqual(list(self.host._certificates._in_use), [second])

    async def test_without(self) -> None:
        self.assertTrue(self.host.url(self.serve(), "T").startswith("http://"))
        await self.refused(self.host.judge(None, ()), "encrypt: no certificate is named")
        await self.refused(self.host.prepare(None), "encrypt:")

    async def test_what_cannot_be_used(self) -> None:
        good, _ = self.certificate("a", "a.example")
        other, _ = self.certificate("b", "b.example")
        fifo, large = self.folder / "fifo", self.folder / "large.pem"
        os.mkfifo(fifo)
        large.write_bytes(bytes(2 << 20))
        for certificate, *words in (
            (CertificateFiles("/nowhere.pem"), "certificate: /nowhere.pem cannot be read"),
            (CertificateFiles(good.key), "certificate: there is no certificate in"),
            (CertificateFiles(good.certificate), "certificate: there is no private key in"),
            (CertificateFiles(good.certificate, other.key), "key: the key in", "does not belong"),
            (CertificateFiles(good.certificate, good.certificate), "certificate: there is no private key"),
            (CertificateFiles(str(fifo)), f"certificate: {fifo} is not a plain file"),
            (CertificateFiles(good.certificate, str(fifo)), f"key: {fifo} is not a plain file"),
            (CertificateFiles("/dev/zero"), "certificate: /dev/zero is not a plain file"),
            (CertificateFiles(str(self.folder)), "certificate:", str(self.folder)),
            (CertificateFiles(str(large)), f"certificate: {large} is too large"),
            (self.certificate("old", "c.example", begins=-9, ends=-2)[0], "certificate:", "has expired"),
        ):
            await self.refused(self.host.judge(certificate, ()), *words)
            await self.refused(self.host.prepare(certificate), *words)

    async def test_files_that_take_too_long(self) -> None:
        read, gate = servertls._read, threading.Event()
        self.addCleanup(gate.set)
        self.patch(certificates, "LOAD_LIMIT", 0.05)
        self.patch(servertls, "_read", lambda *what: gate.wait(20) and read(*what))
        await self.refused(self.host.judge(self.certificate("a", "a.example")[0], ()), "was not read within")

    async def test_renewed(self) -> None:
        self.patch(servertls, "LOOK_EVERY", 0.0)
        files, before = self.certificate("a", "a.example")
        port = await self.open(files)
        assert port.number is not None
        self.assertEqual(await deferToThread(shown, port.number), before)
        _, after = self.certificate("a", "a.example")
        for _ in range(200):
            if await deferToThread(shown, port.number) == after:
                break
        self.assertEqual(await deferToThread(shown, port.number), after)
        Path(files.key).write_text("broken")
        await self.open(files, "c2")  # with what was good


class SecureGatewayTests(GatewayCase, CertificateCase):
    secure = True

    async def test_chosen_by_name(self) -> None:
        own = fingerprint(self.made.certificate)
        a, one = self.certificate("a", "A.example", "*.wild.example")
        b, two = self.certificate("b", "b.example", "x.wild.example")
        first, second, third = await self.open(a), await self.open(b, "c2"), self.host.open(FakeConsole("c3"))
        self.assertEqual(
            [self.host.url(port, "T") for port in (first, second, third)],
            [
                f"https://{host}:{self.gateway}/c/{console}/#t=T"
                for host, console in (("a.example", "c1"), ("b.example", "c2"), ("relay.example", "c3"))
            ],
        )
        self.assertEqual(self.host.warnings(first), [])
        for name, expected in (
            ("a.example", one), ("b.example", two), ("B.EXAMPLE", two), ("y.wild.example", one),
            ("x.wild.example", two), ("relay.example", own), ("other.example", own), (None, own),
        ):  # fmt: skip
            self.assertEqual(await deferToThread(shown, self.gateway, name), expected, name)
        await first.close("closed", "")
        self.assertEqual(await deferToThread(shown, self.gateway, "a.example"), own)

    async def test_what_a_gateway_cannot_choose(self) -> None:
        a, _ = self.certificate("a", "a.example")
        same, _ = self.certificate("same", "b.example", "A.example")
        taken, _ = self.certificate("r", "relay.example")
        nameless, wild = self.certificate("nameless")[0], self.certificate("wild", "*.example")[0]
        await self.host.judge(None, ())
        await self.host.judge(a, {CertificateFiles("/nowhere.pem"), a})
        await self.refused(self.host.judge(same, {a}), "is for a.example, and so is", a.certificate)
        await self.refused(self.host.judge(taken, ()), "and so is relay.certificate")
        for certificate in (nameless, wild):
            await self.refused(self.host.judge(certificate, ()), "names no host")
            await self.refused(self.host.prepare(certificate), "names no host")


class PlainGatewayTests(GatewayCase, CertificateCase):
    async def test_no_tls_to_choose_in(self) -> None:
        await self.refused(self.host.judge(self.certificate("a", "a.example")[0], ()), "the gateway has no TLS")
        await self.refused(self.host.judge(None, ()), "encrypt:")

    async def test_behind_a_reverse_proxy(self) -> None:
        certificate, _ = self.certificate("a", "a.example")
        await self.host.close("closed", "")
        for url in ("https://gate.example/kvm", "http://gate.example"):
            host = RelayCase.make_host(self, [], gateway=("127.0.0.1", free_ports(1)[0]), public_url=url)
            await self.refused(host.judge(certificate, ()), "relay.public_url")
            if url.startswith("https"):
                await host.judge(None, ())
                await host.prepare(None)
                self.assertEqual(host.url(host.open(FakeConsole()), "T"), f"{url}/c/c1/#t=T")
            else:
                await self.refused(host.judge(None, ()), "encrypt:")

    async def test_no_plain_port_beside_a_reverse_proxy_that_encrypts(self) -> None:
        await self.host.close("closed", "")
        how = {"gateway": ("127.0.0.1", free_ports(1)[0]), "public_url": "https://gate.example"}
        host = RelayCase.make_host(self, free_ports(2), **how)
        await host.prepare(None)
        self.assertIsNone(host.open(FakeConsole("c1"), encrypt=True).number)
        self.assertIsNotNone(host.open(FakeConsole("c2")).number)
