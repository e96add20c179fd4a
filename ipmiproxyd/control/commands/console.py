"""``console …``: the consoles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Literal, TypeVar, get_args

from ipmiproxyd.console.types import after
from ipmiproxyd.control.arguments import Argument, Choice, Duration, DurationOrNever, Flag, Name, Text, Values
from ipmiproxyd.control.commands.agent import reaching
from ipmiproxyd.control.commands.bmc import TARGET, target
from ipmiproxyd.control.commands.defaults import Defaults
from ipmiproxyd.control.commands.proxy import of_no_proxy
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.errors import BadRequest, MissingArgument
from ipmiproxyd.interfaces import Consoles, Devices, Proxies
from ipmiproxyd.model import Clipboard, Console, ConsoleType, Existing, OpenRequest, Proxy, ViewerInfo

T = TypeVar("T")

_MONTH: Final = 31 * 86400

PROXY: Final = Argument("proxy", Name(), "the proxy that it goes by, where it is not one of the device's location")
USER: Final = Argument("user", Text(128), "who the console is for", default="")
EXISTING: Final = Argument(
    "existing",
    Choice[Existing](get_args(Existing)),
    "what to do if this user has a console of this type to the device already: use it (if clipboard, login buttons, "
    "encryption and Java are the same; its times stay), open another, or replace all that there are",
    default="reuse",
)
WAIT: Final = Argument("wait", Flag(), "answer only once the console is ready", default=True)

CONSOLE: Final = Argument("console", Name(), "the console's id", required=True)
CLOSED_CONSOLE: Final = Argument("console", Name(), "the console's id")
CLOSED_DEVICE: Final = Argument("device", Text(), "all consoles of this device")
CLOSED_USER: Final = Argument("user", Text(128), "all consoles of this user")
BY: Final = Argument("by", Duration(1, _MONTH), "how far the limit of its whole time moves", default=3600.0)
OF_DEVICE: Final = Argument("device", Text(), "only the consoles of this device")
OF_USER: Final = Argument("user", Text(128), "only the consoles of this user")


def console_json(console: Console) -> dict[str, Any]:
    """A console as it is shown. Times are seconds since the epoch; null for ``idle`` and ``max`` means never.
    ``slot_since``: it holds one of its panel's few slots since then; ``slot_until``: until then, whatever happens.
    ``log``: the file on the agent with the last that its programs said. ``viewers`` counts connections, ``people`` has
    one for each grant."""

    return {
        "console": console.id,
        "device": console.device,
        "bmc": console.bmc,
        "type": console.type,
        "user": console.user,
        "agent": console.agent,
        "proxy": console.proxy,
        "state": console.state.value,
        "display": console.display,
        "port": console.relay_port,
        "viewers": len(console.viewers),
        "clipboard": console.clipboard,
        "opened": seconds(console.opened_at),
        "ready": seconds(console.ready_at),
        "last_activity": seconds(console.last_activity),
        "idle": console.idle,
        "max": console.max_time,
        "slot_since": seconds(console.slot_since),
        "slot_until": seconds(console.slot_until),
        "closes_in": None if console.closes_in is None else round(console.closes_in, 1),
        "agent_away": console.agent_away,
        "reason": console.reason,
        "message": console.message,
        "log": console.log,
        "stages": [asdict(stage) for stage in console.stages],
        "people": [_person(connections) for connections in by_grant(console.viewers).values()],
    }


def by_grant(viewers: Sequence[ViewerInfo]) -> dict[str, list[ViewerInfo]]:
    """Connections together with those of the same grant, the longest present first."""

    grants: dict[str, list[ViewerInfo]] = {}
    for viewer in viewers:
        grants.setdefault(viewer.id, []).append(viewer)
    return grants


def _person(connections: Sequence[ViewerInfo]) -> dict[str, Any]:
    first = connections[0]
    return {
        "id": first.id,
        "user": first.user,
        "control": first.control,
        "steers": any(connection.steers for connection in connections),
        "joined": seconds(first.joined_at),
    }


def seconds(moment: float | None) -> float | None:
    return None if moment is None else round(moment, 3)


class Opening:
    """The arguments of ``console open``, and what they ask for.

    :ivar arguments: in the order in which they are shown.
    """

    def __init__(self, devices: Devices, proxies: Proxies, defaults: Defaults) -> None:
        self._devices = devices
        self._proxies = proxies
        self._defaults = defaults
        self._agent = reaching(defaults.agent)
        self._type: Argument[ConsoleType] = Argument(
            "type",
            Choice[ConsoleType](get_args(ConsoleType)),
            "what the console shows: the BMC's web panel (in a locked-down browser, or one for debugging), its Java "
            "console, its HTML5 console, or the VNC server at vnc=",
            default=defaults.type,
        )
        self._idle: Argument[float | None] = Argument(
            "idle",
            DurationOrNever(1, _MONTH),
            "close the console after so long without a key, a move of the mouse, or a text for the clipboard",
            default=defaults.idle,
        )
        self._max: Argument[float | None] = Argument(
            "max", DurationOrNever(1, _MONTH), "close the console after so long in any case", default=defaults.max_time
        )
        self._clipboard: Argument[Clipboard] = Argument(
            "clipboard",
            Choice[Clipboard](get_args(Clipboard)),
            "which way copied texts may go: in to the server, out to the browser",
            default=defaults.clipboard,
        )
        self._buttons = Argument(
            "login_buttons",
            Flag(),
            "let the page's buttons type the BMC's user name and password; they land in whatever has the focus",
            default=defaults.login_buttons,
        )
        times = (self._idle, self._max)
        self.arguments: Final[tuple[Argument[Any], ...]] = (
            *TARGET, PROXY, self._agent, self._type, USER, *times, self._clipboard, self._buttons, EXISTING, WAIT,
        )  # fmt: skip

    async def request(self, values: Values) -> tuple[OpenRequest, list[str]]:
        """And what is to be told about it."""

        wanted = values.get(self._type) if self._type in values else None
        device = await target(values, self._devices, just_vnc=wanted == "vnc", over=("java",))
        named = self._agent in values
        agent = values[self._agent] if named else ""
        picked = await self._proxies.pick(device, name=values.get(PROXY) or "", agent=agent, user=values[USER])
        proxy = picked or Proxy(name="", agent=self._defaults.agent, locations=(), type=self._defaults.type)
        request = OpenRequest(
            device=replace(device, java=device.java or proxy.java),
            type=wanted or proxy.type,
            fall_back=after(proxy.type, self._defaults.fall_back) if picked and not wanted else (),
            proxy=proxy.name,
            encrypt=proxy.encrypt,
            certificate=proxy.files,
            user=values[USER],
            agent=agent or proxy.agent,
            idle=_chosen(values, self._idle, proxy.idle),
            max_time=values[self._max],
            existing=values[EXISTING],
            wait=values[WAIT],
            clipboard=values[self._clipboard],
            login_buttons=_chosen(values, self._buttons, proxy.login_buttons),
        )
        stray = [] if picked or named else await of_no_proxy(device, self._proxies)
        return request, [f"{words}; agent {proxy.agent} is used." for words in stray]


def _chosen(values: Values, argument: Argument[T], of_proxy: T | Literal["default"]) -> T:
    """What a request says; or else what its proxy says; or else the default."""

    return values[argument] if argument in values or of_proxy == "default" else of_proxy


def commands(devices: Devices, consoles: Consoles, proxies: Proxies, defaults: Defaults) -> list[Command]:
    opening = Opening(devices, proxies, defaults)

    async def open_one(call: Call) -> Mapping[str, Any]:
        request, warnings = await opening.request(call.values)
        opened = await consoles.open(request, call.progress)
        console: Console = opened["console"]
        return {
            "console": console.id,
            "url": opened["url"],
            "state": console.state.value,
            "reused": opened["reused"],
            "type": console.type,
            "device": console.device,
            "agent": console.agent,
            "proxy": console.proxy,
            "warnings": [*warnings, *opened["warnings"]],
        }

    async def list_all(call: Call) -> Mapping[str, Any]:
        device, user = call.values.get(OF_DEVICE), call.values.get(OF_USER)
        shown = [
            console for console in consoles.list() if device in (None, console.device) and user in (None, console.user)
        ]
        return {"consoles": [console_json(console) for console in shown]}

    async def show(call: Call) -> Mapping[str, Any]:
        return console_json(consoles.show(call.values[CONSOLE]))

    async def close(call: Call) -> Mapping[str, Any]:
        which = {"console_id": CLOSED_CONSOLE, "device": CLOSED_DEVICE, "user": CLOSED_USER}
        given = {key: call.values[argument] for key, argument in which.items() if argument in call.values}
        if len(given) > 1:
            raise BadRequest("console close takes just one of console=, device= and user=.")
        if not any(given.values()):
            raise MissingArgument("console close needs console=, device= or user=.")
        return {"closed": [console_json(console) for console in await consoles.close(**given)]}

    async def url(call: Call) -> Mapping[str, Any]:
        return {"console": call.values[CONSOLE], "url": consoles.url(call.values[CONSOLE])}

    async def extend(call: Call) -> Mapping[str, Any]:
        return console_json(consoles.extend(call.values[CONSOLE], call.values[BY]))

    return [
        Command(
            noun="console",
            verb="open",
            summary="Open a console and tell the URL at which a browser finds it.",
            arguments=opening.arguments,
            handler=open_one,
        ),
        Command(
            noun="console",
            verb="list",
            summary="List the consoles.",
            arguments=(OF_DEVICE, OF_USER),
            handler=list_all,
        ),
        Command(noun="console", verb="show", summary="Tell all about a console.", arguments=(CONSOLE,), handler=show),
        Command(
            noun="console",
            verb="close",
            summary="Close a console, or all of a device or user, and wait until nothing is left of them.",
            arguments=(CLOSED_CONSOLE, CLOSED_DEVICE, CLOSED_USER),
            handler=close,
        ),
        Command(
            noun="console",
            verb="url",
            summary="Tell a new URL for a console; it can be used once.",
            arguments=(CONSOLE,),
            handler=url,
        ),
        Command(
            noun="console",
            verb="extend",
            summary="Let a console stay: its idle time begins anew, and a limit of its whole time moves.",
            arguments=(CONSOLE, BY),
            handler=extend,
        ),
    ]
