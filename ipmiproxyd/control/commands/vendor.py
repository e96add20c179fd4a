"""``vendor …``: the families of web panels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipmiproxyd.control.commands.agent import agent_for, reaching
from ipmiproxyd.control.commands.bmc import TARGET, target
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.interfaces import Devices, Proxies, Vendors


def commands(devices: Devices, vendors: Vendors, proxies: Proxies, *, agent: str) -> list[Command]:
    where = reaching(agent)

    async def list_all(_: Call) -> Mapping[str, Any]:
        return {"vendors": list(vendors.listing())}

    async def probe(call: Call) -> Mapping[str, Any]:
        device = await target(call.values, devices)
        return await vendors.look(await agent_for(call.values, where, device, proxies), device)

    async def forget(call: Call) -> Mapping[str, Any]:
        device = await target(call.values, devices)
        await vendors.unlearn(await agent_for(call.values, where, device, proxies), device)
        return {"device": device.label, "panel": device.web_url}

    return [
        Command(
            noun="vendor",
            verb="list",
            summary="List the families of web panels, how well each is known, and what it can do.",
            handler=list_all,
        ),
        Command(
            noun="vendor",
            verb="probe",
            summary="Find out of which family a BMC's web panel is, without signing in.",
            arguments=(*TARGET, where),
            handler=probe,
        ),
        Command(
            noun="vendor",
            verb="forget",
            summary="Forget what is remembered of a web panel: its certificate, its family, and what it has refused.",
            arguments=(*TARGET, where),
            handler=forget,
        ),
    ]
