"""``proxy …``: how consoles of some locations are opened; in EasyDCIM, its IPMI proxy servers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from ipmiproxyd.console.types import LABELS
from ipmiproxyd.control.arguments import (
    Argument,
    Choice,
    DurationOrNever,
    Flag,
    Name,
    OrDefault,
    Text,
    Texts,
    show_duration,
)
from ipmiproxyd.control.commands.defaults import Defaults
from ipmiproxyd.control.commands.fields import Fields, given_fields, to_add, to_change
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.errors import BadRequest, MissingArgument, ProxyError
from ipmiproxyd.interfaces import Agents, Devices, Javas, Proxies
from ipmiproxyd.model import ConsoleType, Device, Proxy
from ipmiproxyd.wire.proxy import LONGEST_IDLE, SHORTEST_IDLE

IDLE_CHOICES: Final = (None, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
"""Seconds that a form may offer; any other time will do as well."""

FLAG: Final = Flag()
NAME: Final = Argument("name", Name(), "the proxy's name", required=True)
LOCATIONS: Final = Argument("locations", Texts("location"), "where it is used, with commas in between")

_LABELS: Final[Mapping[str, str]] = {
    "name": "Name",
    "agent": "Remote agent",
    "locations": "Use in locations",
    "type": "noVNC proxy type",
    "idle": "Automatically close sessions",
    "disable_login_buttons": "Disable login buttons",
    "encrypt": "Encrypt connection between noVNC and the relay",
    "certificate": "Self-signed certificate location",
    "key": "Location of its key",
    "java": "Java version",
}
"""What EasyDCIM's form calls the fields."""

LOGIN_BUTTONS: Final = Argument(
    "login_buttons",
    OrDefault(FLAG),
    "let the page's buttons type the BMC's user name and password",
    default="default",
)
DISABLE_LOGIN_BUTTONS: Final = Argument(
    "disable_login_buttons",
    OrDefault(FLAG),
    "yes takes away the page's buttons that type the BMC's user name and password; the opposite of login_buttons",
    default="default",
)


def fields(agent: str) -> Fields:
    """Each is named like the field of model.Proxy that it fills. What is valid in them, wire.proxy knows."""

    return (
        Argument("agent", Name(), "the agent that reaches the BMCs there", default=agent),
        LOCATIONS,
        Argument("type", Choice[ConsoleType](get_args(ConsoleType)), "what its consoles show", default="java"),
        Argument(
            "idle",
            OrDefault(DurationOrNever(SHORTEST_IDLE, LONGEST_IDLE, unit=True)),
            "close a console after so long (15m, 1h30m; a minute at least, 31d at most) without a key, a move of the "
            "mouse, or a text for the clipboard; default is that of the daemon's settings",
            default="default",
        ),
        LOGIN_BUTTONS,
        Argument(
            "encrypt", FLAG, "have browsers come by https and wss, whatever the relay's own setting", default=False
        ),
        Argument(
            "certificate",
            Text(4001, "path"),
            "the PEM file, on the daemon's machine, of the certificate for that, where it is not the relay's own",
            default="",
        ),
        Argument("key", Text(4001, "path"), "the PEM file of its key, where it is not in the same file", default=""),
        Argument(
            "java",
            Text(40, "name"),
            "the Java that its consoles run with, where it is another: a name of java list for its agent",
            default="",
        ),
    )


def proxy_json(proxy: Proxy, consoles: int) -> dict[str, Any]:
    """A proxy as it is shown. ``idle`` in seconds, null for never; it and ``login_buttons`` may be "default".
    ``consoles``: how many are open by it."""

    return {
        **dataclasses.asdict(proxy),
        "locations": list(proxy.locations),
        DISABLE_LOGIN_BUTTONS.name: _opposite(proxy.login_buttons),
        "consoles": consoles,
    }


async def of_no_proxy(device: Device, proxies: Proxies) -> list[str]:
    """Half a sentence where a device has a location that is no proxy's, though there are proxies."""

    if not device.location or await proxies.of(device) is not None or not await proxies.list():
        return []
    return [f"No proxy has the location {device.location!r}"]


def _opposite(flag: bool | Literal["default"]) -> bool | Literal["default"]:
    return flag if flag == "default" else not flag


def _given(call: Call, known: Fields) -> dict[str, Any]:
    """The fields of model.Proxy that are on the request. Raises BadRequest for one that is there in both its ways."""

    given = given_fields(call.values, known)
    if DISABLE_LOGIN_BUTTONS in call.values:
        if LOGIN_BUTTONS in call.values:
            raise BadRequest(
                "login_buttons= cannot be given together with disable_login_buttons=.",
                hint="They are the same, the other way round.",
            )
        given[LOGIN_BUTTONS.name] = _opposite(call.values[DISABLE_LOGIN_BUTTONS])
    return given


def commands(
    proxies: Proxies, devices: Devices, agents: Agents, javas: Javas, defaults: Defaults
) -> list[Command]:
    known = fields(defaults.agent)
    after = known.index(LOGIN_BUTTONS) + 1
    both_ways = (*known[:after], DISABLE_LOGIN_BUTTONS, *known[after:])

    def shown(proxy: Proxy) -> dict[str, Any]:
        return proxy_json(proxy, proxies.consoles(proxy.name))

    async def told(proxy: Proxy) -> dict[str, Any]:
        return {**shown(proxy), "warnings": await _java_warnings(proxy, agents, javas)}

    async def add(call: Call) -> Mapping[str, Any]:
        given = {"agent": defaults.agent, **_given(call, known)}
        return await told(await proxies.add(Proxy(name=call.values[NAME], **given)))

    async def change(call: Call) -> Mapping[str, Any]:
        changes = _given(call, known)
        if not changes:
            raise MissingArgument("proxy set needs something to change.", hint="For example: locations= or idle=")
        return await told(await proxies.change(call.values[NAME], changes))

    async def show(call: Call) -> Mapping[str, Any]:
        return shown(await proxies.get(call.values[NAME]))

    async def list_all(_: Call) -> Mapping[str, Any]:
        return {"proxies": [shown(proxy) for proxy in await proxies.list()]}

    async def remove(call: Call) -> Mapping[str, Any]:
        open_still = proxies.consoles(call.values[NAME])
        await proxies.remove(call.values[NAME])
        return {"removed": call.values[NAME], "consoles": open_still}

    async def form(_: Call) -> Mapping[str, Any]:
        locations = {device.location for device in await devices.list()} - {""}
        types = [name for name in LABELS if defaults.debug or name != "panel-debug"]
        choices = {
            "agent": [_choice(agent["name"]) for agent in agents.listing()],
            "locations": [_choice(LOCATIONS.type.show((one,)), one) for one in sorted(locations)],
            "type": [_choice(name, LABELS[name]) for name in types],
            "idle": [_default_choice(show_duration(defaults.idle)), *_idle_choices()],
            "disable_login_buttons": [_default_choice(FLAG.show(not defaults.login_buttons)), *_flag_choices()],
            "encrypt": _flag_choices(),
        }
        in_form = (NAME, *to_add(tuple(_in_form(field, types) for field in known), LOCATIONS))
        return {
            "fields": [_field(field, choices.get(field.name, [])) for field in in_form],
            "defaults": defaults.told(),
            "limits": {**defaults.limits, "idle_min": SHORTEST_IDLE, "idle_max": LONGEST_IDLE},
        }

    return [
        Command(noun="proxy", verb="add", summary="Store a proxy: how consoles of some locations are opened.",
                arguments=(NAME, *to_add(both_ways, LOCATIONS)), handler=add),
        Command(noun="proxy", verb="set", summary="Change what is stored of a proxy; consoles that are open stay.",
                arguments=(NAME, *to_change(both_ways)), handler=change),
        Command(noun="proxy", verb="show", summary="Tell what is stored of a proxy.", arguments=(NAME,), handler=show),
        Command(noun="proxy", verb="list", summary="List the proxies, and how many consoles each has.",
                handler=list_all),
        Command(noun="proxy", verb="remove", summary="Forget a proxy; its consoles that are open go on.",
                arguments=(NAME,), handler=remove),
        Command(noun="proxy", verb="form", handler=form,
                summary="Tell what a form for proxies needs: its fields with their choices, defaults and limits."),
    ]  # fmt: skip


async def _java_warnings(proxy: Proxy, agents: Agents, javas: Javas) -> list[str]:
    """Whether its Java is there, as far as an agent that is connected tells."""

    there = {row["name"] for row in agents.listing() if row.get("connected", True)}
    if not proxy.java or proxy.agent not in there:
        return []
    try:
        listing = await javas.listing(proxy.agent)
    except ProxyError:
        return []
    if proxy.java in {java["name"] for java in listing["installed"]}:
        return []
    return [
        f"There is no Java {proxy.java} on the agent {proxy.agent}: its Java consoles cannot run with it "
        f"(java list agent={proxy.agent} shows those that are there)."
    ]


def _in_form(field: Argument[Any], types: Sequence[ConsoleType]) -> Argument[Any]:
    """As a form has it: the buttons the other way round, and of the types those that there may be."""

    if field is LOGIN_BUTTONS:
        return DISABLE_LOGIN_BUTTONS
    return dataclasses.replace(field, type=Choice(types)) if field.name == "type" else field


def _field(field: Argument[Any], choices: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    return {**field.describe(), "label": _LABELS[field.name], "choices": list(choices)}


def _choice(value: str, label: str = "") -> dict[str, str]:
    return {"value": value, "label": label or value}


def _default_choice(value: str) -> dict[str, str]:
    return _choice("default", f"as set for all: {value}")


def _idle_choices() -> list[dict[str, str]]:
    return [_choice(show_duration(seconds)) for seconds in IDLE_CHOICES]


def _flag_choices() -> list[dict[str, str]]:
    return [_choice(FLAG.show(flag)) for flag in (True, False)]
