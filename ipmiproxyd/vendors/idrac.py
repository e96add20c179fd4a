"""Dell's iDRAC6 of rack servers, iDRAC7 and iDRAC8: one way to sign in, one Avocent viewer on port 5900.

Signing in is answered with XML in a 200, whatever became of it. In all but old firmware its forwardUrl carries two
tokens: ST1 goes into paths, ST2 into a header.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final
from urllib.parse import quote, urlencode

from ipmiproxyd.errors import BmcPrivilege, BmcUnsupported, ProxyError
from ipmiproxyd.vendors import words
from ipmiproxyd.vendors.family import Family, Page
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_DISCOVER: Final = "/cgi-bin/discover"
_LOGIN: Final = "/login.html"
_HTML5: Final = "/virtualconsolehtml5.html"
_JAVA: Final = "the request for the Java console"
_TOKEN: Final = re.compile(r"\b(ST[12])=([0-9A-Za-z]+)")
_FIELD: Final = re.compile(r"<(\w+)>([^<]*)</\1>")
_NO_ESCAPE: Final = "!'()*~"
"""What the pages' encodeURIComponent leaves as it is, beside what quote leaves."""
_MANY_SESSIONS: Final = "RAC0218"
_HTML5_PLUGIN: Final = "2"
"""The plug-in type as racadm counts it (0 native, 1 Java, 2 HTML5); that the page's number is the same is inferred."""


class Idrac(Family):
    """What the three generations share.

    :cvar endpoint: how /cgi-bin/discover names the generation.
    :cvar marks: texts in the sign-in page.
    :cvar session_cookie: its name.
    :cvar questions: what is asked of /data to find out why there is no console; the keys are from notes of one author.
    """

    manufacturers = frozenset({674})
    java_ports = (3668, 3669, 5900, 5901)
    probes = (_DISCOVER, _LOGIN)
    endpoint: ClassVar[str]
    marks: ClassVar[Sequence[str]]
    session_cookie: ClassVar[str]
    questions: ClassVar[Sequence[str]]

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        discover = seen.get(_DISCOVER)
        if discover and "<ENDPOINTTYPE>" in discover.text:
            found = f"<ENDPOINTTYPE>{self.endpoint}</ENDPOINTTYPE>" in discover.text
            return f"{_DISCOVER} says {self.endpoint}" if found else ""
        page = seen.get(_LOGIN)
        mark = next((mark for mark in self.marks if page and page.status == 200 and mark in page.text), "")
        return f"{_LOGIN} says {mark}" if mark else ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        return (yield from self._sign_in({}, site.username, site.password.reveal()))

    def _sign_in(self, cookies: Mapping[str, str], user: str, password: str) -> Talk[WebSession]:
        body = f"user={_encoded(user)}&password={_encoded(password)}"  # in this order: some firmware looks at no other
        answer = yield Request(
            "/data/login",
            method="POST",
            body=body.encode("ascii"),
            content_type="application/x-www-form-urlencoded",
            cookies=cookies,
        )
        _judge(answer)
        cookies = {**cookies, **answer.cookies}
        if self.session_cookie not in cookies:
            raise words.odd("signing in", answer)
        tokens = dict(_TOKEN.findall(html.unescape(_fields(answer).get("forwardUrl", ""))))
        return WebSession(family=self.key, cookies=cookies, tokens=tokens)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        yield Request("/data/logout", headers=_header(session), cookies=session.cookies)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        answers: list[Answer] = []
        for path in _viewers(site, session):
            answer = yield Request(path, cookies=session.cookies)
            if words.is_jnlp(answer):
                return answer.body
            answers.append(answer)
            if answer.status not in {400, 404}:
                break
        # The first one tells why: to a path that it does not expect the panel says that nobody is signed in.
        raise (yield from self._why_not(answers[0], session)) or words.odd(_JAVA, answers[0])

    def _why_not(self, answer: Answer, session: WebSession, *, java: bool = True) -> Talk[ProxyError | None]:
        """Why the panel did not give a console; the error to raise, or None if that cannot be told."""

        if answer.status in {301, 302, 303, 401}:
            return words.ended()
        if answer.status >= 500:
            return None
        if _MANY_SESSIONS in answer.text:
            return words.no_slot()
        told: dict[str, str] = {}
        for keys in self.questions:
            more = yield Request(
                f"/data?get={keys}", method="POST", body=b"", headers=_header(session), cookies=session.cookies
            )
            told |= _fields(more)
        return self._verdict(told, java=java)

    def _verdict(self, told: Mapping[str, str], *, java: bool) -> ProxyError | None:
        grade = told.get("prodClassName", "")
        if told.get("ameaPresent") == "0" or (grade and grade not in {"Enterprise", "Datacenter"}):
            return words.no_licence(f"{self.endpoint} Enterprise")
        if told.get("kvmEnabled") == "0":
            return BmcUnsupported(
                "The panel's virtual console is switched off.", hint="Switch it on in the panel's own settings."
            )
        if java and told.get("kvmPluginType") == _HTML5_PLUGIN:
            return words.html5_only()
        used, slots = told.get("kvmActSes", ""), told.get("kvmMaxSessions", "")
        if used.isdecimal() and slots.isdecimal() and 0 < int(slots) <= int(used):
            return words.no_slot()
        return None


class Idrac6(Idrac):
    """Its descriptor may hold the account's real password in clear text."""

    key = "idrac6"
    label = "Dell iDRAC6 (rack)"
    evidence = "more than 6 projects, notes of one author with live hardware"
    slot_seconds = 1800
    browser_cookies = ("_appwebSessionId_",)
    endpoint = "iDRAC"
    marks = ("Integrated Dell Remote Access Controller 6",)
    session_cookie = "_appwebSessionId_"
    questions = ("ameaPresent", "kvmEnabled,kvmActSes,kvmMaxSessions")

    def sign_in(self, site: Site) -> Talk[WebSession]:
        start = yield Request("/start.html")
        page = yield Request(_LOGIN, cookies=start.cookies)
        values = (site.username, site.password.reveal())
        if _wants_escapes(page):
            values = (_escaped(values[0]), _escaped(values[1]))
        return (yield from self._sign_in(start.cookies | page.cookies, *values))


class _WithHtml5(Idrac):
    consoles = frozenset({"java", "html5"})
    html5_ports = (5900,)
    browser_cookies = ("-http-session-",)
    session_cookie = "-http-session-"
    questions = ("prodClassName", "kvmEnabled,kvmPluginType,kvmActSes,kvmMaxSessions")

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:
        page = yield Request(_HTML5, cookies=session.cookies)
        if page.status != 200:
            error = yield from self._why_not(page, session, java=False)
            if error is None and page.status == 404:
                hint = "Use type=java. The HTML5 console came with firmware 2.30.30.30."
                error = BmcUnsupported("The panel's firmware has no HTML5 console.", hint=hint)
            raise error or words.odd("the request for the HTML5 console", page)
        answer = yield Request("/session?getSsnVar=aimSession", headers=_header(session), cookies=session.cookies)
        told = words.json_of(answer).get("getSsnVar")
        number = words.text_in(told, "aimSession") if isinstance(told, dict) else ""
        if not number:
            raise words.odd("the request for the session's number", answer)
        query = {
            "ipAddr": site.address,
            "kvmPort": "5900",
            "vmPriv": "true",
            "title": site.title,
            "lang": "en",
            "aimSession": number,
            "ST2": session.tokens.get("ST2", ""),
            "TokenName": "ST1",
            "TokenKey": session.tokens.get("ST1", ""),
        }
        return Page(path=f"{_HTML5}?{urlencode(query, quote_via=quote)}", cookies=session.cookies)


class Idrac7(_WithHtml5):
    key = "idrac7"
    label = "Dell iDRAC7"
    evidence = "more than 6 projects; HTML5: 4 projects"
    endpoint = "iDRAC7"
    marks = ("Integrated Dell Remote Access Controller 7", "iDRAC7")


class Idrac8(_WithHtml5):
    key = "idrac8"
    label = "Dell iDRAC8"
    evidence = "more than 6 projects, notes of one author with live hardware; HTML5: 4 projects"
    endpoint = "iDRAC8"
    marks = ("Integrated Dell Remote Access Controller 8", "iDRAC8")


def _fields(answer: Answer) -> dict[str, str]:
    """The elements of the answer's XML that hold nothing but text."""

    return {name: text.strip() for name, text in _FIELD.findall(answer.text)}


def _judge(answer: Answer) -> None:
    """Raise what a refused sign-in means."""

    said = _fields(answer)
    result = said.get("authResult", "")
    if result == "0":
        return
    if result == "5" or _MANY_SESSIONS in answer.text + answer.header("location"):
        raise words.no_slot()
    waits = said.get("blockingTime", "")
    if waits.isdecimal() and waits.strip("0"):
        raise words.locked(int(waits[:9]))
    if result in {"1", "2", "3"}:  # wrong, no user name, no password
        raise words.wrong_password()
    if result == "4":
        raise BmcPrivilege(
            "The panel does not let this user sign in.", hint="Give the user the right to log in to the iDRAC."
        )
    raise words.odd("signing in", answer)


def _viewers(site: Site, session: WebSession) -> Iterator[str]:
    """Where the descriptor may be: by the newest way first."""

    six = "1" if ":" in site.address else "0"
    common = f"/viewer.jnlp({site.address}@{six}@{quote(site.title, safe='')}@{site.now}"
    first, second = session.tokens.get("ST1"), session.tokens.get("ST2")
    if first:
        yield f"{common}@ST1={first})"
    if first and second:
        yield f"{common}@ST1={first},ST2={second})"
    if not first:
        yield f"{common})"
        yield f"/viewer.jnlp({site.address}@{six}@{site.now})"


def _header(session: WebSession) -> dict[str, str]:
    token = session.tokens.get("ST2")
    return {"ST2": token} if token else {}


def _encoded(text: str) -> str:
    """As the sign-in page's script does it: it sends a section sign in Latin-1."""

    return quote(text, safe=_NO_ESCAPE).replace("%C2%A7", "%A7")


def _wants_escapes(page: Answer) -> bool:
    """Whether the sign-in page's script writes special characters in the way of old firmware: that is inferred from
    what newer pages have instead."""

    return page.status == 200 and "@0" in page.text and "encodeURIComponent" not in page.text


def _escaped(text: str) -> str:
    doubled = text.replace("\\", "\\\\")
    return "".join(f"@0{ord(sign):02x}" if sign in "@(),:?=&#+%" else sign for sign in doubled)


FAMILIES: Final[Sequence[Family]] = (Idrac8(), Idrac7(), Idrac6())
