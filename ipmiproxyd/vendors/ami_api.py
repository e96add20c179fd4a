"""AMI MegaRAC with its newer interface, JSON below ``/api``: ASRock Rack, Gigabyte, Quanta, Inspur, Lenovo SR650, H3C.

Every request after the sign-in carries the session's CSRF token in a header. The HTML5 viewer takes what it needs from
the browser's sessionStorage, where the panel's own page would have put it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ipmiproxyd.errors import BmcUnsupported, Html5Only, ProxyError
from ipmiproxyd.vendors.family import Family, Page
from ipmiproxyd.vendors.ports import AMI
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession
from ipmiproxyd.vendors.words import ended, is_jnlp, json_of, locked, no_slot, odd, text_in, wrong_password

_SESSION: Final = "/api/session"
_COOKIE: Final = "QSESSIONID"
_TOKEN_COOKIE: Final = "__Host-garc"  # noqa: S105 - a name
_TABLE_FULL: Final = "15000"
_NO_SUCH_CALL: Final = "1010"
_ADMINISTRATOR: Final = "4"
_ROLES: Final = {"4": "Administrator", "3": "Operator", "2": "User"}

_DESCRIPTIONS: Final = (
    ("/api/kvmjnlp?&JNLPSTR=JViewer",),
    ("/api/remote_control/get/kvm/launch",),
    ("/api/asrr/java-console",),
    ("/api/kvm/download", "/video/jviewer.jnlp"),
)
"""Where boards have their JNLP, the best known first; of several requests the last gives it."""


class AmiApi(Family):
    """See the module."""

    key = "ami-api"
    label = "AMI MegaRAC (/api: ASRock Rack, Gigabyte, Quanta, Inspur)"
    evidence = "7 projects; JNLP 6; HTML5 1 project"
    manufacturers = frozenset({7244, 15370, 20974, 25506, 37945, 40092, 49622})
    probes = ("/", "/api/session")
    consoles = frozenset({"java", "html5"})
    java_ports = AMI
    slot_seconds = 1800
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        page = seen.get("/", Answer(0)).text
        if 'data-main="/app/main"' in page or "source.min.js" in page:
            return "its first page loads AMI's program"
        if "<title>Quanta Cloud</title>" in page:
            return "the title of its first page is Quanta Cloud"
        said = json_of(seen.get(_SESSION, Answer(0)))
        if "cc" in said or {"error", "code"} <= said.keys():
            return f"{_SESSION} answers as AMI's does"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        # Some firmware signs in only who brings the cookie of its first page.
        first = yield Request("/")
        form = [("username", site.username), ("password", site.password.reveal())]
        headers = {"X-CSRFTOKEN": "null", "Origin": site.url, "Referer": f"{site.url}/"}
        answer = yield Request(_SESSION, method="POST", form=form, headers=headers, cookies=first.cookies)
        said = json_of(answer)
        csrf, cookies = text_in(said, "CSRFToken"), {**first.cookies, **answer.cookies}
        if answer.status not in {200, 201} or text_in(said, "ok") not in {"", "0"} or not csrf:
            raise _refusal(answer, said)
        if _COOKIE not in answer.cookies:
            raise odd("the sign-in", answer)
        known = {name: text_in(said, name) for name in ("privilege", "extendedpriv", "racsession_id")}
        return WebSession(family=self.key, cookies=cookies, tokens={"csrf": csrf, "user": site.username, **known})

    def in_browser(self, cookies: Mapping[str, str]) -> WebSession | None:
        """Only the latest firmware has the token as a cookie; of others it is in the page."""

        if _COOKIE not in cookies or _TOKEN_COOKIE not in cookies:
            return None
        known = {name: value for name, value in cookies.items() if name != _TOKEN_COOKIE}
        return WebSession(family=self.key, cookies=known, tokens={"csrf": cookies[_TOKEN_COOKIE]})

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        yield _ask(site, session, _SESSION, "DELETE")

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        for steps in _DESCRIPTIONS:
            answer = Answer(0)
            for path in steps:
                answer = yield _ask(site, session, path)
                if _absent(answer):
                    break
            if _absent(answer):
                continue
            if is_jnlp(answer):
                return answer.body
            if answer.status == 403:  # so says a board whose table of KVM sessions is full
                raise no_slot()
            raise ended() if answer.status == 401 else odd("the request for the Java console", answer)
        raise Html5Only("The panel offers no Java console.", hint="Use type=html5 or type=panel.")

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:
        features = yield _ask(site, session, "/api/configuration/project")
        token = yield _ask(site, session, "/api/kvm/token")
        if _absent(token):
            raise BmcUnsupported(
                "This panel's HTML5 console cannot be opened signed in.", hint="Use type=panel or type=java."
            )
        if token.status == 403:
            raise no_slot()
        if token.status != 200 or not text_in(json_of(token), "token"):
            raise ended() if token.status == 401 else odd("the request for the HTML5 console", token)
        known = session.tokens
        privilege = known.get("privilege") or _ADMINISTRATOR
        storage = {
            "garc": known["csrf"],
            "token": token.text,
            "features": features.text if features.status == 200 else "[]",
            "privilege": _ROLES.get(privilege, ""),
            "privilege_id": privilege,
            "extended_privilege": known.get("extendedpriv", ""),
            "session_id": known.get("racsession_id", ""),
            "id": known.get("racsession_id", ""),
            "username": known.get("user", ""),
            "server_addr": site.address,
            "kvm_access": "1",
            "vmedia_access": "1",
        }
        return Page(path="/viewer.html", cookies=_cookies(site, session), storage=storage)


def _cookies(site: Site, session: WebSession) -> dict[str, str]:
    """With the token once more as a cookie, which the latest firmware compares with the header."""

    more = {_TOKEN_COOKIE: session.tokens["csrf"]} if site.scheme == "https" else {}
    return {**session.cookies, **more}


def _ask(site: Site, session: WebSession, path: str, method: str = "GET") -> Request:
    headers = {"X-CSRFTOKEN": session.tokens["csrf"], "Referer": f"{site.url}/"}
    return Request(path, method=method, headers=headers, cookies=_cookies(site, session))


def _absent(answer: Answer) -> bool:
    return answer.status in {404, 405} or text_in(json_of(answer), "code") == _NO_SUCH_CALL


def _refusal(answer: Answer, said: dict[str, Any]) -> ProxyError:
    error = text_in(said, "error").lower()
    if text_in(said, "code") == _TABLE_FULL or "maximum number of sessions" in error:
        return no_slot()
    if "locked" in error:
        return locked()
    if answer.status in {401, 403} or (answer.status == 200 and (error or text_in(said, "ok") not in {"", "0"})):
        return wrong_password()
    return odd("the sign-in", answer)


FAMILIES: Final[Sequence[Family]] = (AmiApi(),)
