"""What a relay port answers to its page."""

from __future__ import annotations

import json
from typing import Any

from ipmiproxyd.model import ConsoleState, Grant, Typing, ViewerInfo
from tests.support.relay_site import HOST, Answer, Connection, SiteCase


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
                "agent_away": False,
                "stages": [
                    {"name": "display", "label": "Starting the display", "begun_ms": 12, "done_ms": 130,
                     "failed": False},
                    {"name": "browser", "label": "Starting <b>it</b>", "begun_ms": 130, "done_ms": None,
                     "failed": False},
                ],
                "device": "node17",
                "type": "panel",
                "viewers": 0,
                "idle": 600.0,
                "closes_in": None,
                "closes_why": "",
                "reason": "",
                "message": "",
                "you": "g1",
                "people": [],
                "steers": False,
                "held": False,
                "control": True,
                "credentials": False,
                "clipboard": "both",
                "typing": None,
            },
        )
        self.assertFalse(self.news(self.poll(key=self.key(control=False)))["control"])
        self.assertTrue(self.news(self.poll(key=self.key(credentials=True)))["credentials"])

    def test_who_is_there(self) -> None:
        ann = ViewerInfo(id="g1", user="ann", peer="198.51.100.7", control=True, steers=True, joined_at=1.0)
        bob = ViewerInfo(id="g2", user="bob", peer="198.51.100.8", control=False, steers=False, joined_at=2.0)
        self.console.change(viewers=(ann, bob, ann), typing=Typing(what="text", by="g1", done=3, of=9))
        told = self.news(self.poll())
        self.assertEqual((told["viewers"], told["steers"], told["held"]), (3, True, True))
        self.assertEqual(
            told["people"],
            [
                {"id": "g1", "user": "ann", "control": True, "steers": True},
                {"id": "g2", "user": "bob", "control": False, "steers": False},
            ],
        )
        self.assertEqual(told["typing"], {"what": "text", "by": "g1", "done": 3, "of": 9})
        self.console.change(typing=Typing(what="password", by="g1", done=3, of=9))
        hidden = self.news(self.poll(key=self.key(id="g3", control=False)))["typing"]
        self.assertEqual(hidden, {"what": "password", "by": "g1", "done": 0, "of": 0})
        self.assertEqual(self.news(self.poll(key=self.key(credentials=True)))["typing"]["of"], 9)
        other = self.news(self.poll(key=self.key(id="g2")))
        self.assertEqual((other["you"], other["steers"], other["held"]), ("g2", False, True))

    def test_a_grant_is_revoked_while_its_page_waits(self) -> None:
        poll, other = self.poll(1), self.poll(1, key=self.key(id="g2"))
        self.resource.cut("g1")
        assert poll.answer is not None
        self.assert_refused(poll.answer, 403, "forbidden")
        self.assertIsNone(other.answer)

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
        polls = [self.poll(1, key) for _ in range(16)]
        one_more = self.poll(1, key).answer
        assert one_more is not None
        self.assert_refused(one_more, 503, "limit")
        for number in range(2, 9):  # who waits too much takes nothing from others
            other = self.key(id=f"g{number}")
            polls += [self.poll(1, other) for _ in range(16)]
        one_more = self.poll(1, self.key(id="g9")).answer
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

    def test_what_is_still_given_back_is_closed_to_the_page(self) -> None:
        key = self.key()
        self.console.change(state=ConsoleState.LOST)
        self.resource.close("job-failed", "Xvnc ended.")
        told = self.ask("GET", "/api/status", Authorization=f"Bearer {key}").json
        self.assertEqual((told["state"], told["reason"]), ("closed", "job-failed"))

    def test_a_fault_is_told_as_such(self) -> None:
        def broken() -> Any:
            raise RuntimeError("secret detail")

        self.patch(self.console, "snapshot", broken)
        answer = self.poll().answer
        assert answer is not None
        self.assert_refused(answer, 500, "internal")
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class StayTests(SiteCase):
    def test_counts_as_activity(self) -> None:
        answer = self.ask("POST", "/api/stay", Authorization=f"Bearer {self.key()}")
        self.assertEqual((answer.status, answer.json), (200, {}))
        self.assertEqual(self.console.told, ["active"])

    def test_watchers_may_not(self) -> None:
        for bearer in (self.key(control=False), "wrong"):
            answer = self.ask("POST", "/api/stay", Authorization=f"Bearer {bearer}")
            self.assert_refused(answer, 403, "forbidden")
        self.assertEqual(self.console.told, [])


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


class ActionTests(SiteCase):
    def do(self, path: str, document: Any = None, key: str | None = None) -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        return self.ask("POST", path, body, Authorization=f"Bearer {self.key() if key is None else key}")

    def test_what_reaches_the_viewers(self) -> None:
        for path, document in (
            ("/api/control", None),
            ("/api/type", {"what": "password"}),
            ("/api/type", {"what": "text", "text": "é" * 4000}),
            ("/api/type/stop", None),
        ):
            self.assertEqual(self.do(path, document).status, 200)
        self.assertEqual(
            self.viewers.asked,
            [("control", "g1"), ("type", "g1", "password", ""), ("type", "g1", "text", "é" * 4000), ("stop", "g1")],
        )

    def test_who_watches_may_nothing(self) -> None:
        for path in ("/api/control", "/api/type", "/api/type/stop"):
            self.assert_refused(self.do(path, {}, self.key(control=False)), 403, "forbidden")
            self.assert_refused(self.do(path, {}, "wrong"), 403, "forbidden")
        self.assertEqual(self.viewers.asked, [])

    def test_what_is_no_request_to_type(self) -> None:
        wrong: tuple[Any, ...] = ([], "text", {}, {"what": "kg"}, {"what": "text", "text": 7}, {"what": ["text"]})
        for document in wrong:
            self.assert_refused(self.do("/api/type", document), 400, "bad-request")


class UpgradeTests(SiteCase):
    def upgrade(self, offered: str, body: bytes = b"", **headers: str) -> Answer:
        return self.ask("GET", "/vnc", body, Sec_WebSocket_Protocol=offered, **headers)

    def test_admitted(self) -> None:
        self.assertEqual(self.upgrade(f"binary, key.{self.key()}").body, b"taken")
        self.assertEqual(self.viewers.taken, [("g1", self.console.server)])

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

    def test_about_to_be_closed(self) -> None:
        """The console is ready, and its daemon ends."""

        key = self.key()
        self.resource.close("restart", "The gateway is being restarted.")
        self.assert_refused(self.upgrade(f"binary, key.{key}"), 409, "bmc-state")
        self.assertEqual(self.viewers.taken, [])

    def test_frames_before_the_handshake(self) -> None:
        self.assert_refused(self.upgrade(f"binary, key.{self.key()}", b"\x82\x80abcd"), 400, "bad-request")
