"""Sessions at BMC panels: a BMC allows few, so each is in its console's ledger and is signed out on every path."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ipmiproxyd.console.ledger import Ledger
from ipmiproxyd.errors import AgentUnreachable, ProxyError
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Device, LedgerRecord
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.talk import WebSession
from ipmiproxyd.wire.device import from_document

KIND: Final = "web-session"
"""Kind of record in the ledger."""

FORGOTTEN_AFTER: Final = 1800.0
"""Seconds after which a panel has forgotten a session by itself, where nothing else is known."""

log = Logger()


class WebSessions:
    """Signs in and out, by the ledger."""

    def __init__(self, desk: VendorDesk, panels: PanelHttp, agents: Any, clock: IReactorTime) -> None:
        self._desk = desk
        self._panels = panels
        self._agents = agents
        self._clock = clock

    async def open(self, ledger: Ledger, agent: Agent, device: Device, family: Family) -> WebSession:
        """Sign in for a console. Raises what :meth:`VendorDesk.sign_in` raises."""

        session = await self._desk.sign_in(agent, device, family)
        data = {
            "agent": agent.name,
            "device": {field.name: getattr(device, field.name) for field in fields(Device)},
            "session": session.to_document(),
            "since": self._clock.seconds(),
        }
        try:
            await ledger.record(KIND, device.web_url, data)
        except BaseException:
            await self._sign_out(agent, device, family, session)
            raise
        return session

    async def release(self, record: LedgerRecord) -> None:
        """Sign out of a recorded session. Raises what hinders it, while the panel may still know the session."""

        device = from_document(record.data["device"])
        session = WebSession.from_document(record.data["session"])
        family = self._desk.families.get(session.family)
        agent = self._agents.get(record.data["agent"])
        if family is None or family.signs_out == "none":
            return
        over = record.data["since"] + (family.slot_seconds or FORGOTTEN_AFTER)
        try:
            if agent is None:
                raise AgentUnreachable(f"There is no agent named {record.data['agent']!r} any more.")
            await self._sign_out(agent, device, family, session)
        except ProxyError as error:
            if self._clock.seconds() < over:
                raise
            log.warn(
                "{device}: a session at its panel was not signed out: {error}", device=device.label, error=error.message
            )

    async def _sign_out(self, agent: Agent, device: Device, family: Family, session: WebSession) -> None:
        await self._panels.talk(agent, device, lambda site: family.sign_out(site, session))
