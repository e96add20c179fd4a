"""Huawei's iBMC: the PHP pages of older firmware, the REST interface of newer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from ipmiproxyd.errors import BmcError, BmcUnsupported, ProxyError
from ipmiproxyd.vendors import words
from ipmiproxyd.vendors.family import Family, Page
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_HUAWEI: Final = frozenset({2011})
_TITLE: Final = "<title>iBMC Login</title>"
_PROCESS: Final = "/bmc/php/processparameter.php"
_ADDED: Final = re.compile(r'"AddSession"\s*:\s*\[\s*"?(\d+)"?\s*(?:,\s*"?([^"\],\r\n]*)"?\s*)?')
_DESCRIPTIONS: Final = ("/bmc/pages/remote/kvm.php?kvmway=0", "/bmc/pages/remote/kvm.php?kvmmode=1&kvmway=0")
_OFF: Final = "does not support kvm"


class IbmcOld(Family):
    """Every page but the first wants to have been come to from there."""

    key = "ibmc-old"
    label = "Huawei iBMC, older firmware"
    evidence = "6 projects; sign-out 1 project"
    manufacturers = _HUAWEI
    probes = ("/", "/login.html")
    consoles = frozenset({"java", "html5"})
    html5_ports = (2198,)
    java_ports = (2198, 8208)
    browser_cookies = ("SessionId3",)
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        for path in self.probes:
            if path in seen and _TITLE in seen[path].text:
                return f"the title of {path} is iBMC Login"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        page = yield Request("/login.html")
        if page.status >= 400:
            raise words.odd("the page to sign in", page)
        form = [
            ("check_pwd", site.password.reveal()),
            ("logtype", "0"),
            ("user_name", site.username),
            ("func", "AddSession"),
            ("IsKvmApp", "0"),
        ]
        answer = yield Request(_PROCESS, method="POST", form=form, cookies=page.cookies, headers=_referer(site))
        found = _ADDED.search(answer.text)
        if answer.status >= 400 or not found:
            raise words.odd("signing in", answer)
        if found[1] != "0":
            raise _refusal(found[1])
        cookies = {**page.cookies, **answer.cookies}
        if not any(name.startswith("SessionId") for name in cookies):
            cookies["SessionId3"] = found[2] or ""
        return WebSession(family=self.key, cookies=cookies)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        """By one project's account; with a token against forged requests, which is asked for first."""

        cookies, headers = session.cookies, _referer(site)
        given = yield Request("/bmc/php/gettoken.php", method="POST", body=b"", cookies=cookies, headers=headers)
        token = given.text.strip().strip('"')[:200] if given.status == 200 else ""
        form = [("token", token), ("func", "DelSession")]
        yield Request(_PROCESS, method="POST", form=form, cookies=cookies, headers=headers)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        """Good once."""

        answer = Answer(404)
        for path in _DESCRIPTIONS:
            answer = yield Request(path, cookies=session.cookies, headers=_referer(site))
            if answer.status != 404:
                break
        if _OFF in answer.text.lower():
            raise words.html5_only()
        return words.jnlp_of(answer)

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:
        path = "/bmc/pages/remote/kvm_by_html5.html"
        answer = yield Request(path, cookies=session.cookies, headers=_referer(site))
        if answer.status == 404:
            raise BmcUnsupported("The panel's firmware has no HTML5 console.", hint="Use type=java or type=panel.")
        if answer.status >= 400 or _TITLE in answer.text:
            raise words.odd("the request for the HTML5 console", answer)
        return Page(path=path, cookies=session.cookies, referer="/login.html")


class Ibmc(Family):
    """Sign-in and console by the REST interface of the pages."""

    key = "ibmc"
    label = "Huawei iBMC, newer firmware"
    evidence = "1 project; openUBMC's source agrees"
    manufacturers = _HUAWEI
    probes = ("/UI/Rest/Login",)
    panel_ports = (2198,)
    java_ports = (2198, 8208)
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        answer = seen.get("/UI/Rest/Login")
        if answer and answer.status == 200 and words.json_of(answer):
            return "/UI/Rest/Login answers without a session"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        answer = yield _post(
            "/UI/Rest/Login",
            {
                "UserName": site.username,
                "Password": site.password.reveal(),
                "Domain": "LocaliBMC",
                "Type": "Local",
            },
        )
        said = words.json_of(answer)
        token = words.text_in(said, "XCSRFToken") or answer.header("token")
        about = said.get("Session")
        cookie = answer.cookies.get("SessionId", "")
        if answer.status == 200 and cookie and token:
            number = words.text_in(about, "SessionID") if isinstance(about, dict) else ""
            return WebSession(family=self.key, cookies={"SessionId": cookie}, tokens={"csrf": token, "number": number})
        raise _why(answer)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:  # noqa: ARG002
        yield Request(
            f"/UI/Rest/Sessions/{quote(session.tokens['number'], safe='')}",
            method="DELETE",
            cookies=session.cookies,
            headers={"X-Csrf-Token": session.tokens["csrf"]},
        )

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:  # noqa: ARG002
        path = "/UI/Rest/Services/KVM/GenerateStartupFile"
        answer = yield _post(path, {"Mode": "Shared", "Language": "en"}, session)
        if answer.status == 501 or _OFF in answer.text.lower():
            raise words.html5_only("type=panel")
        if answer.status == 401:
            raise words.no_right()
        return words.jnlp_of(answer)


def _post(path: str, values: Mapping[str, Any], session: WebSession | None = None) -> Request:
    return Request(
        path,
        method="POST",
        body=json.dumps(values).encode(),
        content_type="application/json",
        cookies=session.cookies if session else {},
        headers={"X-Csrf-Token": session.tokens["csrf"]} if session else {},
    )


def _refusal(code: str) -> ProxyError:
    """What a number in the place of a session means."""

    if code == "130":
        return words.wrong_password()
    if code == "131":
        return words.locked()
    if code == "144":
        return words.no_slot()
    if code == "136":
        return words.no_right()
    if code == "137":
        return BmcError("The password has expired on the panel.", hint="Set a new one there, with type=panel.")
    return BmcError(f"The panel refused to sign in, with its code {code[:6]}.", hint="Open it with type=panel.")


def _why(answer: Answer) -> ProxyError:
    """Why the REST interface refused: its errors are known by their words only."""

    text = answer.text.lower()
    if "lock" in text:
        return words.locked()
    if any(word in text for word in ("sessionlimit", "maximum", "toomany", "too many")):
        return words.no_slot()
    if "expired" in text:
        return _refusal("137")
    return words.wrong_password() if answer.status in {400, 401, 403} else words.odd("signing in", answer)


def _referer(site: Site) -> dict[str, str]:
    return {"Referer": f"{site.url}/login.html"}


FAMILIES: Final[Sequence[Family]] = (Ibmc(), IbmcOld())
