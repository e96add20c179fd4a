"""The simulated panel of Cisco's CIMC."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import ClassVar, Final

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

JAR: Final = "avctNuova.jar"
NATIVE: Final = "avctKVMIOLinux64.jar"


class CimcPanel(VendorPanel):
    """``page``: where its HTML5 console is. Jars come packed, if there are such ones."""

    key: ClassVar[str] = "cimc"
    page: str = "/html/kvm.html"

    def routes(self) -> dict[tuple[str, str], Handler]:
        title = "<html><head><title>Cisco Integrated Management Controller Login</title></head></html>"
        return {
            ("GET", "/"): lambda _visit: Reply(title),
            ("POST", "/nuova"): self.call,
            ("GET", "/kvm.jnlp"): self.viewer,
        }

    def answer(self, visit: Visit) -> Reply | None:
        if visit.path == self.page:
            signed = self._owner(visit)
            return Reply(pages.try_out(self.name, signed_in=bool(signed)))
        if not visit.path.startswith("/software/"):
            return None
        return Reply("Forbidden", status=403) if visit.method == "HEAD" else self.jar(visit.path.rpartition("/")[2])

    def call(self, visit: Visit) -> Reply:
        try:
            asked = ET.fromstring(visit.body)
        except ET.ParseError:
            return _said("error", errorCode="ERR-xml-parse-error", errorDescr="XML PARSING ERROR")
        cookie = asked.get("inCookie" if asked.tag == "aaaLogout" else "cookie") or ""
        if asked.tag == "aaaLogin":
            return self._sign_in(asked.get("inName", ""), asked.get("inPassword", ""))
        if cookie not in self.sessions:
            return _said(asked.tag, cookie=cookie, errorCode="552", errorDescr="Authorization required")
        if asked.tag == "aaaLogout":
            self.leave(cookie)
            return _said("aaaLogout", cookie="", outStatus="success")
        if asked.tag == "aaaGetComputeAuthTokens":
            return _said(asked.tag, cookie=cookie, outTokens=f"{self.mint(cookie)},{self.mint(cookie)}")
        return _said(asked.tag, cookie=cookie, errorCode="1", errorDescr="unknown method")

    def _sign_in(self, user: str, password: str) -> Reply:
        verdict = self.judge(user, password)
        if verdict == "ok":
            return _said("aaaLogin", outCookie=self.enter(user), outRefreshPeriod="600", outPriv="admin")
        words = {"full": "Maximum number of sessions reached", "locked": "User account is locked"}
        return _said("aaaLogin", errorCode="551", errorDescr=words.get(verdict, "Authentication failed"))

    def _owner(self, visit: Visit) -> str:
        """The session to which both tokens belong."""

        one, two = (self.tokens.get(visit.query.get(name, ""), "") for name in ("tkn1", "tkn2"))
        return one if one == two else ""

    def viewer(self, visit: Visit) -> Reply:
        if self.mood == "html5":
            return Reply("Not Found", status=404)
        if not self._owner(visit):
            return Reply("Forbidden", status=403)
        if self.mood == "broken":
            return Reply("Internal Server Error", status=500)
        host, bare = host_of(visit)
        arguments = {
            "title": visit.query.get("cimcName", "KVM"),
            "ip": bare,
            "user": visit.query["tkn1"],
            "passwd": visit.query["tkn2"],
            "kmport": str(self.kvm_port),
            "vport": str(self.kvm_port),
            "apcp": "1",
            "version": "2",
            "tempunpw": "1",
        }
        text = jnlp_text(
            codebase=f"https://{host}/software",
            title=f"{self.name} KVM Console",
            main="com.avocent.nuova.kvm.Main",
            arguments=[f"{name}={value}" for name, value in arguments.items()],
            jars=[JAR],
            natives={("Linux", "amd64"): NATIVE, ("Linux", "x86_64"): NATIVE},
            properties={"jnlp.packEnabled": "true"},
        )
        return Reply(text, type=JNLP_TYPE)


def _said(tag: str, **attributes: str) -> Reply:
    """Errors, too, come with status 200."""

    element = ET.Element(tag, {"cookie": "", "response": "yes", **attributes})
    return Reply(ET.tostring(element, encoding="unicode"), type="text/xml")


PERSONALITIES: Final = (CimcPanel,)
