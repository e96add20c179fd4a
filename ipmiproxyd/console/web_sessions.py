"""Sessions at BMC panels: a BMC allows few, so each is in its console's ledger and is signed out on every path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ipmiproxyd.console.ledger import Ledger
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.console.timing import limited, uncut
from ipmiproxyd.errors import AgentUnreachable, BmcUnreachable, ProxyError
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Device, LedgerRecord
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.talk import WebSession
from ipmiproxyd.wire.device import from_document, to_document

KIND: Final = "web-session"
"""Kind of record in the ledger."""

FORGOTTEN_AFTER: Final = 1800.0
"""Seconds after which a panel has forgotten a session by itself, where nothing else is known."""
SIGN_OUT_LIMIT: Final = 15.0
"""Seconds: fewer than a release may take, so that its end comes from here."""

log = Logger()


class WebSessions:
    """Signs in and out, by the ledger."""

    def __init__(self, desk: VendorDesk, panels: PanelHttp, agents: Mapping[str, Agent], clock: IReactorTime) -> None:
        self._desk = desk
        self._panels = panels
        self._agents = agents
        self._clock = clock
        self._leaving: dict[tuple[str, int], float] = {}

    async def sign_in(self, session: ConsoleSession, agent: Agent, family: Family) -> WebSession:
        """The stage of opening: as :meth:`open`, and it is seen on the console."""

        session.stage("sign-in", "Signing in to the panel")
        web = await self.open(session.ledger, agent, session.request.device, family)
        self.show(session, family)
        return web

    async def open(self, ledger: Ledger, agent: Agent, device: Device, family: Family) -> WebSession:
        """Sign in for a console. Raises what :meth:`VendorDesk.sign_in` raises.

        Once begun it is not cut short: an answer that nobody reads is a session that nobody ends. Whoever cancels it
        waits for it, and until it is signed out again.
        """

        try:
            return await uncut(self._open(ledger, agent, device, family))
        except CancelledError:
            await ledger.give_back(KIND)
            raise

    async def _open(self, ledger: Ledger, agent: Agent, device: Device, family: Family) -> WebSession:
        session = await self._desk.sign_in(agent, device, family)
        data = {"agent": agent.name, "device": to_document(device), "session": session.to_document()}
        try:
            await ledger.record(KIND, device.web_url, data)
        except BaseException:
            await self._sign_out(agent, device, family, session)
            raise
        return session

    def show(self, session: ConsoleSession, family: Family) -> None:
        """Have it seen that a console has signed in just now."""

        session.has.slot_since = now = self._clock.seconds()
        if family.signs_out == "none":
            session.has.slot_until = now + (family.slot_seconds or FORGOTTEN_AFTER)

    async def release(self, record: LedgerRecord) -> None:
        """Sign out of a recorded session. Raises what hinders it, while the panel may still know the session."""

        device = from_document(record.data["device"])
        session = WebSession.from_document(record.data["session"])
        family = self._desk.families.get(session.family)
        agent = self._agents.get(record.data["agent"])
        if family is None or family.signs_out == "none":
            return
        known_as = (record.console, record.seq)
        # From the first attempt on: until then the console may have used it.
        begun = self._leaving.setdefault(known_as, self._clock.seconds())
        try:
            if agent is None:
                raise AgentUnreachable(f"There is no agent {record.data['agent']} any more.")
            late = BmcUnreachable(f"The panel at {device.web_url} did not sign out in time.")
            await limited(self._sign_out(agent, device, family, session), SIGN_OUT_LIMIT, self._clock, late)
        except ProxyError as error:
            if self._clock.seconds() < begun + (family.slot_seconds or FORGOTTEN_AFTER):
                raise
            log.warn(
                "{device}: a session at its panel was not signed out: {error}", device=device.label, error=error.message
            )
        self._leaving.pop(known_as, None)

    async def _sign_out(self, agent: Agent, device: Device, family: Family, session: WebSession) -> None:
        await self._panels.talk(agent, device, lambda site: family.sign_out(site, session))
