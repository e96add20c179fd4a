"""``console share``, ``viewers`` and ``revoke``: who may come to a console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ipmiproxyd.control.arguments import Argument, Flag, Name, Text
from ipmiproxyd.control.commands.console import CONSOLE, by_grant, seconds
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.errors import BadRequest, MissingArgument
from ipmiproxyd.interfaces import Consoles
from ipmiproxyd.model import Grant, ViewerInfo

WHO: Final = Argument("user", Text(128), "who it is for", default="")
VIEW: Final = Argument("view", Flag(), "only to watch: no keys, no mouse, no clipboard, no closing", default=True)
CREDENTIALS: Final = Argument(
    "credentials", Flag(), "also to have the BMC's user name and password typed, where view=no", default=False
)

VIEWER: Final = Argument("viewer", Name(), "this one: its id, see console viewers")
USER: Final = Argument("user", Text(128), "all of this user")
ALL: Final = Argument("all", Flag(), "everybody, its owner too", default=False)


def viewer_json(grant: Grant, connections: Sequence[ViewerInfo]) -> dict[str, Any]:
    """A right to a console, and the browsers that use it just now."""

    return {
        "viewer": grant.id,
        "user": grant.user,
        "control": grant.control,
        "credentials": grant.credentials,
        "connected": len(connections),
        "peer": ", ".join(dict.fromkeys(connection.peer for connection in connections)),
        "steers": any(connection.steers for connection in connections),
        "joined": seconds(connections[0].joined_at) if connections else None,
    }


def commands(consoles: Consoles) -> list[Command]:
    def connections(console_id: str) -> dict[str, list[ViewerInfo]]:
        return by_grant(consoles.show(console_id).viewers)

    async def share(call: Call) -> Mapping[str, Any]:
        values = call.values
        grant = consoles.share(
            values[CONSOLE], user=values[WHO], control=not values[VIEW], credentials=values[CREDENTIALS]
        )
        return {"console": grant.console, "viewer": grant.id, "url": consoles.grant_url(grant)}

    async def viewers(call: Call) -> Mapping[str, Any]:
        console_id = call.values[CONSOLE]
        grants, there = consoles.grants(console_id), connections(console_id)
        return {"viewers": [viewer_json(grant, there.get(grant.id, ())) for grant in grants]}

    async def revoke(call: Call) -> Mapping[str, Any]:
        values = call.values
        which = [values.get(VIEWER), values.get(USER), values[ALL]]
        if sum(map(bool, which)) > 1:
            raise BadRequest("console revoke takes just one of viewer=, user= and all=yes.")
        if not any(which):
            raise MissingArgument("console revoke needs viewer=, user= or all=yes.")
        there = connections(values[CONSOLE])  # as it was before they are cut
        revoked = consoles.revoke(values[CONSOLE], viewer=values.get(VIEWER) or "", user=values.get(USER) or "")
        return {"revoked": [viewer_json(grant, there.get(grant.id, ())) for grant in revoked]}

    return [
        Command(
            noun="console",
            verb="share",
            summary="Let somebody else come to a console, and tell the URL for it; it can be used once.",
            arguments=(CONSOLE, WHO, VIEW, CREDENTIALS),
            handler=share,
        ),
        Command(
            noun="console",
            verb="viewers",
            summary="List everybody who may come to a console, there or not.",
            arguments=(CONSOLE,),
            handler=viewers,
        ),
        Command(
            noun="console",
            verb="revoke",
            summary="Take the right to a console back; whoever uses it is cut off at once.",
            arguments=(CONSOLE, VIEWER, USER, ALL),
            handler=revoke,
        ),
    ]
