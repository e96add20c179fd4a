"""What kind of panel the simulated server shows. A vendor's family subclasses :class:`Personality`, adds its routes,
and is entered in ``vendors/__init__.py``."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.simulator import pages
from tests.simulator.chassis import Chassis


@dataclass(frozen=True, slots=True)
class Visit:
    """One request. ``user`` is who is signed in, or empty; ``form`` holds the last value of each field.

    ``uri`` is the path with its query as it was sent; names of ``headers`` are in lower case.
    """

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    session: str
    user: str
    uri: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is none."""

        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Reply:
    """``cookies``: one Set-Cookie each, as written. ``length``: the Content-Length that is told, however long the body
    is; then the connection is closed. ``gzip``: packed, whether it was asked for or not. ``times``: how often the body
    comes, one after the other; the length is not told then."""

    body: str | bytes = ""
    status: int = 200
    type: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Sequence[str] = ()
    length: int | None = None
    gzip: bool = False
    times: int = 1


Handler = Callable[[Visit], Reply]
Record = Callable[[str, Mapping[str, Any]], None]
"""Writes one event: its kind, and more."""


def see_other(path: str, **headers: str) -> Reply:
    return Reply(status=303, headers={"Location": path, **headers})


class Personality:
    """The generic panel.

    :param name: the simulated server's name.
    :param users: passwords by user name.
    :param hint: a line for the sign-in page.
    :param elsewhere: the address of another host, for the page of ways out.
    """

    key: ClassVar[str] = "generic"
    cookie: ClassVar[str] = "SID"

    def __init__(
        self, name: str, users: Mapping[str, str], chassis: Chassis, record: Record, *, hint: str, elsewhere: str
    ) -> None:
        self.name = name
        self.users = users
        self.chassis = chassis
        self.record = record
        self.hint = hint
        self.elsewhere = elsewhere
        self.sessions: dict[str, str] = {}

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What is answered, by method and path."""

        return {
            ("GET", "/"): self.front,
            ("POST", "/login"): self.sign_in,
            ("POST", "/logout"): self.sign_out,
            ("GET", "/power"): self.power,
            ("POST", "/power"): self.switch,
            ("GET", "/try"): lambda visit: Reply(pages.try_out(self.name, signed_in=bool(visit.user))),
            ("GET", "/popup"): lambda _visit: Reply(pages.popup(self.name)),
            ("GET", "/hold"): self.hold,
            ("GET", "/links"): lambda visit: Reply(pages.links(self.name, self.elsewhere, signed_in=bool(visit.user))),
            ("GET", "/download"): self.download,
        }

    def answer(self, visit: Visit) -> Reply | None:
        """The answer to a request that no route of the table fits; None: 404. HEAD comes here as itself."""

        return None

    def front(self, visit: Visit) -> Reply:
        return see_other("/power") if visit.user else Reply(pages.sign_in(self.name, hint=self.hint))

    def sign_in(self, visit: Visit) -> Reply:
        user, password = visit.form.get("user", ""), visit.form.get("password", "")
        accepted = user in self.users and self.users[user] == password
        self.record("sign-in", {"user": user, "password_length": len(password), "ok": accepted})
        if not accepted:
            wrong = pages.sign_in(self.name, error="The user name or the password is wrong.", hint=self.hint)
            return Reply(wrong, status=403)
        session = secrets.token_urlsafe(24)
        self.sessions[session] = user
        return see_other("/power", **{"Set-Cookie": f"{self.cookie}={session}; Path=/; Secure; HttpOnly"})

    def sign_out(self, visit: Visit) -> Reply:
        self.record("sign-out", {"user": visit.user})
        self.sessions.pop(visit.session, None)
        return see_other("/", **{"Set-Cookie": f"{self.cookie}=; Path=/; Max-Age=0; Secure; HttpOnly"})

    def power(self, visit: Visit) -> Reply:
        return Reply(pages.power(self.name, self.chassis.power)) if visit.user else see_other("/")

    def switch(self, visit: Visit) -> Reply:
        if not visit.user:
            return see_other("/")
        action = visit.form.get("action", "")
        steps = {"on": "1", "off": "0", "cycle": "01"}.get(action, "")
        for value in steps:
            self.chassis.switch("power", value)
        self.record("power", {"action": action, "ok": bool(steps)})
        return see_other("/power")

    def hold(self, visit: Visit) -> Reply:
        return Reply(pages.hold(self.name, signed_in=bool(visit.user), alert="alert" in visit.query))

    def download(self, _visit: Visit) -> Reply:
        attachment = {"Content-Disposition": 'attachment; filename="simulated.bin"'}
        return Reply("simulated\n", type="application/octet-stream", headers=attachment)

