"""A conversation with a BMC's web panel, without I/O: a generator of requests (and pauses) that is handed the answers.

    def sign_in(site: Site) -> Talk[WebSession]:
        answer = yield Request("/login", method="POST", form=[("user", site.username), …])
        …
        return WebSession(…)

Whoever drives it sends each request to the panel, to nowhere else, and one at a time.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from ipmiproxyd.errors import ProxyError
from ipmiproxyd.model import Secret

T = TypeVar("T")

MAX_BODY: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the panel. All of it may be secret: nothing of it goes into a log.

    :ivar path: with its query, from the slash on.
    :ivar form: pairs, in this order, sent as application/x-www-form-urlencoded; ``body`` is what else is sent.
    :ivar cookies: sent in this order. Nothing else is: the driver keeps its cookies itself.
    :ivar digest: sign in by HTTP Digest as (user, password).
    :ivar redirects: how many redirects within the panel are followed.
    :ivar ignore_length: the panel tells a wrong Content-Length: the body ends with the connection.
    :ivar http10: ask in HTTP/1.0.
    :ivar limit: bytes of the answer's body; more is an error.
    :ivar timeout: seconds.
    """

    path: str = field(repr=False)
    method: str = "GET"
    form: Sequence[tuple[str, str]] | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    digest: tuple[str, Secret] | None = None
    redirects: int = 0
    ignore_length: bool = False
    http10: bool = False
    limit: int = MAX_BODY
    timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next request; the panel asks for it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the panel answered; the body as it was before any compression.

    :ivar headers: names in lower case.
    :ivar path: of the page in the end, after redirects, with its query.
    """

    status: int
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    path: str = field(default="/", repr=False)

    def header(self, name: str) -> str:
        """The last header of that name, or an empty text."""

        return next((value for key, value in reversed(self.headers) if key == name.lower()), "")

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def cookies(self) -> dict[str, str]:
        """What Set-Cookie sets; of several of one name the last that is not empty."""

        found: dict[str, str] = {}
        for key, value in self.headers:
            if key == "set-cookie":
                name, sign, rest = value.partition("=")
                text = rest.partition(";")[0].strip()
                if sign and (text or name.strip() not in found):
                    found[name.strip()] = _unquoted(text)
        return {name: text for name, text in found.items() if text}


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


Talk = Generator[Request | Pause, Answer, T]
"""Yields requests and pauses; is sent the answer to each request, and something meaningless after a pause."""


def refused(error: ProxyError) -> Talk[Any]:
    """A conversation that is over before anything is asked."""

    yield from ()
    raise error


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Who signs in where.

    :ivar host: the panel's host as it stands in a URL, port included where it is not the scheme's own.
    :ivar address: the BMC's address alone; IPv6 without brackets.
    :ivar now: milliseconds since the epoch, for panels that want them in a path.
    :ivar title: what the console's window may be called.
    """

    scheme: Literal["https", "http"] = "https"
    host: str
    address: str
    username: str
    password: Secret
    now: int = 0
    title: str = "console"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSession:
    """A signed-in session: what is needed to use it, and to sign out of it, perhaps in another life of the daemon.

    :ivar cookies: to be sent with each request.
    :ivar tokens: whatever else the family needs, by names of its own.
    """

    family: str
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_document(self) -> dict[str, Any]:
        """For the store, which encrypts secrets."""

        return {
            "family": self.family,
            "cookies": {name: Secret(value) for name, value in self.cookies.items()},
            "tokens": {name: Secret(value) for name, value in self.tokens.items()},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> WebSession:
        return cls(
            family=document["family"],
            cookies={name: value.reveal() for name, value in document["cookies"].items()},
            tokens={name: value.reveal() for name, value in document["tokens"].items()},
        )
