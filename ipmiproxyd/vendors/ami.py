"""AMI MegaRAC with its older interface, ``.asp`` pages: ASUS, Tyan, Quanta, Inspur, ThinkServer, Supermicro X8.

Answers are JavaScript with the data in it, always with status 200:

    WEBVAR_JSONVAR_WEB_SESSION = { WEBVAR_STRUCTNAME_WEB_SESSION : [ { 'SESSION_COOKIE' : '…' },  {} ], HAPI_STATUS:0 };

The session's cookie is in there; no header sets it. Signing out ends a running KVM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.ports import AMI
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession
from ipmiproxyd.vendors.words import is_jnlp, no_right, no_slot, odd, wrong_password

_FULL: Final = 3
_NO_ACCESS: Final = 0xD4
_STATUS: Final = re.compile(r"HAPI_STATUS['\"]?\s*[:=]\s*(-?(?:0x[0-9a-fA-F]+|\d+))")
_FAILURE: Final = "Failure_Login"
_EXPIRED: Final = "session_expired"
_UNFILLED: Final = ("Unable to find JNLP String", "Access Error")
_VIDEO_PORT: Final = "7578"


class Ami(Family):
    """See the module."""

    key = "ami"
    label = "AMI MegaRAC (.asp: ASUS, Tyan, Quanta, Supermicro X8)"
    evidence = "12 projects"
    manufacturers = frozenset({2623, 6653, 7244, 10876, 20301, 20974, 37945})
    probes = ("/", "/page/login.html")
    java_ports = AMI
    slot_seconds = 1800
    browser_cookies = ("SessionCookie",)
    java = "jdk_7u80"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        root = seen.get("/", Answer(0))
        way = root.header("location") + root.path
        if "/page/login.html" in way or way.endswith("/login.asp"):
            return "its first page leads to AMI's sign-in"
        if re.search(r"/page/login\.html|/lib/xmit\.js|(?:href|src|location)\W{1,8}/?login\.asp", root.text):
            return "its first page leads to AMI's sign-in"
        page = seen.get("/page/login.html", Answer(0))
        if page.status == 200 and re.search(r"res/banner_right\.png|lib/xmit\.js|/rpc/WEBSES/", page.text):
            return "/page/login.html is AMI's"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        form = [("WEBVAR_USERNAME", site.username), ("WEBVAR_PASSWORD", site.password.reveal())]
        answer = yield Request("/rpc/WEBSES/create.asp", method="POST", form=form)
        said = answer.text
        status, cookie = _status(said), _value(said, "SESSION_COOKIE")
        if status == _FULL:
            raise no_slot()
        if status == _NO_ACCESS:
            raise no_right()
        if status or cookie.startswith(_FAILURE):
            raise wrong_password()
        if answer.status != 200 or not cookie:
            raise odd("the sign-in", answer)
        csrf = _value(said, "CSRFTOKEN")
        return WebSession(
            family=self.key, cookies={"SessionCookie": cookie}, tokens={"csrf": csrf} if csrf else {}
        )  # fmt: skip

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        yield _get(site, session, "/rpc/WEBSES/logout.asp")

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        address = quote(site.address, safe=":")
        answer = Answer(0)
        for query in (f"?EXTRNIP={address}&JNLPSTR=JViewer", "", f"?ext_ip={address}"):
            answer = yield _get(site, session, f"/Java/jviewer.jnlp{query}")
            if any(words in answer.text for words in _UNFILLED):
                return (yield from self._filled(site, session))
            if is_jnlp(answer):
                return answer.body
            if _EXPIRED in answer.text:
                raise no_slot()
            if answer.status != 404:
                break
        raise odd("the request for the Java console", answer)

    def _filled(self, site: Site, session: WebSession) -> Talk[bytes]:
        """Some boards give a description without arguments: made here from what they should be."""

        answer = yield _get(site, session, "/rpc/getsessiontoken.asp")
        token = _value(answer.text, "STOKEN") or _value(answer.text, "SESSION_TOKEN")
        if not token:
            raise odd("the request for the Java console", answer)
        arguments = (site.address, _VIDEO_PORT, token, session.cookies["SessionCookie"])
        return _description(site, arguments).encode()


def _get(site: Site, session: WebSession, path: str) -> Request:
    headers = {"Referer": f"{site.url}/page/dashboard.html"}
    if "csrf" in session.tokens:
        headers |= dict.fromkeys(("CSRFTOKEN", "X-CSRFTOKEN"), session.tokens["csrf"])
    # The length that it tells for the JNLP is too large.
    return Request(path, headers=headers, cookies=session.cookies, ignore_length=path.startswith("/Java/"))


def _status(said: str) -> int:
    found = _STATUS.search(said)
    return int(found[1], 0 if "x" in found[1] else 10) if found else 0


def _value(said: str, name: str) -> str:
    """A value of the script, which is printable."""

    found = re.search(rf"""['"]?\b{name}['"]?\s*[:=]\s*(['"])([\x21-\x7e]*?)\1""", said)
    return found[2] if found else ""


def _description(site: Site, arguments: Sequence[str]) -> str:
    systems = (("Linux", "x86_64"), ("Linux", "amd64"))
    natives = (
        f'<resources os="{system}" arch="{arch}"><nativelib href="release/Linux_x86_64.jar"/></resources>'
        for system, arch in systems
    )
    given = "".join(f"<argument>{escape(argument)}</argument>" for argument in arguments)
    return (
        f'<jnlp spec="1.0+" codebase="{escape(site.url)}/Java"><information><title>JViewer</title></information>'
        '<resources><j2se version="1.7+"/><jar href="release/JViewer.jar"/></resources>'
        f"{''.join(natives)}"
        f'<application-desc main-class="com.ami.kvm.jviewer.JViewer">{given}</application-desc></jnlp>'
    )


FAMILIES: Final[Sequence[Family]] = (Ami(),)
