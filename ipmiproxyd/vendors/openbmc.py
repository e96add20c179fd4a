"""OpenBMC (bmcweb with webui-vue): an HTML5 console only.

Its page needs two cookies: the session, and the CSRF token, which its script sends as the WebSocket's subprotocol to
``/kvm/0``. ``/login`` has given both since the beginning; where a build lacks it, a Redfish session that is asked for
as a browser does (X-Requested-With) gives them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from ipmiproxyd.errors import BmcPrivilege, BmcUnsupported
from ipmiproxyd.vendors.family import Family, Page
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession
from ipmiproxyd.vendors.words import json_of, locked, no_slot, odd, wrong_password

_LOGIN: Final = "/login"
_SESSIONS: Final = "/redfish/v1/SessionService/Sessions"
_TOKEN: Final = "XSRF-TOKEN"  # noqa: S105 - a cookie's name
_CONSOLE: Final = "/#/console/kvm"
_MARKS: Final = ("OpenBMC", "webui-vue", "phosphor-webui")
_JSON: Final = "application/json"


class OpenBmc(Family):
    """See the module."""

    key = "openbmc"
    label = "OpenBMC"
    evidence = "OpenBMC's own code; not confirmed on hardware"
    probes = ("/", "/redfish/v1/")
    consoles = frozenset({"html5"})
    slot_seconds = 1800
    browser_cookies = (_TOKEN,)  # the name of the other has changed

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        page = seen.get("/", Answer(0)).text
        if mark := next((mark for mark in _MARKS if mark in page), ""):
            return f"its first page says {mark}"
        for path in ("/redfish/v1/", "/redfish/v1"):
            said = json_of(seen.get(path, Answer(0)))
            oem, links = said.get("Oem"), said.get("Links")
            if isinstance(oem, dict) and "OpenBMC" in oem:
                return "Redfish names OpenBMC"
            if isinstance(links, dict) and links.get("ManagerProvidingService") == {
                "@odata.id": "/redfish/v1/Managers/bmc"
            }:
                return "Redfish calls its manager “bmc”"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        page = yield Request(_LOGIN)
        by_redfish = page.status == 404  # a build without /login; others answer that they want a POST
        user, password = site.username, site.password.reveal()
        credentials = {"UserName": user, "Password": password} if by_redfish else {"data": [user, password]}
        answer = yield Request(
            _SESSIONS if by_redfish else _LOGIN,
            method="POST",
            body=json.dumps(credentials).encode(),
            content_type=_JSON,
            headers={"X-Requested-With": "XMLHttpRequest"},
        )
        cookies, token = answer.cookies, answer.header("x-auth-token")
        said = answer.text
        if answer.status in {200, 201} and (_TOKEN in cookies or token):
            place = urlsplit(answer.header("location")).path
            more = {"place": place, "token": token} if by_redfish else {}
            return WebSession(family=self.key, cookies=cookies, tokens=more)
        if "PasswordChangeRequired" in said:
            raise BmcPrivilege("The panel wants this user's password changed first.", hint="Do so with type=panel.")
        if "SessionLimitExceeded" in said or answer.status == 503:
            raise no_slot()
        if "AccountLocked" in said or "locked" in said.lower():
            raise locked()
        if answer.status in {401, 403}:
            raise wrong_password()
        raise odd("the sign-in", answer)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        headers = {"X-XSRF-TOKEN": session.cookies[_TOKEN]} if _TOKEN in session.cookies else {}
        if token := session.tokens.get("token"):
            headers["X-Auth-Token"] = token
        place = session.tokens.get("place", "")
        if place.startswith("/redfish/"):
            yield Request(place, method="DELETE", headers=headers, cookies=session.cookies)
        else:
            body = b'{"data": []}'
            yield Request(
                "/logout", method="POST", body=body, content_type=_JSON, headers=headers, cookies=session.cookies
            )  # fmt: skip

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:  # noqa: ARG002
        if _TOKEN not in session.cookies:
            raise BmcUnsupported("This panel's HTML5 console cannot be opened signed in.", hint="Use type=panel.")
        answer = yield Request("/redfish/v1/Managers/bmc", headers={"Accept": _JSON}, cookies=session.cookies)
        if answer.status >= 500:
            raise odd("the request for its manager", answer)
        graphical = json_of(answer).get("GraphicalConsole")
        if isinstance(graphical, dict) and graphical.get("ServiceEnabled") is False:
            raise BmcUnsupported("The panel's console is switched off.", hint="Switch KVM on in the panel.")
        return Page(path=_CONSOLE, cookies=session.cookies)


FAMILIES: Final[Sequence[Family]] = (OpenBmc(),)
