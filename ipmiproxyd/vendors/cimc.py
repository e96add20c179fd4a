"""Cisco's Integrated Management Controller (UCS C-Series), by its XML API.

Errors come in a 200: ``<aaaLogin … errorCode="551" errorDescr="Authentication failed"/>``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from ipmiproxyd.errors import BmcError
from ipmiproxyd.vendors import words
from ipmiproxyd.vendors.family import Family, Page
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_AUTH: Final = "551"
_GONE: Final = "552"
_FULL_WORDS: Final = ("maximum", "too many", "session limit", "sessions")
_PAGES: Final = ("/html/kvmViewer.html", "/html/kvm.html")


class Cimc(Family):
    """The viewer signs in with two tokens that live only as long as the XML session."""

    key = "cimc"
    label = "Cisco CIMC (UCS C-Series)"
    evidence = "6 projects; HTML5 1 project"
    manufacturers = frozenset({5771})
    probes = ("/", "/login.html")
    consoles = frozenset({"java", "html5"})
    java_ports = html5_ports = (2068,)
    slot_seconds = 600
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        for path in self.probes:
            page = seen.get(path)
            if page and page.status == 200 and "<title>Cisco Integrated Management Controller" in page.text:
                return f"the title of {path} is Cisco Integrated Management Controller"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        attributes = {"inName": site.username, "inPassword": site.password.reveal()}
        said = _said("aaaLogin", (yield _call("aaaLogin", attributes)), "signing in")
        if cookie := said.get("outCookie", ""):
            return WebSession(family=self.key, tokens={"cookie": cookie})
        described = said.get("errorDescr", "").lower()
        if "locked" in described:
            raise words.locked()
        if any(word in described for word in _FULL_WORDS):
            raise words.no_slot()
        if said.get("errorCode") == _AUTH:
            raise words.wrong_password()
        raise BmcError("The panel did not sign in, and does not say why.", hint="Open it with type=panel.")

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        cookie = session.tokens["cookie"]
        yield _call("aaaLogout", {"cookie": cookie, "inCookie": cookie})

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        answer = yield Request(f"/kvm.jnlp?{(yield from _tokens(site, session))}")
        if answer.status == 404:
            raise words.html5_only()
        return words.jnlp_of(answer)

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:
        """Which of the two pages there is depends on the firmware; asked for without the tokens."""

        for path in _PAGES:
            if (yield Request(path)).status == 200:
                return Page(path=f"{path}?{(yield from _tokens(site, session))}")
        raise BmcError(
            "The panel has none of the known HTML5 consoles.", hint="Its firmware may be too old. Use type=java."
        )


def _tokens(site: Site, session: WebSession) -> Talk[str]:
    """The query that opens a viewer: two new tokens, good once."""

    said = _said(
        "aaaGetComputeAuthTokens",
        (yield _call("aaaGetComputeAuthTokens", {"cookie": session.tokens["cookie"]})),
        "the request for the console's tokens",
    )
    described = said.get("errorDescr", "").lower()
    if "privilege" in described or "not authorized" in described:
        raise words.no_right()
    if any(word in described for word in _FULL_WORDS):
        raise words.no_slot()
    one, _, two = said.get("outTokens", "").partition(",")
    if not (one and two):
        hint = "The session is over: try again." if said.get("errorCode") == _GONE else "Is the KVM enabled there?"
        raise BmcError("The panel gives no tokens for its console.", hint=hint)
    host = f"[{site.address}]" if ":" in site.address else site.address
    return urlencode({"cimcAddr": host, "cimcName": site.title, "tkn1": one.strip(), "tkn2": two.strip()})


def _call(name: str, attributes: Mapping[str, str]) -> Request:
    """A call of the XML API; whatever the attributes hold is escaped."""

    body = ET.tostring(ET.Element(name, dict(attributes)))
    return Request("/nuova", method="POST", body=body, content_type="application/x-www-form-urlencoded")


def _said(name: str, answer: Answer, request: str) -> Mapping[str, str]:
    """The attributes of the answer's element. A document type (and so entities) is not accepted."""

    text = answer.text  # the same text is looked at and parsed: an encoding of the panel's choice hides nothing
    if answer.status >= 400 or "<!" in text:
        raise words.odd(request, answer)
    try:
        element = ET.fromstring(text)  # noqa: S314 - it declares no entities, see above
    except ET.ParseError:
        raise words.odd(request, answer) from None
    if element.tag not in {name, "error"}:
        raise words.odd(request, answer)
    return element.attrib


FAMILIES: Final[Sequence[Family]] = (Cimc(),)
