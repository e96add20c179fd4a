"""The page's files on a relay port, and the bounds of what may be asked."""

from __future__ import annotations

import gzip
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport

from ipmiproxyd.errors import BadValue, ToolMissing
from ipmiproxyd.model import Grant
from ipmiproxyd.relay.channel import MAX_SOCKETS
from ipmiproxyd.relay.files import load_files
from ipmiproxyd.relay.novnc import find_novnc
from tests.support.relay_pages import INDEX, RFB
from tests.support.relay_site import HOST, Connection, SiteCase


class PageTests(SiteCase):
    def test_index(self) -> None:
        answer = self.ask("GET", "/")
        self.assertEqual((answer.status, answer.body.decode()), (200, INDEX))
        self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_parts(self) -> None:
        for path, kind in (
            ("/assets/app.js", "text/javascript; charset=utf-8"),
            ("/assets/app.css", "text/css; charset=utf-8"),
            ("/novnc/core/rfb.js", "text/javascript; charset=utf-8"),
            ("/novnc/core/input/keyboard.js", "text/javascript; charset=utf-8"),
            ("/novnc/vendor/pako/lib/inflate.js", "text/javascript; charset=utf-8"),
            ("/novnc/vendor/pako/LICENSE", "text/plain; charset=utf-8"),
        ):
            answer = self.ask("GET", path)
            self.assertEqual((answer.status, answer.headers["content-type"]), (200, kind), path)

    def test_nothing_else(self) -> None:
        for path in (
            "/index.html",
            "/assets/",
            "/assets/index.html",
            "/assets/__init__.py",
            "/assets/package.json",
            "/assets/../site.py",
            "/assets/%2e%2e/site.py",
            "/assets//app.js",
            "/assets/app%2ejs",
            "/novnc/",
            "/novnc/core/",
            "/novnc/core/README.md",
            "/novnc/docs/API.js",
            "/novnc/core/../package.json",
            "/novnc/package.json",
            "//",
            "/api",
            "/api/",
            "/api/status/",
            "/vnc/",
            "http://relay.example/assets/app.js",
        ):
            self.assert_refused(self.ask("GET", path), 404, "not-found")

    def test_security_headers_on_every_answer(self) -> None:
        for answer in (
            self.ask("GET", "/"),
            self.ask("GET", "/nowhere"),
            self.ask("PUT", "/"),
            self.ask("GET", "/api/status"),
            self.ask("POST", "/api/session", b"nonsense"),
        ):
            self.assertEqual(
                answer.headers["content-security-policy"],
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                f"connect-src 'self' ws://{HOST} wss://{HOST}; font-src 'self'; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'self' https://panel.example",
            )
            self.assertEqual(answer.headers["referrer-policy"], "no-referrer")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertEqual(answer.headers["cache-control"], "no-store")
            self.assertEqual(answer.headers["server"], "ipmiproxyd")

    def test_a_host_header_writes_no_policy(self) -> None:
        for host in ("evil.example; script-src *", "a b", "", "[::1", "x:123456"):
            policy = self.ask("GET", "/", Host=host).headers["content-security-policy"]
            self.assertIn("connect-src 'self'; font-src", policy)
        policy = self.ask("GET", "/", Host="[2001:DB8::1]:6081").headers["content-security-policy"]
        self.assertIn("connect-src 'self' ws://[2001:db8::1]:6081 wss://[2001:db8::1]:6081;", policy)

    def test_a_reload_is_quick(self) -> None:
        for path, cache in (("/assets/app.js", "no-cache"), ("/novnc/core/rfb.js", "max-age=300")):
            first = self.ask("GET", path)
            self.assertEqual(first.headers["cache-control"], cache)
            again = self.ask("GET", path, If_None_Match=first.headers["etag"])
            self.assertEqual((again.status, again.body), (304, b""))
            self.assertEqual(self.ask("GET", path, If_None_Match='"other"').status, 200)

    def test_packed_where_the_browser_can(self) -> None:
        plain = self.ask("GET", "/novnc/core/rfb.js")
        packed = self.ask("GET", "/novnc/core/rfb.js", Accept_Encoding="gzip, deflate")
        self.assertEqual(plain.body, RFB.encode())
        self.assertEqual(packed.headers["content-encoding"], "gzip")
        self.assertLess(len(packed.body), len(plain.body))
        self.assertEqual(gzip.decompress(packed.body), plain.body)
        self.assertNotEqual(packed.headers["etag"], plain.headers["etag"])
        self.assertEqual(packed.headers["vary"], "Accept-Encoding")

    def test_head(self) -> None:
        answer = self.ask("HEAD", "/assets/app.css")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-length"], str(len("body { margin: 0 }\n")))

    def test_other_methods(self) -> None:
        for method, path, allowed in (
            ("POST", "/", "GET, HEAD"),
            ("GET", "/api/session", "POST"),
            ("POST", "/api/status", "GET"),
            ("DELETE", "/api/close", "POST"),
            ("BREW", "/vnc", "GET"),
        ):
            answer = self.ask(method, path)
            self.assert_refused(answer, 405, "bad-request")
            self.assertEqual(answer.headers["allow"], allowed)

    def test_folders(self) -> None:
        self.assertEqual(find_novnc(str(self.novnc)), self.novnc)
        self.assertEqual(find_novnc("", (self.web, self.novnc)), self.novnc)
        wrong = self.assertRaises(BadValue, find_novnc, str(self.web))
        self.assertIn("relay.novnc", wrong.message)
        missing = self.assertRaises(ToolMissing, find_novnc, "", (self.web,))
        self.assertIn(str(self.web), missing.message)
        self.assertRaises(ToolMissing, load_files, self.novnc, self.novnc)


class BoundTests(SiteCase):
    def test_long_bodies(self) -> None:
        connection = self.connect()
        connection.ask("POST", "/api/session", b"x" * 32768)
        assert connection.answer is not None
        self.assertEqual(connection.answer.status, 400)
        for head, body in (
            (b"Content-Length: 32769", b""),
            (b"Content-Length: 99999999999999", b"x" * 100),
            (b"Transfer-Encoding: chunked", b"8001\r\n" + b"x" * 32769),
        ):
            connection = self.connect()
            connection.send(b"POST /api/session HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + body)
            assert connection.answer is not None
            self.assertEqual(connection.answer.status, 413)
            self.assertTrue(connection.transport.disconnecting)

    def test_a_short_chunked_body(self) -> None:
        token = json.dumps({"token": self.grants.issue(Grant(console="c1"))}).encode()
        connection = self.connect()
        connection.send(
            b"POST /api/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
            % (len(token), token)
        )
        assert connection.answer is not None
        self.assertEqual(connection.answer.status, 200)

    def test_a_trickle_does_not_hold_a_place(self) -> None:
        connection = self.connect()
        for byte in b"GET / HTTP/1.1\r\nHost":
            connection.protocol.dataReceived(bytes([byte]))
            self.clock.advance(1.4)
        self.assertFalse(connection.transport.disconnecting)
        self.clock.advance(2.1)
        self.assertTrue(connection.transport.disconnecting)

    def test_a_waiting_page_is_not_cut(self) -> None:
        connection = self.connect()
        connection.ask("GET", "/api/status?since=1", Authorization=f"Bearer {self.key()}")
        self.clock.pump([19.0])
        self.assertFalse(connection.transport.disconnecting)

    def test_as_many_connections_as_there_may_be(self) -> None:
        places = [StringTransport() for _ in range(MAX_SOCKETS)]
        for place in places:
            self.sockets.add(place)
        self.assertIsNone(self.site.buildProtocol(None))
        self.sockets.discard(places[0])
        self.assertIsNotNone(self.site.buildProtocol(None))

    def test_an_idle_port_has_no_timer(self) -> None:
        self.site.doStart()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.site.doStop()

    @settings(max_examples=200)
    @given(st.one_of(st.binary(max_size=400), st.binary(max_size=60).map(lambda tail: b"GET /" + tail + b"\r\n\r\n")))
    def test_garbage(self, garbage: bytes) -> None:
        connection = Connection(self.site)
        connection.send(garbage)
        if connection.answer is not None:
            self.assertIn(connection.answer.status, (400, 403, 404, 405, 413))
        connection.lose()
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])
