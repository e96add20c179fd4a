"""What every family of web panels offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ipmiproxyd.errors import BmcUnsupported
from ipmiproxyd.vendors.ports import Port
from ipmiproxyd.vendors.talk import Answer, Site, Talk, WebSession, refused

ConsoleKind = Literal["java", "html5"]
SignOut = Literal["after-viewer", "after-jnlp", "none"]
"""When the web session may be given back: some viewers die with it. "none": the panel knows no sign-out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An HTML5 console that is opened already signed in.

    :ivar path: of the console's page. May hold a secret (a temporary URL).
    :ivar cookies: to be set for the panel's host before.
    :ivar storage: to be set in the browser's sessionStorage for the panel's origin before.
    :ivar referer: the path of the page that the browser has to say that it comes from, where the panel looks at that.
    """

    path: str = field(repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    storage: Mapping[str, str] = field(default_factory=dict, repr=False)
    referer: str = ""


class Family(ABC):
    """A driver: without state, so that one instance serves everybody.

    Errors are those of :mod:`ipmiproxyd.errors`: BmcAuth for refused credentials (never asked twice), NoSlot,
    NoLicence, Html5Only, BmcLocked (its message names the seconds), BmcPrivilege, BmcUnsupported, BmcError for an
    answer that makes no sense (its message names the request in words and the status, never a body).

    :cvar key: the name in commands and in a device's ``vendor``.
    :cvar label: for people.
    :cvar evidence: how well it is known: in how many public projects' code it was seen, or what else.
    :cvar manufacturers: IANA enterprise numbers that ``ipmitool mc info`` tells of such boards: a hint only.
    :cvar probes: paths to look at, without signing in, to recognise it; the most telling first.
    :cvar consoles: what it has.
    :cvar signs_out: see :data:`SignOut`.
    :cvar slot_seconds: after how long without use the panel forgets a session by itself, where that is known.
    :cvar java_ports: TCP ports of the BMC that its Java console connects to, beside the panel's own one.
    :cvar html5_ports: the same for the page of its HTML5 console.
    :cvar panel_ports: the same for the panel's other pages: a browser for the whole panel gets those of HTML5 too.
    :cvar browser_cookies: those that a browser has that is signed in, where they are enough to sign out.
    :cvar java: the profile of Java that it is known to like, or empty.
    """

    key: ClassVar[str]
    label: ClassVar[str]
    evidence: ClassVar[str]
    manufacturers: ClassVar[frozenset[int]] = frozenset()
    probes: ClassVar[Sequence[str]] = ("/",)
    consoles: ClassVar[frozenset[ConsoleKind]] = frozenset({"java"})
    signs_out: ClassVar[SignOut] = "after-viewer"
    slot_seconds: ClassVar[int | None] = None
    java_ports: ClassVar[Sequence[Port]] = ()
    html5_ports: ClassVar[Sequence[Port]] = ()
    panel_ports: ClassVar[Sequence[Port]] = ()
    browser_cookies: ClassVar[Sequence[str]] = ()
    java: ClassVar[str] = ""

    def ports(self, kind: ConsoleKind | Literal["panel"]) -> Sequence[Port]:
        """What a console of some kind connects to, beside the panel's own port."""

        if kind == "java":
            return self.java_ports
        return self.html5_ports if kind == "html5" else (*self.html5_ports, *self.panel_ports)

    def needed_ports(self) -> Mapping[str, Sequence[Port]]:
        """By kind of console, for those that need any beside the panel's own."""

        kinds: dict[str, Sequence[Port]] = {"panel": self.ports("panel")}
        kinds |= {kind: self.ports(kind) for kind in sorted(self.consoles)}
        return {kind: ports for kind, ports in kinds.items() if ports}

    @abstractmethod
    def recognise(self, seen: Mapping[str, Answer]) -> str:
        """Why this is such a panel, in words, from the answers to some of ``probes`` (by path); empty if it is not."""

    @abstractmethod
    def sign_in(self, site: Site) -> Talk[WebSession]:
        """One attempt. Raises BmcAuth, NoSlot, BmcLocked, …"""

    @abstractmethod
    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        """Whatever the panel answers, it was tried. A session that is gone already is fine."""

    def in_browser(self, cookies: Mapping[str, str]) -> WebSession | None:
        """The session of a browser with these cookies, good enough for :meth:`sign_out`; None if they are not."""

        if not self.browser_cookies or not all(cookies.get(name) for name in self.browser_cookies):
            return None
        return WebSession(family=self.key, cookies=cookies)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:  # noqa: ARG002
        """The description of the Java console, as the panel gives it. Raises NoLicence, Html5Only, NoSlot, …"""

        return refused(BmcUnsupported(f"{self.label} has no Java console.", hint="Use type=html5 or type=panel."))

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:  # noqa: ARG002
        """The page of its HTML5 console, signed in."""

        words = f"{self.label} has no HTML5 console that can be opened signed in."
        return refused(BmcUnsupported(words, hint="Use type=panel."))
