"""The viewers of one console: who has control, who types, who has to go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ipmiproxyd.errors import BadValue, BmcState, Forbidden, LimitReached
from ipmiproxyd.interfaces import RelayedConsole, VncServer
from ipmiproxyd.model import Grant, Typing, ViewerInfo
from ipmiproxyd.relay.backend import Backend
from ipmiproxyd.relay.ends import End
from ipmiproxyd.relay.sockets import Sockets
from ipmiproxyd.relay.typist import Typist
from ipmiproxyd.relay.viewer import CLOSED, LIMIT, REVOKED, Viewer
from ipmiproxyd.wire.typing import keystrokes
from ipmiproxyd.wire.websocket import Unmask

ACTIVITY_EVERY: Final = 1.0
"""Seconds between two words to the console that its user is active."""
LEAVING: Final = 4
"""For each viewer that there may be, so many that are there or on their way out, however slow those are."""
CROWDED_TIME: Final = 20.0
"""Seconds from a viewer's coming, its sign-in included, in which a server drops whom it has no room for."""

log = Logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """What holds for the viewers of every console.

    :ivar reactor: watches the ends' sockets.
    :ivar dial: connects to a VNC server and signs in.
    :ivar ping: seconds between pings, which keep still screens alive in proxies. A missing answer ends nothing.
    :ivar limit: of viewers on one console.
    :ivar typing_pace: seconds from one typed character to the next.
    """

    reactor: Any
    clock: IReactorTime
    dial: Callable[[VncServer], Deferred[Backend]]
    unmask_large: Unmask
    ping: float
    limit: int
    typing_pace: float


class Viewers:
    """The viewers of one console. ``sockets`` is told of those that are there.

    Control belongs to a grant, so that all windows of one viewer share it, and one that comes again finds it. Who has
    it keeps it until somebody who may takes it over, or all its windows are gone. While nobody has it, it falls to
    whoever may and comes, or acts.

    :ivar holder: the id of the grant that has control; empty if nobody has.
    """

    def __init__(self, manners: Manners, console: RelayedConsole, sockets: Sockets) -> None:
        self.clock = manners.clock
        self.reactor = manners.reactor
        self.unmask_large = manners.unmask_large
        self.console = console
        self.holder = ""
        self._manners = manners
        self._sockets = sockets
        self._there = 0  # those that are leaving, too
        self._present: dict[Viewer, ViewerInfo] = {}  # the longest present first
        self._latest: dict[str, Viewer] = {}  # of each grant
        self._typist: Typist | None = None
        self._writer: Viewer | None = None  # on whose connection is typed
        self._ticker: IDelayedCall | None = None
        self._active_at = float("-inf")
        clipboard = console.snapshot().clipboard
        self.clipboard_in = clipboard in ("in", "both")
        self.clipboard_out = clipboard in ("out", "both")
        self.is_networked = False

    # --- coming and going --------------------------------------------------------------------------------------------

    def check_room(self) -> None:
        """Raises LimitReached if there is not even room for one that is turned away by its WebSocket."""

        if self._there >= LEAVING * self._manners.limit:
            raise LimitReached("Too many viewers come and go on this console.", hint="Try again in a minute.")

    def welcome(self, grant: Grant, peer: str, server: VncServer, make_end: Callable[[Viewer], End]) -> None:
        """A WebSocket is open. ``make_end``: takes its connection over for its viewer."""

        viewer = Viewer(self, grant, peer, self.clock.seconds())
        browser = make_end(viewer)
        self._sockets.add(viewer)
        self._there += 1
        if len(self._present) >= self._manners.limit:
            viewer.turn_away(browser, LIMIT, "Too many viewers are on this console already")
            return
        self.is_networked = bool(server.host)
        viewer.begin(browser, self._manners.dial(server))

    def add(self, viewer: Viewer) -> None:
        log.info("viewer {peer} on console {console}", peer=viewer.peer, console=self.console.id)
        before = self._latest.get(viewer.grant.id)
        if before is not None:
            before.let_go()  # it comes again, perhaps, and its lost connection is not known to be lost yet
        self._latest[viewer.grant.id] = viewer
        self._present[viewer] = self._info(viewer)
        if self._ticker is None:
            self._ticker = self.clock.callLater(self._manners.ping, self._tick)
        if viewer.grant.control and not self.holder:
            self._give_control(viewer.grant.id)
        self._tell()

    def remove(self, viewer: Viewer) -> None:
        """It is leaving, or gone."""

        log.info("viewer {peer} left console {console}", peer=viewer.peer, console=self.console.id)
        del self._present[viewer]
        if self._latest.get(viewer.grant.id) is viewer:
            del self._latest[viewer.grant.id]
        if self._typist is not None and self._writer is viewer:
            self._typist.stop()
        if self.holder == viewer.grant.id and all(other.grant.id != self.holder for other in self._present):
            self._give_control("")
        if not self._present and self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        self._tell()

    def forget(self, viewer: Viewer) -> None:
        """Both its connections are closed."""

        self._there -= 1
        self._sockets.discard(viewer)

    def close(self, reason: str) -> None:
        """Tell everybody that the console is closed; ``reason`` is a code word."""

        for viewer in tuple(self._present):
            viewer.leave(CLOSED, reason)

    def cut(self, grant_id: str) -> None:
        """A grant was revoked."""

        for viewer in tuple(self._present):
            if viewer.grant.id == grant_id:
                viewer.leave(REVOKED, "Your access to this console was withdrawn")

    def others_relay(self, viewer: Viewer) -> bool:
        return any(other.is_relaying for other in self._present if other is not viewer)

    def was_too_many(self, viewer: Viewer) -> bool:
        """The server dropped ``viewer``, kept another, and one of them had just come: it has no room for both. Whether
        the one who comes is turned away or pushes another out, trying again would only go round in circles."""

        latest = max(one.joined_at for one in self._present)
        return self.is_networked and self.others_relay(viewer) and self.clock.seconds() - latest < CROWDED_TIME

    def _tick(self) -> None:
        self._ticker = self.clock.callLater(self._manners.ping, self._tick)
        for viewer in tuple(self._present):
            viewer.ping()

    def _tell(self) -> None:
        self.console.viewers_changed(tuple(self._present.values()))

    def _give_control(self, holder: str) -> None:
        self.holder = holder
        for viewer, info in self._present.items():
            if info.steers != (info.id == holder):
                self._present[viewer] = replace(info, steers=info.id == holder)

    def _info(self, viewer: Viewer) -> ViewerInfo:
        return ViewerInfo(
            id=viewer.grant.id,
            user=viewer.grant.user,
            peer=viewer.peer,
            control=viewer.grant.control,
            steers=viewer.grant.id == self.holder,
            joined_at=viewer.joined_at,
        )

    # --- control -----------------------------------------------------------------------------------------------------

    def take_control(self, grant: Grant) -> None:
        """Raises Forbidden without the right; BmcState if this viewer is not there."""

        _check_right(grant)
        if not any(viewer.grant.id == grant.id for viewer in self._present):
            raise BmcState("The screen is not connected.", hint="Try again in a moment.")
        if self.holder == grant.id:
            return
        if self._typist is not None:
            self._typist.stop()
        for viewer in self._present:
            viewer.let_go()
        self._give_control(grant.id)
        log.info("console {console}: {user!r} takes control", console=self.console.id, user=grant.user)
        self._tell()

    def user_acts(self, grant: Grant, strong: bool) -> bool:
        """A viewer did something (see :class:`~ipmiproxyd.wire.rfb.Judge`): may it pass?"""

        if self.holder != grant.id:
            if self.holder or not (strong and grant.control):
                return False
            self._give_control(grant.id)
            self._tell()
        if self._typist is not None:
            return False  # it would get in between what is being typed
        self._note_activity()
        return True

    def _note_activity(self) -> None:
        now = self.clock.seconds()
        if now - self._active_at >= ACTIVITY_EVERY:
            self._active_at = now
            self.console.user_active()

    # --- typing ------------------------------------------------------------------------------------------------------

    def type(self, grant: Grant, what: Literal["username", "password", "text"], text: str = "") -> None:
        """Begin to type a text, or what the login buttons type, as this viewer.

        Raises Forbidden, BadValue (nothing was typed), BmcState.
        """

        if what != "text":
            if not grant.credentials:
                raise Forbidden("You may not have the server's credentials typed.")
            text = self.console.credential(what).reveal()
        if self._typist is not None:
            raise BmcState("Something is being typed already.", hint="Wait for it, or stop it.")
        if self.holder and self.holder != grant.id:
            raise Forbidden("Somebody else has control.", hint="Take control first.")
        strokes = self._strokes(what, text)
        viewer = next((one for one in reversed(self._present) if one.grant.id == grant.id and one.is_relaying), None)
        if viewer is None:
            raise BmcState("The screen is not connected.", hint="Try again in a moment.")
        self.take_control(grant)
        for present in self._present:  # another window may hold Shift down
            present.let_go()
        self.console.user_active()
        log.info("console {id}: {user!r} has the {what} typed", id=self.console.id, user=grant.user, what=what)
        self._writer = viewer
        self._typist = Typist(
            self.clock, what, grant.id, strokes,
            pace=self._manners.typing_pace, press=viewer.press, tell=self._typing,
        )  # fmt: skip

    def _strokes(self, what: str, text: str) -> list[bytes]:
        """Raises BadValue. Of a password it does not tell what it is made of."""

        try:
            return keystrokes(text, "us" if self.console.snapshot().type == "vnc" else "eu")
        except BadValue:
            if what != "password":
                raise
        raise BadValue("The password has characters that cannot be typed here, or too many.", hint="Nothing was typed.")

    def stop_typing(self, grant: Grant) -> None:
        """Whoever has it typed. Raises Forbidden without the right to control."""

        _check_right(grant)
        if self._typist is not None:
            self._typist.stop()

    def _typing(self, typing: Typing | None) -> None:
        if typing is None:
            self._typist = self._writer = None
        else:
            self._note_activity()
        self.console.typing_changed(typing)


def _check_right(grant: Grant) -> None:
    """Raises Forbidden for who may only watch."""

    if not grant.control:
        raise Forbidden("You may watch this console, but not control it.")
