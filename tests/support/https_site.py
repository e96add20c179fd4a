"""A small HTTPS site in the test's own process, which remembers who asked for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorSSL, IReactorTCP, IReactorTime
from twisted.trial.unittest import TestCase
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from ipmiproxyd.tools.curl import spki_pin
from tests.simulator.panel import make_certificate


class _Pages(Resource):
    isLeaf = True

    def __init__(self, site: HttpsSite) -> None:
        super().__init__()
        self._site = site

    def render(self, request: Request) -> bytes:
        path = request.path.decode()
        self._site.seen(path)
        if path.endswith(".bin"):
            request.setHeader("Content-Type", "application/octet-stream")
            request.setHeader("Content-Disposition", "attachment")
        else:
            request.setHeader("Content-Type", "text/html; charset=utf-8")
        request.setHeader("Cache-Control", "no-store")
        return self._site.pages.get(path, "").encode()


class HttpsSite:
    """``pages``: path → HTML. It listens until the end of the test.

    :ivar pin: of its certificate; empty without ``tls``.
    """

    def __init__(self, test: TestCase, pages: Mapping[str, str], *, tls: bool = True) -> None:
        self.pages = pages
        self.requests: list[str] = []
        self.connections = 0
        self._waiting: list[Deferred[None]] = []
        site: Any = Site(_Pages(self))
        build = site.buildProtocol

        def count(address: Any) -> Any:
            self.connections += 1
            self._wake()
            return build(address)

        site.buildProtocol = count
        if tls:
            certificate, public = make_certificate("127.0.0.1")
            self.pin = spki_pin(public)
            options = certificate.options()
            port = cast(IReactorSSL, reactor).listenSSL(0, site, options, interface="127.0.0.1")
        else:
            self.pin = ""
            port = cast(IReactorTCP, reactor).listenTCP(0, site, interface="127.0.0.1")
        test.addCleanup(port.stopListening)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{cast(Any, port.getHost()).port}"

    def seen(self, path: str) -> None:
        self.requests.append(path)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    async def asked_for(self, path: str, count: int = 1) -> None:
        """Wait until there were so many requests for a page."""

        while self.requests.count(path) < count:
            await self._more()

    async def connected(self) -> None:
        while not self.connections:
            await self._more()

    async def _more(self) -> None:
        more: Deferred[None] = Deferred()
        self._waiting.append(more)
        await more.addTimeout(20.0, cast(IReactorTime, reactor))
