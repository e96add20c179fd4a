"""Old panels in today's browser: its program behind ``bridge.py``, which speaks their TLS."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ipmiproxyd.agents.sandbox import LIBRARY
from ipmiproxyd.model import JobFile, Program, Secret
from ipmiproxyd.tools import bridge
from ipmiproxyd.tools.certificates import self_signed
from ipmiproxyd.tools.curl import spki_pin
from ipmiproxyd.vendors.ports import Port, ranges

LEAST: Final = {"weak-keys": "TLSv1_2", "legacy": "TLSv1"}
"""The profiles of TLS that a browser does not speak, and how old they are."""

_BRIDGE: Final = "ipmiproxyd-bridge.py"


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """What the bridge shows to the browser of one console, which accepts nothing else.

    :ivar pin: as a browser takes it.
    """

    pem: str
    pin: str

    @classmethod
    def make(cls, host: str) -> OwnCertificate:
        own = self_signed(host)
        return cls(own.key.reveal() + own.certificate, spki_pin(own.certificate.encode()))


class Bridges:
    """Puts programs behind a bridge."""

    def __init__(self) -> None:
        self._text = Path(bridge.__file__).read_text()

    def behind(
        self,
        python: str,
        program: Program,
        url: str,
        ports: tuple[Port, ...],
        pin: str,
        profile: str,
        own: OwnCertificate,
    ) -> tuple[Program, JobFile]:
        """``program``, a browser's, with the bridge in front of it. ``python``: the agent's, 3.9 or later. ``pin``: of
        the panel at ``url``."""

        parts = urlsplit(url)
        told = {
            "host": (parts.hostname or "").lower(),
            "ports": ranges([parts.port or 443, *ports]),
            "pin": pin,
            "least": LEAST[profile],
            "certificate": own.pem,
            "then": program.stdin.reveal() if program.stdin else "",
        }
        argv = (python, "-I", "-S", f"{LIBRARY}/{_BRIDGE}", *program.argv)
        return (
            replace(program, argv=argv, stdin=Secret(json.dumps(told))),
            JobFile(place="library", name=_BRIDGE, text=self._text),
        )
