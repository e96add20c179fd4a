"""Dell's iDRAC9: JSON, user name and password in headers, a token against forged requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from ipmiproxyd.errors import BmcUnsupported, Html5Only, ProxyError
from ipmiproxyd.vendors import words
from ipmiproxyd.vendors.family import Family, Page
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_START: Final = "/restgui/start.html"
_INFO: Final = "/sysmgmt/2015/bmc/info"
_SESSION: Final = "/sysmgmt/2015/bmc/session"
_CONSOLE: Final = "/sysmgmt/2015/server/vconsole"
_KVM_SESSION: Final = (
    "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DelliDRACCardService/Actions/DelliDRACCardService.GetKVMSession"
)
_COOKIE: Final = "-http-session-"
_TOKEN: Final = "XSRF-TOKEN"  # noqa: S105
_REFUSALS: Final = frozenset({"1", "2", "3"})


class Idrac9(Family):
    """Also the default password signs in: authResult is 7 then, a warning."""

    key = "idrac9"
    label = "Dell iDRAC9"
    evidence = "6 projects; Java: 3 projects, not in newer firmware; HTML5: 2 projects"
    manufacturers = frozenset({674})
    probes = (_START, "/", _INFO)
    consoles = frozenset({"java", "html5"})
    java_ports = (5900, 5901)
    panel_ports = (5900,)  # of older firmware, whose HTML5 console is there

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        for path in self.probes:
            answer = seen.get(path)
            if answer and answer.status == 200 and "<idrac-start-screen" in answer.text:
                return f"{path} has the element idrac-start-screen"
        root = seen.get("/")
        if root and _START in root.header("location") + root.path:
            return f"its first page leads to {_START}"
        told = _attributes(seen.get(_INFO))
        if "FwVer" in told and words.text_in(told, "ServerGen") not in {"", "11G", "12G", "13G"}:
            return f"{_INFO} tells of firmware {words.text_in(told, 'FwVer')[:20]}"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        user, password = site.username, site.password.reveal()
        if not (user + password).isprintable():
            raise BmcUnsupported("An iDRAC9 takes no user name or password with control characters.")
        headers = {"user": f'"{user}"', "password": f'"{password}"'}
        answer = yield Request(_SESSION, method="POST", body=b"", headers=headers)
        said = words.json_of(answer)
        result = words.text_in(said, "authResult")
        if answer.status == 201 and result not in _REFUSALS and _COOKIE in answer.cookies:
            token = answer.header(_TOKEN)
            return WebSession(family=self.key, cookies=answer.cookies, tokens={_TOKEN: token} if token else {})
        if answer.status == 503 or result == "5" or "RAC0218" in answer.text:
            raise words.no_slot()
        if waits := words.number_in(said, "blockingTime"):
            raise words.locked(waits)
        if answer.status == 401 or result in _REFUSALS:
            raise words.wrong_password()
        raise words.odd("signing in", answer)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        yield Request(_SESSION, method="DELETE", headers=session.tokens, cookies=session.cookies)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:  # noqa: ARG002
        answer = yield Request(f"{_CONSOLE}?type=Java", headers=session.tokens, cookies=session.cookies)
        if words.is_jnlp(answer):
            return answer.body
        said = words.json_of(answer)
        if answer.status == 200 and words.text_in(said, "Location"):
            raise words.html5_only()
        if answer.status in {400, 404}:
            raise Html5Only("The panel's firmware has no Java console any more.", hint="Use type=html5.")
        raise (yield from _why_not(answer, session)) or words.odd("the request for the Java console", answer)

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:
        answer = yield Request(_CONSOLE, headers=session.tokens, cookies=session.cookies)
        place = words.text_in(words.json_of(answer), "Location") if answer.status == 200 else ""
        if not place and answer.status != 404:
            raise (yield from _why_not(answer, session)) or words.odd("the request for the HTML5 console", answer)
        if path := _here(site, place):
            return Page(path=path, cookies=session.cookies)
        return (yield from _temporary(site))


def _here(site: Site, place: str) -> str:
    """The path of a place on the panel itself; empty if it is elsewhere: older firmware has a console on port 5900."""

    try:
        parts = urlsplit(place)
    except ValueError:
        return ""
    own = site.host if site.host.rpartition(":")[2].isdecimal() else f"{site.host}:443"
    if not parts.path or (parts.netloc and parts.netloc not in {site.host, own}):
        return ""
    return f"/{parts.path.lstrip('/')}" + (f"?{parts.query}" if parts.query else "")


def _temporary(site: Site) -> Talk[Page]:
    """By an account for one console. Redfish does not take the panel's session, so the credentials, which have just
    been accepted, are sent once more."""

    pair = base64.b64encode(f"{site.username}:{site.password.reveal()}".encode()).decode("ascii")
    answer = yield Request(
        _KVM_SESSION,
        method="POST",
        body=json.dumps({"SessionTypeName": "HTML5"}).encode(),
        content_type="application/json",
        headers={"Authorization": f"Basic {pair}"},
    )
    said = words.json_of(answer)
    user, password = words.text_in(said, "TempUsername"), words.text_in(said, "TempPassword")
    if answer.status in {401, 403}:
        raise words.no_right()
    if not (user and password):
        if answer.status in {400, 404, 405}:
            raise BmcUnsupported(
                "The panel's HTML5 console is on a port of its own, and its firmware has no other way to it.",
                hint="Use type=panel or type=java, or update the iDRAC.",
            )
        raise words.odd("the request for the HTML5 console", answer)
    query = {"username": site.username, "tempUsername": user, "tempPassword": password}
    return Page(path="/console?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items()))


def _why_not(answer: Answer, session: WebSession) -> Talk[ProxyError | None]:
    """Why the panel did not give a console; the error to raise, or None if that cannot be told."""

    if answer.status in {301, 302, 303, 401}:
        return words.ended()
    if answer.status == 403:
        return words.no_right()
    if answer.status == 503:
        return words.no_slot()
    if answer.status != 200:
        return None
    info = yield Request(_INFO, headers=session.tokens, cookies=session.cookies)
    licence = words.text_in(_attributes(info), "License")
    if licence and licence not in {"Enterprise", "Datacenter"}:
        return words.no_licence("iDRAC9 Enterprise")
    return BmcUnsupported(
        "The panel gives no console: its virtual console is switched off, or it has no licence for it.",
        hint="Look at the virtual console's settings and at the licences in the panel.",
    )


def _attributes(answer: Answer | None) -> dict[str, Any]:
    told = words.json_of(answer).get("Attributes") if answer and answer.status == 200 else None
    return told if isinstance(told, dict) else {}


FAMILIES: Final[Sequence[Family]] = (Idrac9(),)
