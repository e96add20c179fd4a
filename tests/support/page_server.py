"""The relay's HTTP face with a script in place of a console: what the page's tests talk to.

Serves ``ipmiproxyd/web`` and a noVNC folder under the relay's own headers; tells the page whatever status the test
sets, and joins its WebSocket with a VNC server on a UNIX socket.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

WEB: Final = Path(__file__).resolve().parents[2] / "ipmiproxyd" / "web"
NOVNC: Final = WEB / "novnc"
HOLD: Final = 20.0  # seconds that a question for news is held


class _Answer(Resource):
    """A leaf that is answered by a function."""

    isLeaf = True

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._answer = answer

    def render(self, request: Request) -> Any:
        return self._answer(request)


class _Files(Resource):
    """The files of one folder and, if asked, of the folders in it. Lists nothing."""

    isLeaf = True

    def __init__(
        self, folder: Path, suffixes: tuple[str, ...], *, deep: bool = False, patches: Mapping[str, tuple[str, str]]
    ) -> None:
        super().__init__()
        self._patches = patches
        self._folder = folder
        self._suffixes = suffixes
        self._deep = deep

    def render_GET(self, request: Any) -> bytes:
        parts = [part.decode() for part in request.postpath]
        path = self._folder.joinpath(*parts)
        known = path.suffix in self._suffixes and ".." not in parts and (self._deep or len(parts) == 1)
        if not known or not path.is_file():
            request.setResponseCode(404)
            return b""
        request.setHeader("Content-Type", mimetypes.guess_type(path.name)[0] or "application/octet-stream")
        body = path.read_bytes()
        if path.name in self._patches:
            old, new = (text.encode() for text in self._patches[path.name])
            assert body.count(old) == 1, f"{path.name} holds {old!r} {body.count(old)} times"
            body = body.replace(old, new)
        return body


class PageSite(Site):
    """Puts the relay's headers on everything."""

    frame_ancestors = "'self'"

    def getResourceFor(self, request: Any) -> IResource:
        host = (request.getHeader("host") or "").encode("ascii", "replace").decode()
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            f"connect-src 'self' ws://{host} wss://{host}; font-src 'self'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors {self.frame_ancestors}"
        )
        request.setHeader("Content-Security-Policy", policy)
        request.setHeader("Referrer-Policy", "no-referrer")
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("Cache-Control", "no-store")
        found: IResource = super().getResourceFor(request)
        return found


class _Vnc(Protocol):
    """The VNC server's side of a joined WebSocket."""

    def __init__(self, socket: _Socket) -> None:
        self._socket = socket

    def dataReceived(self, data: bytes) -> None:
        if self._socket.state == _Socket.STATE_OPEN:
            self._socket.sendMessage(data, isBinary=True)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._socket.sendClose(4001, "display")


class _Socket(WebSocketServerProtocol):  # type: ignore[misc]
    """The page's side. ``server`` is put on the factory."""

    def onConnect(self, request: Any) -> Any:
        server: PageServer = self.factory.server
        server.offered.append(list(request.protocols))
        if f"key.{server.key}" not in request.protocols or server.refuse_sockets:
            raise ConnectionDeny(403)
        if server.status["state"] != "ready":
            raise ConnectionDeny(409)
        return "binary"

    def onOpen(self) -> None:
        server: PageServer = self.factory.server
        self._early: list[bytes] = []
        self._vnc: _Vnc | None = None
        server.sockets.append(self)

        def joined(vnc: _Vnc) -> None:
            self._vnc = vnc
            for data in self._early:
                self._to_vnc(data)

        dialled = connectProtocol(UNIXClientEndpoint(server.reactor, server.vnc), _Vnc(self))
        dialled.addCallbacks(joined, lambda _: self.sendClose(4001, "display"))

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._vnc is None:
            self._early.append(payload)
        else:
            self._to_vnc(payload)

    def _to_vnc(self, data: bytes) -> None:
        assert self._vnc is not None
        assert self._vnc.transport is not None
        self._vnc.transport.write(data)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        server: PageServer = self.factory.server
        if self in server.sockets:
            server.sockets.remove(self)
        vnc = getattr(self, "_vnc", None)
        if vnc is not None and vnc.transport is not None:
            vnc.transport.abortConnection()


def person(who: str, user: str = "", *, control: bool = True, steers: bool = False) -> dict[str, Any]:
    """One of those who are on a console, as its status names them."""

    return {"id": who, "user": user, "control": control, "steers": steers}


class PageServer:
    """One console's relay port, or its place on a gateway. Change what the page is told by :meth:`tell`.

    The page's viewer is "me" and has control.

    :ivar path: where the console is, with a slash at the end.
    :ivar token: the one-time token that is still good, or "".
    :ivar key: what it is traded for.
    :ivar refuse_sockets: WebSockets get 403.
    :ivar vnc: the path of the VNC server's socket; where none is, the WebSocket is closed as the relay does.
    :ivar refusals: by what is asked ("close", "type", "type/stop", "control"): status and document of a refusal.
    :ivar typed: what POST /api/type was asked for.
    :ivar patches: by the name of one of our scripts: a text in it, and what is served instead.
    :ivar seen: method and path of each request of /api.
    :ivar offered: the subprotocols of each WebSocket.
    """

    def __init__(self, reactor: Any, vnc: Path | str = "", novnc: Path = NOVNC, path: str = "/") -> None:
        self.reactor = reactor
        self.path = path
        self.vnc = str(vnc)
        self.token = "token-one"
        self.key = "key-one"
        self.refuse_sockets = False
        self.refusals: dict[str, tuple[int, dict[str, str]]] = {}
        self.typed: list[dict[str, Any]] = []
        self.patches: dict[str, tuple[str, str]] = {}
        self.seen: list[str] = []
        self.offered: list[list[str]] = []
        self.sockets: list[_Socket] = []
        self.status: dict[str, Any] = {
            "serial": 1,
            "state": "ready",
            "agent_away": False,
            "stages": [],
            "device": "node17",
            "type": "panel",
            "viewers": 1,
            "idle": 600,
            "reason": "",
            "message": "",
            "you": "me",
            "people": [person("me", steers=True)],
            "control": True,
            "steers": True,
            "held": True,
            "credentials": False,
            "typing": None,
            "clipboard": "both",
        }
        self._held: dict[Any, IDelayedCall] = {}
        self._novnc = novnc
        self._root = Resource()
        self._site = PageSite(self._root)
        self._watched = WrappingFactory(self._site)
        self._port: Any = None
        self.port = 0
        self.beside(self)

    # --- for tests

    def start(self) -> None:
        self._port = self.reactor.listenTCP(self.port, self._watched, interface="127.0.0.1")
        self.port = self._port.getHost().port

    async def stop(self) -> None:
        """Stop listening and cut every connection."""

        if self._port is not None:
            await self._port.stopListening()
            self._port = None
        for timer in self._held.values():
            timer.cancel()
        self._held.clear()
        self.drop()
        while self._watched.protocols:
            for protocol in list(self._watched.protocols):
                protocol.transport.abortConnection()
            await deferLater(self.reactor, 0)

    def beside(self, other: PageServer) -> None:
        """Serve another console on this port, too, under its own path. It is not started."""

        place = self._root
        *folders, _ = other.path.lstrip("/").split("/")
        tree = other._tree()
        if not folders:
            place.children = tree.children
            return
        for folder in (name.encode() for name in folders[:-1]):
            if folder not in place.children:
                place.putChild(folder, Resource())
            place = place.children[folder]
        place.putChild(folders[-1].encode(), tree)
        other.port = self.port

    def allow_frames(self, ancestors: str) -> None:
        self._site.frame_ancestors = ancestors

    def url(self, token: str | None = None, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{self.path}#t={self.token if token is None else token}"

    @property
    def address(self) -> str:
        """The page without a token."""

        return f"http://127.0.0.1:{self.port}{self.path}"

    def tell(self, **changes: Any) -> None:
        """Change the status and let waiting pages know."""

        self.status.update(changes, serial=self.status["serial"] + 1)
        for request in list(self._held):
            self._release(request)

    def drop(self) -> None:
        """Cut the WebSockets as a broken network would."""

        for socket in list(self.sockets):
            socket.dropConnection(abort=True)

    def close_sockets(self, code: int, reason: str) -> None:
        for socket in list(self.sockets):
            socket.sendClose(code, reason)

    # --- HTTP

    def _tree(self) -> Resource:
        root = Resource()
        root.putChild(b"", _Answer(self._index))
        root.putChild(b"assets", _Files(WEB, (".js", ".css"), patches=self.patches))
        root.putChild(b"novnc", _Files(self._novnc, (".js",), deep=True, patches={}))
        api = Resource()
        api.putChild(b"session", _Answer(self._session))
        api.putChild(b"status", _Answer(self._status))
        for name in (b"stay", b"close", b"control", b"type"):
            api.putChild(name, _Answer(self._asked))
        root.putChild(b"api", api)
        factory: Any = WebSocketServerFactory(reactor=self.reactor)
        factory.protocol = _Socket
        # Autobahn's timers are batched by the second and would outlive a test.
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        factory.server = self
        root.putChild(b"vnc", WebSocketResource(factory))
        return root

    def _index(self, request: Any) -> bytes:
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        return (WEB / "index.html").read_bytes()

    def _session(self, request: Any) -> bytes:
        self._see(request)
        token = json.loads(request.content.read()).get("token")
        if not self.token or token != self.token:
            return self._refuse(request, "This link is not valid.")
        self.token = ""
        return self._json(request, {"key": self.key})

    def _status(self, request: Any) -> Any:
        self._see(request)
        if not self._known(request):
            return self._refuse(request, "This key is not valid.")
        since = int(request.args.get(b"since", [b"-1"])[0])
        if since < self.status["serial"]:
            return self._json(request, self.status)
        self._held[request] = self.reactor.callLater(HOLD, self._release, request)
        request.notifyFinish().addErrback(lambda _: self._forget(request))
        return NOT_DONE_YET

    def _asked(self, request: Any) -> bytes:
        """Whatever a viewer with control may ask for."""

        self._see(request)
        if not self._known(request):
            return self._refuse(request, "This key is not valid.")
        what = self._place_of(request).removeprefix("/api/")
        if what in self.refusals:
            status, document = self.refusals[what]
            request.setResponseCode(status)
            return self._json(request, document)
        if what == "type":
            self.typed.append(json.loads(request.content.read()))
        if what == "control":
            others = [{**other, "steers": False} for other in self.status["people"] if other["id"] != "me"]
            self.tell(steers=True, held=True, people=[person("me", steers=True), *others])
        return self._json(request, {})

    def _release(self, request: Any) -> None:
        self._forget(request)
        request.write(self._json(request, self.status))
        request.finish()

    def _forget(self, request: Any) -> None:
        timer = self._held.pop(request, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _see(self, request: Any) -> None:
        self.seen.append(f"{request.method.decode()} {self._place_of(request)}")

    def _place_of(self, request: Any) -> str:
        return "/" + str(request.path.decode()).removeprefix(self.path)

    def _known(self, request: Any) -> bool:
        return bool(request.getHeader("authorization") == f"Bearer {self.key}")

    def _refuse(self, request: Any, message: str) -> bytes:
        request.setResponseCode(403)
        return self._json(request, {"code": "forbidden", "message": message, "hint": "Ask for a new link."})

    def _json(self, request: Any, value: Any) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return json.dumps(value).encode()


async def wait_until(reactor: Any, condition: Any, limit: float = 5.0, what: str = "it") -> None:
    """Look at ``condition()`` until it is true. For what gives no event of its own."""

    due = reactor.seconds() + limit
    while not condition():
        if reactor.seconds() > due:
            raise AssertionError(f"{what} did not happen within {limit:g} s")
        await deferLater(reactor, 0.01)


def stop_later(server: PageServer) -> Any:
    """For addCleanup."""

    return lambda: Deferred.fromCoroutine(server.stop())
