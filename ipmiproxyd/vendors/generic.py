"""A family that is described by data, so that a site can add a board without writing Python.

In the configuration file:

    [vendor.acme]
    label = "Acme BMC-1"
    recognise = "<title>Acme"
    sign-in-path = "/login.cgi"
    user-field = "user"
    password-field = "pass"
    refused = ["Login failed"]
    cookie = "SID"
    jnlp-path = "/kvm/{cookie}.jnlp?host={address}"
    sign-out-path = "/logout.cgi"
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

from ipmiproxyd.config_kinds import Kind, KindError, choice, list_of, name, shown, span, switch, whole, wrong
from ipmiproxyd.errors import BmcUnsupported
from ipmiproxyd.vendors.family import ConsoleKind, Family, Page, SignOut
from ipmiproxyd.vendors.ports import ALL, Port
from ipmiproxyd.vendors.talk import Answer, Request, Site, Talk, WebSession, refused
from ipmiproxyd.vendors.words import jnlp_of, no_licence, no_slot, odd, wrong_password

_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_BEFORE: Final = frozenset({"host", "address", "user", "now", "title"})
"""Placeholders that are known before anybody is signed in; ``cookie`` and the family's own values are after."""

_HEADER_VALUE: Final = "header:"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenericFamily:
    """What a section ``[vendor.KEY]`` tells; with dashes for the underscores.

    Paths begin with a slash and may have placeholders: {host} (as in the panel's URL), {address}, {user}, {now}
    (milliseconds), {title}; after the sign-in also {cookie} and the names of ``values``. So may ``headers``.

    :ivar key: the name in commands and in a device's ``vendor``.
    :ivar label: for people; the key if it is empty.
    :ivar manufacturers: IANA numbers as ``ipmitool mc info`` tells them; a hint only.
    :ivar recognise_path: the page by which such a panel is known without a sign-in.
    :ivar recognise: a text that stands in that page; empty: never recognised, only by a device's ``vendor``.
    :ivar first_path: a page to ask for before the sign-in, whose cookies come along; empty for none.
    :ivar sign_in_path: where the credentials are sent to, by POST.
    :ivar sign_in_as: how: as a form, or as a JSON object.
    :ivar user_field: the field of the user name.
    :ivar password_field: the field of the password.
    :ivar fields: more fields, with their values.
    :ivar refused: texts, each of which in the answer means that user name or password were refused. 401 and 403 always
        mean that.
    :ivar accepted: a text without which the answer means so too; empty if there is none.
    :ivar full: texts that mean that no session is free, in the answer to the sign-in or to the JNLP's request.
    :ivar unlicensed: texts that mean that there is no licence, in the answer to the JNLP's request.
    :ivar cookie: the session cookie's name.
    :ivar cookie_in: the name under which the answer's body has the cookie's value: a member of a JSON object
        ("session.id": of one in it), an XML element, a field of a form, or ``name : 'value'`` of a script. Empty: a
        header sets the cookie.
    :ivar values: more to take out of the answer: a placeholder's name, and where it is in the body, as ``cookie_in``,
        or "header:NAME".
    :ivar headers: to send with every request after the sign-in.
    :ivar referer: the path of the page that requests say they come from; empty: that of the sign-in.
    :ivar jnlp_path: where the JNLP is; empty: no Java console.
    :ivar html5_path: the page of the HTML5 console, which needs no more than the cookie; empty: none.
    :ivar java_ports: TCP ports of the BMC that its Java console connects to, beside the panel's own one and those that
        the JNLP names: numbers, and ranges such as "5900-5901".
    :ivar html5_ports: the same for the page of its HTML5 console.
    :ivar panel_ports: the same for the panel's other pages.
    :ivar sign_out_path: empty: sessions end by themselves only.
    :ivar sign_out_method: how it is asked for.
    :ivar sign_out_when: "after-viewer", unless the Java console is known to outlive the session: "after-jnlp".
    :ivar slot_seconds: after how many seconds without use the panel forgets a session; 0: not known.
    :ivar wrong_length: the panel tells a wrong Content-Length.
    :ivar java: the profile of Java that it likes, or empty.
    """

    key: str
    label: str = ""
    manufacturers: tuple[int, ...] = ()
    recognise_path: str = "/"
    recognise: str = ""
    first_path: str = ""
    sign_in_path: str
    sign_in_as: Literal["form", "json"] = "form"
    user_field: str = "username"
    password_field: str = "password"  # noqa: S105 - a field's name
    fields: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    accepted: str = ""
    full: tuple[str, ...] = ()
    unlicensed: tuple[str, ...] = ()
    cookie: str
    cookie_in: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    referer: str = ""
    jnlp_path: str = ""
    html5_path: str = ""
    java_ports: tuple[Port, ...] = ALL
    html5_ports: tuple[Port, ...] = ALL
    panel_ports: tuple[Port, ...] = ALL
    sign_out_path: str = ""
    sign_out_method: Literal["GET", "POST", "DELETE"] = "GET"
    sign_out_when: Literal["after-viewer", "after-jnlp"] = "after-viewer"
    slot_seconds: int = 0
    wrong_length: bool = False
    java: str = ""


class Generic(Family):
    """The driver for a :class:`GenericFamily`."""

    def __init__(self, told: GenericFamily) -> None:
        self.told = told
        self.key = told.key  # type: ignore[misc]  # these are each instance's own
        self.label = told.label or told.key  # type: ignore[misc]
        self.evidence = "described in the configuration file"  # type: ignore[misc]
        self.manufacturers = frozenset(told.manufacturers)  # type: ignore[misc]
        self.probes = (told.recognise_path,) if told.recognise else ()  # type: ignore[misc]
        self.consoles = _consoles(told)  # type: ignore[misc]
        self.signs_out = _when(told)  # type: ignore[misc]
        self.slot_seconds = told.slot_seconds or None  # type: ignore[misc]
        self.java_ports = told.java_ports  # type: ignore[misc]
        self.html5_ports = told.html5_ports  # type: ignore[misc]
        self.panel_ports = told.panel_ports  # type: ignore[misc]
        self.java = told.java  # type: ignore[misc]
        self.browser_cookies = () if told.values else (told.cookie,)  # type: ignore[misc]

    def recognise(self, seen: Mapping[str, Answer]) -> str:
        page = seen.get(self.told.recognise_path)
        if not self.told.recognise or page is None or self.told.recognise not in page.text:
            return ""
        return f"{self.told.recognise_path} has the text that the configuration tells"

    def sign_in(self, site: Site) -> Talk[WebSession]:
        told = self.told
        path = _in_path(told.sign_in_path, _known(site))
        cookies: dict[str, str] = {}
        if told.first_path:
            first = yield Request(_in_path(told.first_path, _known(site)), redirects=2)
            cookies = first.cookies
        fields = {told.user_field: site.username, told.password_field: site.password.reveal(), **told.fields}
        common: dict[str, Any] = {
            "method": "POST",
            "cookies": cookies,
            "headers": {"Referer": self._referer(site, path)},
        }
        if told.sign_in_as == "json":
            body = json.dumps(fields).encode()
            answer = yield Request(path, body=body, content_type="application/json", **common)
        else:
            answer = yield Request(path, form=list(fields.items()), **common)
        return self._session(answer, cookies)

    def _session(self, answer: Answer, cookies: Mapping[str, str]) -> WebSession:
        told, said = self.told, answer.text
        if _has(said, told.full):
            raise no_slot()
        if answer.status in {401, 403} or _has(said, told.refused):
            raise wrong_password()
        if answer.status < 400 and told.accepted and told.accepted not in said:
            raise wrong_password()
        cookies = {**cookies, **answer.cookies}
        if told.cookie_in:
            cookies[told.cookie] = _found(answer, told.cookie_in)
        values = {placeholder: _found(answer, place) for placeholder, place in told.values.items()}
        if answer.status >= 400 or not cookies.get(told.cookie) or not all(values.values()):
            raise odd("the sign-in", answer)
        return WebSession(family=self.key, cookies=cookies, tokens=values)

    def sign_out(self, site: Site, session: WebSession) -> Talk[None]:
        if self.told.sign_out_path:
            yield self._request(site, session, self.told.sign_out_path, self.told.sign_out_method)

    def jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        if not self.told.jnlp_path:
            return super().jnlp(site, session)
        return self._jnlp(site, session)

    def _jnlp(self, site: Site, session: WebSession) -> Talk[bytes]:
        answer = yield self._request(site, session, self.told.jnlp_path)
        if b"<jnlp" not in answer.body and _has(answer.text, self.told.full):
            raise no_slot()
        if b"<jnlp" not in answer.body and _has(answer.text, self.told.unlicensed):
            raise no_licence()
        return jnlp_of(answer)

    def html5(self, site: Site, session: WebSession) -> Talk[Page]:
        if not self.told.html5_path:
            return super().html5(site, session)
        if self.told.headers:
            words = "The browser cannot send the headers that the configuration tells for this panel."
            return refused(BmcUnsupported(words, hint="Use type=panel."))
        return self._html5(site, session)

    def _html5(self, site: Site, session: WebSession) -> Talk[Page]:
        yield from ()
        path = _in_path(self.told.html5_path, self._known(site, session))
        return Page(path=path, cookies=session.cookies)

    def _request(self, site: Site, session: WebSession, path: str, method: str = "GET") -> Request:
        known = self._known(site, session)
        headers = {name: _PLACEHOLDER.sub(_from(known), value) for name, value in self.told.headers.items()}
        headers.setdefault("Referer", self._referer(site, _in_path(self.told.sign_in_path, known)))
        return Request(
            _in_path(path, known),
            method=method,
            headers=headers,
            cookies=session.cookies,
            ignore_length=self.told.wrong_length,
        )

    def _known(self, site: Site, session: WebSession) -> dict[str, str]:
        return {**_known(site), "cookie": session.cookies[self.told.cookie], **session.tokens}

    def _referer(self, site: Site, sign_in_path: str) -> str:
        return site.url + (_in_path(self.told.referer, _known(site)) if self.told.referer else sign_in_path)


def _consoles(told: GenericFamily) -> frozenset[ConsoleKind]:
    kinds: list[ConsoleKind] = []
    kinds += ["java"] if told.jnlp_path else []
    kinds += ["html5"] if told.html5_path else []
    return frozenset(kinds)


def _when(told: GenericFamily) -> SignOut:
    return told.sign_out_when if told.sign_out_path else "none"


def _known(site: Site) -> dict[str, str]:
    return {
        "host": site.host,
        "address": site.address,
        "user": site.username,
        "now": str(site.now),
        "title": site.title,
    }


def _from(known: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda found: known[found[1]]


def _in_path(path: str, known: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: quote(known[found[1]], safe=""), path)


def _has(said: str, texts: Sequence[str]) -> bool:
    return any(text in said for text in texts)


def _found(answer: Answer, place: str) -> str:
    """What stands there, if it is printable ASCII, so that it can go into a header."""

    if place.startswith(_HEADER_VALUE):
        text = answer.header(place.removeprefix(_HEADER_VALUE))
    else:
        text = _member(answer.body, place) or _written(answer.text, place)
    return text if re.fullmatch(r"[\x21-\x7e]+", text) else ""


def _member(body: bytes, place: str) -> str:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for part in place.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _written(said: str, place: str) -> str:
    key = re.escape(place)
    for pattern in (
        rf"<{key}>\s*([^<]*?)\s*</{key}>",
        rf"name=[\"']{key}[\"'][^>]*?value=[\"']([^\"']*)[\"']",
        rf"[\"']?\b{key}[\"']?\s*[:=]\s*[\"']([^\"']*)[\"']",
    ):
        if found := re.search(pattern, said):
            return found[1]
    return ""


# --- the section in the configuration file ----------------------------------------------------------------------------


def read_generic(key: str, section: object) -> Generic:
    """The family that ``[vendor.KEY]`` describes. Raises KindError with all mistakes: (place, explanation)."""

    mistakes: list[tuple[str, str]] = []
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", key) or key in {"auto", "generic"}:
        mistakes.append(("", f"its name must be small letters, digits and dashes, and not {shown(key)}"))
    if not isinstance(section, Mapping):
        raise KindError(*mistakes, ("", "must be a section"))
    given: dict[str, Any] = {}
    for written, raw in section.items():
        kind = _KINDS.get(written)
        if kind is None:
            near = difflib.get_close_matches(written, _KINDS, n=1)
            mistakes.append((written, "there is no such setting" + (f", did you mean {near[0]}?" if near else "")))
            continue
        try:
            given[written.replace("-", "_")] = kind(raw)
        except KindError as error:
            mistakes += [(written + place, explanation) for place, explanation in error.mistakes]
    for wanted in ("sign-in-path", "cookie"):
        if wanted not in section:
            mistakes.append((wanted, "is missing"))
    if not ("jnlp-path" in section or "html5-path" in section):
        mistakes.append(("", "needs jnlp-path or html5-path"))
    mistakes += _unknown_placeholders(given)
    if mistakes:
        raise KindError(*mistakes)
    return Generic(GenericFamily(key=key, **given))


def _unknown_placeholders(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    after = _BEFORE | {"cookie"} | set(given.get("values", {}))
    texts = [
        (place, text, after) for place in ("jnlp_path", "html5_path", "sign_out_path") if (text := given.get(place))
    ]
    texts += [
        (place, text, _BEFORE) for place in ("first_path", "sign_in_path", "referer") if (text := given.get(place))
    ]
    texts += [(f"headers.{header}", text, after) for header, text in given.get("headers", {}).items()]
    return [
        (place.replace("_", "-"), f"{{{found}}} is not known there; it can have {', '.join(sorted(known))}")
        for place, text, known in texts
        for found in _PLACEHOLDER.findall(text)
        if found not in known
    ]


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw.isprintable():
        raise wrong(f"must be a text in quotes, of one line, not {shown(raw)}")
    return raw


def _some(raw: object) -> str:
    text = _text(raw)
    if not text:
        raise wrong("must not be empty")
    return text


def _path(raw: object) -> str:
    text = _text(raw)
    if not re.fullmatch(r"/[\x21-\x7e]*", text) or text.startswith("//"):
        raise wrong(f"must be a path on the panel: it begins with one / and has no spaces, not {shown(raw)}")
    return text


def _port(raw: object) -> Port:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return whole(1, 65535)(raw)
    found = span(1, 65535)(raw)
    return found[0], found[-1]


def _table(names: str, value: Kind[str]) -> Kind[dict[str, str]]:
    """Names of a pattern with values of a kind."""

    def read(raw: object) -> dict[str, str]:
        if not isinstance(raw, Mapping):
            raise wrong(f"must be names with values in curly braces, not {shown(raw)}")
        read_values: dict[str, str] = {}
        mistakes: list[tuple[str, str]] = []
        for key, item in raw.items():
            if not re.fullmatch(names, key, re.ASCII):
                mistakes.append((f".{key}", "is no name that can stand there"))
            try:
                read_values[key] = value(item)
            except KindError as error:
                mistakes += [(f".{key}{place}", explanation) for place, explanation in error.mistakes]
        if mistakes:
            raise KindError(*mistakes)
        return read_values

    return read


_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - RFC 9110 §5.6.2
_TEXTS: Final = list_of(_some, empty=True)
_PORTS: Final = list_of(_port, empty=True)
_OWN: Final = {
    "label": _some,
    "manufacturers": list_of(whole(0, (1 << 20) - 1), empty=True),
    "recognise-path": _path,
    "first-path": _path,
    "sign-in-path": _path,
    "sign-in-as": choice("form", "json"),
    "user-field": _some,
    "password-field": _some,
    "fields": _table(r".+", _text),
    "refused": _TEXTS,
    "full": _TEXTS,
    "unlicensed": _TEXTS,
    "cookie": name(_TOKEN, "a cookie's name"),
    "values": _table(r"[a-z][a-z0-9_]*", _some),
    "headers": _table(_TOKEN, _text),
    "referer": _path,
    "jnlp-path": _path,
    "html5-path": _path,
    "java-ports": _PORTS,
    "html5-ports": _PORTS,
    "panel-ports": _PORTS,
    "sign-out-path": _path,
    "sign-out-method": choice("GET", "POST", "DELETE"),
    "sign-out-when": choice("after-viewer", "after-jnlp"),
    "slot-seconds": whole(0, 1 << 20),
    "wrong-length": switch,
}
_NAMES: Final = [item.name.replace("_", "-") for item in dataclasses.fields(GenericFamily) if item.name != "key"]
_KINDS: Final[Mapping[str, Kind[Any]]] = {setting: _OWN.get(setting, _text) for setting in _NAMES}
"""What each setting may be, in the order of the class."""
