"""Fujitsu's integrated Remote Management Controllers."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from ipmiproxyd.errors import ProxyError
from ipmiproxyd.vendors import digest, words
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.ports import AMI
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_FUJITSU: Final = frozenset({10368})
_LINK: Final = re.compile(r"""href=["'](/?avr\.jnlp\?[^"']+)["']""", re.IGNORECASE)
_OLD: Final = re.compile(r"iRMC\s*S[234]\b", re.IGNORECASE)
_NEW: Final = re.compile(r"iRMC\s*S[5-9]\b", re.IGNORECASE)
_START: Final = "/avr.jnlp"
_SESSIONS: Final = "/redfish/v1/SessionService/Sessions"


class Irmc(Family):
    """S2 to S4. Most ask for HTTP Digest with every request and know no session. Newer S4 firmware (from 7.69F) has a
    form that asks for Digest once and then marks a session in each page's address."""

    key = "irmc"
    label = "Fujitsu iRMC S2 to S4"
    evidence = "3 projects, one of Fujitsu's engineers; newer S4 sign-in: notes of one author with live hardware"
    manufacturers = _FUJITSU
    signs_out = "none"
    java_ports = (80, 443, 5900, 5901, *AMI)
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        root = seen.get("/")
        if root is None:
            return ""
        for name in ("server", "www-authenticate"):
            if found := _OLD.search(root.header(name)):
                return f"its header {name} says {found[0]}"
        found = _OLD.search(root.text[:4000])
        return f"its first page says {found[0]}" if found else ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        root = yield Request("/")
        if root.status == 401:
            page = yield Request("/", digest=(site.username, site.password))
            if page.status == 401:
                raise _refused(page)
            if page.status >= 400:
                raise words.odd("signing in", page)
            return WebSession(family=self.key, tokens={"link": _link(page), "known": "yes"})
        if root.status >= 500:
            raise words.odd("its first page", root)
        if urlsplit(root.header("location")).path.startswith("/login") or "login required" in root.text.lower():
            return (yield from self._sign_in_by_form(site))
        return WebSession(family=self.key)  # a first page for everybody: Digest comes with the console

    def _sign_in_by_form(self, site: Site) -> Talk[WebSession]:
        """Each challenge is good for one answer, which must be the first request that brings it: curl's is not."""

        form = [("APPLY", "99"), ("P99", "Login")]
        asked = yield Request("/login", method="POST", form=form)
        fields = digest.challenge(asked.header("www-authenticate"))
        if asked.status != 401 or not fields:
            raise words.odd("the request to sign in", asked)
        value = digest.authorization(
            fields,
            site.username,
            site.password,
            method="POST",
            path="/login",
            cnonce=hashlib.sha256(f"{site.now}:{fields.get('nonce', '')}".encode()).hexdigest()[:16],
        )
        answer = yield Request("/login", method="POST", form=form, headers={"Authorization": value})
        if answer.status == 401:
            raise _refused(answer)
        place = answer.header("location")
        sid = dict(parse_qsl(urlsplit(place).query)).get("sid", "")
        if not sid:
            if any(word in answer.text.lower() for word in ("too many", "maximum")):
                raise words.no_slot()
            raise words.odd("signing in", answer)
        parts = urlsplit(place)
        return WebSession(family=self.key, tokens={"sid": sid, "page": f"{parts.path or '/'}?{parts.query}"})

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        """Digest makes no session; how that of the newer firmware is ended is not known."""

        yield from ()

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        if sid := session.tokens.get("sid"):
            page = yield Request(session.tokens["page"])
            answer = yield Request(_link(page) or f"{_START}?sid={sid}")
            return _console(answer)
        signed = (site.username, site.password)
        answer = yield Request(_START, digest=signed)
        if answer.status == 404 and (link := session.tokens.get("link")):
            answer = yield Request(link, digest=signed)
        if answer.status == 401 and not session.tokens.get("known"):
            raise _refused(answer)
        return _console(answer)


class IrmcS5(Family):
    """S5 and newer: a session of Redfish opens the console, too."""

    key = "irmc-s5"
    label = "Fujitsu iRMC S5"
    evidence = "3 projects; sign-out by Redfish's standard"
    manufacturers = _FUJITSU
    probes = ("/redfish/v1", "/")
    java_ports = (80, 443, 5900, 5901, *AMI)
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        for answer in seen.values():
            if _OLD.search(answer.header("server")):
                return ""
        for path, answer in seen.items():
            if found := _NEW.search(answer.header("server") + " " + answer.text[:4000]):
                return f"{path} says {found[0]}"
        said = words.json_of(seen.get("/redfish/v1", Answer(0)))
        vendor, oem = words.text_in(said, "Vendor"), said.get("Oem")
        if "fujitsu" in vendor.lower() or (isinstance(oem, dict) and "ts_fujitsu" in oem):
            return "Redfish says that it is Fujitsu's"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        body = json.dumps({"UserName": site.username, "Password": site.password.reveal()}).encode()
        headers = {"Accept": "application/json"}
        answer = yield Request(_SESSIONS, method="POST", body=body, content_type="application/json", headers=headers)
        token = answer.header("x-auth-token")
        if answer.status in {200, 201} and token:
            place = urlsplit(answer.header("location")).path or words.text_in(words.json_of(answer), "@odata.id")
            known = place if place.startswith("/redfish/") else ""
            return WebSession(family=self.key, tokens={"token": token, "place": known})
        said = answer.text.lower()
        if "locked" in said or "lockout" in said:
            raise words.locked(_seconds(answer))
        if "sessionlimitexceeded" in said:
            raise words.no_slot()
        if answer.status in {400, 401, 403}:
            raise words.wrong_password()
        raise words.odd("signing in", answer)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        if place := session.tokens["place"]:
            yield Request(place, method="DELETE", headers={"X-Auth-Token": session.tokens["token"]})

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:  # noqa: ARG002
        return _console((yield Request(_START, headers={"X-Auth-Token": session.tokens["token"]})))


def _link(page: Answer) -> str:
    """Where the console's description is, as a page links it; empty if it does not."""

    found = _LINK.search(page.text)
    return "/" + html.unescape(found[1]).lstrip("/") if found else ""


def _console(answer: Answer) -> bytes:
    """A page in the place of the description means that the panel is set to its HTML5 viewer."""

    text = answer.text.lower()
    if answer.status < 400 and not words.is_jnlp(answer) and "<html" in text:
        if "licen" in text:
            raise words.no_licence("KVM, Advanced Pack")
        if "login required" not in text:
            raise words.html5_only("type=panel")
    if answer.status == 401:
        raise words.no_right()
    return words.jnlp_of(answer)


def _refused(answer: Answer) -> ProxyError:
    return words.locked(_seconds(answer)) if "locked" in answer.text.lower() else words.wrong_password()


def _seconds(answer: Answer) -> int:
    text = answer.header("retry-after")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


FAMILIES: Final[Sequence[Family]] = (Irmc(), IrmcS5())
