"""Lenovo's XClarity Controller (ThinkSystem)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from ipmiproxyd.errors import BmcError
from ipmiproxyd.vendors import words
from ipmiproxyd.vendors.family import Family, Page
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession

_REMOTE: Final = "/redfish/v1/Managers/1/Oem/Lenovo/RemoteControl"
_VIEWER: Final = f"{_REMOTE}/Actions/LenovoRemoteControlService.GetRemoteConsoleToken"


class Xcc(Family):
    """Signs in with a bearer token; some firmware gives out a number that has to come back with the sign-in."""

    key = "xcc"
    label = "Lenovo XCC (ThinkSystem)"
    evidence = "HTML5 2 projects; Java 1 project"
    manufacturers = frozenset({19046})
    probes = ("/redfish/v1", "/")
    consoles = frozenset({"java", "html5"})
    java_ports = html5_ports = (3900,)
    java = "jdk_8u121"

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        said = words.json_of(seen.get("/redfish/v1", Answer(0)))
        oem = said.get("Oem")
        if words.text_in(said, "Vendor") == "Lenovo" or (isinstance(oem, dict) and "Lenovo" in oem):
            return "Redfish says that it is Lenovo's"
        root = seen.get("/")
        if root and root.status == 200 and ("XClarity Controller" in root.text or "Lenovo XCC" in root.text):
            return "its first page says XClarity Controller"
        return ""

    def sign_in(self, site: Site) -> Talk[WebSession]:
        given = yield _post(site, "/api/providers/get_nonce", {})
        nonce = words.text_in(words.json_of(given), "nonce") if given.status == 200 else ""
        credentials = {"username": site.username, "password": site.password.reveal()}
        answer = yield _post(
            site,
            "/api/login",
            credentials,
            cookies=given.cookies,
            headers={"Content-Security-Policy": f"nonce={nonce}"} if nonce else {},
        )
        said = words.json_of(answer)
        if answer.status == 200 and (token := words.text_in(said, "access_token")):
            cookies = {**given.cookies, **answer.cookies}
            session = WebSession(family=self.key, cookies=cookies, tokens={"bearer": token})
            if words.text_in(said, "reason") not in {"", "0"}:
                yield from self.sign_out(site, session)
                hint = "It may have expired, or be the first one: set a new one there, with type=panel."
                raise BmcError("The panel lets this user do nothing but change the password.", hint=hint)
            return session
        if seconds := words.number_in(said, "locktime"):
            raise words.locked(seconds)
        if answer.status == 503 or "maximum" in answer.text.lower():
            raise words.no_slot()
        if answer.status in {200, 400, 401, 403}:
            raise words.wrong_password()
        raise words.odd("signing in", answer)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        yield _get(site, "/api/providers/logout", session)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        """It is made first, then fetched, once."""

        made = yield _get(site, "/api/providers/rp_jnlp", session)
        text = made.text.lower()
        if "licen" in text or "activation key" in text:
            raise words.no_licence("Remote Presence")
        if made.status == 404:
            raise words.html5_only()
        if made.status != 200 or words.text_in(words.json_of(made), "return") != "0":
            raise words.odd("the request for the Java console", made)
        return words.jnlp_of((yield _get(site, "/download/rp.jnlp", session)))

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:  # noqa: ARG002
        """By a token of Redfish's, which wants the user's name and password itself, and makes no session."""

        signed = base64.b64encode(f"{site.username}:{site.password.reveal()}".encode()).decode()
        answer = yield _post(site, _VIEWER, {}, headers={"Authorization": f"Basic {signed}"})
        if token := words.text_in(words.json_of(answer), "Token"):
            return Page(path=f"/#/login?{quote(token, safe='')}&context=remote&mode=multi")
        if "licen" in answer.text.lower():
            raise words.no_licence("Remote Presence")
        if answer.status == 401:
            raise words.wrong_password("It was taken for the web pages, and refused by Redfish.")
        if answer.status == 403:
            raise words.no_right()
        raise words.odd("the request for the HTML5 console", answer)


def _post(
    site: Site,
    path: str,
    values: Mapping[str, Any],
    *,
    cookies: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    return Request(
        path,
        method="POST",
        body=json.dumps(values).encode(),
        content_type="application/json",
        cookies=cookies or {},
        headers={"Referer": f"{site.url}/", **(headers or {})},
    )


def _get(site: Site, path: str, session: WebSession) -> Request:
    headers = {"Referer": f"{site.url}/", "Authorization": f"Bearer {session.tokens['bearer']}"}
    if token := session.cookies.get("_csrf_token"):
        headers["X-XSRF-TOKEN"] = unquote(token)
    return Request(path, headers=headers, cookies=session.cookies)


FAMILIES: Final[Sequence[Family]] = (Xcc(),)
