"""The way from an agent to one BMC: its ports, its panel's TLS and family, its IPMI. Nobody signs in at the panel."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.threads import deferToThread

from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.fleet import HostedAgent
from ipmiproxyd.agents.scripts import script_argv, script_input
from ipmiproxyd.doctor import reaching
from ipmiproxyd.errors import AgentUnreachable, BadCertificate, BmcUnreachable, ProxyError, VendorUnknown
from ipmiproxyd.interfaces import Power, Store
from ipmiproxyd.model import BMC_CIPHER, Command, Device, bmc_key
from ipmiproxyd.tools.names import Names, hosts_of, resolve
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.vendors.ports import ALL, Port, ranges, written
from ipmiproxyd.vendors.talk import Request, Site, Talk
from ipmiproxyd.wire.device import vnc_address

CONNECT_LIMIT: Final = 3.0
"""Seconds that a port has for its answer."""
MANY: Final = 48
"""Ports that are tried at most."""

_SCHEMES: Final = {"http": 80, "https": 443}
_UNREACHED: Final = "the panel's port cannot be reached"
_REFUSED: Final = "its certificate is refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class BmcRooms:
    """What the way to a BMC is tried with."""

    names: Names
    panels: PanelHttp
    vendors: VendorDesk
    power: Power
    store: Store


@dataclass(frozen=True, slots=True)
class _Target:
    address: str
    port: int
    use: str
    always: bool
    """It has to be open all the time; others may be so only while a console needs them."""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}{f' ({self.use})' if self.use else ''}"


class BmcCheck:
    """One device, as one agent reaches it. Each method is one step, in this order."""

    def __init__(self, rooms: BmcRooms, agent: HostedAgent, device: Device) -> None:
        self._rooms = rooms
        self._agent = agent
        self._device = device
        self._obstacle = _UNREACHED

    async def ports(self) -> list[Finding]:
        """The panel's own, and that of its VNC server, wherever that is."""

        device, agent = self._device, self._agent
        async with self._rooms.names.hold(agent, device) as addresses:
            web, bmc = hosts_of(device)
            unknown = [] if bmc in addresses else [_unknown(f"The agent knows no host {bmc}.")]
            parts = urlsplit(device.web_url)
            targets = [_Target(addresses[web], parts.port or _SCHEMES[parts.scheme], "the panel", always=True)]
            if device.vnc:
                vnc = vnc_address(device.vnc)
                try:
                    address = addresses.get(vnc.host) or (await resolve(agent, vnc.host))[0]
                    targets.append(_Target(address, vnc.port, "vnc=", always=True))
                except BmcUnreachable as error:
                    unknown += [] if vnc.host == bmc else [_unknown(error.message)]
            found = await self._reached(targets)
        self._obstacle = "" if "ms" in found[0] else _UNREACHED
        return [*unknown, *_told("bmc-ports", targets, found)]

    async def panel(self) -> list[Finding]:
        """Its TLS and its certificate."""

        if self._obstacle:
            return [Finding("bmc-panel", "warning", f"Not looked at, as {self._obstacle}.")]
        try:
            return await self._seen()
        except BadCertificate:
            self._obstacle = _REFUSED
            raise

    async def _seen(self) -> list[Finding]:
        device, panels = self._device, self._rooms.panels
        profile, pin = await panels.trusted(self._agent, device)
        if pin is None:
            words = f"The panel at {device.web_url} speaks plain HTTP: passwords go over the network readable."
            return [Finding("bmc-panel", "warning", words, "Use https for it (web=), if it can.")]
        found = [_tls(device, profile), *(await self._vouched() if device.web_trust == "ca" else [])]
        if others := await panels.shared_with(device, pin):
            words = f"It shows the very same key as {', '.join(others)}: a maker's, which proves nothing."
            found.append(Finding("bmc-panel", "warning", words, "Have the BMC make a certificate of its own."))
        if device.web_trust == "insecure":
            words = "Its certificate is not looked at (web_trust=insecure): somebody in between is not noticed."
            found.append(Finding("bmc-panel", "warning", words, "Use web_trust=pin, or ca."))
        return found

    async def _vouched(self) -> list[Finding]:
        """Whether an authority that the agent knows vouches for the certificate: the device's web_trust=ca wants it."""

        try:
            await self._rooms.panels.talk(self._agent, self._device, _front_page)
        except BadCertificate as error:
            self._obstacle = _REFUSED
            return [Finding("bmc-panel", "fault", error.message, error.hint or "")]
        except ProxyError as error:
            words = f"Whether an authority vouches for its certificate is not known: {error.message}"
            return [Finding("bmc-panel", "warning", words, error.hint or "")]
        return [Finding("bmc-panel", "ok", "An authority that the agent knows vouches for its certificate.")]

    async def vendor(self) -> list[Finding]:
        if self._obstacle:
            return [Finding("bmc-vendor", "warning", f"Not looked at, as {self._obstacle}.")]
        device, desk = self._device, self._rooms.vendors
        try:
            seen = await desk.probe(self._agent, device)
        except VendorUnknown as error:
            advice = "type=panel shows it in a browser all the same; or describe it in the configuration (vendors.md)."
            return [Finding("bmc-vendor", "warning", error.message, advice)]
        words = f"The panel is that of {seen.family.label}: {seen.why}."
        if device.vendor in ("auto", seen.family.key):
            return [Finding("bmc-vendor", "ok", words)]
        return [
            Finding(
                "bmc-vendor",
                "warning",
                f"{words} The device says vendor={device.vendor}, and that counts.",
                f"If that is wrong: device set name={device.label} vendor=auto",
            )
        ]

    async def console_ports(self) -> list[Finding]:
        """Those that the family's consoles need beside the panel's own."""

        device, agent = self._device, self._agent
        family = await self._rooms.vendors.known(agent, device)
        if family is None:
            return []
        needed = family.needed_ports()
        if not needed:
            words = f"Consoles of {family.label} need no port beside the panel's."
            return [Finding("bmc-console-ports", "ok", words)]
        single, wide = _first(needed.values())
        found = [_untried(family.label, wide)] if wide else []
        if not single:
            return found
        async with self._rooms.names.hold(agent, device) as addresses:
            web, bmc = hosts_of(device)
            address = addresses.get(bmc, addresses[web])
            targets = [_Target(address, port, "", always=False) for port in single]
            return [*found, *_told("bmc-console-ports", targets, await self._reached(targets))]

    async def ipmi(self) -> list[Finding]:
        """Whether ipmitool gets an answer, and by which cipher suite."""

        device, agent = self._device, self._agent
        state = await self._rooms.power.status(device, agent=agent.name)
        words = f"ipmitool works: {device.bmc} says that the server is {state}"
        if device.interface == "lan":
            advice = "Use interface=lanplus, if the BMC can."
            return [Finding("bmc-ipmi", "warning", f"{words}; IPMI 1.5 encrypts nothing.", advice)]
        known = await self._rooms.store.get(BMC_CIPHER, bmc_key(device.bmc, agent.name))
        cipher = device.cipher if device.cipher != "auto" else (known or {}).get("cipher", "?")
        return [Finding("bmc-ipmi", "ok", f"{words}; cipher suite {cipher}.")]

    async def _reached(self, targets: Sequence[_Target]) -> Sequence[Mapping[str, Any]]:
        text = await deferToThread(Path(reaching.__file__).read_text)
        given = {"targets": [[one.address, one.port] for one in targets], "limit": CONNECT_LIMIT}
        argv, stdin = script_argv(self._agent.python), script_input(text, given)
        outcome = await self._agent.run(Command(argv=argv, stdin=stdin, timeout=2 * CONNECT_LIMIT))
        try:
            found: Sequence[Mapping[str, Any]] = json.loads(outcome.stdout)
        except ValueError:
            raise AgentUnreachable(f"The agent did not try the ports: {outcome.last_words}.") from None
        return found


def _first(groups: Iterable[Sequence[Port]]) -> tuple[list[int], list[Port]]:
    """Single ports, as many as are tried; and those that are not: wide ranges, such as all that there are."""

    single, wide = list[int](), list[Port]()
    for first, last in ranges(port for group in groups for port in group):
        if len(single) + last - first < MANY:
            single += range(first, last + 1)
        else:
            wide.append((first, last))
    return single, wide


def _untried(label: str, wide: Sequence[Port]) -> Finding:
    which = "any" if tuple(wide) == ALL else ", ".join(written(wide))
    words = f"Ports that consoles of {label} may use, and that are too many to be tried: {which}."
    return Finding("bmc-console-ports", "ok", words)


def _unknown(words: str) -> Finding:
    return Finding("bmc-ports", "fault", words, "Use the IP address.")


def _front_page(_: Site) -> Talk[None]:
    yield Request("/")


def _tls(device: Device, profile: str) -> Finding:
    where = f"The panel at {device.web_url}"
    if profile == "modern":
        known = "; its key is the one that is known" if device.web_trust == "pin" else ""
        return Finding("bmc-panel", "ok", f"{where} speaks TLS 1.2 or later{known}.")
    words = f"{where} speaks TLS 1.2 or later, but with a weak key or an old cipher."
    if profile == "legacy":
        words = f"{where} speaks nothing newer than TLS 1.1: browsers reach it by a bridge on the agent."
    return Finding("bmc-panel", "warning", words, "A newer firmware of the BMC helps. Keep its network apart.")


def _told(what: str, targets: Sequence[_Target], found: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """One finding for all that ended alike."""

    good, alike = list[str](), dict[str, list[_Target]]()
    for target, one in zip(targets, found, strict=True):
        if "ms" in one:
            good.append(f"{target} after {one['ms']} ms")
        else:
            how = next((word for word in ("silent", "refused") if word in one), "") or one["failed"]
            alike.setdefault(how, []).append(target)
    bad = [_unreached(what, how, group) for how, group in alike.items()]
    return [*bad, *([Finding(what, "ok", f"These answer: {', '.join(good)}.")] if good else [])]


def _unreached(what: str, how: str, targets: Sequence[_Target]) -> Finding:
    names = ", ".join(map(str, targets))
    if how == "silent":
        words = f"No answer from {names}: a firewall drops what is sent there, or the BMC is off or elsewhere."
        advice = "See that the BMC is on and the address is right; then open this in the firewalls between them."
        return Finding(what, "fault", words, advice)
    if how != "refused":
        advice = "See the agent's network and routes: ip route get, from there."
        return Finding(what, "fault", f"{names} cannot be reached: {how}.", advice)
    if not all(target.always for target in targets):
        words = f"Closed just now: {names}. Some BMCs open such ports only while a console runs."
        return Finding(what, "warning", words, "If consoles stay black: see whether the BMC has other ports set.")
    advice = "See that the device's address is right (web=, vnc=), and that the BMC has this service switched on."
    return Finding(what, "fault", f"Nothing listens at {names}.", advice)
