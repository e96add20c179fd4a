"""curl on the agent: requests to a BMC's web panel.

Everything of a request goes in by standard input (``-q -K -``): no address, cookie or password is in an argument. One
run of curl is one request; redirects are the caller's affair, who knows what belongs to the panel.
"""

from __future__ import annotations

import base64
import hashlib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ipmiproxyd.errors import (
    BadCertificate,
    BmcError,
    BmcUnreachable,
    ProxyError,
    TlsTooOld,
)
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Command, Outcome
from ipmiproxyd.tools.names import Names, as_address
from ipmiproxyd.vendors.talk import Answer, Request

TLS_PROFILES: Final = {
    "modern": ("tlsv1.2",),
    "weak-keys": ("tlsv1.2", 'ciphers = "DEFAULT@SECLEVEL=0"'),
    "legacy": ("tlsv1.0", 'ciphers = "DEFAULT@SECLEVEL=0"'),
}
"""What is spoken to a panel, the best first. Only what a panel does not speak leads to the next."""

_NO_PIN: Final = base64.b64encode(bytes(32)).decode("ascii")
_SHOWN: Final = re.compile(rb"^\*\s+public key hash: sha256//([A-Za-z0-9+/]{43}=)\r?$", re.MULTILINE)
"""How curl tells which key a panel has shown, where another one is pinned."""

_GRACE: Final = 5.0
_HEAD_LIMIT: Final = 64 << 10
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_BLOCKS: Final = 8
"""Header blocks of one answer; what looks like another one is its body. Without a limit, a panel could have us copy a
body that is made of them as often as it has some."""
_NO_SUCH: Final = 22
_NO_TLS: Final = 35
_WEAK_CIPHER: Final = 59
_UNTRUSTED: Final = 60
_WRONG_PIN: Final = 90
_TOO_LONG: Final = 63


class NoCommonTls(TlsTooOld):
    """The panel does not speak TLS as this profile wants it; another may do."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    error: type[ProxyError]
    words: str
    hint: str


_CHECK: Final = "Check the device's address (web=), its network, and that the panel is switched on."
_EXITS: Final = {
    3: _Meaning(BmcUnreachable, "The panel's address {url} cannot be used", "Correct the device's web address."),
    5: _Meaning(BmcUnreachable, "The proxy for {url} is not known", _CHECK),
    6: _Meaning(BmcUnreachable, "The name in {url} is not known on the agent", "Check the device's address."),
    7: _Meaning(BmcUnreachable, "Nothing answers at {url}", _CHECK),
    18: _Meaning(BmcError, "The panel at {url} broke off in the middle of an answer", _CHECK),
    28: _Meaning(BmcUnreachable, "The panel at {url} did not answer in time", _CHECK),
    52: _Meaning(BmcUnreachable, "The panel at {url} closed the connection without an answer", _CHECK),
    56: _Meaning(BmcUnreachable, "The connection to the panel at {url} broke", _CHECK),
    _TOO_LONG: _Meaning(BmcError, "The panel at {url} wants to send more than it should", ""),
    _NO_TLS: _Meaning(
        NoCommonTls,
        "The panel at {url} speaks no TLS that today's programs accept",
        "It may be too old, or not be HTTPS at all; a newer firmware of the BMC helps.",
    ),
    _WEAK_CIPHER: _Meaning(NoCommonTls, "The panel at {url} has no cipher in common with today's programs", ""),
    _UNTRUSTED: _Meaning(
        BadCertificate,
        "Nobody vouches for the certificate of the panel at {url}",
        "Let its own certificate be trusted (web_trust=pin), or install one that an authority has signed.",
    ),
    _WRONG_PIN: _Meaning(
        BadCertificate,
        "The panel at {url} shows another certificate than before",
        "If it was changed on purpose, forget the old one: ipmiproxyctl vendor forget device=… agent=…",
    ),
}


@dataclass(frozen=True, slots=True)
class Trust:
    """Which panel is the right one.

    :ivar pin: base64 of the SHA-256 of its key; empty for none.
    :ivar by_authority: its certificate has to be signed by one that the agent knows.
    """

    pin: str = ""
    by_authority: bool = False


class Curl:
    """Runs curl. Raises BmcUnreachable, NoCommonTls, BadCertificate, BmcError, and what the agent raises.

    :param connect_timeout: seconds in which a panel has to answer.
    :param names: the addresses that are to be used for names that are held to.
    """

    def __init__(
        self, *, program: str = "curl", connect_timeout: float = 10.0, names: Names | None = None
    ) -> None:
        self._program = program
        self._connect_timeout = connect_timeout
        self._names = names or Names()

    async def look(self, agent: Agent, url: str, profile: str) -> str | None:
        """The SHA-256 of the key in the panel's certificate, in base64: what a browser needs to accept just it.

        None for a panel that speaks plain HTTP; it is asked all the same, so that a dead one is found here.
        """

        options = [
            f"url = {_quoted(url + '/')}",
            "head",
            "insecure",  # what is looked at here is what gets pinned
            *TLS_PROFILES[profile],
            *self._pinned(agent, url),
            'output = "/dev/null"',
            f"max-time = {self._connect_timeout:g}",
        ]
        if url.startswith("https:"):
            # A key that nobody has: curl tells the panel's, and breaks off before it asks for anything. Its variable
            # "certs" would tell the certificate, but not before version 7.88.
            options += ["verbose", f"pinnedpubkey = {_quoted('sha256//' + _NO_PIN)}"]
        outcome = await agent.run(self._command(options, self._connect_timeout))
        if outcome.status == _WRONG_PIN:
            shown = _SHOWN.findall(outcome.stderr)
            if not shown:
                raise BmcError(f"The certificate of the panel at {url} cannot be read.")
            return str(shown[-1].decode("ascii"))
        if not outcome.ok:
            raise _error(outcome, url)
        if url.startswith("https:"):
            raise BmcError(f"The panel at {url} showed no certificate.")
        return None

    async def ask(self, agent: Agent, url: str, request: Request, profile: str, trust: Trust) -> Answer:
        """One request to the panel at ``url`` (scheme and host)."""

        options = [*_request(url, request), *TLS_PROFILES[profile], *_trust(trust), *self._pinned(agent, url)]
        options += ["include", "compressed", f"max-time = {request.timeout:g}", f"max-filesize = {request.limit}"]
        command = self._command(options, request.timeout, request.limit + _HEAD_LIMIT)
        outcome = await agent.run(command)
        if len(outcome.stdout) >= command.output_limit:
            raise _too_much(url, request)
        if not outcome.ok:
            raise _error(outcome, url)
        return parse_answer(outcome.stdout, request.path, url)

    async def fetch(self, agent: Agent, url: str, request: Request, profile: str, trust: Trust, path: str) -> int:
        """The same, with the answer's body into a file on the agent. Returns the status. The file may be there, or a
        part of it, whatever comes of this."""

        options = [*_request(url, request), *TLS_PROFILES[profile], *_trust(trust), *self._pinned(agent, url)]
        options += [
            "compressed",
            f"output = {_quoted(path)}",
            "fail",  # no file then
            f"max-time = {request.timeout:g}",
            f"max-filesize = {request.limit}",
            'write-out = "%{http_code}"',
        ]
        # Before its version 8.4, curl holds to max-filesize only if the panel tells the size at first.
        outcome = await agent.run(self._command(options, request.timeout, within=request.limit))
        if outcome.signal == signal.SIGXFSZ:
            raise _too_much(url, request)
        if not outcome.ok and outcome.status != _NO_SUCH:
            raise _error(outcome, url)
        return int(outcome.stdout)

    def _pinned(self, agent: Agent, url: str) -> Iterator[str]:
        """Whatever a name means by now, it is the host that it meant at first."""

        parts = urlsplit(url)
        address = self._names.held(agent, parts.hostname or "")
        if address is not None and as_address(parts.hostname or "") is None:
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            host = f"[{address}]" if ":" in address else address
            yield f"resolve = {_quoted(f'{parts.hostname}:{port}:{host}')}"

    def _command(self, options: list[str], limit: float, output: int = 1 << 20, within: int = 0) -> Command:
        """``within``: bytes that it may write into a file, 0 for any number."""

        common = [
            "globoff",
            "path-as-is",
            "silent",
            "show-error",
            'noproxy = "*"',
            f"connect-timeout = {self._connect_timeout:g}",
        ]
        bounds = ("prlimit", f"--fsize={within}", "--core=0") if within else ()
        return Command(
            argv=(*bounds, self._program, "-q", "-K", "-"),
            stdin=_configuration([*options, *common]),
            timeout=limit + _GRACE,
            output_limit=output,
        )


def _configuration(options: list[str]) -> bytes:
    """For curl's standard input. Raises BmcError for what cannot be told: a NUL would hide the option after it."""

    text = "\n".join(options) + "\n"
    try:
        # What is no UTF-8 may be in a body alone, where it is meant.
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = b"\0"
    if b"\0" in data:
        raise BmcError("The panel has told something that cannot be sent back to it.")
    return data


def _request(url: str, request: Request) -> Iterator[str]:
    if not request.path.startswith("/"):
        # Some are made of what a panel has said: "https://192.0.2.1" + "@elsewhere/" is elsewhere.
        raise BmcError(f"The panel at {url} names a page in a way that is not allowed.")
    yield f"url = {_quoted(url + request.path)}"
    yield "http1.0" if request.http10 else "http1.1"
    if request.http10:
        yield "no-alpn"  # a server that knows of ALPN finds nothing to choose in "http/1.0", and hangs up
    yield "head" if request.method == "HEAD" else f"request = {_quoted(request.method)}"
    headers = {"Expect": "", **request.headers}
    if request.ignore_length:
        headers["Connection"] = "close"  # else nothing would tell the body's end
    if request.form is not None:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        yield f"data-raw = {_quoted(urlencode(list(request.form)))}"
    elif request.body is not None:
        headers["Content-Type"] = request.content_type or "application/octet-stream"
        yield f"data-raw = {_quoted(request.body.decode('utf-8', 'surrogateescape'))}"
    for name, value in headers.items():
        yield f"header = {_quoted(f'{name}: {value}' if value else f'{name}:')}"
    if request.cookies:
        yield f"cookie = {_quoted('; '.join(f'{name}={value}' for name, value in request.cookies.items()))}"
    if request.digest is not None:
        user, password = request.digest
        yield "digest"
        yield f"user = {_quoted(f'{user}:{password.reveal()}')}"
    if request.ignore_length:
        yield "ignore-content-length"


def _trust(trust: Trust) -> Iterator[str]:
    if not trust.by_authority:
        yield "insecure"
    if trust.pin:
        yield f"pinnedpubkey = {_quoted('sha256//' + trust.pin)}"


def parse_answer(raw: bytes, path: str, url: str) -> Answer:
    """Of curl's ``include``: header blocks (interim ones, and those of a Digest's first round, come before the last)
    and the body."""

    body, status, lines = raw, 0, list[str]()
    for _ in range(_BLOCKS):
        end = _HEAD_END.search(body)
        head, body = (body[: end.start()], body[end.end() :]) if end else (body, b"")
        lines = head.decode("utf-8", "replace").splitlines()
        first = lines[0].split() if lines else []
        if len(first) < 2 or not first[0].startswith("HTTP/") or not first[1].isdecimal():
            raise BmcError(f"The panel at {url} answers in no HTTP.")
        status = int(first[1])
        if not body.startswith(b"HTTP/"):
            break
    fields = (line.partition(":") for line in lines[1:])
    headers = [(name.strip().lower(), value.strip()) for name, sign, value in fields if sign]
    return Answer(status=status, headers=headers, body=body, path=path)


def _too_much(url: str, request: Request) -> BmcError:
    return BmcError(f"The panel at {url} sent more than {request.limit} bytes in one answer.")


def _error(outcome: Outcome, url: str) -> ProxyError:
    if outcome.timed_out:
        return BmcUnreachable(f"The panel at {url} did not answer in time.", hint=_CHECK)
    meaning = _EXITS.get(outcome.status or 0)
    if meaning is None:
        said = outcome.last_words.removeprefix("curl: ") if outcome.stderr else f"curl ended with {outcome.status}"
        return BmcError(f"The panel at {url} could not be asked: {said}.")
    return meaning.error(meaning.words.format(url=url) + ".", hint=meaning.hint or None)


def spki_pin(pem: bytes) -> str:
    """Base64 of the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4). Raises BmcError."""

    try:
        key = x509.load_pem_x509_certificate(pem).public_key()
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError):
        raise BmcError("The panel's certificate cannot be read.") from None
    return base64.b64encode(hashlib.sha256(info).digest()).decode("ascii")


def _quoted(text: str) -> str:
    """A value for curl's configuration language."""

    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
