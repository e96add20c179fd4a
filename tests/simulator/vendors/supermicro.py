"""The simulated Supermicro panel (ATEN firmware)."""

from __future__ import annotations

import base64
import json
from binascii import Error as NotBase64
from typing import ClassVar, Final, Literal

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

JAR: Final = "iKVM__V1.69.38.0x0.jar"
NATIVE: Final = "liblinux_x86_64__V1.0.12.jar"

_TIMEOUT: Final = "<html><head><script>SessionTimeout();</script></head><body></body></html>"
_ALERT: Final = (
    "<html><head><script>window.location = '../cgi/url_redirect.cgi?url_name=login_alert';</script></head></html>"
)
_INSIDE: Final = (
    "<html><head><script>window.location = '../cgi/url_redirect.cgi?url_name=mainmenu';</script></head></html>"
)
_FRONT: Final = """<html><head>
<META NAME="ATEN International Co Ltd." CONTENT="(c) ATEN International Co Ltd. 2010">
<title></title><script>{script}</script></head><body>
<form name="form1" action="/cgi/login.cgi" method="post">
<input name="name" type="text"><input name="pwd" type="password">{more}
<input id="login_word" name="Login" type="button" onclick="javascript: checkform(this)">
</form></body></html>
"""


class SupermicroPanel(VendorPanel):
    """``firmware``: "x9" (a plain form), "x11" (the form in base64, with the field "check"), "x13" (no form: Redfish).
    ``jnlp_at``: the name of the page that gives the JNLP, or "session" (made by Build_jnlp.cgi)."""

    key: ClassVar[str] = "supermicro"
    cookie: ClassVar[str] = "SID"
    firmware: Literal["x9", "x11", "x13"] = "x9"
    jnlp_at: str = "ikvm"
    built: bool = False
    stumbles: int = 0
    """How many requests for the JNLP get an error 500 first."""

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): self.front,
            ("POST", "/cgi/login.cgi"): self.sign_in,
            ("GET", "/cgi/logout.cgi"): self.sign_out,
            ("GET", "/cgi/url_redirect.cgi"): self.redirect,
            ("POST", "/cgi/url_redirect.cgi"): self.by_post,
            ("GET", "/cgi/Build_jnlp.cgi"): self.build,
            ("POST", "/redfish/v1/SessionService/Sessions"): self.redfish_sign_in,
            ("GET", "/redfish/v1/Managers/1/Oem/Supermicro/IKVM"): self.redfish_ikvm,
        }

    def answer(self, visit: Visit) -> Reply | None:
        name = visit.path.rpartition("/")[2]
        if visit.method == "HEAD":
            return Reply(status=403)
        if visit.method == "DELETE" and visit.path.startswith("/redfish/v1/SessionService/Sessions/"):
            return self.redfish_sign_out(visit)
        if visit.path.startswith("/jnlp/sess_") and self.jnlp_at == "session" and self.built:
            return self.viewer(visit) if visit.path == f"/jnlp/sess_{visit.session}.jnlp" else None
        if visit.path.endswith(".IKVM") and name.removesuffix(".IKVM") in self.tokens:
            return Reply(pages.try_out(self.name, signed_in=True))
        return self.jar(name) if name.startswith(("iKVM", "lib")) else None

    def front(self, visit: Visit) -> Reply:
        coded = self.firmware == "x11"
        script = "function checkform(x) { f.name.value = btoa(f.name.value); }" if coded else "var lang;"
        return Reply(
            _FRONT.format(script=script, more='<input type="hidden" name="check" value="00">' if coded else "")
        )

    def sign_in(self, visit: Visit) -> Reply:
        user, password = visit.form.get("name", ""), visit.form.get("pwd", "")
        if self.firmware == "x13":
            return Reply("<html>400 - Bad Request</html>", status=400)
        if self.firmware == "x11":
            try:
                user, password = (base64.b64decode(text, validate=True).decode() for text in (user, password))
            except (NotBase64, UnicodeDecodeError):
                user = password = ""
        verdict = self.judge(user, password)
        if verdict == "full":
            return Reply("<html><script>alert('The maximum number of sessions is in use.');</script></html>")
        if verdict != "ok":
            return Reply(_ALERT)
        gone = "SID=; expires=Thu, 01 Jan 1970 00:00:00 GMT; path=/"
        return Reply(_INSIDE, cookies=(gone, f"SID={self.enter(user)}; path=/"))

    def sign_out(self, visit: Visit) -> Reply:
        self.leave(visit.session)
        return Reply("<html><meta http-equiv='refresh' content='0;URL=/'></html>")

    def redirect(self, visit: Visit) -> Reply:
        wanted = visit.query.get("url_name", "")
        if "referer" not in visit.headers:
            return Reply("<html>500 - Internal Server Error</html>", status=500)
        if not visit.user:
            return Reply(_TIMEOUT)
        if visit.query.get("url_type") == "jwsk":
            if self.mood == "html5" or wanted != self.jnlp_at:
                return Reply("<html>File Not Found</html>", status=404 if wanted == "ikvm" else 200)
            return self.viewer(visit)
        if wanted == "man_ikvm_html5_bootstrap":
            if self.firmware == "x9":
                return Reply("<html>File Not Found</html>", status=404)
            return Reply(pages.try_out(self.name, signed_in=True))
        if wanted in {"mainmenu", "topmenu", "man_ikvm"}:
            return Reply(f'<html><script>SmcCsrfInsert("CSRF_TOKEN", "{self.name}");</script>{wanted}</html>')
        return Reply("<html>File Not Found</html>", status=404)

    def by_post(self, visit: Visit) -> Reply:
        right = visit.form.get("url_name") == f"sess_{visit.session}" and visit.form.get("url_type") == "jwsk"
        return self.viewer(visit) if visit.user and right and self.jnlp_at == "post" else Reply(_TIMEOUT)

    def build(self, visit: Visit) -> Reply:
        self.built = bool(visit.user)
        return Reply("<html></html>")

    def viewer(self, visit: Visit) -> Reply:
        if self.mood == "broken" or self.stumbles:
            self.stumbles = max(0, self.stumbles - 1)
            return Reply("<html>500 - Internal Server Error</html>", status=500)
        return Reply(self.jnlp(visit), type=JNLP_TYPE)

    def jnlp(self, visit: Visit) -> str:
        host, bare = host_of(visit)
        token = self.mint(visit.session)
        return jnlp_text(
            codebase=f"https://{host}/",
            title="ATEN Java iKVM Viewer",
            main="tw.com.aten.ikvm.KVMMain",
            arguments=[bare, token, token, "null", str(self.kvm_port), "623", "0", "0", "1", "5900"],
            jars=[JAR],
            natives={("Linux", "x86_64"): NATIVE, ("Linux", "amd64"): NATIVE},
        )

    def redfish_sign_in(self, visit: Visit) -> Reply:
        given = visit.json if isinstance(visit.json, dict) else {}
        verdict = self.judge(str(given.get("UserName")), str(given.get("Password")))
        if verdict == "full":
            return _json({"error": {"code": "Base.v1_4_0.SessionLimitExceeded"}}, 503)
        if verdict != "ok":
            return _json({"error": {"code": "Base.v1_4_0.NoValidSession"}}, 401)
        session = self.enter(str(given["UserName"]))
        place = f"/redfish/v1/SessionService/Sessions/{session[:8]}"
        headers = {"X-Auth-Token": session, "Location": place}
        reply = _json({"Id": session[:8], "Name": "User Session"}, 201)
        return Reply(reply.body, 201, reply.type, headers, (f"SID={session}; path=/",))

    def redfish_sign_out(self, visit: Visit) -> Reply:
        token = visit.headers.get("x-auth-token", "")
        mine = visit.path.rpartition("/")[2] == token[:8] and self.leave(token)
        return Reply(status=204) if mine else Reply(status=401)

    def redfish_ikvm(self, visit: Visit) -> Reply:
        token = visit.headers.get("x-auth-token", "")
        if token not in self.sessions:
            return _json({"error": {"code": "Base.v1_4_0.NoValidSession"}}, 401)
        return _json({"Current interface": "HTML 5", "URI": f"/redfish/{self.mint(token)}.IKVM"}, 200)


def _json(value: object, status: int) -> Reply:
    return Reply(json.dumps(value), status, "application/json")


PERSONALITIES: Final = (SupermicroPanel,)
