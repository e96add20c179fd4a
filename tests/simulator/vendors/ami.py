"""The simulated panel of AMI MegaRAC with ``.asp`` pages."""

from __future__ import annotations

import secrets
from typing import ClassVar, Final

from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

_FRONT: Final = """<html><head><script type="text/javascript" src="/lib/xmit.js"></script>
<script>document.location = "/page/login.html";</script></head><body></body></html>
"""
_LOGIN: Final = """<html><head><title>MegaRAC SP</title><script src="../lib/xmit.js"></script></head>
<body><img src="../res/banner_right.png"><form name="login"><input id="login_username"><input id="login_password"
type="password"></form></body></html>
"""
_PAD: Final = 512
"""By how much the Content-Length of the JNLP is too large."""


class AmiPanel(VendorPanel):
    """``arguments``: "named" (later firmware), "positional" (Tyan's, with a stray control byte), "none" (broken ones).
    ``csrf``: whether a token is wanted. ``first``: "script" or "redirect"."""

    key: ClassVar[str] = "ami"
    cookie: ClassVar[str] = "SessionCookie"
    slots: int = 20
    arguments: str = "named"
    csrf: bool = True
    first: str = "script"
    asks_for: str = "EXTRNIP"
    """The query without which there is no JNLP; empty: none is wanted."""

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): self.front,
            ("GET", "/page/login.html"): lambda _visit: Reply(_LOGIN, headers={"Server": "GoAhead-Webs"}),
            ("POST", "/rpc/WEBSES/create.asp"): self.create,
            ("GET", "/rpc/WEBSES/logout.asp"): self.logout,
            ("GET", "/rpc/getsessiontoken.asp"): self.token,
            ("GET", "/Java/jviewer.jnlp"): self.viewer,
        }

    def answer(self, visit: Visit) -> Reply | None:
        folder, _, name = visit.path.rpartition("/")
        if folder == "/Java/release" and name != "JViewer-SOC.jar":
            return self.jar(name)
        return None

    def front(self, _visit: Visit) -> Reply:
        headers = {"Server": "GoAhead-Webs"}
        if self.first == "redirect":
            return Reply(status=302, headers={**headers, "Location": "/page/login.html"})
        return Reply(_FRONT, headers=headers)

    def create(self, visit: Visit) -> Reply:
        user = visit.form.get("WEBVAR_USERNAME", "")
        verdict = self.judge(user, visit.form.get("WEBVAR_PASSWORD", ""))
        if verdict == "full":
            return _script("WEB_SESSION", "", 3)
        if verdict != "ok":
            return _script("WEB_SESSION", "'SESSION_COOKIE' : 'Failure_Login_IPMI_Then_LDAP'", 0)
        session = self.enter(user)
        more = f", 'CSRFTOKEN' : '{self._csrf(session)}'" if self.csrf else ""
        return _script("WEB_SESSION", f"'SESSION_COOKIE' : '{session}', 'BMC_IP_ADDR' : '10.0.0.7'{more}", 0)

    def logout(self, visit: Visit) -> Reply:
        if self._may(visit):
            self.leave(visit.session)
        return _script("WEB_SESSION", "", 0)

    def token(self, visit: Visit) -> Reply:
        return _script("GETSESSIONTOKEN", f"'STOKEN' : '{self.mint(visit.session)}'" if self._may(visit) else "", 0)

    def viewer(self, visit: Visit) -> Reply:
        if self.asks_for and self.asks_for not in visit.query:
            return Reply("<html>Not Found</html>", status=404)
        if not visit.user:
            return Reply("<html>Method Not Allowed</html>", status=405)
        if self.mood == "broken":
            return Reply("<html>500</html>", status=500)
        if not self._may(visit):
            return Reply("session_expired")
        text = self.jnlp(visit)
        return Reply(text, type=JNLP_TYPE, length=len(text.encode()) + _PAD)

    def jnlp(self, visit: Visit) -> str:
        host, bare = host_of(visit)
        if self.arguments == "none":
            return '<jnlp spec="1.0+" codebase="https://(null)/Java">Unable to find JNLP String</jnlp>'
        token = self.mint(visit.session)
        port = str(self.kvm_port)
        named = {
            "apptype": "JViewer",
            "hostname": bare,
            "kvmtoken": token,
            "kvmsecure": "1",
            "kvmport": port,
            "vmsecure": "1",
            "cdstate": "1",
            "webcookie": visit.session,
            "websecureport": "443",
            "singleportenabled": "0",
            "extendedpriv": "259",
            "localization": "EN",
            "keyboardlayout": "AD",
        }
        pairs = [text for name, value in named.items() for text in (f"-{name}", value)]
        positional = self.arguments == "positional"
        text = jnlp_text(
            codebase=f"https://{host}/Java",
            title="JViewer",
            main="com.ami.kvm.jviewer.JViewer",
            arguments=[bare, port, token, visit.session] if positional else pairs,
            jars=["release/JViewer.jar", "release/JViewer-SOC.jar"],
            natives={("Linux", "x86_64"): "release/Linux_x86_64.jar", ("Linux", "amd64"): "release/Linux_x86_64.jar"},
            java="1.7+",
        )
        return text.replace("</information>", "\x02</information>") if positional else text

    def _csrf(self, session: str) -> str:
        return session[:8]

    def _may(self, visit: Visit) -> bool:
        given = visit.headers.get("csrftoken", "")
        return bool(visit.user) and (not self.csrf or secrets.compare_digest(given, self._csrf(visit.session)))


def _script(name: str, fields: str, status: int) -> Reply:
    rows = f"{{ {fields} }},  {{}}" if fields else "{}"
    return Reply(
        f"//Dynamic Data Begin\n\n WEBVAR_JSONVAR_{name} =\n\n {{\n\n WEBVAR_STRUCTNAME_{name} :\n\n [\n\n"
        f" {rows} ],\n\n"
        f" HAPI_STATUS:{status} }};\n\n//Dynamic data end\n\n",
        type="text/plain",
    )


PERSONALITIES: Final = (AmiPanel,)
