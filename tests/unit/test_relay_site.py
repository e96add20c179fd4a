"""What a relay port answers over HTTP: the real parser on a transport in memory, everything else on a fake clock."""

from __future__ import annotations

import gzip
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.errors import BadValue, LimitReached, ToolMissing
from ipmiproxyd.model import ConsoleState, Grant
from ipmiproxyd.relay.channel import MAX_SOCKETS, RelaySite
from ipmiproxyd.relay.files import load_files
from ipmiproxyd.relay.novnc import find_novnc
from ipmiproxyd.relay.site import ConsoleResource, SitePolicy
from ipmiproxyd.relay.sockets import Sockets
from tests.support.fake_console import FakeConsole
from tests.support.relay_pages import INDEX, RFB, write_pages
from tests.support.scratch import scratch

HOST = "relay.example:6081"


class FakeViewers:
    """Stands for Viewers: takes over nothing, but tells what it was asked."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.full = False

    def take_over(self, request: Any, display: Any) -> bytes:
        if self.full:
            raise LimitReached("Too many viewers are on this console.")
        self.taken.append(display)
        return b"taken"


class Answer:
    """One parsed HTTP answer."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


class Connection:
    """A browser's connection to a site, in memory."""

    def __init__(self, site: RelaySite) -> None:
        self.transport = StringTransport(
            hostAddress=IPv4Address("TCP", "127.0.0.1", 6081), peerAddress=IPv4Address("TCP", "198.51.100.7", 50000)
        )
        self.protocol = site.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def send(self, raw: bytes) -> None:
        self.transport.clear()
        self.protocol.dataReceived(raw)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": HOST, **headers}.items() if value]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    @property
    def answer(self) -> Answer | None:
        return Answer(self.transport.value()) if self.transport.value() else None

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class SiteCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.console = FakeConsole("c1", display=object())  # type: ignore[arg-type]
        self.grants = GrantBook(self.clock, 300.0)
        self.viewers = FakeViewers()
        self.sockets = Sockets()
        self.web, self.novnc = write_pages(scratch(self))
        self.policy = SitePolicy(
            "relay.example", frozenset({"https://panel.example"}), ["'self'", "https://panel.example"]
        )
        self.resource = ConsoleResource(
            self.console,
            self.grants,
            load_files(self.web, self.novnc),
            self.viewers,  # type: ignore[arg-type]
            self.policy,
            self.clock,
        )
        self.site = RelaySite(self.resource, self.clock, self.sockets)

    def connect(self) -> Connection:
        connection = Connection(self.site)
        self.addCleanup(connection.lose)
        return connection

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        connection = self.connect()
        connection.ask(method, path, body, **headers)
        answer = connection.answer
        assert answer is not None
        return answer

    def key(self, **grant: Any) -> str:
        key = self.grants.redeem("c1", self.grants.issue(Grant(console="c1", **grant)))
        assert key is not None
        return key

    def assert_refused(self, answer: Answer, status: int, code: str) -> None:
        self.assertEqual((answer.status, answer.json["code"]), (status, code))
        self.assertTrue(answer.json["message"])
        self.assertIsInstance(answer.json["hint"], str)


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


class SessionTests(SiteCase):
    def trade(self, token: Any, **headers: str) -> Answer:
        return self.ask("POST", "/api/session", json.dumps({"token": token}).encode(), **headers)

    def test_a_token_is_traded_once(self) -> None:
        token = self.grants.issue(Grant(console="c1"))
        answer = self.trade(token)
        self.assertEqual(answer.status, 200)
        self.assertIsNotNone(self.grants.check("c1", answer.json["key"]))
        again = self.trade(token)
        self.assert_refused(again, 403, "forbidden")
        self.assertTrue(again.json["hint"])

    def test_refused(self) -> None:
        other = self.grants.issue(Grant(console="c2"))
        late = self.grants.issue(Grant(console="c1"))
        self.clock.advance(300)
        for token in ("unknown", other, late):
            self.assert_refused(self.trade(token), 403, "forbidden")

    def test_malformed(self) -> None:
        for token in (None, 5, "", ["x"], "x" * 129):
            self.assert_refused(self.trade(token), 400, "bad-request")
        for body in (b"{", b"[" * 4000, b"\xff\xfe", b"5", b'["token"]', b'{"token": "\\ud800"}x'):
            self.assert_refused(self.ask("POST", "/api/session", body), 400, "bad-request")
        self.assert_refused(self.trade("\ud800"), 403, "forbidden")

    def test_origins(self) -> None:
        def status(origin: str, host: str = HOST) -> int:
            token = self.grants.issue(Grant(console="c1"))
            return self.trade(token, Origin=origin, Host=host).status

        for origin, host in (
            ("", HOST),
            ("http://relay.example:6081", HOST),
            ("https://RELAY.example:6081", HOST),
            ("http://relay.example:6081", "10.0.0.1:6081"),
            ("http://10.0.0.1:6081", "10.0.0.1:6081"),
            ("http://[::1]:6081", "[::1]:6081"),
            ("https://panel.example", HOST),
        ):
            self.assertEqual(status(origin, host), 200, origin)
        for origin in (
            "null",
            "http://evil.example",
            "http://relay.example",
            "http://relay.example:6082",
            "ftp://relay.example:6081",
            "http://panel.example",
            "https://panel.example.evil.example",
            "http://",
            "://",
        ):
            self.assertEqual(status(origin), 403, origin)
        self.assertEqual(status("http://", ""), 403)

    def test_two_origins(self) -> None:
        connection = self.connect()
        connection.send(
            b"POST /api/session HTTP/1.1\r\nHost: relay.example:6081\r\nContent-Length: 2\r\n"
            b"Origin: http://relay.example:6081\r\nOrigin: http://evil.example\r\n\r\n{}"
        )
        assert connection.answer is not None
        self.assert_refused(connection.answer, 403, "forbidden")


class StatusTests(SiteCase):
    def poll(self, since: object = "", key: str | None = None) -> Connection:
        connection = self.connect()
        path = f"/api/status?since={since}" if since != "" else "/api/status"
        connection.ask("GET", path, Authorization=f"Bearer {self.key() if key is None else key}")
        return connection

    def news(self, connection: Connection) -> Any:
        assert connection.answer is not None
        self.assertEqual(connection.answer.status, 200)
        return connection.answer.json

    def test_the_document(self) -> None:
        self.assertEqual(
            self.news(self.poll()),
            {
                "serial": 1,
                "state": "ready",
                "stages": [
                    {"name": "display", "label": "Starting the display", "begun_ms": 12, "done_ms": 130},
                    {"name": "browser", "label": "Starting <b>it</b>", "begun_ms": 130, "done_ms": None},
                ],
                "device": "node17",
                "type": "panel",
                "viewers": 0,
                "idle": 600.0,
                "reason": "",
                "message": "",
                "control": True,
            },
        )
        self.assertFalse(self.news(self.poll(key=self.key(control=False)))["control"])

    def test_answers_once_there_is_news(self) -> None:
        poll = self.poll(1)
        self.assertIsNone(poll.answer)
        self.console.change(message="news")
        self.assertEqual(self.news(poll)["message"], "news")
        self.assertEqual(self.news(self.poll(1))["serial"], 2)
        self.assertEqual(self.clock.getDelayedCalls(), self.idle_timers())

    def idle_timers(self) -> list[Any]:
        """The time limits of idle connections, the only ones that may be left."""

        return [call for call in self.clock.getDelayedCalls() if "timedOut" in str(call)]

    def test_answers_after_a_while_without_news(self) -> None:
        poll = self.poll(1)
        self.clock.advance(19.9)
        self.assertIsNone(poll.answer)
        self.clock.advance(0.1)
        self.assertEqual(self.news(poll)["serial"], 1)
        self.assertEqual(self.console.cancelled, 1)

    def test_the_next_question_on_the_same_connection(self) -> None:
        key = self.key()
        poll = self.poll(1, key)
        self.console.change()
        poll.ask("GET", "/api/status?since=2", Authorization=f"bearer {key}")
        self.assertIsNone(poll.answer)
        self.console.change()
        self.assertEqual(self.news(poll)["serial"], 3)

    def test_a_page_that_goes_away_is_forgotten(self) -> None:
        poll = Connection(self.site)
        poll.ask("GET", "/api/status?since=1", Authorization=f"Bearer {self.key()}")
        self.assertEqual(len(self.console.waiting), 1)
        poll.lose()
        self.assertEqual((len(self.console.waiting), self.console.cancelled), (0, 1))
        self.console.change()
        self.clock.advance(20)
        self.assertIsNone(poll.answer)

    def test_bounded(self) -> None:
        key = self.key()
        polls = [self.poll(1, key) for _ in range(32)]
        one_more = self.poll(1, key).answer
        assert one_more is not None
        self.assert_refused(one_more, 503, "limit")
        self.console.change()
        for poll in polls:
            self.assertEqual(self.news(poll)["serial"], 2)
        self.assertIsNone(self.poll(2, key).answer)

    def test_refused(self) -> None:
        for header in ("", "Bearer", "Bearer wrong", f"Basic {self.key()}", f"Bearer {'x' * 500}", "Bearer \u00fc"):
            self.assert_refused(self.ask("GET", "/api/status", Authorization=header), 403, "forbidden")
        other = self.grants.redeem("c2", self.grants.issue(Grant(console="c2")))
        self.assert_refused(self.ask("GET", "/api/status", Authorization=f"Bearer {other}"), 403, "forbidden")

    def test_malformed(self) -> None:
        for since in ("x", "-1", "1.5", "9" * 19, "1&since=2", "%C2%B2"):
            answer = self.poll(since).answer
            assert answer is not None
            self.assert_refused(answer, 400, "bad-request")

    def test_closed_while_waiting(self) -> None:
        key = self.key()
        poll = self.poll(1, key)
        self.resource.close("idle", "Nobody was here.")
        for told in (self.news(poll), self.news(self.poll(99, key))):
            self.assertEqual((told["state"], told["reason"], told["message"]), ("closed", "idle", "Nobody was here."))
        self.assertEqual(self.console.cancelled, 1)

    def test_a_fault_is_told_as_such(self) -> None:
        def broken() -> Any:
            raise RuntimeError("secret detail")

        self.patch(self.console, "snapshot", broken)
        answer = self.poll().answer
        assert answer is not None
        self.assert_refused(answer, 500, "internal")
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class CloseTests(SiteCase):
    def test_closes(self) -> None:
        answer = self.ask("POST", "/api/close", Authorization=f"Bearer {self.key()}")
        self.assertEqual((answer.status, answer.json), (200, {}))
        self.assertEqual(self.console.told, ["close"])

    def test_watchers_may_not(self) -> None:
        key = self.key(control=False)
        for bearer in (key, "wrong"):
            answer = self.ask("POST", "/api/close", Authorization=f"Bearer {bearer}")
            self.assert_refused(answer, 403, "forbidden")
        self.assertEqual(self.console.told, [])


class UpgradeTests(SiteCase):
    def upgrade(self, offered: str, body: bytes = b"", **headers: str) -> Answer:
        return self.ask("GET", "/vnc", body, Sec_WebSocket_Protocol=offered, **headers)

    def test_admitted(self) -> None:
        self.assertEqual(self.upgrade(f"binary, key.{self.key()}").body, b"taken")
        self.assertEqual(self.viewers.taken, [self.console.display])

    def test_refused(self) -> None:
        key = self.key()
        for offered in ("", "binary", "binary, key.", "binary, key.wrong", f"key.{key}, key.{key}", key):
            self.assert_refused(self.upgrade(offered), 403, "forbidden")
        self.assert_refused(self.upgrade(f"key.{key}", Origin="http://evil.example"), 403, "forbidden")
        self.assertEqual(self.viewers.taken, [])

    def test_not_ready(self) -> None:
        key = self.key()
        for state in (ConsoleState.OPENING, ConsoleState.CLOSING, ConsoleState.CLOSED, ConsoleState.LOST):
            self.console.change(state=state)
            self.assert_refused(self.upgrade(f"binary, key.{key}"), 409, "bmc-state")

    def test_too_many(self) -> None:
        self.viewers.full = True
        self.assert_refused(self.upgrade(f"binary, key.{self.key()}"), 503, "limit")

    def test_frames_before_the_handshake(self) -> None:
        self.assert_refused(self.upgrade(f"binary, key.{self.key()}", b"\x82\x80abcd"), 400, "bad-request")


class BoundTests(SiteCase):
    def test_long_bodies(self) -> None:
        connection = self.connect()
        connection.ask("POST", "/api/session", b"x" * 4096)
        assert connection.answer is not None
        self.assertEqual(connection.answer.status, 400)
        for head, body in (
            (b"Content-Length: 4097", b""),
            (b"Content-Length: 99999999999999", b"x" * 100),
            (b"Transfer-Encoding: chunked", b"1001\r\n" + b"x" * 4097),
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

    @settings(max_examples=200, deadline=None)
    @given(st.one_of(st.binary(max_size=400), st.binary(max_size=60).map(lambda tail: b"GET /" + tail + b"\r\n\r\n")))
    def test_garbage(self, garbage: bytes) -> None:
        connection = Connection(self.site)
        connection.send(garbage)
        if connection.answer is not None:
            self.assertIn(connection.answer.status, (400, 403, 404, 405, 413))
        connection.lose()
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StatusOfClosedTests(SiteCase):
    def test_what_is_still_given_back_is_closed_to_the_page(self) -> None:
        key = self.key()
        self.console.change(state=ConsoleState.LOST)
        self.resource.close("job-failed", "Xvnc ended.")
        told = self.ask("GET", "/api/status", Authorization=f"Bearer {key}").json
        self.assertEqual((told["state"], told["reason"]), ("closed", "job-failed"))
