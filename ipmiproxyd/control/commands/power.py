"""``power …``: the server's power, by IPMI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ipmiproxyd.control.arguments import Argument, Duration, Flag
from ipmiproxyd.control.commands.agent import agent_for, reaching
from ipmiproxyd.control.commands.bmc import TARGET, target
from ipmiproxyd.control.declare import Call, Command, Handler
from ipmiproxyd.interfaces import Devices, Power, Proxies

FORCE: Final = Argument("force", Flag(), "ask although the BMC has refused these credentials before", default=False)
WAIT: Final = Argument("wait", Duration(1, 600), "how long to wait until the BMC reports the new state")

_AWAITED: Final = {
    "on": "Switch the server on.",
    "off": "Switch the server off at once.",
    "cycle": "Switch the server off, and on again.",
    "soft": "Ask the operating system to shut down.",
}
_PLAIN: Final = {
    "reset": "Reset the server without switching it off.",
    "diag": "Send the server a diagnostic interrupt (NMI).",
}


def commands(devices: Devices, power: Power, proxies: Proxies, *, agent: str) -> list[Command]:
    where = reaching(agent)

    async def status(call: Call) -> Mapping[str, Any]:
        device = await target(call.values, devices)
        host = await agent_for(call.values, where, device, proxies)
        reached = await power.status(device, agent=host, force=call.values[FORCE])
        return {"device": device.label, "power": reached}

    def act(action: str, *, awaited: bool) -> Handler:
        async def handler(call: Call) -> Mapping[str, Any]:
            device = await target(call.values, devices)
            outcome = await power.act(
                device,
                action,
                agent=await agent_for(call.values, where, device, proxies),
                force=call.values[FORCE],
                wait=call.values.get(WAIT) if awaited else None,
                progress=call.progress,
            )
            return {"device": device.label, **outcome}

        return handler

    return [
        Command(
            noun="power",
            verb="status",
            summary="Tell whether the server is on or off.",
            arguments=(*TARGET, where, FORCE),
            handler=status,
        ),
        *(
            Command(
                noun="power",
                verb=verb,
                summary=summary,
                arguments=(*TARGET, where, FORCE, WAIT),
                handler=act(verb, awaited=True),
            )
            for verb, summary in _AWAITED.items()
        ),
        *(
            Command(
                noun="power",
                verb=verb,
                summary=summary,
                arguments=(*TARGET, where, FORCE),
                handler=act(verb, awaited=False),
            )
            for verb, summary in _PLAIN.items()
        ),
    ]
