"""``agent …``: the machines that reach the BMCs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, get_args

from ipmiproxyd.control.arguments import (
    Argument,
    ArgumentType,
    Choice,
    Flag,
    Integer,
    Name,
    SecretText,
    Text,
    Values,
)
from ipmiproxyd.control.commands.bmc import Host
from ipmiproxyd.control.commands.fields import Fields, given_fields, to_add, to_change
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.errors import MissingArgument
from ipmiproxyd.interfaces import Agents, Devices, Proxies
from ipmiproxyd.model import CHROMIUM, NO_BROWSER, POLICY_PLACES, SSH_AGENT, Device, RemoteAgent, Transport, Users


class Fingerprints(ArgumentType[tuple[str, ...]]):
    """Fingerprints of SSH keys, with commas between. What is valid in them, wire.agent knows."""

    @property
    def label(self) -> str:
        return "SHA256:…[,…]"

    def parse(self, text: str) -> tuple[str, ...]:
        return tuple(filter(None, text.split(",")))

    def show(self, value: tuple[str, ...]) -> str:
        return ",".join(value)


NAME: Final = Argument("name", Name(), "the agent's name", required=True)
LOOKED_AT: Final = dataclasses.replace(NAME, help="the agent's name; agent= is the same", also="agent")

# Each fills a field of model.RemoteAgent: HOST_KEY the field host_keys, the others that of the same name.
HOST: Final = Argument("host", Host(255, "address"), "the agent's IP address or host name")
KEY: Final = Argument(
    "key",
    Text(512, f"path|{SSH_AGENT}"),
    "the file of the private key where the daemon runs, or the keys that its ssh-agent holds",
)
HOST_KEY: Final = Argument(
    "host_key", Fingerprints(), "the fingerprint of the host's SSH key; several if it has several", default=()
)
FIELDS: Final[Fields] = (
    HOST,
    Argument("port", Integer(1, 65535), "its SSH port", default=22),
    Argument("user", Text(32, "name"), "whom to sign in as", default="ipmiproxyd"),
    KEY,
    Argument("passphrase", SecretText(), "of the key, where that is encrypted"),
    HOST_KEY,
    Argument("python", Text(512, "program"), "the Python there, 3.9 or later", default="/usr/bin/python3"),
    Argument(
        "users",
        Choice[Users](get_args(Users)),
        "whether displays have Unix users of their own; auto: where sudo allows the runner",
        default="auto",
    ),
    Argument("group", Text(32, "name"), "the Unix group there that reaches the displays", default=""),
    Argument(
        "runner",
        Text(512, "path"),
        "where the runner is installed there, for sudo to start it",
        default="/usr/local/lib/ipmiproxyd/runner.py",
    ),
    Argument("folder", Text(512, "path"), "what is ours there; by default .ipmiproxyd in the user's home", default=""),
    Argument("jobs_name", Text(32, "name"), "the name of the folder of jobs there, by default main", default=""),
    Argument(
        "transport",
        Choice[Transport](get_args(Transport)),
        "how displays are reached: through SSH, or by VNC ports that are open on the agent",
        default="ssh",
    ),
    Argument(
        "browser",
        Text(64, "|".join((*POLICY_PLACES, NO_BROWSER))),
        "what shows panels there: Chromium, another browser made from it (untested), or none",
        default=CHROMIUM,
    ),
    Argument("notes", Text(4096), "anything worth knowing", default=""),
)
_ADDED: Final = to_add(FIELDS, HOST, KEY)
_CHANGED: Final = to_change(FIELDS)
CHECK: Final = Argument("check", Flag(), "sign in there first, and store nothing if that fails", default=True)
KNOWN_HOSTS: Final = Argument(
    "known_hosts",
    Flag(),
    "without host_key=: whether the daemon's files of known hosts may vouch for the host",
    default=True,
)
FORCE: Final = Argument(
    "force", Flag(), "close the consoles that are open on it first, and pass over proxies that name it", default=False
)
FIX: Final = Argument(
    "fix",
    Flag(),
    "before that, clear away what earlier consoles left there, and copy the runner there where it is missing or old "
    "and the account may do all by sudo; after agent provision it may not: agent update does that then",
    default=False,
)
TO: Final = Argument("device", Name(), "a stored device: the way to its BMC is tried, too")
TRIAL: Final = Argument("trial", Flag(), "open a trial console, and one with the browser", default=True)


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


def given_agent(call: Call, fields: Fields) -> dict[str, Any]:
    """Those of an agent's fields that are on the request, as :class:`~ipmiproxyd.model.RemoteAgent` calls them."""

    given = given_fields(call.values, fields)
    if HOST_KEY.name in given:
        given["host_keys"] = given.pop(HOST_KEY.name)
    return given


def commands(agents: Agents, devices: Devices) -> list[Command]:
    async def add(call: Call) -> Mapping[str, Any]:
        agent = RemoteAgent(name=call.values[NAME], **given_agent(call, _ADDED))
        return await agents.add(agent, check=call.values[CHECK], known_hosts=call.values[KNOWN_HOSTS])

    async def change(call: Call) -> Mapping[str, Any]:
        changes = given_agent(call, _CHANGED)
        if not changes:
            raise MissingArgument("agent set needs something to change.", hint="For example: host_key= or notes=")
        return await agents.change(
            call.values[NAME], changes, check=call.values[CHECK], known_hosts=call.values[KNOWN_HOSTS]
        )

    async def list_all(_: Call) -> Mapping[str, Any]:
        return {"agents": list(agents.listing())}

    async def show(call: Call) -> Mapping[str, Any]:
        return {NAME.name: call.values[NAME], **await agents.show(call.values[NAME])}

    async def remove(call: Call) -> Mapping[str, Any]:
        warnings = await agents.remove(call.values[NAME], force=call.values[FORCE])
        return {"removed": call.values[NAME], "warnings": list(warnings)}

    async def check(call: Call) -> Mapping[str, Any]:
        device = await devices.get(call.values[TO]) if TO in call.values else None
        return await agents.check(
            call.values[LOOKED_AT], call.progress, device=device, trial=call.values[TRIAL], fix=call.values[FIX]
        )

    return [
        Command(
            noun="agent",
            verb="add",
            summary="Have a further agent, reached by SSH; the host's key has to be confirmed.",
            arguments=(NAME, *_ADDED, KNOWN_HOSTS, CHECK),
            handler=add,
        ),
        Command(
            noun="agent",
            verb="set",
            summary="Change what is stored of an agent; it is connected anew, unless only notes= or browser= change.",
            arguments=(NAME, *_CHANGED, KNOWN_HOSTS, CHECK),
            handler=change,
        ),
        Command(noun="agent", verb="show", summary="Tell all that is known of an agent.", arguments=(NAME,),
                handler=show),
        Command(noun="agent", verb="list", summary="List the agents, and how they are.", handler=list_all),
        Command(
            noun="agent",
            verb="remove",
            summary="Have an agent no more. What was installed there stays.",
            arguments=(NAME, FORCE),
            handler=remove,
        ),
        Command(
            noun="agent",
            verb="check",
            summary="Look whether an agent has what consoles and power actions need; what is wrong is told in words. "
            "ipmiproxyctl ends with 1 where that is a fault.",
            arguments=(LOOKED_AT, TO, TRIAL, FIX),
            handler=check,
        ),
    ]  # fmt: skip
