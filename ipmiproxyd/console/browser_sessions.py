"""Sessions at BMC panels that were begun in a console's browser, by hand or by a page: the browser has their cookies,
and as it is closed these are taken out of it and the panel is signed out of, as far as cookies are enough for that.

What became of a browser that is gone already cannot be known: such a session ends when the panel forgets it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.console.timing import limited
from ipmiproxyd.errors import ProxyError
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Device, LedgerRecord, UnixStream
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.wire.device import from_document, to_document

KIND: Final = "browser-session"
"""Kind of record in the ledger."""

ANSWER_LIMIT: Final = 3.0
"""Seconds in which the browser has to say what cookies it has."""

SIGN_OUT_LIMIT: Final = 10.0
"""Seconds that recognising the panel and signing out of it may take: the console is not closed before."""

COOKIES_LIMIT: Final = 1 << 18

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE: Final = re.compile(r"[\x20-\x3a\x3c-\x7e]{0,4096}")

log = Logger()


class BrowserSessions:
    """Signs out of what browsers are signed in to, by the ledger."""

    def __init__(self, desk: VendorDesk, panels: PanelHttp, agents: Mapping[str, Agent], clock: IReactorTime) -> None:
        self._desk = desk
        self._panels = panels
        self._agents = agents
        self._clock = clock

    async def record(self, session: ConsoleSession) -> None:
        """The console has a browser now: nobody has seen it yet, so nobody can have signed in."""

        if session.has.door is not None:
            data = {"agent": session.request.agent, "device": to_document(session.request.device)}
            await session.ledger.record(KIND, session.has.door.path, data)

    async def release(self, record: LedgerRecord) -> None:
        """Whatever comes of it, it was tried: the browser is about to end, and with it what could be tried again."""

        agent = self._agents.get(record.data["agent"])
        device = from_document(record.data["device"])
        if agent is None:
            return
        cookies = await self._cookies(agent, UnixStream(record.key))
        if not cookies:
            return
        try:
            await limited(self._sign_out(agent, device, cookies), SIGN_OUT_LIMIT, self._clock)
        except ProxyError as error:
            log.info("{device}: its panel was not signed out of: {error}", device=device.label, error=error.message)

    async def _sign_out(self, agent: Agent, device: Device, cookies: dict[str, str]) -> None:
        family = (await self._desk.family(agent, device)).family
        session = family.in_browser(cookies)
        if session is not None:
            await self._panels.talk(agent, device, lambda site: family.sign_out(site, session))

    async def _cookies(self, agent: Agent, door: UnixStream) -> dict[str, str]:
        told = _Told()
        try:
            factory = Factory.forProtocol(lambda: told)
            factory.noisy = False
            await agent.dial(door).connect(factory)
        except ConnectError:
            return {}
        try:
            return read_cookies(await limited(told.whole, ANSWER_LIMIT, self._clock))
        except ProxyError:
            return {}
        finally:
            told.hang_up()


def read_cookies(line: bytes) -> dict[str, str]:
    """What a browser has told. A console's program may speak for it, so nothing is taken that would be more than a
    cookie in a request."""

    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in pairs if _NAME.fullmatch(name) and _is_value(value)}


def _is_value(value: object) -> bool:
    return isinstance(value, str) and _VALUE.fullmatch(value) is not None


class _Told(Protocol):
    """Collects what is said until the connection's end."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._said = b""

    def dataReceived(self, data: bytes) -> None:
        self._said += data
        if len(self._said) > COOKIES_LIMIT:
            self._said = b""
            self.hang_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        if not self.whole.called:
            self.whole.callback(self._said)

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
