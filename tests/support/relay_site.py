"""A relay port's site in memory: the real HTTP parser, everything else on a fake clock."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.model import Grant
from ipmiproxyd.relay import site
from ipmiproxyd.relay.channel import RelaySite
from ipmiproxyd.relay.files import load_files
from ipmiproxyd.relay.site import ConsoleResource, SitePolicy
from ipmiproxyd.relay.sockets import Sockets
from tests.support.fake_console import FakeConsole
from tests.support.relay_pages import write_pages
from tests.support.scratch import scratch

HOST = "relay.example:6081"


class FakeViewers:
    """Stands for Viewers, and for what makes one of them: takes over nothing, but tells what it was asked."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.asked: list[tuple[Any, ...]] = []

    def upgrade(self, _request: Any, _viewers: Any, grant: Grant, server: Any) -> bytes:
        self.taken.append((grant.id, server))
        return b"taken"

    def take_control(self, grant: Grant) -> None:
        self.asked.append(("control", grant.id))

    def type(self, grant: Grant, what: str, text: str) -> None:
        self.asked.append(("type", grant.id, what, text))

    def stop_typing(self, grant: Grant) -> None:
        self.asked.append(("stop", grant.id))


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
        self.patch(site, "upgrade", self.viewers.upgrade)
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
        key = self.grants.redeem("c1", self.grants.issue(Grant(console="c1", **{"id": "g1", **grant})))
        assert key is not None
        return key

    def assert_refused(self, answer: Answer, status: int, code: str) -> None:
        self.assertEqual((answer.status, answer.json["code"]), (status, code))
        self.assertTrue(answer.json["message"])
        self.assertIsInstance(answer.json["hint"], str)
