"""Which proxy a request goes by, and whether one can work here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipmiproxyd.console.types import Types
from ipmiproxyd.errors import BadValue, NotFound
from ipmiproxyd.interfaces import RelayHost, Store
from ipmiproxyd.model import Console, ConsoleState, Device, Proxy
from ipmiproxyd.store.proxies import StoredProxies

_OVER = (ConsoleState.CLOSING, ConsoleState.CLOSED, ConsoleState.LOST)


class ProxyDesk:
    """Implements :class:`~ipmiproxyd.interfaces.Proxies`.

    :param has_agent: whether there is an agent of this name.
    :param consoles: those that there are.
    """

    def __init__(
        self,
        store: Store,
        relay: RelayHost,
        types: Types,
        has_agent: Callable[[str], bool],
        consoles: Callable[[], Sequence[Console]],
    ) -> None:
        self._stored = StoredProxies(store, self._judge)
        self._relay = relay
        self._types = types
        self._has_agent = has_agent
        self._consoles = consoles

    async def add(self, proxy: Proxy) -> Proxy:
        return await self._stored.add(proxy)

    async def change(self, name: str, changes: Mapping[str, Any]) -> Proxy:
        return await self._stored.change(name, changes)

    async def get(self, name: str) -> Proxy:
        return await self._stored.get(name)

    async def remove(self, name: str) -> Proxy:
        return await self._stored.remove(name)

    async def list(self) -> Sequence[Proxy]:
        return await self._stored.list()

    async def _judge(self, proxy: Proxy, before: Proxy | None, others: Sequence[Proxy]) -> None:
        if not self._has_agent(proxy.agent):
            raise BadValue(f"agent: There is no agent {proxy.agent}.", hint="agent list shows all.")
        self._types.allow(proxy.type, proxy.agent)
        files = proxy.named_files
        named_now = files is not None and (before is None or files != before.named_files)
        if proxy.encrypt or named_now:
            await self._relay.judge(files, {other.files for other in others if other.files is not None})

    # --- for requests -------------------------------------------------------------------------------------------------

    def consoles(self, name: str) -> int:
        return self._counts()[name]

    async def of(self, device: Device) -> Proxy | None:
        return self._usable(next(iter(await self._of_location(device)), None))

    async def pick(self, device: Device, *, name: str = "", agent: str = "", user: str = "") -> Proxy | None:
        if name:
            proxy = await self.get(name)
            return proxy if agent else self._usable(proxy)
        usable = await self._of_location(device)
        usable = [proxy for proxy in usable if proxy.agent == agent] or usable
        counts = self._counts()
        known = {
            console.proxy
            for console in self._consoles()
            if (console.bmc, console.user) == (device.bmc, user) and console.state not in _OVER
        }
        picked = min(usable, key=lambda proxy: (proxy.name not in known, counts[proxy.name], proxy.name), default=None)
        return picked if agent else self._usable(picked)

    def _usable(self, proxy: Proxy | None) -> Proxy | None:
        """Raises NotFound where its agent has been removed."""

        if proxy is not None and not self._has_agent(proxy.agent):
            raise NotFound(
                f"The proxy {proxy.name} names the agent {proxy.agent}, which is no more.",
                hint=f"proxy set name={proxy.name} agent=OTHER gives it another one: see agent list.",
            )
        return proxy

    async def _of_location(self, device: Device) -> Sequence[Proxy]:
        proxies = [proxy for proxy in await self.list() if device.location in proxy.locations]
        return [proxy for proxy in proxies if self._has_agent(proxy.agent)] or proxies

    def _counts(self) -> Counter[str]:
        return Counter(console.proxy for console in self._consoles() if console.state not in _OVER)
