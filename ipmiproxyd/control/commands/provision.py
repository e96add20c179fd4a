"""``agent provision``, ``unprovision``, ``update``: from a bare host to an agent, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from ipmiproxyd.control.arguments import Argument, Flag, SecretText, Text, Texts, Unset, Values
from ipmiproxyd.control.commands.agent import FIELDS, HOST, KEY, KNOWN_HOSTS, NAME, given_agent
from ipmiproxyd.control.commands.fields import given_fields, to_change
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.interfaces import Provisioning
from ipmiproxyd.model import SSH_AGENT, Administrator, Errand, Wanted

USER: Final = "the agent's own account there, which is made (as= is the one that makes it)"
BROWSER: Final = "what is installed to show panels: Chromium, another browser made from it (untested), or none"


def _of_host(field: Argument[Any]) -> Argument[Any]:
    """A field of an agent's as those take it who see to its host: of one that is known, what is stored counts."""

    words = {"user": USER, "browser": BROWSER}.get(field.name, field.help)
    usual = "" if isinstance(field.default, Unset) else field.type.show(field.default)
    if field in (HOST, KEY):
        words += "; needed where the agent is not known yet"
    elif usual:
        words += f"; where the agent is not known yet: {usual}"
    return dataclasses.replace(field, help=words)


_GIVEN: Final = to_change(tuple(map(_of_host, FIELDS)))
AS: Final = Argument(
    "as", Text(32, "name"), "the administrator's account there: root, or one that sudo lets do all", default="root"
)
AS_KEY: Final = Argument(
    "as_key", Text(512, f"path|{SSH_AGENT}"), "the key of that account, by default the agent's own", default=""
)
AS_PASSPHRASE: Final = Argument("as_passphrase", SecretText(), "of as_key, where that is encrypted")
SUDO_PASSWORD: Final = Argument("sudo_password", SecretText(), "of that account, where sudo asks for one")
_ADMINISTRATOR: Final = (AS, AS_KEY, AS_PASSPHRASE, SUDO_PASSWORD)

REPOSITORY: Final = Argument(
    "repository", Text(512, "deb … suite main"), "a further line for the sources of its package manager", default=""
)
JAVAS: Final = Argument(
    "javas", Texts("version"), "Javas from archives that lie there, see java install; 8 means any of that number",
    default=(),
)  # fmt: skip
DRY_RUN: Final = Argument("dry_run", Flag(), "change nothing, and tell what would be changed", default=False)
FORCE: Final = Argument(
    "force", Flag(), "close the consoles that are open on it first, and pass over proxies that name it", default=False
)
KEEP: Final = Argument("keep", Flag(), "put the host back, but keep what is stored of the agent", default=False)


def _administrator(values: Values) -> Administrator:
    secrets = {"passphrase": values.get(AS_PASSPHRASE), "sudo_password": values.get(SUDO_PASSWORD)}
    given = {name: secret for name, secret in secrets.items() if secret is not None}
    return Administrator(user=values[AS], key=values[AS_KEY], **given)


def _errand(call: Call) -> Errand:
    """Of what a command does not take, what is usual."""

    values = call.values
    wanted = Wanted(**given_fields(values, (REPOSITORY, JAVAS)))
    how = given_fields(values, (KNOWN_HOSTS, DRY_RUN, FORCE, KEEP))
    fields = given_agent(call, _GIVEN)
    return Errand(name=values[NAME], by=_administrator(values), fields=fields, wanted=wanted, **how)


def commands(provisioning: Provisioning) -> list[Command]:
    async def provision(call: Call) -> Mapping[str, Any]:
        return await provisioning.provision(_errand(call), call.progress)

    async def unprovision(call: Call) -> Mapping[str, Any]:
        return await provisioning.unprovision(_errand(call), call.progress)

    async def update(call: Call) -> Mapping[str, Any]:
        return await provisioning.update(_errand(call), call.progress)

    return [
        Command(
            noun="agent",
            verb="provision",
            summary="Make a bare host an agent, or see that it still is one, and add it if it is not known yet.",
            arguments=(NAME, *_GIVEN, KNOWN_HOSTS, *_ADMINISTRATOR, REPOSITORY, JAVAS, DRY_RUN),
            handler=provision,
        ),
        Command(
            noun="agent",
            verb="unprovision",
            summary="Take back what agent provision changed on a host, and have the agent no more. "
            "Where none is known, host= and key= lead there.",
            arguments=(NAME, *_GIVEN, KNOWN_HOSTS, *_ADMINISTRATOR, REPOSITORY, FORCE, KEEP, DRY_RUN),
            handler=unprovision,
        ),
        Command(
            noun="agent",
            verb="update",
            summary="Bring the runner of an agent to the daemon's version. Consoles and their viewers go on.",
            arguments=(NAME, *_ADMINISTRATOR),
            handler=update,
        ),
    ]
