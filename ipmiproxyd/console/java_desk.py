"""What operators do with the Javas on agents, in the words of the control protocol."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ipmiproxyd.errors import Forbidden
from ipmiproxyd.interfaces import Agent, agent_named
from ipmiproxyd.tools.java_console import JavaConsoles, checked_home
from ipmiproxyd.tools.java_profiles import Java


class JavaDesk:
    """Implements :class:`~ipmiproxyd.interfaces.Javas`.

    :param in_use: the homes of the Javas with which consoles run on an agent just now.
    """

    def __init__(
        self, javas: JavaConsoles, agents: Mapping[str, Agent], in_use: Callable[[str], Collection[str]]
    ) -> None:
        self._javas = javas
        self._agents = agents
        self._in_use = in_use

    async def listing(self, agent: str) -> Mapping[str, Any]:
        return await self._javas.listing(self._agent(agent))

    async def use(self, agent: str, name: str) -> Mapping[str, Any]:
        host = self._agent(agent)
        return await self._told(host, await self._javas.use(host, name))

    async def install(self, agent: str, name: str) -> Mapping[str, Any]:
        host = self._agent(agent)
        return await self._told(host, await self._javas.install(host, name))

    async def register(self, agent: str, name: str, home: str) -> Mapping[str, Any]:
        host = self._agent(agent)
        return await self._told(host, await self._javas.register(host, name, checked_home(home)))

    async def remove(self, agent: str, name: str) -> None:
        host = self._agent(agent)
        used = self._in_use(agent)
        for java in await self._javas.installed(host):
            if java.name == name and java.home in used:
                raise Forbidden(f"A console runs with {name}.", hint="Close that console first: see console list.")
        await self._javas.remove(host, name)

    async def _told(self, agent: Agent, java: Java) -> Mapping[str, Any]:
        used, _ = await self._javas.choice(agent, await self._javas.installed(agent))
        return {"name": java.name, "version": java.version, "home": java.home, "used": java == used}

    def _agent(self, name: str) -> Agent:
        return agent_named(self._agents, name)
