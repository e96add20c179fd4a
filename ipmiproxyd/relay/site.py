"""What one console's relay port answers over HTTP.

    GET  /                       the page; GET /assets/NAME, /novnc/core/…, /novnc/vendor/…: its parts
    POST /api/session            {"token": …} → {"key": …}; a token is good once
    GET  /api/status?since=N     Bearer key → the console's status, once its serial is greater than N or after 20 s
    POST /api/stay               Bearer key → {}; counts as activity of the user
    POST /api/close              Bearer key → {}; closes the console
    POST /api/control            Bearer key → {}; takes control over
    POST /api/type               {"what": "username" | "password" | "text", "text": …} → {}; types it, key by key
    POST /api/type/stop          Bearer key → {}
    GET  /vnc                    WebSocket; the subprotocols offered are "binary" and "key.KEY"

A refusal is ``{"code": …, "message": …, "hint": …}`` with the status of its error class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from ipmiproxyd.errors import BadRequest, BmcState, Forbidden, InternalError, LimitReached, NotFound, ProxyError
from ipmiproxyd.interfaces import Grants, RelayedConsole
from ipmiproxyd.model import Console, ConsoleState, Grant
from ipmiproxyd.relay.channel import host_of, json_body, peer_of, refusal, security_headers
from ipmiproxyd.relay.files import StaticFile
from ipmiproxyd.relay.upgrade import upgrade
from ipmiproxyd.relay.viewers import Viewers

MAX_WAITING: Final = 128
MAX_WAITING_OF_ONE: Final = 16
"""Pages of one grant that wait for news: the others' must not go without because of them."""
_MAX_SECRET: Final = 128

log = Logger()

_Body = bytes | int
"""What ``render`` returns: a body, or NOT_DONE_YET."""


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """What holds for every relay port.

    :ivar public_host: the host in the consoles' URLs, in lower case; IPv6 in brackets.
    :ivar allowed_origins: whose pages may use the consoles beside our own; in lower case, no slash at the end.
    :ivar frame_ancestors: sources of the Content-Security-Policy.
    """

    public_host: str
    allowed_origins: Collection[str]
    frame_ancestors: Sequence[str]


@dataclass(eq=False, slots=True)
class _Poll:
    """A page that waits for news."""

    request: Request
    grant: Grant
    news: Deferred[None]
    gone: bool = False


class ConsoleResource(Resource):
    """The one resource of a relay port: every path is in its tables or does not exist."""

    isLeaf = True

    def __init__(
        self,
        console: RelayedConsole,
        grants: Grants,
        files: Mapping[bytes, StaticFile],
        viewers: Viewers,
        policy: SitePolicy,
        clock: IReactorTime,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._console = console
        self._grants = grants
        self._files = files
        self._viewers = viewers
        self._policy = policy
        self._clock = clock
        self._polls: set[_Poll] = set()
        self._revoked: set[str] = set()
        self._last_words: tuple[str, str] | None = None
        self._routes: dict[bytes, tuple[bytes, Callable[[Request], _Body]]] = {
            b"/api/session": (b"POST", self._session),
            b"/api/status": (b"GET", self._status),
            b"/api/stay": (b"POST", self._stay),
            b"/api/close": (b"POST", self._close),
            b"/api/control": (b"POST", self._control),
            b"/api/type": (b"POST", self._type),
            b"/api/type/stop": (b"POST", self._stop_typing),
            b"/vnc": (b"GET", self._vnc),
        }

    def close(self, code: str, message: str) -> None:
        """Answer everybody who waits, and from now on everybody who asks, that the console is closed."""

        self._last_words = (code, message)
        for poll in tuple(self._polls):
            poll.news.cancel()

    def cut(self, grant_id: str) -> None:
        """A grant was revoked: its pages that wait are told so."""

        self._revoked.add(grant_id)
        for poll in tuple(self._polls):
            if poll.grant.id == grant_id:
                poll.news.cancel()

    def render(self, request: Request) -> _Body:
        for name, value in security_headers(host_of(request), self._policy.frame_ancestors):
            request.setHeader(name, value)
        try:
            return self._dispatch(request)
        except ProxyError as error:
            return refusal(request, error)
        except Exception:
            log.failure("console {console}: a request failed", console=self._console.id)
            return refusal(request, InternalError("Something went wrong here.", hint="The daemon's log knows."))

    def _dispatch(self, request: Request) -> _Body:
        file = self._files.get(request.path)
        if file is not None:
            return self._method(request, b"GET", b"HEAD") or self._file(request, file)
        route = self._routes.get(request.path)
        if route is None:
            raise NotFound("There is nothing here.")
        method, handler = route
        refused = self._method(request, method)
        if refused:
            return refused
        if not self._is_welcome(request):
            raise Forbidden(
                "This page may not use the console.",
                hint="Add its origin to relay.allowed_origins if it should.",
            )
        return handler(request)

    # --- the page ----------------------------------------------------------------------------------------------------

    def _file(self, request: Request, file: StaticFile) -> _Body:
        packs = b"gzip" in (request.getHeader(b"Accept-Encoding") or b"")
        request.setHeader(b"Cache-Control", file.cache)
        request.setHeader(b"Vary", b"Accept-Encoding")
        if request.setETag(b'"%s%s"' % (file.tag, b"-gz" if packs else b"")) is http.CACHED:
            request.finish()
            return NOT_DONE_YET
        request.setHeader(b"Content-Type", file.type)
        body = file.body
        if packs:
            request.setHeader(b"Content-Encoding", b"gzip")
            body = file.packed
        if request.method == b"HEAD":
            request.setHeader(b"Content-Length", b"%d" % len(body))
            return b""
        return body

    # --- the page's questions ----------------------------------------------------------------------------------------

    def _session(self, request: Request) -> _Body:
        token = _document(request).get("token")
        if not isinstance(token, str) or not 0 < len(token) <= _MAX_SECRET:
            raise BadRequest('The request has to be {"token": "…"}.')
        key = self._grants.redeem(self._console.id, token)
        if key is None:
            log.info("console {console}: {peer} came with a bad token", console=self._console.id, peer=peer_of(request))
            raise Forbidden(
                "This link has been used already, or it has expired.",
                hint="Open the console again from where you came, to get a new link.",
            )
        return json_body(request, {"key": key})

    def _status(self, request: Request) -> _Body:
        grant = self._grant_of(_bearer(request))
        since = _since(request)
        if self._last_words is not None or self._console.snapshot().serial > since:
            return json_body(request, self._status_for(grant))
        own = sum(1 for poll in self._polls if poll.grant.id == grant.id)
        if len(self._polls) >= MAX_WAITING or own >= MAX_WAITING_OF_ONE:
            raise LimitReached("Too many pages wait for this console.", hint="Close some of them.")
        poll = _Poll(request, grant, self._console.when_changed(since))
        self._polls.add(poll)
        request.notifyFinish().addErrback(self._page_gone, poll)
        poll.news.addTimeout(request.patience, self._clock)  # type: ignore[attr-defined]  # it is a RelayRequest
        poll.news.addBoth(self._tell, poll)
        return NOT_DONE_YET

    def _stay(self, request: Request) -> _Body:
        self._grant_that_controls(request)
        self._console.user_active()
        return json_body(request, {})

    def _close(self, request: Request) -> _Body:
        self._grant_that_controls(request)
        self._answer(request, json_body(request, {}))
        self._console.close_by_viewer()
        return NOT_DONE_YET

    def _control(self, request: Request) -> _Body:
        self._viewers.take_control(self._grant_that_controls(request))
        return json_body(request, {})

    def _type(self, request: Request) -> _Body:
        grant = self._grant_that_controls(request)
        asked = _document(request)
        what, text = asked.get("what"), asked.get("text", "")
        if what not in ("username", "password", "text") or not isinstance(text, str):
            raise BadRequest('The request has to be {"what": "username", "password" or "text", "text": "…"}.')
        self._viewers.type(grant, what, text)
        return json_body(request, {})

    def _stop_typing(self, request: Request) -> _Body:
        self._viewers.stop_typing(self._grant_that_controls(request))
        return json_body(request, {})

    def _vnc(self, request: Request) -> _Body:
        if request.content.read(1):  # type: ignore[union-attr]
            raise BadRequest("A WebSocket begins with a request that has no body.")
        grant = self._grant_of(_offered_key(request))
        if self._last_words is not None:
            raise BmcState("The console is closed, or about to be.", hint="Open it again from where you came.")
        return upgrade(request, self._viewers, grant, self._console.screen())

    def _page_gone(self, _: Failure, poll: _Poll) -> None:
        poll.gone = True
        poll.news.cancel()

    def _tell(self, result: Failure | None, poll: _Poll) -> None:
        self._polls.discard(poll)
        if isinstance(result, Failure) and not result.check(CancelledError, TimeoutError):
            log.failure("console {console}: waiting for news failed", result, console=self._console.id)
        if poll.gone:
            return
        if poll.grant.id in self._revoked:
            body = refusal(poll.request, _no_access())
        else:
            body = json_body(poll.request, self._status_for(poll.grant))
        self._answer(poll.request, body)

    # --- who may ask -------------------------------------------------------------------------------------------------

    def _grant_of(self, key: str) -> Grant:
        grant = self._grants.check(self._console.id, key) if 0 < len(key) <= _MAX_SECRET else None
        if grant is None:
            raise _no_access()
        return grant

    def _grant_that_controls(self, request: Request) -> Grant:
        grant = self._grant_of(_bearer(request))
        if not grant.control:
            raise Forbidden("You may watch this console, and nothing else.")
        return grant

    def _is_welcome(self, request: Request) -> bool:
        """No page of somebody else; what is no browser names no origin."""

        origins = request.requestHeaders.getRawHeaders(b"Origin") or []
        if not origins:
            return True
        origin = origins[0].decode("ascii", "replace").lower()
        scheme, _, authority = origin.partition("://")
        announced = f"{self._policy.public_host}:{request.getHost().port}"
        own = scheme in ("http", "https") and authority in (announced, host_of(request).decode() or announced)
        return len(origins) == 1 and (own or origin in self._policy.allowed_origins)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _status_for(self, grant: Grant) -> dict[str, Any]:
        status = status_document(self._console.snapshot(), grant)
        if self._last_words is not None:
            status["state"] = ConsoleState.CLOSED.value  # to the page it is, whatever is still being given back
            status["reason"], status["message"] = self._last_words
        return status

    def _method(self, request: Request, *allowed: bytes) -> bytes:
        """Empty if the request's method is among ``allowed``, or else the body of a refusal."""

        if request.method in allowed:
            return b""
        request.setHeader(b"Allow", b", ".join(allowed))
        return refusal(request, BadRequest("This is not how to ask for it."), http.NOT_ALLOWED)

    def _answer(self, request: Request, body: bytes) -> None:
        """Now, and not with what ``render`` returns."""

        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()


def status_document(console: Console, grant: Grant) -> dict[str, Any]:
    """What a page is told of its console."""

    return {
        "serial": console.serial,
        "state": console.state.value,
        "agent_away": console.agent_away,
        "stages": [asdict(stage) for stage in console.stages],
        "device": console.device,
        "type": console.type,
        "viewers": len(console.viewers),
        "you": grant.id,
        "people": _people(console),
        "steers": any(viewer.steers and viewer.id == grant.id for viewer in console.viewers),
        "held": any(viewer.steers for viewer in console.viewers),
        "credentials": grant.credentials,
        "clipboard": console.clipboard,
        "typing": _typing(console, grant),
        "idle": console.idle,
        "closes_in": console.closes_in,
        "closes_why": console.closes_why,
        "reason": console.reason,
        "message": console.message,
        "control": grant.control,
    }


def _people(console: Console) -> list[dict[str, Any]]:
    """Each viewer once, however many windows it has."""

    people = {
        viewer.id: {"id": viewer.id, "user": viewer.user, "control": viewer.control, "steers": viewer.steers}
        for viewer in console.viewers
    }
    return list(people.values())


def _typing(console: Console, grant: Grant) -> dict[str, Any] | None:
    """How long a password is, is nothing for those who may only watch it being typed."""

    if console.typing is None:
        return None
    is_open = console.typing.what == "text" or grant.credentials
    return asdict(console.typing if is_open else replace(console.typing, done=0, of=0))


def _no_access() -> Forbidden:
    return Forbidden(
        "This page has no access to the console.",
        hint="Open the console again from where you came, to get a new link.",
    )


def _document(request: Request) -> Mapping[str, Any]:
    try:
        asked = json.loads(request.content.read())  # type: ignore[union-attr]
    except (ValueError, RecursionError) as error:
        raise BadRequest("This is not JSON.") from error
    if not isinstance(asked, dict):
        raise BadRequest("This is not a JSON object.")
    return asked


def _bearer(request: Request) -> str:
    scheme, _, key = (request.getHeader(b"Authorization") or b"").decode("ascii", "replace").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _offered_key(request: Request) -> str:
    offered = b",".join(request.requestHeaders.getRawHeaders(b"Sec-WebSocket-Protocol", []))
    names = [name.strip().decode("ascii", "replace") for name in offered.split(b",")]
    keys = [name.removeprefix("key.") for name in names if name.startswith("key.")]
    return keys[0] if len(keys) == 1 else ""


def _since(request: Request) -> int:
    values: list[bytes] = (request.args or {}).get(b"since", [b""])
    if len(values) != 1 or len(values[0]) > 18 or not (values[0].isdigit() or not values[0]):
        raise BadRequest("since has to be a number.")
    return int(values[0] or -1)
