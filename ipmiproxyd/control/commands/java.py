"""``java …``: the Javas on an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ipmiproxyd.control.arguments import Argument, Name, Text
from ipmiproxyd.control.commands.agent import NAME, on_agent
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.interfaces import Javas

VERSION: Final = Argument(
    "version", Name(), "a Java's name, as java list tells it", required=True, instead_of=(NAME.name,)
)
NEW: Final = Argument("version", Name(), "what it shall be called", required=True, instead_of=(NAME.name,))
HOME: Final = Argument("home", Text(512, "folder"), "the folder on the agent that has its bin/java", required=True)


def commands(javas: Javas, *, agent: str) -> list[Command]:
    where = on_agent(agent)

    async def list_all(call: Call) -> Mapping[str, Any]:
        return await javas.listing(call.values[where])

    async def use(call: Call) -> Mapping[str, Any]:
        return await javas.use(call.values[where], call.values[VERSION])

    async def install(call: Call) -> Mapping[str, Any]:
        return await javas.install(call.values[where], call.values[VERSION])

    async def register(call: Call) -> Mapping[str, Any]:
        return await javas.register(call.values[where], call.values[NEW], call.values[HOME])

    async def remove(call: Call) -> Mapping[str, Any]:
        await javas.remove(call.values[where], call.values[VERSION])
        return {"removed": call.values[VERSION]}

    return [
        Command(noun="java", verb="list", summary="List the Javas on the agent, and those that could be.",
                arguments=(where,), handler=list_all),
        Command(noun="java", verb="use", summary="Let consoles run with this Java from now on.",
                arguments=(VERSION, where), handler=use),
        Command(noun="java", verb="install",
                summary="Install a Java from Oracle's archive, which an administrator has put on the agent.",
                arguments=(VERSION, where), handler=install),
        Command(noun="java", verb="register", summary="Let the Java in a folder of the agent be used under a name.",
                arguments=(NEW, HOME, where), handler=register),
        Command(noun="java", verb="remove", summary="Take a Java away that was installed or registered.",
                arguments=(VERSION, where), handler=remove),
    ]  # fmt: skip
