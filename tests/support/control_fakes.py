"""What the control protocol's commands drive, in memory: it remembers what it was asked for."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from ipmiproxyd.control.commands import Defaults, make_commands
from ipmiproxyd.control.declare import CommandTable
from ipmiproxyd.errors import BadValue, BmcAuth, Exists, NotFound, ProxyError
from ipmiproxyd.interfaces import Agent, Progress
from ipmiproxyd.model import (
    Console,
    ConsoleState,
    Device,
    Errand,
    Grant,
    OpenRequest,
    Proxy,
    RemoteAgent,
    Stage,
    ViewerInfo,
)
from ipmiproxyd.wire.device import changed, checked
from ipmiproxyd.wire.proxy import changed as changed_proxy
from ipmiproxyd.wire.proxy import checked as checked_proxy


class FakeDevices:
    def __init__(self) -> None:
        self.stored: dict[str, Device] = {}

    async def add(self, device: Device) -> Device:
        if device.name in self.stored:
            raise Exists(f"There already is a device {device.name}.")
        device = checked(device)
        self.stored[device.name] = device
        return device

    async def change(self, name: str, changes: Mapping[str, Any]) -> Device:
        self.stored[name] = changed(await self.get(name), changes)
        return self.stored[name]

    async def get(self, name: str) -> Device:
        if name not in self.stored:
            raise NotFound(f"There is no device {name}.", hint="See: device list")
        return self.stored[name]

    async def list(self) -> list[Device]:
        return list(self.stored.values())

    async def remove(self, name: str) -> None:
        await self.get(name)
        del self.stored[name]


class FakePower:
    """Refuses the user ``wrong``. ``acted`` holds (device, action, force, wait)."""

    def __init__(self) -> None:
        self.acted: list[tuple[Device, str, bool, float | None]] = []
        self.agents: set[str] = set()

    async def status(self, device: Device, *, agent: str = "local", force: bool = False) -> str:
        self.acted.append((device, "status", force, None))
        self.agents.add(agent)
        if device.username == "wrong":
            raise BmcAuth("The BMC refused the user name or the password.", hint="Change the device.")
        return "on"

    async def act(
        self,
        device: Device,
        action: str,
        *,
        agent: str = "local",
        force: bool = False,
        wait: float | None = None,
        progress: Progress = lambda _: None,
    ) -> Mapping[str, Any]:
        self.acted.append((device, action, force, wait))
        self.agents.add(agent)
        progress({"stage": "send", "text": f"Sending {action}", "ms": 1})
        return {"action": action, "power": "on" if wait else None}


def viewer(**changes: Any) -> ViewerInfo:
    """Somebody at a console."""

    made = ViewerInfo(id="g1", user="alice", peer="192.0.2.9", control=True, steers=True, joined_at=1_700_000_003.25)
    return dataclasses.replace(made, **changes)


PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480) + bytes(20)
"""The beginning of a picture of 640 x 480 pixels."""


def console(number: int = 1, **changes: Any) -> Console:
    """A console to show."""

    made = Console(
        id=f"c{number}",
        serial=1,
        device="node17",
        bmc="10.0.0.17:623",
        type="panel",
        user="alice",
        agent="local",
        state=ConsoleState.READY,
        stages=(Stage("display", "Starting the display", 0, 110), Stage("browser", "Starting the browser", 110)),
        display=4,
        relay_port=6081,
        viewers=(viewer(),),
        opened_at=1_700_000_000.12345,
        ready_at=1_700_000_001.5,
        last_activity=1_700_000_002.0,
        idle=600.0,
        max_time=None,
    )
    return dataclasses.replace(made, **changes)


class FakeConsoles:
    """``out`` are the grants of all consoles, ``picture`` is what each shows. Opening waits for :meth:`finish` if
    ``slow``. ``cancelled`` counts the openings that were broken off."""

    def __init__(self) -> None:
        self.known: dict[str, Console] = {}
        self.out: list[Grant] = []
        self.picture = PNG
        self.asked: list[OpenRequest] = []
        self.tidy_error: ProxyError | None = None
        self.slow = False
        self.waiting: list[Deferred[None]] = []
        self.cancelled = 0
        self.when_asked: Deferred[None] = Deferred()
        self.when_cancelled: Deferred[None] = Deferred()

    async def open(self, request: OpenRequest, progress: Progress) -> Mapping[str, Any]:
        self.asked.append(request)
        progress({"stage": "display", "text": "Starting the display", "ms": 3})
        if not self.when_asked.called:
            self.when_asked.callback(None)
        if self.slow:
            self.waiting.append(Deferred())
            try:
                await self.waiting[-1]
            except CancelledError:
                self.cancelled += 1
                if not self.when_cancelled.called:
                    self.when_cancelled.callback(None)
                raise
        made = console(len(self.asked), device=request.device.label, user=request.user)
        self.known[made.id] = made
        return {"console": made, "url": f"http://gate:6081/#t={made.id}", "reused": False, "warnings": ["old firmware"]}

    def finish(self) -> None:
        """Let the oldest opening come to its end."""

        self.waiting.pop(0).callback(None)

    def list(self) -> Sequence[Console]:
        return list(self.known.values())

    def show(self, console_id: str) -> Console:
        if console_id not in self.known:
            raise NotFound(f"There is no console {console_id}.")
        return self.known[console_id]

    async def close(
        self, *, console_id: str = "", device: str = "", user: str = "", reason: str = "closed"
    ) -> Sequence[Console]:
        if console_id:
            self.show(console_id)
        closed = [
            shown
            for shown in self.known.values()
            if shown.id == console_id or shown.device == device or shown.user == user
        ]
        for shown in closed:
            del self.known[shown.id]
        return [dataclasses.replace(shown, state=ConsoleState.CLOSED, reason=reason) for shown in closed]

    def extend(self, console_id: str, by: float) -> Console:
        self.extended = (console_id, by)
        return self.show(console_id)

    async def tidy(self, agent: Agent) -> Sequence[str]:
        if self.tidy_error is not None:
            raise self.tidy_error
        return [f"job x of {agent.name}: it never started"]

    def share(self, console_id: str, *, user: str = "", control: bool = False, credentials: bool = False) -> Grant:
        number = len(self.out) + 1
        grant = Grant(
            console=self.show(console_id).id, id=f"g{number}", user=user, control=control, credentials=credentials
        )
        self.out.append(grant)
        return grant

    def grant_url(self, grant: Grant) -> str:
        return f"http://gate:6081/#t=for-{grant.id}"

    def grants(self, console_id: str) -> Sequence[Grant]:
        return [grant for grant in self.out if grant.console == self.show(console_id).id]

    def revoke(self, console_id: str, *, viewer: str = "", user: str = "") -> Sequence[Grant]:
        revoked = [
            grant for grant in self.grants(console_id) if viewer in ("", grant.id) and user in ("", grant.user)
        ]
        self.out = [grant for grant in self.out if grant not in revoked]
        self.known[console_id] = dataclasses.replace(self.known[console_id], viewers=())
        return revoked

    async def screenshot(self, console_id: str) -> bytes:
        self.show(console_id)
        return self.picture

    def url(self, console_id: str) -> str:
        return f"http://gate:6081/#t=again-{self.show(console_id).id}"


class FakeDaemon:
    def __init__(self) -> None:
        self.stopped = False
        self.told: Mapping[str, Any] = {"version": "9.9", "consoles": 2}

    async def status(self) -> Mapping[str, Any]:
        return self.told

    async def stop(self) -> Mapping[str, Any]:
        self.stopped = True
        return {"closed": 2}


class FakeVendors:
    def listing(self) -> Sequence[Mapping[str, Any]]:
        return [{"vendor": "acme", "label": "Acme", "consoles": ["java"]}]

    async def look(self, agent: str, device: Device) -> Mapping[str, Any]:
        return {"device": device.label, "vendor": "acme", "why": f"as seen from {agent}"}

    async def unlearn(self, agent: str, device: Device) -> None:
        if device.name == "unknown":
            raise NotFound("Nothing is remembered.")


class FakeJavas:
    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.installed: list[Mapping[str, Any]] = []

    async def listing(self, agent: str) -> Mapping[str, Any]:
        return {"use": "debian_17", "installed": self.installed, "available": [], "agent": agent}

    async def use(self, agent: str, name: str) -> Mapping[str, Any]:
        self.asked.append(("use", agent, name))
        return {"name": name}

    async def install(self, agent: str, name: str) -> Mapping[str, Any]:
        self.asked.append(("install", agent, name))
        return {"name": name}

    async def register(self, agent: str, name: str, home: str) -> Mapping[str, Any]:
        self.asked.append(("register", agent, name, home))
        return {"name": name, "home": home}

    async def remove(self, agent: str, name: str) -> None:
        self.asked.append(("remove", agent, name))


class FakeProxies:
    """``open`` says how many consoles each has. The agent west does not exist."""

    def __init__(self) -> None:
        self.stored: dict[str, Proxy] = {}
        self.open: dict[str, int] = {}
        self.picked: list[tuple[str, str, str]] = []

    async def add(self, proxy: Proxy) -> Proxy:
        proxy = checked_proxy(proxy)
        if proxy.name in self.stored:
            raise Exists(f"There is a proxy {proxy.name} already.")
        if proxy.agent == "west":
            raise BadValue("agent: There is no agent west.")
        self.stored[proxy.name] = proxy
        return proxy

    async def change(self, name: str, changes: Mapping[str, Any]) -> Proxy:
        self.stored[name] = changed_proxy(await self.get(name), changes)
        return self.stored[name]

    async def get(self, name: str) -> Proxy:
        if name not in self.stored:
            raise NotFound(f"There is no proxy {name}.")
        return self.stored[name]

    async def list(self) -> Sequence[Proxy]:
        return [*self.stored.values()]

    async def remove(self, name: str) -> Proxy:
        await self.get(name)
        return self.stored.pop(name)

    def consoles(self, name: str) -> int:
        return self.open.get(name, 0)

    async def of(self, device: Device) -> Proxy | None:
        return next((proxy for proxy in self.stored.values() if device.location in proxy.locations), None)

    async def pick(self, device: Device, *, name: str = "", agent: str = "", user: str = "") -> Proxy | None:
        self.picked.append((name, agent, user))
        return await self.get(name) if name else await self.of(device)


class FakeAgents:
    """``stored`` are those that were added; east is there already."""

    def __init__(self) -> None:
        self.stored: dict[str, RemoteAgent] = {}
        self.asked: list[tuple[Any, ...]] = []

    def listing(self) -> Sequence[Mapping[str, Any]]:
        return [{"name": "local", "isolation": "users"}, {"name": "east", "connected": True}]

    async def show(self, name: str) -> Mapping[str, Any]:
        return {"host": self._known(name).host, "name": name}

    async def add(self, agent: RemoteAgent, *, check: bool = True, known_hosts: bool = True) -> Mapping[str, Any]:
        self.asked.append(("add", check, known_hosts))
        self.stored[agent.name] = agent
        return {"name": agent.name, "warnings": []}

    async def change(
        self, name: str, changes: Mapping[str, Any], *, check: bool = True, known_hosts: bool = True
    ) -> Mapping[str, Any]:
        self.asked.append(("set", check, known_hosts))
        self.stored[name] = dataclasses.replace(self._known(name), **changes)
        return {"name": name, "warnings": []}

    async def remove(self, name: str, *, force: bool = False) -> Sequence[str]:
        self.asked.append(("remove", force))
        del self.stored[self._known(name).name]
        return ()

    async def check(
        self, name: str, progress: Progress, *, device: Device | None = None, trial: bool = True, fix: bool = False
    ) -> Mapping[str, Any]:
        self.asked.append(("check", fix, trial, device))
        progress({"stage": "around", "text": "Looking around there", "ms": 1})
        if name != "east":
            self._known(name)
        return {"name": name, "problems": ["openbox is not installed: consoles will not work."]}

    def _known(self, name: str) -> RemoteAgent:
        if name not in self.stored:
            raise NotFound(f"There is no agent {name}.")
        return self.stored[name]


class FakeProvisioning:
    """``asked`` are what it was asked for, with secrets revealed."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def provision(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        self.asked.append(("provision", errand))
        progress({"stage": "packages", "text": "Unpacking chromium", "percent": 42.0, "ms": 1234})
        return {"name": errand.name, "changes": ["The runner"], "dry_run": errand.dry_run, "warnings": []}

    async def unprovision(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        self.asked.append(("unprovision", errand))
        return {"removed": errand.name}

    async def update(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        self.asked.append(("update", errand))
        return {"name": errand.name}


class Fakes:
    """All of them, and the commands over them."""

    def __init__(self) -> None:
        self.devices = FakeDevices()
        self.power = FakePower()
        self.consoles = FakeConsoles()
        self.vendors = FakeVendors()
        self.javas = FakeJavas()
        self.agents = FakeAgents()
        self.provisioning = FakeProvisioning()
        self.proxies = FakeProxies()
        self.daemon = FakeDaemon()

    def table(self, defaults: Defaults | None = None) -> CommandTable:
        return make_commands(
            self.devices,
            self.power,
            self.consoles,
            self.vendors,
            self.javas,
            self.agents,
            self.provisioning,
            self.proxies,
            self.daemon,
            defaults or Defaults(),
        )
