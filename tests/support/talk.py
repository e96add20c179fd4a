"""Drive conversations with panels (:mod:`ipmiproxyd.vendors.talk`) in memory: no socket, no clock::

    panel = PanelInProcess(make_panel(SupermicroPanel))
    session = panel.drive(family.sign_in(panel.site()))
    jnlp = panel.drive(family.jnlp(panel.site(), session))
    panel.signs()  # (1, 0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from ipmiproxyd.errors import BmcError, ProxyError
from ipmiproxyd.model import Secret
from ipmiproxyd.vendors.talk import Answer, Pause, Request, Site, Talk
from tests.simulator.chassis import Chassis
from tests.simulator.personality import Personality, Reply, Visit

T = TypeVar("T")
P = TypeVar("P", bound=Personality)

USER: Final = "ADMIN"
PASSWORD: Final = "s3cret & +/=\\ü"  # a test whose family cannot take such a one sets its own
HOST: Final = "10.0.0.7"

_NOT_ASKED: Final = Answer(0)
_STEPS: Final = 100


def drive(talk: Talk[T], answers: Callable[[Request], Answer] | Sequence[Answer], *, log: list[Any] | None = None) -> T:
    """Hand a conversation its answers, from a function or in their order; what it returns, or the error it raises.

    :param log: gets each Request and Pause as it comes.
    """

    given = iter(()) if callable(answers) else iter(answers)
    steps = 0
    try:
        step = next(talk)
        while True:
            steps += 1
            if steps > _STEPS:
                raise AssertionError("the conversation does not end")
            if log is not None:
                log.append(step)
            if isinstance(step, Pause):
                step = talk.send(_NOT_ASKED)
            else:
                try:
                    answer = answers(step) if callable(answers) else next(given, None)
                except ProxyError as error:
                    step = talk.throw(error)
                    continue
                if answer is None:
                    raise AssertionError(f"no answer is left for {step.method} {step.path}")
                step = talk.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


class Events:
    """A personality's record, in a list."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Mapping[str, Any]]] = []

    def __call__(self, kind: str, more: Mapping[str, Any]) -> None:
        self.all.append((kind, dict(more)))


def make_panel(
    kind: type[P], *, mood: str = "", users: Mapping[str, str] | None = None, name: str = "node1", **settings: Any
) -> P:
    """A simulated panel with one user, :data:`USER`. ``settings`` are attributes to set (``slots=1``)."""

    personality = kind(
        name,
        dict(users) if users is not None else {USER: PASSWORD},
        Chassis(Path("/nonexistent")),  # none that could be switched
        Events(),
        hint="",
        elsewhere="https://127.0.0.2/",
    )
    for attribute, value in {"mood": mood, **settings}.items():
        setattr(personality, attribute, value)
    return personality


class PanelInProcess:
    """A simulated panel that is asked without a socket, as curl would: packed answers are unpacked, a wrong
    Content-Length is an error where it was not told to be ignored, redirects are followed where that is allowed.

    :ivar asked: the requests, in their order.
    :ivar pauses: the seconds that were waited.
    :ivar visits: what the panel was asked, redirects included.
    """

    def __init__(self, personality: Personality, *, host: str = HOST) -> None:
        self.personality = personality
        self.host = host
        self.asked: list[Request] = []
        self.pauses: list[float] = []
        self.visits: list[Visit] = []
        self._routes = personality.routes()

    def site(self, *, username: str = USER, password: str | None = None, now: int = 1_700_000_000_000) -> Site:
        """A user comes to this panel; without a password with the right one."""

        known = self.personality.users.get(username, "") if password is None else password
        address = self.host.rpartition("]")[0].strip("[") if self.host.startswith("[") else self.host.partition(":")[0]
        return Site(host=self.host, address=address, username=username, password=Secret(known), now=now)

    def drive(self, talk: Talk[T]) -> T:
        log: list[Request | Pause] = []
        try:
            return drive(talk, self.ask, log=log)
        finally:
            self.pauses += [step.seconds for step in log if isinstance(step, Pause)]

    def events(self, kind: str) -> list[Mapping[str, Any]]:
        """What the panel wrote down of a kind."""

        record = self.personality.record
        if not isinstance(record, Events):
            raise AssertionError("this panel does not record in memory: use make_panel")
        return [more for one, more in record.all if one == kind]

    def signs(self) -> tuple[int, int]:
        """How many sign-ins succeeded, and how many sign-outs there were."""

        return sum(1 for more in self.events("sign-in") if more["ok"]), len(self.events("sign-out"))

    def ask(self, request: Request) -> Answer:
        """One request as curl sends it."""

        self.asked.append(request)
        method, path = request.method, request.path
        body, kind = _body(request)
        for _ in range(request.redirects + 1):
            reply = self._visit(method, path, request, body, kind)
            place = {name.lower(): value for name, value in reply.headers.items()}.get("location", "")
            if not (300 <= reply.status < 400 and place and request.redirects):
                return self._answer(request, path, reply)
            parts = urlsplit(urljoin(f"https://{self.host}{path}", place))
            if parts.netloc != self.host:
                raise BmcError("The panel sends us to another host.")
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            if reply.status in {301, 302, 303} and method == "POST":
                method, body, kind = "GET", b"", ""
        raise BmcError("The panel redirects endlessly.")

    def _visit(self, method: str, uri: str, request: Request, body: bytes, kind: str) -> Reply:
        path, _, query = uri.partition("?")
        fields = parse_qsl(query, keep_blank_values=True)
        if kind.startswith("application/x-www-form-urlencoded"):
            fields += parse_qsl(body.decode("ascii"), keep_blank_values=True)
        headers = {"host": self.host, "accept": "*/*", "accept-encoding": "deflate, gzip"}
        if kind:
            headers["content-type"] = kind
        if request.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in request.cookies.items())
        headers.update((name.lower(), value) for name, value in request.headers.items())
        for name, value in headers.items():
            if set(name + value) & set("\r\n\0"):
                raise AssertionError(f"the header {name} would break the request")
        cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
        session = cookies.get(self.personality.cookie, "")
        visit = Visit(
            method=method,
            path=path,
            query=dict(fields) if method != "POST" else {},
            form=dict(fields) if method == "POST" else {},
            session=session,
            user=self.personality.sessions.get(session, ""),
            uri=uri,
            headers=headers,
            cookies=cookies,
            body=body,
        )
        self.visits.append(visit)
        handler = self._routes.get(("GET" if method == "HEAD" else method, path))
        if handler:
            return handler(visit)
        return self.personality.answer(visit) or Reply("There is no such page.", status=404)

    def _answer(self, request: Request, path: str, reply: Reply) -> Answer:
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        if reply.length is not None and reply.length > len(body) and not request.ignore_length:
            raise BmcError("The panel's answer broke off.")
        if len(body) > request.limit:
            raise BmcError("The panel's answer is too long.")
        headers = [("content-type", reply.type)]
        headers += [(name.lower(), value) for name, value in reply.headers.items()]
        headers += [("set-cookie", cookie) for cookie in reply.cookies]
        return Answer(reply.status, tuple(headers), body, path)


def _body(request: Request) -> tuple[bytes, str]:
    if request.form is not None:
        return urlencode(request.form).encode(), "application/x-www-form-urlencoded"
    if request.body is not None:
        return request.body, request.content_type or "application/x-www-form-urlencoded"
    return b"", request.content_type
