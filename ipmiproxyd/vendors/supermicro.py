"""Supermicro boards with ATEN firmware: X9 to X13, some X8.

The panel answers nearly everything with status 200; what a page says is in its words. Signing out ends a running KVM.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from ipmiproxyd.errors import BmcUnsupported
from ipmiproxyd.vendors.family import Family, Page
from ipmiproxyd.vendors.talk import Answer, Pause, Request, Site, Talk, WebSession
from ipmiproxyd.vendors.words import ended, html5_only, is_jnlp, json_of, no_slot, odd, text_in, wrong_password

_LOGIN: Final = "/cgi/login.cgi"
_REDIRECT: Final = "/cgi/url_redirect.cgi"
_SESSIONS: Final = "/redfish/v1/SessionService/Sessions"
_IKVM: Final = "/redfish/v1/Managers/1/Oem/Supermicro/IKVM"
_HTML5: Final = f"{_REDIRECT}?url_name=man_ikvm_html5_bootstrap"

_SIGNED_IN: Final = "url_name=mainmenu"
_SIGNED_OUT: Final = re.compile(r"SessionTimeout\(\);|Please Login", re.IGNORECASE)
_REFUSED: Final = re.compile(
    r"url_name=login_alert|alert\(|Please Login|http-equiv=\"?refresh\"?\s+content=\"0;\s*url=/\"", re.IGNORECASE
)
_FULL: Final = re.compile(r"max\w*\b[^<>'\"]{0,40}\bsession|session[^<>'\"]{0,40}\b(full|exceed)", re.IGNORECASE)
_MISSING: Final = re.compile(r"File Not Found", re.IGNORECASE)


class Supermicro(Family):
    """See the module."""

    key = "supermicro"
    label = "Supermicro (ATEN firmware)"
    evidence = "12 projects"
    manufacturers = frozenset({10876})
    probes = ("/",)
    consoles = frozenset({"java", "html5"})
    java_ports = (623, 5120, 5122, 5123, 5900, 5901, 63630)  # 63630: with TLS switched off
    browser_cookies = ("SID",)
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        page = seen["/"].text if "/" in seen else ""
        if re.search(r"<meta\s+name=\"?ATEN International", page, re.IGNORECASE):
            return "its first page names ATEN International"
        if re.search(r"action=[\"']?/cgi/login\.cgi", page, re.IGNORECASE):
            return "its first page signs in at /cgi/login.cgi"
        if 'data-trn-key="LANG_LOGIN_LOGIN"' in page:
            return "its first page has Supermicro's login button"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        first = yield Request("/", redirects=2)
        answer = yield Request(
            _LOGIN, method="POST", form=_form(site, first.text), headers={"Referer": f"{site.url}/"}
        )  # fmt: skip
        if answer.status == 400:
            # X12 and X13 do not read this form at all: nobody has judged the password yet.
            return (yield from self._redfish(site))
        sid = answer.cookies.get("SID", "")
        page = answer.text
        if _FULL.search(page):
            raise no_slot()
        if answer.status == 200 and (not page.strip() or _REFUSED.search(page)):
            raise wrong_password()
        if answer.status != 200 or _SIGNED_IN not in page or not sid:
            raise odd("the sign-in", answer)
        return WebSession(family=self.key, cookies={"SID": sid})

    def _redfish(self, site: Site) -> Talk[WebSession]:
        body = json.dumps({"UserName": site.username, "Password": site.password.reveal()}).encode()
        answer = yield Request(_SESSIONS, method="POST", body=body, content_type="application/json")
        token, sid = answer.header("x-auth-token"), answer.cookies.get("SID", "")
        if answer.status in {401, 403}:
            raise wrong_password()
        if "SessionLimitExceeded" in answer.text:
            raise no_slot()
        if answer.status not in {200, 201} or not token:
            raise odd("the sign-in", answer)
        place = urlsplit(answer.header("location")).path
        if not place.startswith("/redfish/"):
            place = f"{_SESSIONS}/{quote(text_in(json_of(answer), 'Id'), safe='')}"
        return WebSession(
            family=self.key, cookies={"SID": sid} if sid else {}, tokens={"redfish": token, "place": place}
        )  # fmt: skip

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        if "redfish" in session.tokens:
            yield Request(
                session.tokens["place"], method="DELETE", headers={"X-Auth-Token": session.tokens["redfish"]}
            )  # fmt: skip
        else:
            yield Request("/cgi/logout.cgi", headers={"Referer": f"{site.url}/"}, cookies=session.cookies)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        answer: Answer | None = None
        missing = False
        for request in _ladder(site, session):
            answer = yield request
            if answer.status == 500:  # some do so shortly after a sign-in
                yield Pause(1.0)
                answer = yield request
            if is_jnlp(answer):
                return answer.body
            if answer.status >= 500:
                break
            if "url_type=jwsk" in request.path and _SIGNED_OUT.search(answer.text):
                raise ended()
            missing = missing or answer.status == 404 or bool(_MISSING.search(answer.text))
        if missing and answer is not None and answer.status < 500:
            raise html5_only()
        raise odd("the request for the Java console", answer or Answer(0))

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:
        token = session.tokens.get("redfish")
        if token:
            answer = yield Request(_IKVM, headers={"X-Auth-Token": token})
            place = urlsplit(text_in(json_of(answer), "URI")).path
            if not place.startswith("/"):
                raise odd("the request for the HTML5 console", answer)
            return Page(path=place, cookies=session.cookies)
        answer = yield Request(_HTML5, headers=_referer(site, "man_ikvm"), cookies=session.cookies)
        if answer.status == 404 or _MISSING.search(answer.text):
            raise BmcUnsupported("This panel has no HTML5 console.", hint="Use type=java or type=panel.")
        if answer.status != 200:
            raise odd("the request for the HTML5 console", answer)
        return Page(path=_HTML5, cookies=session.cookies, referer=f"{_REDIRECT}?url_name=man_ikvm")


def _form(site: Site, login_page: str) -> list[tuple[str, str]]:
    """What the login page's script would send."""

    user, password = site.username, site.password.reveal()
    if "btoa" in login_page:
        user, password = (base64.b64encode(text.encode()).decode() for text in (user, password))
    form = [("name", user), ("pwd", password)]
    if re.search(r"name=[\"']?check\b", login_page):
        form.append(("check", "00"))
    return form


def _referer(site: Site, page: str) -> dict[str, str]:
    return {"Referer": f"{site.url}{_REDIRECT}?url_name={page}"}


def _ladder(site: Site, session: WebSession) -> list[Request]:
    """Where firmware versions have had their JNLP, the best known first."""

    cookies, headers = session.cookies, _referer(site, "man_ikvm")

    def get(path: str) -> Request:
        return Request(path, headers=headers, cookies=cookies)

    wanted = [
        get(f"{_REDIRECT}?url_name=ikvm&url_type=jwsk"),
        get(f"{_REDIRECT}?url_name=man_ikvm&url_type=jwsk"),
        get(f"{_REDIRECT}?url_name=mainmenu"),
        get(f"{_REDIRECT}?url_name=man_ikvm"),
        get(f"{_REDIRECT}?url_name=ikvm&url_type=jwsk"),
        get(f"{_REDIRECT}?url_name=&url_type=jwsk"),
    ]
    sid = cookies.get("SID", "")
    if sid:
        name = f"sess_{sid}"
        form = [("url_name", name), ("url_type", "jwsk")]
        wanted += [
            get("/cgi/Build_jnlp.cgi"),
            get(f"/jnlp/{quote(name, safe='')}.jnlp"),
            Request(_REDIRECT, method="POST", form=form, headers=headers, cookies=cookies),
        ]
    return wanted


FAMILIES: Final[Sequence[Family]] = (Supermicro(),)
