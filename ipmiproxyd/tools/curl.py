"""curl on the agent: what the BMC's web panel shows of itself before anybody signs in."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ipmiproxyd.errors import BmcError, BmcUnreachable, BmcUnsupported, ProxyError
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Command, Outcome

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_GRACE: Final = 5.0
_NO_TLS: Final = 35


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
    28: _Meaning(BmcUnreachable, "The panel at {url} did not answer in time", _CHECK),
    _NO_TLS: _Meaning(
        BmcUnsupported,
        "The panel at {url} speaks no TLS that today's programs accept",
        "It may be too old, or not be HTTPS at all; a newer firmware of the BMC helps.",
    ),
    52: _Meaning(BmcUnreachable, "The panel at {url} closed the connection without an answer", _CHECK),
    56: _Meaning(BmcUnreachable, "The connection to the panel at {url} broke", _CHECK),
}


class Curl:
    """Runs curl; its options go in by standard input.

    :param connect_timeout: seconds in which the panel has to answer.
    """

    def __init__(self, *, program: str = "curl", connect_timeout: float = 10.0) -> None:
        self._program = program
        self._connect_timeout = connect_timeout

    async def panel_pin(self, agent: Agent, url: str) -> str | None:
        """The SHA-256 of the key in the panel's certificate, in base64: what a browser needs to accept just it.

        None for a panel that speaks plain HTTP; it is asked all the same, so that a dead one is found here.
        Raises BmcUnreachable, BmcUnsupported, BmcError, and what the agent raises.
        """

        outcome = await agent.run(self._look(url))
        begin, end = outcome.stdout.find(_BEGIN), outcome.stdout.find(_END)
        shown = 0 <= begin < end and outcome.status != _NO_TLS
        if not outcome.ok and not shown:
            raise self._error(outcome, url)
        if not url.startswith("https:"):
            return None
        if not shown:
            raise BmcError(f"The panel at {url} showed no certificate.")
        # Whatever became of the request itself: some panels do not know HEAD, some are slow to answer.
        return spki_pin(outcome.stdout[begin : end + len(_END)])

    def _look(self, url: str) -> Command:
        options = [
            f"url = {_quoted(url + '/')}",
            "head",
            "insecure",  # what is looked at here is what gets pinned
            "tlsv1.2",  # what Chromium takes at least; it has no objection to the short keys of old panels
            'ciphers = "DEFAULT@SECLEVEL=0"',
            "globoff",
            "silent",
            "show-error",
            'noproxy = "*"',
            'output = "/dev/null"',
            f"connect-timeout = {self._connect_timeout:g}",
            f"max-time = {self._connect_timeout:g}",
            'write-out = "%{certs}"',
        ]
        return Command(
            argv=(self._program, "-q", "-K", "-"),
            stdin="\n".join(options).encode() + b"\n",
            timeout=self._connect_timeout + _GRACE,
        )

    def _error(self, outcome: Outcome, url: str) -> ProxyError:
        if outcome.timed_out:
            return BmcUnreachable(f"The panel at {url} did not answer in time.", hint=_CHECK)
        meaning = _EXITS.get(outcome.status or 0)
        if meaning is None:
            said = outcome.stderr.decode("utf-8", "replace").strip().removeprefix("curl: ")
            return BmcError(f"The panel at {url} could not be asked: {said or f'curl ended with {outcome.status}'}.")
        return meaning.error(meaning.words.format(url=url) + ".", hint=meaning.hint)


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
