"""The simulated panels of Sun's and Oracle's ILOM."""

from __future__ import annotations

import secrets
from typing import ClassVar, Final

from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

JAR: Final = "Java/JavaRConsole.jar"
LIBRARY: Final = "Java/RedirLib.jar"
_TITLE: Final = "Sun(TM) Integrated Lights Out Manager"


class IlomOldPanel(VendorPanel):
    """Its scripts set the cookies. Tells a wrong Content-Length."""

    key: ClassVar[str] = "ilom-old"
    cookie: ClassVar[str] = "ILOM_SESSION"
    viewer_dies: ClassVar[bool] = False
    described: str = "/cgi-bin/jnlpgenerator-8"

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): lambda _visit: Reply('<html><script>location.href="/iPages/i_login.asp";</script></html>'),
            ("GET", "/iPages/i_login.asp"): self.front,
            ("POST", "/iPages/loginProcessor.asp"): self.sign_in,
            ("GET", "/logout.asp"): self.sign_out,
        }

    def answer(self, visit: Visit) -> Reply | None:
        if visit.path == self.described and visit.method == "GET":
            return self.viewer(visit)
        return self.jar(visit.path.rpartition("/")[2]) if visit.path.startswith("/Java/") else None

    def front(self, _visit: Visit) -> Reply:
        return Reply(f"<html><head><title>{_TITLE}</title></head><form action='loginProcessor.asp'></form></html>")

    def sign_in(self, visit: Visit) -> Reply:
        user = visit.form.get("username", "")
        verdict = self.judge(user, visit.form.get("password", ""))
        if verdict != "ok":
            return _back(verdict)
        script = f'SetWebSessionString("{self.cookie}","{self.enter(user)}");'
        return Reply(f'<html><script>{script} location.href="/iPages/suntab.asp";</script></html>')

    def sign_out(self, visit: Visit) -> Reply:
        self.leave(visit.session)
        return Reply("<html>Logged out</html>")

    def viewer(self, visit: Visit) -> Reply:
        if not visit.user or (self.cookie == IlomOldPanel.cookie and visit.cookies.get("langsetting") != "EN"):
            return _back("wrong")
        if self.mood == "broken":
            return Reply("Internal Server Error", status=500)
        host, bare = host_of(visit)
        token = self.mint(visit.session)
        arguments = [visit.path.rpartition("-")[2], bare, f"{visit.user}-sp-1", token, str(self.kvm_port)]
        text = jnlp_text(
            codebase=f"https://{host}/",
            title="Sun Remote System Console",
            main="com.sun.rkvm.rconsole.JavaRConsole",
            arguments=arguments,
            jars=[JAR, LIBRARY],
            natives={},
        )
        return Reply(text, type=JNLP_TYPE, length=len(text.encode()) + 12)


class IlomPanel(IlomOldPanel):
    """Gives out a token to sign in with."""

    key: ClassVar[str] = "ilom"
    cookie: ClassVar[str] = "ORA_ILOM_SESSION_SP"
    described: str = "/cgi-bin/jnlpgenerator-16"
    offered: frozenset[tuple[str, str]] = frozenset()
    hidden: bool = False
    """The token is in a field of the form, instead of a script."""

    def front(self, _visit: Visit) -> Reply:
        token, cookie = secrets.token_hex(15), secrets.token_hex(8)
        self.offered |= {(cookie, token)}
        field = f'<input type="hidden" name="loginToken" value="{token if self.hidden else ""}">'
        script = "" if self.hidden else f'<script>setElementValue("loginToken", "{token}");</script>'
        page = f"<html><head><title>{_TITLE}</title></head><form>{field}</form>{script}</html>"
        return Reply(page, headers=_SERVER, cookies=(f"ORA_ILOM_LOGIN={cookie}; path=/; secure",))

    def sign_in(self, visit: Visit) -> Reply:
        offer = (visit.cookies.get("ORA_ILOM_LOGIN", ""), visit.form.get("loginToken", ""))
        if offer not in self.offered or visit.cookies.get("ilom") != "1" or visit.form.get("button") != "Log In":
            return _back("stale")
        self.offered -= {offer}
        user = visit.form.get("username", "")
        verdict = self.judge(user, visit.form.get("password", ""))
        if verdict != "ok":
            return _back(verdict)
        cookies = (
            f"{self.cookie}={self.enter(user)}; path=/; secure",
            "ORA_ILOM_LOGIN=x; path=/; expires=Thu, 01-Jan-70 00:00:01 GMT",
        )
        page = "<html><script>location.href='/iPages/suntab.asp';</script></html>"
        return Reply(page, headers=_SERVER, cookies=cookies)


_SERVER: Final = {"Server": "Oracle-ILOM-Web-Server/1.0"}


def _back(verdict: str) -> Reply:
    number = {"full": 5, "stale": 3}.get(verdict, 2)
    return Reply(f"<html><script>location.href='/iPages/i_login.asp?msg={number}';</script></html>")


PERSONALITIES: Final = (IlomOldPanel, IlomPanel)
