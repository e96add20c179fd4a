"""What a console's programs may connect to: its BMC, on the ports that its panel needs, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from ipmiproxyd.model import Device, Reach
from ipmiproxyd.tools.names import as_address, hosts_of
from ipmiproxyd.vendors.ports import Port, ranges

_SCHEMES = {"http": 80, "https": 443}


def reach_of(device: Device, addresses: Mapping[str, str], ports: Iterable[Port]) -> tuple[Reach, ...]:
    """The panel's host with the panel's own port and ``ports``, and the BMC's address, where that is another one, with
    ``ports``.

    :param addresses: of these hosts, see :meth:`ipmiproxyd.tools.names.Names.hold`.
    """

    parts = urlsplit(device.web_url)
    web, bmc = hosts_of(device)
    more = tuple(ports)
    wanted: dict[str, list[Port]] = {addresses[web]: [parts.port or _SCHEMES[parts.scheme], *more]}
    if bmc in addresses:
        wanted.setdefault(addresses[bmc], []).extend(more)
    return tuple(
        Reach(
            address=address,
            ports=ranges(allowed),
            names=tuple(host for host in addresses if addresses[host] == address and as_address(host) is None),
        )
        for address, allowed in wanted.items()
        if allowed
    )
