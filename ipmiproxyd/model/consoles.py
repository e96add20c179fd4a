"""Consoles: how they are asked for, what is seen of them, and the rights to them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ipmiproxyd.model.bmc import Device

ConsoleType = Literal["panel", "panel-debug", "java", "html5", "vnc"]
"""What a console shows: the BMC's web panel in a locked-down browser, or in an ordinary one; the vendor's Java program;
the panel's own HTML5 console; a VNC server that is not ours."""
Clipboard = Literal["off", "in", "out", "both"]
"""Which way texts may go: "in" is from the browser to the server, "out" from the server to the browser."""
Existing = Literal["reuse", "new", "replace"]
AsSet = Literal["default"]
"""Of a proxy's setting: as the daemon's own settings have it, whatever they are by then."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A TLS certificate on the daemon's machine, as PEM: its file, in which those of the authority may follow it, and
    the file of its key; empty if that is in the certificate's."""

    certificate: str
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """How consoles of some locations are opened: what EasyDCIM calls an IPMI proxy server.

    ``agent`` is the one that reaches the BMCs there. ``idle`` in seconds; None for never. ``encrypt``: browsers reach
    its consoles by https and wss, with the certificate in the file ``certificate`` (its key in ``key``, or in the same
    file), or else with the relay's own. ``java`` is the profile of the Java that its consoles run with, or empty for
    the usual one.
    """

    name: str
    agent: str
    locations: tuple[str, ...]
    type: ConsoleType = "java"
    idle: float | AsSet | None = "default"
    login_buttons: bool | AsSet = "default"
    encrypt: bool = False
    certificate: str = ""
    key: str = ""
    java: str = ""

    @property
    def files(self) -> CertificateFiles | None:
        """The certificate that its consoles are served with; None for the relay's own, or for none."""

        return self.named_files if self.encrypt else None

    @property
    def named_files(self) -> CertificateFiles | None:
        """The certificate that is named, in use or not; None if there is none."""

        return CertificateFiles(self.certificate, self.key) if self.certificate else None


class ConsoleState(enum.Enum):
    OPENING = "opening"
    READY = "ready"
    CLOSING = "closing"
    CLOSED = "closed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of opening: a stable ``name``, plain words for people, and milliseconds since opening began at
    which it was begun (and done). ``failed``: that is how it ended, and something else was tried instead."""

    name: str
    label: str
    begun_ms: int
    done_ms: int | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """What ``console open`` asks for. Times in seconds; None for ``idle`` or ``max_time`` means never.

    ``fall_back``: the types that may take the place of ``type``, in this order, where that cannot work. ``proxy`` is
    the name of the one that it goes by, or empty. ``encrypt``: by https and wss; with ``certificate``, or None for the
    relay's own.
    """

    device: Device
    type: ConsoleType = "panel"
    fall_back: tuple[ConsoleType, ...] = ()
    proxy: str = ""
    encrypt: bool = False
    certificate: CertificateFiles | None = None
    user: str = ""
    agent: str = "local"
    idle: float | None = 600.0
    max_time: float | None = None
    existing: Existing = "reuse"
    wait: bool = True
    clipboard: Clipboard = "both"
    login_buttons: bool = True  # whether the BMC's user name and password may be typed by a button


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerInfo:
    """A viewer of a console: one browser, as everybody but the relay sees it.

    :ivar id: that of its grant.
    :ivar peer: where it comes from, for operators only.
    :ivar steers: it has control just now.
    :ivar joined_at: seconds since the epoch.
    """

    id: str
    user: str
    peer: str
    control: bool
    steers: bool
    joined_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Typing:
    """A text that is being typed. ``what``: username, password or text; ``by``: the viewer's id."""

    what: str
    by: str
    done: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """A console as everybody but its machine sees it: a snapshot.

    ``serial`` grows with every change. Times are seconds since the epoch.
    """

    id: str
    serial: int
    device: str
    bmc: str
    type: ConsoleType
    user: str
    agent: str
    proxy: str = ""
    state: ConsoleState
    stages: tuple[Stage, ...]
    display: int | None
    relay_port: int | None
    viewers: tuple[ViewerInfo, ...]  # one for each connection, the longest present first
    opened_at: float
    ready_at: float | None
    last_activity: float
    idle: float | None
    max_time: float | None
    clipboard: Clipboard = "both"
    typing: Typing | None = None
    closes_in: float | None = None  # seconds, in the last minute before it closes by itself
    closes_why: str = ""  # idle or max-time
    slot_since: float | None = None  # since when it holds one of the few slots of its panel
    slot_until: float | None = None  # when that times out by itself, of panels that know no sign-out
    reason: str = ""  # a stable word: idle, closed, viewer, abandoned, max-time, replaced, shutdown, or an error's code
    message: str = ""  # the same in plain words
    log: str = ""  # the file on the agent with what its programs say, while it is open
    agent_away: bool = False  # its agent cannot be reached just now; the console's programs go on there


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The right of one viewer to use one console.

    :ivar id: short, unique among the console's grants; operators and other viewers see it.
    :ivar control: keys, pointer, cut text and closing; without it the viewer watches.
    :ivar credentials: have the BMC's user name and password typed. What is typed lands in whatever has the focus, so
        who has this right can make them visible.
    """

    console: str
    id: str = ""
    user: str = ""
    control: bool = True
    credentials: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRecord:
    """Something that a console must give back. ``data`` is plain JSON; secrets in it are :class:`Secret`."""

    console: str
    seq: int
    kind: str
    key: str
    data: Mapping[str, Any] = field(default_factory=dict)
