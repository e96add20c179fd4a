"""The bridge to old panels: what it reads of certificates, of requests, and of its neighbours."""

from __future__ import annotations

import socket
import ssl
import threading

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.tools import bridge
from ipmiproxyd.tools.bridged import LEAST, OwnCertificate
from ipmiproxyd.tools.curl import TLS_PROFILES, spki_pin
from tests.simulator.panel import make_certificate


class CertificateTests(SynchronousTestCase):
    def test_pins_are_those_that_curl_sees(self) -> None:
        for host in ("10.0.0.7", "fe80::1", "bmc.example"):
            own = OwnCertificate.make(host)
            for pem, pin in ((own.pem.encode(), own.pin), (make_certificate(host)[1], "")):
                at = pem.index(b"-----BEGIN CERTIFICATE")
                der = x509.load_pem_x509_certificate(pem[at:]).public_bytes(Encoding.DER)
                self.assertEqual(bridge.pin_of(der), pin or spki_pin(pem))

    def test_every_profile_but_the_best_has_an_age(self) -> None:
        self.assertEqual(["modern", *LEAST], list(TLS_PROFILES))
        for name in LEAST.values():
            self.assertIs(bridge.towards_panel(name).minimum_version, ssl.TLSVersion[name])


class VisitorTests(SynchronousTestCase):
    def said(self, data: bytes) -> tuple[str, int]:
        here, there = socket.socketpair()
        with here, there:
            there.sendall(data)
            there.shutdown(socket.SHUT_WR)
            return bridge.target(here)

    def test_targets(self) -> None:
        self.assertEqual(self.said(b"CONNECT BMC:443 HTTP/1.1\r\nHost: x\r\n\r\n"), ("bmc", 443))
        self.assertEqual(self.said(b"CONNECT [fe80::1]:5900 HTTP/1.1\r\n\r\n"), ("fe80::1", 5900))

    def test_what_is_no_target(self) -> None:
        for data in (
            b"",
            b"CONNECT a:443 HTTP/1.1\r\n",
            b"GET http://a/ HTTP/1.1\r\n\r\n",
            b"CONNECT a HTTP/1.1\r\n\r\n",
            b"CONNECT\r\n\r\n",
            b"x" * 70_000,
        ):
            self.assertRaises(bridge.RefusedError, self.said, data)

    def test_who_is_in_this_proc(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            accepted, peer = server.accept()
            with accepted:
                self.assertTrue(bridge.is_ours(peer, server.getsockname()))
                client.close()
                self.assertFalse(bridge.is_ours(peer, server.getsockname()))


class CarryTests(SynchronousTestCase):
    """Through two real TLS connections."""

    def test_both_ways_to_the_end(self) -> None:
        own = OwnCertificate.make("bmc")
        server, client = bridge.towards_browser(own.pem), bridge.towards_panel("TLSv1")
        browser, inner = self.pair(client, server)
        outer, panel = self.pair(client, server)
        carrying = threading.Thread(target=bridge.carry, args=(inner, outer))
        carrying.start()
        much = bytes(range(256)) * 8192
        browser.sendall(b"please")
        self.assertEqual(panel.recv(100), b"please")
        writing = threading.Thread(target=self.say_and_leave, args=(panel, much))
        writing.start()
        got = b""
        while more := browser.recv(65536):
            got += more
        self.assertTrue(got == much)
        browser.close()
        for thread in (writing, carrying):
            thread.join(10)
            self.assertFalse(thread.is_alive())
        for end in (inner, outer, panel):
            end.close()

    def say_and_leave(self, end: ssl.SSLSocket, data: bytes) -> None:
        end.sendall(data)
        end.close()  # as old panels do it, without a word

    def pair(self, client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
        here, there = socket.socketpair()
        for end in (here, there):
            end.settimeout(10)
        made: list[ssl.SSLSocket] = []
        accepting = threading.Thread(target=lambda: made.append(server.wrap_socket(there, server_side=True)))
        accepting.start()
        mine = client.wrap_socket(here)
        accepting.join()
        return mine, made[0]
