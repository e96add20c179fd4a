"""``agent …``: the machines that reach the BMCs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ipmiproxyd.control.arguments import Argument, Name, Values
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.interfaces import Agents, Proxies
from ipmiproxyd.model import Device

AGENT: Final = Argument("agent", Name(), "the agent's name", required=True)


def on_agent(default: str) -> Argument[str]:
    """``agent=`` of a command that is carried out on one."""

    return Argument("agent", Name(), "the agent", default=default)


def reaching(default: str) -> Argument[str]:
    """``agent=`` of a command for one BMC, see :func:`agent_for`."""

    return Argument(
        "agent", Name(), "the agent that reaches the BMC, where it is not that of its location's proxy", default=default
    )


async def agent_for(values: Values, argument: Argument[str], device: Device, proxies: Proxies) -> str:
    """The agent for a BMC: the one that the request names, that of the proxy of its location, or the usual one."""

    proxy = None if argument in values else await proxies.of(device)
    return values[argument] if proxy is None else proxy.agent


def commands(agents: Agents) -> list[Command]:
    async def list_all(_: Call) -> Mapping[str, Any]:
        return {"agents": list(agents.listing())}

    async def check(call: Call) -> Mapping[str, Any]:
        return await agents.check(call.values[AGENT])

    return [
        Command(noun="agent", verb="list", summary="List the agents, and how they are.", handler=list_all),
        Command(
            noun="agent",
            verb="check",
            summary="Look whether an agent has what consoles and power actions need.",
            arguments=(AGENT,),
            handler=check,
        ),
    ]
