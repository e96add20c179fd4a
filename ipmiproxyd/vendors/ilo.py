"""HP's iLO 3 and iLO 4, HPE's iLO 5 and iLO 6: JSON, and a cookie that the client makes itself.

The Java console is an applet. Its descriptor stands as CDATA in a template page, with <%= this.name %> where the
browser's script puts in its values.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final
from xml.sax.saxutils import escape, quoteattr

from ipmiproxyd.errors import BmcError, BmcUnsupported, Html5Only, NoSlot, ProxyError
from ipmiproxyd.vendors import words
from ipmiproxyd.vendors.family import ConsoleKind, Family, Page
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_DATA: Final = "/xmldata?item=all"
_LOGIN: Final = "/json/login_session"
_TEMPLATE: Final = "/html/jnlp_template.html"
_APPLET: Final = "/html/java_irc.html"
_PAGES: Final = ("/irc.html", "/html/irc.html")

_PRODUCT: Final = re.compile(r"<PN>[^<]*\(iLO (\d)\)\s*</PN>")
_CDATA: Final = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_BLANK: Final = re.compile(r"<%=?\s*this\.(\w+)\s*%>")
_JAR: Final = re.compile(r"(?<![\w.])((?:html/)?intgapp\w*\.jar)")
_PARAM: Final = re.compile(r"(INFO\d)\W{1,4}(?:value)?\W{1,4}([0-9A-Za-z_]+)", re.IGNORECASE)
_SECONDS: Final = re.compile(r"(\d{1,6}) *sec")


class Ilo(Family):
    """What all of them share.

    :cvar generation: the number in its name.
    """

    probes = (_DATA, _LOGIN)
    slot_seconds = None
    generation: ClassVar[str]

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        found = _PRODUCT.search(seen[_DATA].text) if _DATA in seen else None
        return f"{_DATA} says iLO {self.generation}" if found and found.group(1) == self.generation else ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        answer = yield _post({"method": "login", "user_login": site.username, "password": site.password.reveal()})
        said = words.json_of(answer)
        key = words.text_in(said, "session_key") or words.text_in(said, "sessionKey")
        if answer.status != 200 or not key:
            raise _refusal(answer)
        return WebSession(
            family=self.key,
            cookies={"sessionKey": key, "sessionLang": "en"},
            tokens={
                "key": key,
                "port": words.text_in(said, "remote_port"),
                "console": words.text_in(said, "remote_cons_priv"),
            },
        )

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        yield _post({"method": "logout", "session_key": session.tokens["key"]}, session)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        if session.tokens["console"] == "0":
            raise words.no_right()
        answer = yield Request(_TEMPLATE, cookies=session.cookies)
        found = _template(answer)
        if found:
            return _filled(found, site, session).encode()
        if answer.status == 404:
            page = yield Request(_APPLET, cookies=session.cookies)
            if descriptor := _described(page, site, session):
                return descriptor.encode()
        raise (yield from _why_not(answer, session)) or words.odd("the request for the Java console", answer)

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:  # noqa: ARG002
        if session.tokens["console"] == "0":
            raise words.no_right()
        answer = Answer(404)
        for path in _PAGES:
            answer = yield Request(path, cookies=session.cookies)
            if answer.status == 200 and "<html" in answer.text.lower():
                return Page(path=path, cookies=session.cookies)
            if answer.status != 404:
                break
        error = yield from _why_not(answer, session)
        if error is None and answer.status == 404:
            error = BmcUnsupported("The panel's firmware has no HTML5 console.", hint="Use type=java.")
        raise error or words.odd("the request for the HTML5 console", answer)


class Ilo3(Ilo):
    key = "ilo3"
    label = "HP iLO 3"
    evidence = "more than 8 projects; descriptor: 5 projects"
    manufacturers = frozenset({11})
    java = "jdk_8u121"
    generation = "3"


class Ilo4(Ilo):
    """Its JSON is taken for an iLO 4's where the panel does not tell its generation: the way is the same."""

    key = "ilo4"
    label = "HP iLO 4"
    evidence = "more than 8 projects; descriptor: 5 projects; HTML5: not confirmed"
    manufacturers = frozenset({11, 47196})
    consoles: ClassVar[frozenset[ConsoleKind]] = frozenset({"java", "html5"})
    java = "jdk_8u121"
    generation = "4"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        if _DATA in seen and _PRODUCT.search(seen[_DATA].text):
            return super().recognise(seen)
        login = seen.get(_LOGIN)
        if login and login.status < 500 and "secjmp" in words.json_of(login):
            return f"{_LOGIN} answers as iLO 3 and later do"
        return ""


class Ilo5(Ilo):
    """Early firmware still has the applet."""

    key = "ilo5"
    label = "HPE iLO 5"
    evidence = "more than 8 projects; HTML5: 2 projects"
    manufacturers = frozenset({47196})
    consoles: ClassVar[frozenset[ConsoleKind]] = frozenset({"java", "html5"})
    java = "jdk_8u121"
    generation = "5"

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        try:
            return (yield from super().jnlp(site, session))
        except _NothingThere:
            raise _page_only() from None


class Ilo6(Ilo):
    key = "ilo6"
    label = "HPE iLO 6"
    evidence = "1 project"
    manufacturers = frozenset({47196})
    consoles: ClassVar[frozenset[ConsoleKind]] = frozenset({"html5"})
    generation = "6"

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:  # noqa: ARG002
        yield from ()
        raise _page_only()
