"""TLS on the relay: real certificates, real clients, and those who speak something else."""

from __future__ import annotations

import os
import random
import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from ipmiproxyd.errors import BadValue
from ipmiproxyd.relay import channel, servertls
from ipmiproxyd.relay.servertls import ServerTls
from tests.support.end_peer import resident
from tests.support.ports import free_ports
from tests.support.relay_case import HELLO, WELCOME, open_sockets, reactor, until, until_steady
from tests.support.relay_pages import INDEX
from tests.support.relay_talk import MIB, Pusher, cut_text
from tests.support.relay_tls import HOST, Made, TlsCase
from tests.support.scratch import scratch
from tests.support.ws_client import BINARY, Refused, connect_raw, frame


class CertificateTests(TestCase):
    """What is wrong with a certificate is told at the start."""

    def setUp(self) -> None:
        self.folder = scratch(self)

    def refused(self, certificate: Path, key: Path | None, *words: str) -> None:
        error = self.assertRaises(BadValue, ServerTls, reactor, certificate, key)
        for word in words:
            self.assertIn(word, error.message)
        self.assertTrue(error.hint)

    def test_good_ones(self) -> None:
        made = Made(self.folder)
        ServerTls(reactor, made.certificate, made.key)
        self.assertEqual(ServerTls(reactor, made.both()).warnings(HOST), [])
        rsa = Made(self.folder, "rsa", key="rsa:2048")
        ServerTls(reactor, rsa.certificate, rsa.key)

    def test_files_that_are_no_certificate(self) -> None:
        made = Made(self.folder)
        nothing, rubbish = self.folder / "nothing", self.folder / "rubbish"
        rubbish.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.refused(nothing, None, "relay.certificate", str(nothing), "No such file")
        self.refused(self.folder, None, "relay.certificate", "Is a directory")
        self.refused(rubbish, made.key, "relay.certificate: there is no certificate in")
        self.refused(made.key, made.key, "relay.certificate: there is no certificate in")
        self.refused(made.certificate, nothing, "relay.key", "No such file")
        self.refused(made.certificate, None, "relay.certificate: there is no private key in")
        self.refused(made.certificate, rubbish, "relay.key: there is no private key in")

    def test_one_that_may_not_be_read(self) -> None:
        made = Made(self.folder)
        made.key.chmod(0)
        if os.access(made.key, os.R_OK):
            self.folder.chmod(0o755)
            os.seteuid(65534)
            self.addCleanup(os.seteuid, 0)
        self.refused(made.certificate, made.key, "relay.key", "Permission denied")

    def test_keys_that_do_not_fit(self) -> None:
        one, two = Made(self.folder, "one"), Made(self.folder, "two", key="rsa:2048")
        self.refused(one.certificate, two.key, "relay.key", "does not belong")
        secret = Made(self.folder, "secret", passphrase="open sesame")
        self.refused(secret.certificate, secret.key, "relay.key", "encrypted")

    def test_not_its_time(self) -> None:
        old, young = Made(self.folder, "old", begins=-9, ends=-2), Made(self.folder, "young", begins=2)
        self.refused(old.certificate, old.key, "relay.certificate", "has expired on 20")
        self.refused(young.certificate, young.key, "relay.certificate", "is not valid before 20")

    def test_too_weak(self) -> None:
        weak = Made(self.folder, "weak", key="rsa:1024")
        self.refused(weak.certificate, weak.key, "relay.certificate", "its key is too short")

    def test_what_is_worth_a_warning(self) -> None:
        made = Made(self.folder, names=("DNS:*.example.org", "DNS:kvm.example", "IP:::1"), ends=9.5)
        tls = ServerTls(reactor, made.certificate, made.key)
        for host in ("a.example.org", "KVM.example", "[::1]", ""):
            (soon,) = tls.warnings(host)
            self.assertIn("expires in 9 days (20", soon)
        for host in ("a.b.example.org", "example.org", "127.0.0.1", HOST):
            name, _ = tls.warnings(host)
            self.assertIn(f"is for *.example.org, kvm.example, ::1, but the consoles' URLs name {host}", name)
        nameless = Made(self.folder, "nameless", names=())
        self.assertIn("no name at all", ServerTls(reactor, nameless.certificate, nameless.key).warnings("x")[0])


class TalkTests(TlsCase):
    def url(self, path: str) -> str:
        return f"https://{HOST}:{self.port.number}{path}"

    async def curl(self, *arguments: str) -> tuple[int, bytes]:
        """(exit status, output)"""

        fixed = ["-sS", "--max-time", "20", "--cacert", str(self.made.certificate)]
        place = ["--resolve", f"{HOST}:{self.port.number}:127.0.0.1"]
        out, _, status = await getProcessOutputAndValue("curl", [*fixed, *place, *arguments], os.environ)
        return status, out

    async def test_curl(self) -> None:
        self.serve()
        for versions in (["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3"]):
            self.assertEqual(await self.curl(*versions, self.url("/")), (0, INDEX.encode()))
        status, told = await self.curl("-i", self.url("/api/status"))
        self.assertEqual((status, told.split(b"\r\n")[0]), (0, b"HTTP/1.1 403 Forbidden"))
        status, told = await self.curl("-v", "--http2", self.url("/"), self.url("/assets/app.js"), self.url("/nothing"))
        self.assertEqual(status, 0)
        self.assertNotEqual((await self.curl("--tlsv1.0", "--tls-max", "1.1", self.url("/")))[0], 0)

    def client(self, request: bytes, session: Any = None, size: int = 1 << 16) -> tuple[bytes, Any, bool]:
        """In a thread: Python's own client. (answer, its session, whether it was resumed)"""

        context = ssl.create_default_context(cafile=self.made.certificate)
        if session is not None:
            context = session[0]
        with socket.create_connection(("127.0.0.1", self.port.number or 0), 20) as plain:
            wrapped = context.wrap_socket(plain, server_hostname=HOST, session=session and session[1])
            with wrapped as tls:
                for at in range(0, len(request), 3):
                    tls.sendall(request[at : at + 3])
                answer = b""
                while piece := tls.recv(size):
                    answer += piece
                return answer, (context, tls.session), bool(tls.session_reused)

    async def test_python(self) -> None:
        """To its orderly end, byte by byte, and again with the session of the first time."""

        self.serve()
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer, session, again = await deferToThread(self.client, request)
        self.assertTrue(answer.endswith(INDEX.encode()))
        self.assertFalse(again)
        answer, _, again = await deferToThread(self.client, request, session)
        self.assertTrue(answer.endswith(INDEX.encode()))
        self.assertTrue(again)

    async def test_a_large_file(self) -> None:
        noise = random.Random(7).randbytes(3 * MIB)
        (self.web / "large.js").write_bytes(noise)
        self.port = self.make_host(free_ports(1)).open(self.console)
        self.assertEqual(await self.curl("--limit-rate", "6M", self.url("/assets/large.js")), (0, noise))
        request = b"GET /assets/large.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer, *_ = await deferToThread(self.client, request, None, 1000)
        self.assertEqual(answer.partition(b"\r\n\r\n")[2], noise)
        two = request.replace(b"close", b"keep-alive") + request
        answer, *_ = await deferToThread(self.client, two)
        self.assertEqual(answer.count(noise), 2)

    async def test_who_reads_nothing_is_cut(self) -> None:
        self.patch(channel.RelayChannel, "abortTimeout", 0.3)
        (self.web / "large.js").write_bytes(random.Random(7).randbytes(8 * MIB))
        self.port = self.make_host(free_ports(1)).open(self.console)
        client = await connect_raw(reactor, self.port.number or 0, tls=self.tls)
        client.transport.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.until(lambda: client.data)
        client.transport.pauseProducing()
        client.transport.write(b"GET /assets/large.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await until(lambda: not self.port._sockets)
        client.transport.resumeProducing()

    async def test_bytes_pass_both_ways_unchanged(self) -> None:
        self.serve()
        client, end = await self.greeted()
        noise = random.Random(1).randbytes(5 * MIB)
        down, up = noise[:-100], cut_text(noise[100:])
        before = len(end.heard)
        end.say(down)
        for at in range(0, len(up), 50_000):
            client.say(up[at : at + 50_000])
        self.assertEqual(await client.hears(len(down)), down)
        await end.hears(before + len(up))
        self.assertEqual(bytes(end.heard[before:]), up)
        await self.port.close("idle", "Nobody was here.")
        self.assertEqual(await client.is_closed(), (4000, "idle"))

    async def test_who_does_not_wait_for_the_answer_is_heard(self) -> None:
        """What came in one record with the request goes before what came in further ones."""

        self.serve()
        text = cut_text(random.Random(1).randbytes(30_000))
        parts = b"".join(frame(BINARY, text[at : at + 9_000]) for at in range(0, len(text), 9_000))
        client = await self.join(early=frame(BINARY, HELLO) + parts)
        self.assertEqual(await client.hears(len(WELCOME)), WELCOME)
        end = await self.display.viewer()
        await end.hears(len(text))
        self.assertEqual(bytes(end.heard), text)

    async def test_a_slow_browser_stops_the_display(self) -> None:
        self.serve()
        client, end = await self.greeted()
        client.pause()
        before = resident()
        end.flood(256 * MIB)
        taken = await until_steady(lambda: end.said)
        self.assertLess(taken, 32 * MIB)
        self.assertLess(resident() - before, 32 * MIB)
        end._to_say = 0
        client.resume()
        self.assertEqual(len(await client.hears(taken)), taken)

    async def test_a_slow_display_stops_the_browser(self) -> None:
        self.serve()
        self.display.keeps = False
        client, end = await self.greeted()
        end.pause()
        pump = Pusher(client.transport, frame(BINARY, cut_text(bytes(100_000))), 1000)
        self.assertLess(await until_steady(lambda: pump.said), 300)
        pump.left = 0
        end.resume()

    async def test_without_a_key_there_is_no_websocket(self) -> None:
        self.serve()
        with self.assertRaises(Refused) as caught:
            await self.join("stranger")
        self.assertEqual(caught.exception.status, 403)

    async def test_plain_http_is_told(self) -> None:
        self.serve()
        status, told = await self.curl("-i", f"http://{HOST}:{self.port.number}/")
        self.assertEqual(status, 0)
        self.assertTrue(told.startswith(b"HTTP/1.1 400 "))
        self.assertIn(b"https://", told)
        await until(lambda: not self.port._sockets)

    async def test_what_is_no_tls(self) -> None:
        self.serve()
        chance = random.Random(3)
        sockets = open_sockets()
        hello = _client_hello()
        with capturedLogs() as logs:
            for sent in (
                *(chance.randbytes(200) for _ in range(20)),
                b"\x16\x03\x01" + b"\xff" * 300,
                b"SSH-2.0-x\r\n",
                hello[:40],
                hello[:-1],
                hello,  # and gone
                hello + b"rubbish" * 100,
                b"",
            ):
                client = await connect_raw(reactor, self.port.number or 0)
                client.transport.write(sent)
                client.transport.loseConnection()
                await client.gone()
            await until(lambda: not self.port._sockets)
        self.assertEqual([log for log in logs if log["log_level"] > LogLevel.info], [])
        told = [log for log in logs if "TLS with" in (log.get("log_format") or "")]
        self.assertTrue(0 < len(told) <= 26)
        await until(lambda: open_sockets() == sockets)

    async def test_a_handshake_that_does_not_end(self) -> None:
        self.patch(channel.RelaySite, "timeOut", 0.2)
        self.serve()
        for listener in self.port._listeners:
            listener.factory.timeOut = 0.2  # type: ignore[attr-defined]
        client = await connect_raw(reactor, self.port.number or 0)
        client.transport.write(_client_hello()[:50])
        await client.gone()

    async def test_a_broken_record(self) -> None:
        self.serve()
        client = await connect_raw(reactor, self.port.number or 0, tls=self.tls)
        client.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        await until(lambda: self.port._sockets)
        client.transport.transport.write(b"\x17\x03\x03\x00\x40" + bytes(64))
        await client.gone()
        await until(lambda: not self.port._sockets)

    async def test_the_port_closes(self) -> None:
        self.serve()
        open_one = await connect_raw(reactor, self.port.number or 0, tls=self.tls)
        begun = await connect_raw(reactor, self.port.number or 0)
        begun.transport.write(_client_hello()[:50])
        waiting = Deferred.fromCoroutine(self.ask("GET", "/api/status?since=99", Authorization=f"Bearer {self.key()}"))
        await until(lambda: self.console.waiting)
        start = reactor.seconds()
        await self.port.close("idle", "Nobody was here.")
        self.assertLess(reactor.seconds() - start, 2.0, "nobody had to be cut")
        self.assertEqual((await waiting)[1]["reason"], "idle")
        await open_one.gone()
        await begun.gone()

    async def test_its_urls(self) -> None:
        self.serve()
        self.assertEqual(self.host.url(self.port, "T"), self.url("/#t=T"))
        self.assertEqual(self.host.warnings(), [])


class RenewalTests(TlsCase):
    def setUp(self) -> None:
        self.patch(servertls, "LOOK_EVERY", 0.0)
        super().setUp()
        self.serve()

    def serial(self) -> str:
        context = ssl.create_default_context(cafile=self.made.certificate)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.port.number or 0), 20) as plain,
            context.wrap_socket(plain) as tls,
        ):
            return str(hash(tls.getpeercert(binary_form=True)))

    async def test_a_renewed_certificate_is_used(self) -> None:
        first = await deferToThread(self.serial)
        client, end = await self.greeted()
        Made(self.folder)  # the same files
        second = first
        with capturedLogs() as logs:
            for _ in range(200):
                second = await deferToThread(self.serial)
                if second != first:
                    break
        self.assertNotEqual(second, first)
        self.assertTrue([log for log in logs if "was renewed" in (log.get("log_format") or "")])
        end.say(b"still here")
        self.assertEqual(await client.hears(10), b"still here")

    async def test_a_bad_one_is_not(self) -> None:
        first = await deferToThread(self.serial)
        self.made.key.write_text("oops")
        with capturedLogs() as logs:
            for _ in range(30):
                self.assertEqual(await deferToThread(self.serial), first)
        told = [log["why"] for log in logs if log["log_level"] is LogLevel.error]
        self.assertEqual(len(told), 1)
        self.assertIn("relay.key: there is no private key in", told[0])


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("it shook its own hand")
