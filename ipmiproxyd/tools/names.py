"""Host names of BMCs, resolved by the agent that reaches them, and by nobody else afterwards: from the first request to
the console's own programs, one opening has to do with one address."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

from ipmiproxyd.errors import BmcUnreachable
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Command, Device

LIMIT: Final = 10.0
"""Seconds that resolving a name may take."""

_UNKNOWN: Final = 2  # of getent
_MANY: Final = 8
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")


def as_address(host: str) -> str | None:
    """An IP address as it is usually written; None for a name."""

    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _is_no_bmc(address: str) -> bool:
    """Whether an address stands for the agent itself, for its next neighbours (such as a cloud's services), for many
    or for nobody."""

    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None and found not in _TRANSLATED:
            return found.is_loopback or found.is_link_local or found.is_multicast or found.is_reserved
        found = ipaddress.IPv4Address(found.packed[12:])
    special = found.is_loopback or found.is_link_local or found.is_multicast or found.is_reserved
    return special or found.packed[0] == 0


async def resolve(agent: Agent, host: str) -> tuple[str, ...]:
    """The IP addresses of a host, as the agent knows them, those that it likes best first.

    Raises BmcUnreachable for a name that is not known, or not in time, and what the agent raises.
    """

    address = as_address(host)
    if address is not None:
        return (address,)
    # "--": whatever a name begins with, it is no option.
    outcome = await agent.run(Command(argv=("getent", "--", "ahosts", host), timeout=LIMIT))
    if outcome.timed_out:
        raise BmcUnreachable(
            f"The name {host} was not resolved within {LIMIT:g} seconds on the agent {agent.name}.",
            hint="Check the name servers of the agent, or use the BMC's IP address.",
        )
    told = (as_address(line.partition(" ")[0]) for line in outcome.stdout.decode("ascii", "replace").splitlines())
    addresses = tuple(dict.fromkeys(one for one in told if one and "%" not in one))[:_MANY]
    elsewhere = tuple(one for one in addresses if host.lower() == "localhost" or not _is_no_bmc(one))
    if elsewhere:
        return elsewhere
    if addresses:
        # Whoever has a say in the names must not lead a console into the agent's own services.
        raise BmcUnreachable(
            f"The name {host} leads the agent {agent.name} to itself, or to nobody's address ({addresses[0]}).",
            hint="Correct the name, or use the BMC's IP address.",
        )
    said = "" if outcome.status in (0, _UNKNOWN) else f": {outcome.last_words}"
    raise BmcUnreachable(
        f"The name {host} is not known on the agent {agent.name}{said}.",
        hint="Check the device's address (and web), or use the BMC's IP address.",
    )


def hosts_of(device: Device) -> tuple[str, str]:
    """The host of a device's web panel, and that of its BMC: mostly the same."""

    return urlsplit(device.web_url).hostname or "", device.address.lower()


async def answering(agent: Agent, url: str, addresses: Sequence[str], *, curl: str = "curl") -> str:
    """That of several addresses of a panel's host at which somebody listens; the first if nobody does."""

    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    tried = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
    options = (
        f'url = "{parts.scheme}://{parts.netloc}/"',
        f'resolve = "{parts.hostname}:{port}:{tried}"',
        # Whatever becomes of the request: the connection is what counts.
        "head",
        "insecure",
        "silent",
        'noproxy = "*"',
        f"max-time = {LIMIT:g}",
        'output = "/dev/null"',
        'write-out = "%{remote_ip}"',
    )
    stdin = "".join(f"{option}\n" for option in options).encode()
    outcome = await agent.run(Command(argv=(curl, "-q", "-K", "-"), stdin=stdin, timeout=LIMIT + 5.0))
    found = as_address(outcome.stdout.decode("ascii", "replace").strip())
    return found if found is not None and found in addresses else addresses[0]


class Names:
    """The addresses that openings hold to: whoever asks in the meantime is told the same.

    :param curl: the program that finds out which of several addresses is any good.
    """

    def __init__(self, *, curl: str = "curl") -> None:
        self._curl = curl
        self._held: dict[tuple[str, str], tuple[str, int]] = {}

    def held(self, agent: Agent, host: str) -> str | None:
        """The address of a name that some opening holds to just now."""

        found = self._held.get((agent.name, host.lower()))
        return None if found is None else found[0]

    @asynccontextmanager
    async def hold(self, agent: Agent, device: Device) -> AsyncIterator[Mapping[str, str]]:
        """The addresses of a device's hosts, by :func:`hosts_of`, which stay the same as long as this is held. A BMC
        that is not its panel's host may be missing: its name is not known.

        Raises what :func:`resolve` raises for the panel's host.
        """

        web, bmc = hosts_of(device)
        taken: dict[str, str] = {}
        try:
            taken[web] = await self._take(agent, web, device.web_url)
            if bmc != web:
                with suppress(BmcUnreachable):
                    taken[bmc] = await self._take(agent, bmc)
            yield taken
        finally:
            for host in taken:
                self._let_go(agent, host)

    async def _take(self, agent: Agent, host: str, panel: str = "") -> str:
        found = self.held(agent, host)
        if found is None:
            found, *others = addresses = await resolve(agent, host)
            if others and panel:
                found = await answering(agent, panel, addresses, curl=self._curl)
        # Somebody else may have been quicker.
        address, holders = self._held.get((agent.name, host), (found, 0))
        self._held[agent.name, host] = (address, holders + 1)
        return address

    def _let_go(self, agent: Agent, host: str) -> None:
        address, holders = self._held.pop((agent.name, host))
        if holders > 1:
            self._held[agent.name, host] = (address, holders - 1)
