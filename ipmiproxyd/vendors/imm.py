"""IBM's Integrated Management Modules: IMM (System x M2 and M3, x3850 X5) and IMM2 (M4, M5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from ipmiproxyd.errors import BmcError, BmcUnsupported
from ipmiproxyd.vendors import words
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_IBM: Final = frozenset({2, 20301})
_UNLICENSED: Final = b"This advanced option requires the purchase and installation"


class Imm1(Family):
    """Signing in is a text of "user,password", answered with "ok:" and the session."""

    key = "imm1"
    label = "IBM IMM (System x M2, M3)"
    evidence = "6 projects"
    manufacturers = _IBM
    probes = ("/", "/page/session.html")
    java_ports = (3900,)
    browser_cookies = ("session_id",)
    java = "jdk_7u80"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        page = seen.get("/page/session.html")
        if page and page.status == 200 and "/session/create" in page.text:
            return "/page/session.html signs in at /session/create"
        root = seen.get("/")
        if root and "American Megatrends" in root.text and "Filename: home.html" in root.text:
            return "its first page is AMI's home.html, as IMM has it"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        if "," in site.username:
            raise BmcUnsupported("An IMM panel cannot take a user name with a comma.")
        password = site.password.reveal()
        body = f"{site.username},{password}".encode()
        headers = {"Referer": f"{site.url}/"}
        answer = yield Request(
            "/session/create", method="POST", body=body, content_type="text/plain; charset=UTF-8", headers=headers
        )
        verdict, _, token = answer.text.strip().partition("\n")[0].strip().partition(":")
        if answer.status == 200 and verdict == "ok":
            return WebSession(family=self.key, cookies={"session_id": token} if token else answer.cookies)
        if answer.status >= 500:
            raise words.odd("signing in", answer)
        if "session" in answer.text.lower() and any(word in answer.text.lower() for word in ("max", "exceed", "free")):
            raise words.no_slot()
        raise words.wrong_password("Whether a password with a comma works is not known." if "," in password else "")

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        headers = {"Referer": f"{site.url}/"}
        yield Request("/session/deactivate", method="POST", body=b"", headers=headers, cookies=session.cookies)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:  # noqa: ARG002
        # Some firmware is confused without having been asked for this. What it answers does not matter.
        yield Request("/page/session.html", cookies=session.cookies)
        answer = yield Request("/kvm/kvm/jnlp", cookies=session.cookies)
        if _UNLICENSED in answer.body:
            raise words.no_licence("IBM Virtual Media Key")
        return words.jnlp_of(answer)


class Imm2(Family):
    """The viewer's parameters are counted: firmware differs in how many it wants."""

    key = "imm2"
    label = "IBM IMM2 (System x M4, M5)"
    evidence = "6 projects, notes of one author with live hardware"
    manufacturers = _IBM | {19046}
    probes = ("/", "/designs/imm/index.php")
    java_ports = (3900,)
    signs_out = "after-jnlp"
    slot_seconds = 600
    browser_cookies = ("_appwebSessionId_",)
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        root = seen.get("/")
        if root and "/designs/imm" in root.header("location") + root.path:
            return "its first page leads to /designs/imm/"
        for path in self.probes:
            page = seen.get(path)
            if page and page.status == 200 and "/designs/imm/" in page.text:
                return f"{path} names /designs/imm/"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        form = [
            ("user", site.username),
            ("password", site.password.reveal()),
            ("SessionTimeout", str(self.slot_seconds)),
        ]
        answer = yield Request("/data/login", method="POST", form=form, headers=_referer(site))
        said = words.json_of(answer)
        result = words.text_in(said, "authResult")
        if answer.status >= 400 or not result:
            raise words.odd("signing in", answer)
        if (waits := words.number_in(said, "TimeWait")) and result != "0":
            raise words.locked(waits)
        if result == "1":
            raise words.wrong_password()
        if result == "5":
            raise words.no_slot()
        if said.get("status") != "ok" or result != "0" or "_appwebSessionId_" not in answer.cookies:
            raise BmcError(
                f"The panel refused to sign in, with its code {result[:8]!r}.",
                hint="It may want a new password to be set first: open it with type=panel.",
            )
        tokens = {"user": site.username}
        if name := words.text_in(said, "token1_name"):
            tokens |= {"name": name, "value": words.text_in(said, "token1_value")}
        return WebSession(family=self.key, cookies=answer.cookies, tokens=tokens)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        yield Request("/data/logout", headers=_referer(site), cookies=session.cookies)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        page = yield Request("/designs/imm/remote-control.php", headers=_referer(site), cookies=session.cookies)
        if "isRPInstalled='0'" in page.text.replace(" ", "").replace('"', "'"):
            raise words.no_licence("Advanced Upgrade, Remote Presence")
        answer = page
        for path in _viewers(site, session):
            answer = yield Request(path, headers=_referer(site), cookies=session.cookies)
            if answer.status not in {200, 404} or not _other_count(answer):
                break
        return words.jnlp_of(answer)


def _viewers(site: Site, session: WebSession) -> Iterator[str]:
    """Where the description may be, the newest firmware first: with 14 parameters, with 13, with 7.

    They are: panel, its port, the client's address or 0, milliseconds, encrypt, alone, not Windows, "jnlp", user, …
    """

    host = f"[{site.address}]" if ":" in site.address else site.address
    port = site.host.removeprefix(host).lstrip(":") or ("443" if site.scheme == "https" else "80")
    user = quote(session.tokens.get("user", ""), safe="")
    common = f"{site.now}@1@0@1@jnlp"
    token = ""
    if name := session.tokens.get("name"):
        token = f"?{quote(name, safe='')}={quote(session.tokens['value'], safe='')}"
    six = "1" if ":" in site.address else "0"
    yield f"/designs/imm/viewer({host}@{port}@0@{common}@{user}@0@0@0@0@1).jnlp{token}"
    yield f"/designs/imm/viewer({host}@{port}@{six}@{common}@{user}@0@0@0@0){token}"
    yield f"/designs/imm/viewer({host}@{six}@{common}){token}"


def _other_count(answer: Answer) -> bool:
    """Whether the panel wants another number of parameters."""

    text = answer.text[:400].lower()
    return answer.status == 404 or not text.strip() or "too few param" in text or "too many param" in text


def _referer(site: Site) -> dict[str, str]:
    return {"Referer": f"{site.url}/designs/imm/index.php"}


FAMILIES: Final[Sequence[Family]] = (Imm2(), Imm1())
