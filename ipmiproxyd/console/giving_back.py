"""Giving back what every console has: each kind needs only what the ledger recorded of it."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.logger import Logger

from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.console.ledger import Release
from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.errors import ProxyError
from ipmiproxyd.interfaces import Agent, Grants
from ipmiproxyd.model import LedgerRecord

log = Logger()


class GivingBack:
    """:param sessions: those that there are at the time, by their consoles."""

    def __init__(
        self,
        agents: Mapping[str, Agent],
        displays: Mapping[str, DisplayPool],
        grants: Grants,
        sessions: Mapping[str, ConsoleSession],
    ) -> None:
        self._agents = agents
        self._displays = displays
        self._grants = grants
        self._sessions = sessions

    def releases(self) -> Mapping[str, Release]:
        """By the kind of record."""

        return {
            "job": self._release_job,
            "display": self._release_display,
            "grants": self._release_grants,
            "relay-port": self._release_port,
        }

    async def _release_port(self, record: LedgerRecord) -> None:
        session = self._sessions.get(record.console)
        if session is not None and session.has.port is not None:
            ending = session.ending
            await session.has.port.close(*(("closed", "") if ending is None else (ending.reason, ending.message)))

    async def _release_grants(self, record: LedgerRecord) -> None:
        self._grants.revoke(record.console)

    async def _release_display(self, record: LedgerRecord) -> None:
        pool = self._displays.get(record.data["agent"])
        if pool is not None:
            pool.give_back(int(record.key), record.console)

    async def _release_job(self, record: LedgerRecord) -> None:
        agent = self._agents.get(record.data["agent"])
        if agent is None:
            # Its jobs end by their lease, or as strangers of the agent that has its folder now.
            log.warn("console {console}: its agent is not configured any more", console=record.console)
            return
        try:
            await agent.stop(record.key)
        except ProxyError:
            # Without a runner that works there nothing can be stopped, nor was anything begun perhaps.
            if await _may_have(agent, record.key):
                raise


async def _may_have(agent: Agent, job_id: str) -> bool:
    try:
        return any(job.id == job_id for job in await agent.jobs())
    except ProxyError:
        return True
