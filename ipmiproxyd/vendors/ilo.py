"""HP's iLO 3 and iLO 4, HPE's iLO 5 and iLO 6: JSON, and a cookie that the client makes itself.

The Java console is an applet. Its descriptor stands as CDATA in a template page, with <%= this.name %> where the
browser's script puts in its values.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final
from xml.sax.saxutils import escape, quoteattr

from ipmiproxyd.errors import BmcUnsupported, Html5Only, NoSlot, ProxyError
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
_PARAM: Final = re.compile(r"\b(INFO\d)\b\W{1,6}(?:value\b\W{1,6})?(\w+)", re.IGNORECASE)
_SECONDS: Final = re.compile(r"(\d{1,6}) *sec")


class Ilo(Family):
    """What all of them share.

    :cvar generation: the number in its name.
    """

    probes = (_DATA, _LOGIN)
    java_ports = (17988, 17990)
    generation: ClassVar[str]
    browser_cookies = ("sessionKey",)

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
        yield _post({"method": "logout", "session_key": session.cookies["sessionKey"]}, session)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        if session.tokens["console"] == "0":
            raise words.no_right()
        answer = yield Request(_TEMPLATE, cookies=session.cookies)
        found = _template(answer)
        if found:
            return _filled(found, site, session).encode()
        if answer.status == 404:
            answer = yield Request(_APPLET, cookies=session.cookies)
            if descriptor := _described(answer, site, session):
                return descriptor.encode()
        error = yield from _why_not(answer, session)
        if error is None and answer.status == 404:
            error = self._without_java()
        raise error or words.odd("the request for the Java console", answer)

    def _without_java(self) -> ProxyError:
        return BmcUnsupported("The panel's firmware has no Java console.", hint="Use type=panel.")

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

    def _without_java(self) -> ProxyError:
        return _page_only()


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


def _page_only() -> Html5Only:
    return Html5Only("The panel's firmware has its remote console as a page only.", hint="Use type=html5.")


def _post(values: Mapping[str, str], session: WebSession | None = None) -> Request:
    cookies = session.cookies if session else {"sessionLang": "en"}
    body = json.dumps(values).encode()
    return Request(_LOGIN, method="POST", body=body, content_type="application/json", cookies=cookies)


def _refusal(answer: Answer) -> ProxyError:
    """What a refused sign-in means. The words of a full or delaying panel are not confirmed for these generations."""

    text = answer.text[:2000].lower()
    if "delay" in text or "locked" in text:
        seconds = _SECONDS.search(text)
        return words.locked(int(seconds.group(1)) if seconds else 0)
    sessions = ("session" in text and any(word in text for word in ("maximum", "limit", "available"))) or "slot" in text
    if answer.status == 503 or sessions:
        return words.no_slot()
    if answer.status in {200, 400, 401, 403}:
        return words.wrong_password()
    return words.odd("signing in", answer)


def _template(answer: Answer) -> str:
    """The descriptor in the template page, empty if there is none."""

    if answer.status != 200:
        return ""
    before, mark, after = answer.text.partition("jnlpTemplate")
    text = after if mark else before
    inside = next((part for part in _CDATA.findall(text) if "<jnlp" in part), "").strip()
    if inside:
        return str(inside)
    start, end = text.find("<jnlp"), text.rfind("</jnlp>")
    return text[start : end + len("</jnlp>")] if 0 <= start < end else ""


def _filled(template: str, site: Site, session: WebSession) -> str:
    values = {"baseUrl": f"{site.url}/", "sessionKey": session.tokens["key"], "langId": "en"}
    return _BLANK.sub(lambda blank: escape(values.get(blank.group(1), ""), {'"': "&quot;"}), template)


def _described(page: Answer, site: Site, session: WebSession) -> str:
    """A descriptor made of the page with the applet; empty if it is no such page."""

    found = _JAR.search(page.text) if page.status == 200 else None
    if found is None:
        return ""
    jar = found.group(1) if found.group(1).startswith("html/") else f"html/{found.group(1)}"
    values: dict[str, str] = {"INFO1": "17988", "INFO2": "composite"}
    values |= {name.upper(): html.unescape(value) for name, value in _PARAM.findall(page.text)}
    values |= {"RCINFO1": session.tokens["key"], "RCINFOLANG": "en"}
    values["RCINFO6"] = session.tokens["port"] or values["INFO1"]
    params = "".join(f"<param name={quoteattr(name)} value={quoteattr(value)}/>" for name, value in values.items())
    base, document = f"{site.url}/", f"{site.url}{_APPLET}"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><jnlp spec="1.0+" codebase={quoteattr(base)}>'
        "<information><title>Integrated Remote Console</title><vendor>HPE</vendor></information>"
        "<security><all-permissions/></security>"
        f'<resources><j2se version="1.5+"/><jar href={quoteattr(jar)} main="false"/></resources>'
        '<applet-desc main-class="com.hp.ilo2.intgapp.intgapp" name="iLOJIRC" width="1" height="1"'
        f" documentbase={quoteattr(document)}>{params}</applet-desc></jnlp>"
    )


def _why_not(answer: Answer, session: WebSession) -> Talk[ProxyError | None]:
    """Why the panel did not give a console; the error to raise, or None if that cannot be told."""

    if answer.status in {301, 302, 303, 401}:
        return words.ended()
    if answer.status == 503:
        return words.no_slot()
    if answer.status >= 500:
        return None
    if "remote console is unavailable" in answer.text.lower():
        return NoSlot("The panel's remote console is in use.", hint="Close it elsewhere, or wait until it is closed.")
    overview = yield Request("/json/overview", cookies=session.cookies)
    licence = words.text_in(words.json_of(overview), "license").lower()
    if "standard" in licence and "blade" not in licence:
        return words.no_licence("iLO Advanced")
    return words.no_right() if answer.status == 403 else None


FAMILIES: Final[Sequence[Family]] = (Ilo6(), Ilo5(), Ilo4(), Ilo3())
