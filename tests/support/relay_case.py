"""A relay host on free ports, a console on it, and a fake display behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ipmiproxyd.access.grants import GrantBook
from ipmiproxyd.model import Grant
from ipmiproxyd.relay.host import WebRelayHost, WebRelayPort
from ipmiproxyd.relay.socket_end import SocketEnd
from ipmiproxyd.relay.viewer import Viewer
from tests.support.fake_console import FakeConsole
from tests.support.fake_display import INIT, DisplayEnd, FakeDisplay
from tests.support.ports import free_ports
from tests.support.relay_pages import write_pages
from tests.support.scratch import scratch
from tests.support.ws_client import WsClient, ask, open_socket

HELLO = b"RFB 003.008\n\x01\x01"
"""What a browser says before its first message."""
WELCOME = b"RFB 003.008\n\x01\x01" + bytes(4) + INIT
"""What it hears from the relay meanwhile, of a fake display."""

reactor: Any = global_reactor


def open_sockets() -> int:
    """How many sockets this process has."""

    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return found


async def until(condition: Callable[[], Any], limit: float = 10.0) -> None:
    """For what tells of itself only when it is looked at."""

    due = reactor.seconds() + limit
    while not condition():
        if reactor.seconds() > due:
            raise AssertionError("it did not happen in time")
        await deferLater(reactor, 0.01)


async def until_steady(value: Callable[[], int], turns: int = 30) -> int:
    """The value, once it has not changed for a while."""

    last, same = value(), 0
    while same < turns:
        await deferLater(reactor, 0.01)
        same = same + 1 if value() == last else 0
        last = value()
    return last


class RelayCase(TestCase):
    """``self.host`` with two ports, ``self.display``, ``self.console``; ``self.port`` is the console's once served."""

    timeout = 60
    settings: dict[str, Any] = {}  # noqa: RUF012

    def setUp(self) -> None:
        self.folder = scratch(self)
        self.web, self.novnc = write_pages(self.folder)
        self.grants = GrantBook(reactor, 300.0)
        self.host = self.make_host(free_ports(2), **self.settings)
        self.display = FakeDisplay(reactor, self.folder)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.display.stop()))
        self.console = FakeConsole("c1", self.display.endpoint)
        self.granted = 0
        self.clients: list[Any] = []
        self.addCleanup(lambda: Deferred.fromCoroutine(self.hang_up()))

    def make_host(self, ports: list[int], **settings: Any) -> WebRelayHost:
        host = WebRelayHost(
            reactor,
            self.grants,
            **{
                "listen": ["127.0.0.1", "::1"],
                "ports": ports,
                "public_host": "relay.example",
                "novnc": str(self.novnc),
                "web": self.web,
                **settings,
            },
        )
        self.addCleanup(host.close, "shutdown", "The test is over.")
        return host

    async def hang_up(self) -> None:
        for client in self.clients:
            await client.hang_up()

    def serve(self, console: FakeConsole | None = None) -> WebRelayPort:
        self.port = self.host.open(console or self.console)
        return self.port

    @property
    def number(self) -> int:
        assert self.port.number is not None
        return self.port.number

    def key(self, console: str = "c1", **grant: Any) -> str:
        self.granted += 1
        grant = {"id": f"g{self.granted}", **grant}
        key = self.grants.redeem(console, self.grants.issue(Grant(console=console, **grant)))
        assert key is not None
        return key

    def accepted(self, client: WsClient) -> SocketEnd:
        """The relay's end of a client's connection."""

        number = client.transport.getHost().port
        ends = [one._browser for one in self.port._sockets if isinstance(one, Viewer)]
        bare = [end for end in ends if isinstance(end, SocketEnd) and end._socket is not None]
        (found,) = (end for end in bare if end._socket is not None and end._socket.getpeername()[1] == number)
        return found

    def readers(self) -> list[Any]:
        """The ends of relayed sessions that are read from just now."""

        poller = self.host._manners.reactor
        return [end for end, _ in poller._watched.values()]

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        status, _, answer = await ask(
            reactor, self.number, method, path, b"" if body is None else json.dumps(body).encode(), **headers
        )
        return status, json.loads(answer)

    async def join(self, key: str = "", **settings: Any) -> WsClient:
        client = await open_socket(reactor, self.number, f"binary, key.{key or self.key()}", **settings)
        self.clients.append(client)
        return client

    async def greeted(self, index: int = 0, **settings: Any) -> tuple[WsClient, DisplayEnd]:
        """A viewer that has introduced itself, and the display's end of it."""

        client = await self.join(**settings)
        client.say(HELLO)
        self.assertEqual(await client.hears(len(WELCOME)), WELCOME)
        return client, await self.display.viewer(index)
