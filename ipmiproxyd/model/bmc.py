"""A server's BMC, and what is remembered of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from ipmiproxyd.model.secret import Secret

Interface = Literal["lanplus", "lan"]
Privilege = Literal["callback", "user", "operator", "administrator"]
WebTrust = Literal["pin", "ca", "insecure"]
"""Which certificate of a web panel is the right one: the one that it showed first, one that an authority vouches for,
or any."""
IPMI_PORT: Final = 623


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One server's BMC: where it is and how to sign in.

    ``name`` is empty for a BMC that was given inline on a request. ``cipher`` is "auto" or the number of an IPMI
    cipher suite. ``kg`` is the BMC's second key (K_G) as hexadecimal text. ``web`` is the panel's base URL, by
    default ``https://<address>``. ``vnc`` is the ``host:port`` of the BMC's own VNC server (or of a KVM switch), if
    it has one; ``vnc_fingerprint`` the SHA-256 of its certificate in 64 hexadecimal digits, where it has one that no
    authority has signed. ``java`` is the profile of the Java that its console runs with, or empty for the usual one.
    """

    name: str = ""
    address: str
    port: int = IPMI_PORT
    username: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
    interface: Interface = "lanplus"
    cipher: str = "auto"
    privilege: Privilege = "administrator"
    kg: Secret = field(default_factory=lambda: Secret(""))
    web: str = ""
    web_username: str = ""
    web_password: Secret = field(default_factory=lambda: Secret(""))
    web_trust: WebTrust = "pin"
    java: str = ""
    vnc: str = ""
    vnc_password: Secret = field(default_factory=lambda: Secret(""))
    vnc_fingerprint: str = ""
    location: str = ""
    vendor: str = "auto"
    notes: str = ""

    @property
    def label(self) -> str:
        """What people call it: its name, or its address."""

        return self.name or self.bmc

    @property
    def bmc(self) -> str:
        """The BMC's identity: locks and remembered facts belong to it, whatever the device's name is."""

        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def web_url(self) -> str:
        """Base URL of the web panel, without a slash at its end."""

        if self.web:
            return self.web.rstrip("/")
        return f"https://[{self.address}]" if ":" in self.address else f"https://{self.address}"


BMC_REFUSED: Final = "bmc-refused"
"""Kind of stored document: the credentials that a BMC has refused (hashed)."""
BMC_CIPHER: Final = "ipmi-cipher"
"""Kind of stored document: the cipher suite that a BMC has accepted."""


def bmc_key(bmc: str, agent: str = "") -> str:
    """Key of a document that one agent remembers of a BMC (:attr:`Device.bmc`); without ``agent`` the prefix of
    what all agents remember of it."""

    return f"{bmc} {agent}"
