"""What keeps others out of a display whose port is open to a network: TLS with a certificate, and a password, both made
for one console and known to nobody but the daemon."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from typing import Final

from ipmiproxyd.agents.sandbox import HOME
from ipmiproxyd.model import JobFile, Secret
from ipmiproxyd.tools.certificates import SelfSigned, self_signed
from ipmiproxyd.wire.rfb_hello import vnc_des

CERTIFICATE: Final = "vnc-certificate.pem"
KEY: Final = "vnc-key.pem"
SIGN_IN: Final = "vnc-sign-in"

_FILE_KEY: Final = Secret(bytes((23, 82, 107, 6, 35, 78, 88, 7)).decode("ascii"))
"""With it VNC programs hide the password in a file. Everybody knows it."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Of one display.

    :ivar password: of eight characters, which is all that VNC looks at.
    :ivar options: Xvnc's.
    """

    password: Secret
    own: SelfSigned

    options = (
        "-SecurityTypes", "X509Vnc",
        "-X509Cert", f"{HOME}/{CERTIFICATE}",
        "-X509Key", f"{HOME}/{KEY}",
        "-rfbauth", f"{HOME}/{SIGN_IN}",
    )  # fmt: skip

    @classmethod
    def make(cls) -> Guard:
        return cls(Secret(secrets.token_urlsafe(6)), self_signed("localhost"))

    @property
    def fingerprint(self) -> str:
        return self.own.fingerprint

    @property
    def files(self) -> tuple[JobFile, ...]:
        hidden = base64.b64encode(vnc_des(_FILE_KEY, self.password.reveal().encode("ascii"))).decode("ascii")
        return (
            JobFile(place="home", name=CERTIFICATE, text=self.own.certificate),
            JobFile(place="home", name=KEY, text=self.own.key.reveal()),
            JobFile(place="home", name=SIGN_IN, text=hidden, encoding="base64"),
        )
