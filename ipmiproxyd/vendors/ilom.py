"""Sun's and Oracle's Integrated Lights Out Managers.

Their web server is a peculiar one: HTTP/1.0, bodies that end with the connection, a status line that newer firmware
may send twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from ipmiproxyd.errors import ProxyError
from ipmiproxyd.vendors import words
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_PAGE: Final = "/iPages/i_login.asp"
_SIGN_IN: Final = "/iPages/loginProcessor.asp"
_TOKEN: Final = (
    re.compile(r"""setElementValue\(\s*["']loginToken["']\s*,\s*["']([^"']+)["']"""),
    re.compile(r"""name=["']loginToken["'][^>]*\bvalue=["']([^"']+)["']""", re.IGNORECASE),
)
_SESSION: Final = re.compile(r'SetWebSessionString\(\s*"([^"\r\n]+)"\s*,\s*"([^"\r\n]+)"\s*\)')
_REFUSED: Final = re.compile(r"i_login\.asp\?msg=(\d+)")
_FULL: Final = "5"


def _ask(request: Request) -> Request:
    return replace(request, ignore_length=True, http10=True)


class _Ilom(Family):
    """Which form is sent is told by the page to sign in, before any password is."""

    manufacturers = frozenset({42, 111})
    probes = (_PAGE, "/")
    java_ports = ((5120, 5123), 5555, 5556, 7578, 7579)
    signs_out = "after-jnlp"
    descriptions: ClassVar[Sequence[str]]

    def sign_in(self, site: Site) -> Talk[WebSession]:
        page = yield _ask(Request(_PAGE))
        if page.status >= 400:
            raise words.odd("the page to sign in", page)
        if token := _login_token(page):
            return (yield from self._sign_in_with_token(site, page, token))
        form = [("username", site.username), ("password", site.password.reveal())]
        answer = yield _post(site, form, page.cookies)
        if found := _SESSION.search(answer.text):
            return WebSession(family=self.key, cookies={found[1]: found[2], "langsetting": "EN"})
        raise _why(answer)

    def _sign_in_with_token(self, site: Site, page: Answer, token: str) -> Talk[WebSession]:
        form = [
            ("sclink", ""),
            ("loginToken", token),
            ("username", site.username),
            ("password", site.password.reveal()),
            ("button", "Log In"),
        ]
        answer = yield _post(site, form, {**page.cookies, "ilom": "1"})
        if session := answer.cookies.get("ORA_ILOM_SESSION_SP"):
            return WebSession(family=self.key, cookies={"ORA_ILOM_SESSION_SP": session})
        raise _why(answer)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        yield _ask(Request("/logout.asp", cookies=session.cookies))

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:  # noqa: ARG002
        answer = Answer(404)
        for path in self.descriptions:
            answer = yield _ask(Request(path, cookies=session.cookies))
            if answer.status != 404:
                break
        if not words.is_jnlp(answer) and "licen" in answer.text.lower():
            raise words.no_licence()
        return words.jnlp_of(answer)


class Ilom(_Ilom):
    key = "ilom"
    label = "Oracle ILOM"
    evidence = "notes of one author with live hardware, 1 project"
    descriptions = ("/cgi-bin/jnlpgenerator-16",)
    browser_cookies = ("ORA_ILOM_SESSION_SP",)

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        for path, answer in seen.items():
            if answer.header("server").startswith("Oracle-ILOM-Web-Server"):
                return f"{path} is served by Oracle-ILOM-Web-Server"
        page = seen.get(_PAGE)
        if page and (_login_token(page) or "ORA_ILOM_LOGIN" in page.cookies):
            return f"{_PAGE} gives a token to sign in with"
        return ""


class IlomOld(_Ilom):
    key = "ilom-old"
    label = "Sun ILOM"
    evidence = "2 projects"
    descriptions = ("/cgi-bin/jnlpgenerator-8", "/cgi-bin/jnlpgenerator-16")
    java = "jdk_7u80"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        page = seen.get(_PAGE)
        if page and page.status == 200 and "Integrated Lights Out Manager" in page.text and not _login_token(page):
            return f"{_PAGE} says Integrated Lights Out Manager"
        return ""


def _login_token(page: Answer) -> str:
    return next((found[1] for pattern in _TOKEN if (found := pattern.search(page.text))), "")


def _why(answer: Answer) -> ProxyError:
    """Failures lead back to the page to sign in, with a number."""

    found = _REFUSED.search(answer.header("location")) or _REFUSED.search(answer.text)
    if not found:
        return words.odd("signing in", answer)
    return words.no_slot() if found[1] == _FULL else words.wrong_password()


def _post(site: Site, form: Sequence[tuple[str, str]], cookies: Mapping[str, str]) -> Request:
    headers = {"Referer": f"{site.url}{_PAGE}"}
    return _ask(Request(_SIGN_IN, method="POST", form=form, cookies=cookies, headers=headers))


FAMILIES: Final[Sequence[Family]] = (Ilom(), IlomOld())
