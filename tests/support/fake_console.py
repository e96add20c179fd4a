"""A console for the relay's tests: its state is set by hand, and it counts what the relay tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint

from ipmiproxyd.errors import BadValue, BmcState, Forbidden
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Console, ConsoleState, Secret, Stage, Typing, ViewerInfo


class FakeConsole:
    """Implements :class:`~ipmiproxyd.interfaces.RelayedConsole`.

    :ivar server: what ``screen`` hands out while the console is ready.
    :ivar secrets: what the login buttons type; ``login_buttons`` is whether there are any.
    :ivar told: the calls of the relay, in order: "viewers N", "typing DONE/OF", "typing over", "active", "close".
    :ivar cancelled: how many waits for news were cancelled.
    """

    def __init__(self, console_id: str = "c1", display: IStreamClientEndpoint | None = None) -> None:
        self.server = None if display is None else VncServer(display)
        self.login_buttons = True
        self.secrets = {"username": Secret("ADMIN"), "password": Secret("hunter2")}
        self.told: list[str] = []
        self.cancelled = 0
        self.waiting: list[tuple[int, Deferred[None]]] = []
        self._snapshot = Console(
            id=console_id,
            serial=1,
            device="node17",
            bmc="192.0.2.1:623",
            type="panel",
            user="ann",
            agent="local",
            state=ConsoleState.READY if display is not None else ConsoleState.OPENING,
            stages=(Stage("display", "Starting the display", 12, 130), Stage("browser", "Starting <b>it</b>", 130)),
            display=1,
            relay_port=None,
            viewers=(),
            opened_at=1000.0,
            ready_at=None,
            last_activity=1000.0,
            idle=600.0,
            max_time=None,
        )

    @property
    def id(self) -> str:
        return self._snapshot.id

    def snapshot(self) -> Console:
        return self._snapshot

    def change(self, **changes: Any) -> None:
        """Change the snapshot, and tell whoever waits."""

        self._snapshot = replace(self._snapshot, serial=self._snapshot.serial + 1, **changes)
        for since, deferred in tuple(self.waiting):
            if self._snapshot.serial > since:
                self.waiting.remove((since, deferred))
                deferred.callback(None)

    def when_changed(self, serial: int) -> Deferred[None]:
        if self._snapshot.serial > serial:
            return succeed(None)
        deferred: Deferred[None] = Deferred(self._forget)
        self.waiting.append((serial, deferred))
        return deferred

    def _forget(self, deferred: Deferred[None]) -> None:
        self.cancelled += 1
        self.waiting = [entry for entry in self.waiting if entry[1] is not deferred]

    def screen(self) -> VncServer:
        if self._snapshot.state is not ConsoleState.READY or self.server is None:
            raise BmcState("The console's screen is not there yet.")
        return self.server

    def viewers_changed(self, viewers: Sequence[ViewerInfo]) -> None:
        self.told.append(f"viewers {len(viewers)}")
        self.change(viewers=tuple(viewers))

    def typing_changed(self, typing: Typing | None) -> None:
        self.told.append("typing over" if typing is None else f"typing {typing.done}/{typing.of}")
        self.change(typing=typing)

    def credential(self, which: Literal["username", "password"]) -> Secret:
        if not self.login_buttons:
            raise Forbidden("The login buttons of this console are off.")
        if not self.secrets[which]:
            raise BadValue(f"The device has no {which}.")
        return self.secrets[which]

    def user_active(self) -> None:
        self.told.append("active")

    def close_by_viewer(self) -> None:
        self.told.append("close")
