"""The simulated iLO 3, 4, 5 and 6."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final, Literal

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import VendorPanel

_INFO0: Final = "7AC3BDEBC9AC64E85734454B53BB73CE"
_TEMPLATE: Final = """<html><head><title>iLO</title></head><body>
<script id="jnlpTemplate" type="text/x-jqote-template"><![CDATA[
<?xml version="1.0" encoding="UTF-8"?>
<jnlp spec="1.0+" codebase="<%= this.baseUrl %>" href="">
<information>
    <title>Integrated Remote Console</title>
    <vendor>HPE</vendor>
    <offline-allowed></offline-allowed>
</information>
<security>
    <all-permissions></all-permissions>
</security>
<resources>
    <j2se version="1.5+" href="http://java.sun.com/products/autodl/j2se"></j2se>
    <jar href="<%= this.baseUrl %>html/{jar}" main="false" />
</resources>
<property name="deployment.trace.level property" value="basic"></property>
<applet-desc main-class="com.hp.ilo2.intgapp.intgapp" name="iLOJIRC" \
documentbase="<%= this.baseUrl %>html/java_irc.html" width="1" height="1">
    <param name="RCINFO1" value="<%= this.sessionKey %>"/>
    <param name="RCINFOLANG" value="<%= this.langId %>"/>
    <param name="INFO0" value="{info0}"/>
    <param name="INFO1" value="{port}"/>
    <param name="INFO2" value="composite"/>
</applet-desc>
<update check="background"></update>
</jnlp>
]]></script></body></html>
"""
_APPLET: Final = r"""<html><body><script>
document.write("<applet code=com.hp.ilo2.intgapp.intgapp.class archive=html/{jar} width=1 height=1>");
document.write("<PARAM NAME=\"INFO0\" VALUE=\"{info0}\"><PARAM NAME=\"INFO1\" VALUE=\"{port}\">");
document.write("<PARAM NAME=\"RCINFO1\" VALUE=\""+skey+"\"><PARAM NAME=\"RCINFO6\" VALUE=\""+rport+"\"></applet>");
</script></body></html>
"""
_DATA: Final = """<?xml version="1.0"?>
<RIMP><HSI><SBSN>CZ3605020D</SBSN><SPN>ProLiant DL380</SPN></HSI>
<MP><ST>1</ST><PN>Integrated Lights-Out {number} (iLO {number})</PN><FWRI>2.54</FWRI></MP></RIMP>
"""
_FRONT: Final = """<html><head><title>iLO</title><script>
function signIn() {
  fetch('/json/login_session', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(
    {method: 'login', user_login: user.value, password: password.value})})
  .then(function (answer) { return answer.json(); })
  .then(function (said) {
    var key = said.session_key || said.sessionKey;
    document.getElementById('said').textContent = key ? 'signed in' : said.message;
    if (key) { document.cookie = 'sessionKey=' + key + '; path=/; secure'; document.location = '/index.html'; }
  });
}
</script></head><body><input id="user" type="text"><input id="password" type="password">
<button id="ID_LOGON" onclick="signIn()">Log In</button><p id="said"></p></body></html>
"""


class Ilo3Panel(VendorPanel):
    """``pages_with``: where it has the applet: in the template, in the old page only, or nowhere. ``anonymous``:
    whether it tells strangers what it is. ``privileged``: whether users may open the console."""

    key: ClassVar[str] = "ilo3"
    cookie: ClassVar[str] = "sessionKey"
    slots = 6
    number: ClassVar[str] = "3"
    jar_name: ClassVar[str] = "intgapp3_231.jar"
    key_name: ClassVar[str] = "sessionKey"
    html5_path: ClassVar[str] = ""
    sets_cookie: ClassVar[bool] = False
    pages_with: Literal["template", "applet", "nothing"] = "template"
    anonymous: bool = True
    privileged: bool = True

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): lambda _visit: Reply(_FRONT),
            ("GET", "/index.html"): lambda visit: Reply(pages.try_out(self.name, signed_in=bool(visit.user))),
            ("GET", "/xmldata"): self.data,
            ("GET", "/json/login_session"): lambda _visit: _json({"secjmp": 0, "ilo_fw_version": "2.54", "alias": 0}),
            ("POST", "/json/login_session"): self.session,
            ("GET", "/json/overview"): self.overview,
            ("GET", "/json/rc_info"): self.rc_info,
            ("GET", "/html/jnlp_template.html"): lambda visit: self.applet(visit, "template", _TEMPLATE),
            ("GET", "/html/java_irc.html"): lambda visit: self.applet(visit, "applet", _APPLET),
        }

    def answer(self, visit: Visit) -> Reply | None:
        folder, _, name = visit.path.rpartition("/")
        if visit.path == self.html5_path:
            return self.html5_page(visit)
        if folder == "/html" and name.endswith(".jar"):
            return Reply(status=405) if visit.method == "HEAD" else self.jar(name)
        return None

    def data(self, visit: Visit) -> Reply:
        if visit.query.get("item") != "all" or not self.anonymous:
            return Reply("<html>not found</html>", status=404)
        return Reply(_DATA.format(number=self.number), type="text/xml")

    def session(self, visit: Visit) -> Reply:
        said = visit.json if isinstance(visit.json, dict) else {}
        if said.get("method") == "logout":
            return _json({} if self.leave(str(said.get("session_key"))) else {"message": "JS_ERR_LOST_SESSION"})
        if said.get("method") != "login":
            return _json({"message": "unknown method"}, 400)
        user = str(said.get("user_login"))
        verdict = self.judge(user, str(said.get("password")))
        if verdict == "locked":
            return _json({"message": "Login Delay", "details": "Wait 10 seconds."}, 403)
        if verdict == "full":
            return _json({"message": "The maximum number of sessions is in use."}, 403)
        if verdict != "ok":
            return _json({"message": "Invalid login attempt", "details": "User name or password"}, 403)
        session = self.enter(user)
        self.tokens[session] = session
        told = {
            self.key_name: session,
            "user_name": user,
            "login_priv": 1,
            "remote_cons_priv": int(self.privileged),
            "remote_port": self.kvm_port or 17990,
        }
        return _json(told, cookies=(f"sessionKey={session}; path=/; secure",) if self.sets_cookie else ())

    def overview(self, visit: Visit) -> Reply:
        if not visit.user:
            return _json({"message": "JS_ERR_LOST_SESSION"}, 403)
        return _json({"license": "iLO Standard" if self.mood == "licence" else "iLO Advanced"})

    def rc_info(self, visit: Visit) -> Reply:
        if not visit.user:
            return _json({"message": "JS_ERR_LOST_SESSION"}, 403)
        return _json({"enc_key": _INFO0, "rc_port": self.kvm_port or 17990, "vm_port": 17988})

    def trouble(self) -> Reply | None:
        if self.mood == "broken":
            return Reply("<html>500</html>", status=500)
        return Reply("<html>Forbidden</html>", status=403) if self.mood == "licence" else None

    def applet(self, visit: Visit, page: str, text: str) -> Reply:
        if not visit.user:
            return Reply("<html>Forbidden</html>", status=401)
        if self.pages_with != page:
            return Reply("<html>not found</html>", status=404)
        filled = text.replace("{jar}", self.jar_name).replace("{info0}", _INFO0)
        return self.trouble() or Reply(filled.replace("{port}", str(self.kvm_port or 17988)))

    def html5_page(self, visit: Visit) -> Reply:
        return self.trouble() or Reply(pages.try_out(self.name, signed_in=bool(visit.user)))


class Ilo4Panel(Ilo3Panel):
    key: ClassVar[str] = "ilo4"
    number = "4"
    jar_name = "intgapp4_231.jar"
    key_name = "session_key"
    html5_path = "/html/irc.html"


class Ilo5Panel(Ilo4Panel):
    key: ClassVar[str] = "ilo5"
    number = "5"
    jar_name = "intgapp4_247.jar"
    html5_path = "/irc.html"
    sets_cookie = True

    def applet(self, visit: Visit, page: str, text: str) -> Reply:
        if self.mood == "html5":
            return Reply("<html>not found</html>", status=404)
        return super().applet(visit, page, text)


class Ilo6Panel(Ilo5Panel):
    key: ClassVar[str] = "ilo6"
    number = "6"
    pages_with = "nothing"


def _json(value: Any, status: int = 200, cookies: tuple[str, ...] = ()) -> Reply:
    return Reply(json.dumps(value), status, "application/json", cookies=cookies)


PERSONALITIES: Final = (Ilo3Panel, Ilo4Panel, Ilo5Panel, Ilo6Panel)
