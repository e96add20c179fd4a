"""Which family a device's panel is of, and signing in there: what is known of panels is kept, and what they refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.logger import Logger

from ipmiproxyd.errors import BadValue, BmcAuth, VendorUnknown
from ipmiproxyd.interfaces import Agent, Store, agent_named
from ipmiproxyd.model import Device, Secret
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.refusals import Refusals
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.ports import written
from ipmiproxyd.vendors.recognise import Recognised, recognise
from ipmiproxyd.vendors.talk import WebSession

KIND: Final = "vendor"
"""Kind of stored document: the family that a panel was recognised as, by agent and host."""

log = Logger()


@dataclass(frozen=True, slots=True)
class Found:
    """A panel's family, and why: in words."""

    family: Family
    why: str


class VendorDesk:
    """Knows the panels' families. Implements :class:`~ipmiproxyd.interfaces.Vendors`.

    :param families: by key.
    """

    def __init__(
        self, panels: PanelHttp, store: Store, families: Mapping[str, Family], agents: Mapping[str, Agent]
    ) -> None:
        self.families = families
        self._agents = agents
        self._panels = panels
        self._store = store
        self._refusals = Refusals(store)

    async def family(self, agent: Agent, device: Device) -> Found:
        """The device's own ``vendor``, or what its panel was recognised as before, or is now.

        Raises BadValue for a vendor that is not known, VendorUnknown, and what PanelHttp raises.
        """

        if device.vendor != "auto":
            return Found(self.named(device.vendor), "the device says so")
        known = await self._store.get(KIND, _key(agent, device))
        if known is not None and known["family"] in self.families:
            return Found(self.families[known["family"]], known["why"])
        return await self.probe(agent, device)

    async def known(self, agent: Agent, device: Device) -> Family | None:
        """What :meth:`family` would tell, if it can without looking at the panel."""

        if device.vendor != "auto":
            return self.families.get(device.vendor)
        known = await self._store.get(KIND, _key(agent, device))
        return None if known is None else self.families.get(known["family"])

    async def probe(self, agent: Agent, device: Device) -> Found:
        """Look at the panel anew, without signing in. Raises VendorUnknown, with what was ``seen``."""

        try:
            seen: Recognised = await self._panels.talk(agent, device, lambda _: recognise(list(self.families.values())))
        except VendorUnknown as error:
            if "seen" in error.details:
                log.info("panel {panel} is of no known kind: {seen}", panel=device.web_url, seen=error.details["seen"])
            raise
        await self._store.put(KIND, _key(agent, device), {"family": seen.family, "why": seen.why})
        return Found(self.families[seen.family], seen.why)

    def named(self, key: str) -> Family:
        try:
            return self.families[key]
        except KeyError:
            known = ", ".join(sorted(self.families))
            raise BadValue(f"There is no vendor {key!r}.", hint=f"Use auto, or one of: {known}.") from None

    async def sign_in(self, agent: Agent, device: Device, family: Family) -> WebSession:
        """Once. Credentials that the panel has refused are not tried again.

        Raises BmcAuth, NoSlot, BmcLocked, … of the family, and what PanelHttp raises.
        """

        signer = self._signer(device)
        where = f"{agent.name} web"
        await self._refusals.check(signer, where)
        try:
            session = await self._panels.talk(agent, device, family.sign_in)
        except BmcAuth as error:
            await self._refusals.add(signer, where, error)
            raise
        await self._refusals.forget(signer, where)
        return session

    async def forget(self, agent: Agent, device: Device) -> None:
        """Forget what is remembered of a device's panel: its certificate, its family, and what it has refused."""

        await self._panels.forget(agent, device)
        await self._store.delete(KIND, _key(agent, device))
        await self._refusals.forget(self._signer(device), f"{agent.name} web")

    # --- for operators ------------------------------------------------------------------------------------------------

    def listing(self) -> Sequence[Mapping[str, Any]]:
        return [
            {
                "vendor": family.key,
                "label": family.label,
                "evidence": family.evidence,
                "consoles": sorted(family.consoles),
                "ports": {kind: written(ports) for kind, ports in family.needed_ports().items()},
                "signs_out": family.signs_out,
                "slot_seconds": family.slot_seconds,
            }
            for family in self.families.values()
        ]

    async def look(self, agent: str, device: Device) -> Mapping[str, Any]:
        host = self._agent(agent)
        try:
            found = await self.probe(host, device)
        except VendorUnknown as error:
            seen = error.details.get("seen", "")
            words = f"{error.message} Seen there: {seen}." if seen else error.message
            raise VendorUnknown(words, hint=error.hint, details=error.details) from None
        profile, pin = await self._panels.trusted(host, device)
        return {
            "device": device.label,
            "panel": device.web_url,
            "vendor": found.family.key,
            "label": found.family.label,
            "why": found.why,
            "evidence": found.family.evidence,
            "consoles": sorted(found.family.consoles),
            "tls": profile if pin else "",
            "certificate": pin or "",
            "shared_with": await self._panels.shared_with(device, pin),
        }

    async def unlearn(self, agent: str, device: Device) -> None:
        await self.forget(self._agent(agent), device)

    def _agent(self, name: str) -> Agent:
        return agent_named(self._agents, name)

    def _signer(self, device: Device) -> Device:
        """The device with the credentials that its panel gets."""

        site = self._panels.site(device)
        return replace(device, username=site.username, password=site.password, kg=Secret(""))


def _key(agent: Agent, device: Device) -> str:
    """Behind another agent the same address is another panel."""

    return f"{agent.name} {device.web_url}"
