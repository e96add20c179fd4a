"""The simulated panels of Fujitsu's iRMC."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import ClassVar, Final, Literal
from urllib.parse import urlencode

from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

JAR: Final = "JViewer_S4.jar"
OLD_JAR: Final = "avr.jar"
NATIVE: Final = "Linux_x86_64.jar"
_HTML5: Final = "<html><head><title>Video Redirection</title></head><body><canvas></canvas></body></html>"
_UNLICENSED: Final = "<html><body>A valid KVM license is required for Video Redirection.</body></html>"
_FIELDS: Final = re.compile(r'(\w+)="?([^",]*)"?')
_SESSIONS: Final = "/redfish/v1/SessionService/Sessions"


class IrmcPanel(VendorPanel):
    """S2 to S4. ``firmware``: "s2" (Digest; the description only by the link on the first page), "s4" (Digest) or
    "form" (newer S4: a form, a challenge that is good for one answer, and then a session in every address)."""

    key: ClassVar[str] = "irmc"
    firmware: Literal["s2", "s4", "form"] = "s4"
    nonces: frozenset[str] = frozenset()

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): self.front,
            ("GET", "/login"): lambda _visit: self._reply("<html>Login required<form action='#login'></form></html>"),
            ("POST", "/login"): self.sign_in,
            ("GET", "/systeminfo"): self.inside,
            ("GET", "/avr.jnlp"): self.viewer,
        }

    def answer(self, visit: Visit) -> Reply | None:
        return self.jar(visit.path.lstrip("/")) if visit.path.endswith(".jar") else None

    def front(self, visit: Visit) -> Reply:
        if self.firmware == "form":
            return self._reply(status=302, Location="/login")
        user = self._digest(visit, count=True)
        return self.inside(visit) if user else self._challenge()

    def inside(self, visit: Visit) -> Reply:
        sid = visit.query.get("sid", "")
        if self.firmware == "form" and sid not in self.sessions:
            return self._reply("<html>Login required</html>")
        link = "avr.jnlp?" + urlencode({"lang": 0, "sid": sid, "kind": "kvm"}).replace("&", "&amp;")
        return self._reply(f'<html><title>iRMC S4</title><a href="{link}">Start Video Redirection</a></html>')

    def sign_in(self, visit: Visit) -> Reply:
        """The newer firmware's form."""

        if visit.form.get("APPLY") != "99":
            return self._reply("<html>Login required</html>")
        user = self._digest(visit, count=True)
        if not user:
            return self._challenge()
        if user == "full":
            return self._reply("<html>Too many sessions are active.</html>")
        sid = self.enter(user)
        return self._reply(status=302, Location=f"/systeminfo?lang=0&sid={sid}")

    def viewer(self, visit: Visit) -> Reply:
        if self.firmware == "form":
            session = visit.query.get("sid", "")
            if session not in self.sessions:
                return self._reply("<html>Login required</html>")
        else:
            session = self._digest(visit, count=False)
            if not session:
                return self._challenge()
            if self.firmware == "s2" and "lang" not in visit.query:
                return self._reply("Not Found", status=404)
        return _console(self, visit, session, old=self.firmware == "s2")

    def _digest(self, visit: Visit, *, count: bool) -> str:
        """Who answers the challenge rightly; "full" for a session too many.

        :param count: it is a sign-in, and written down.
        """

        given: dict[str, str] = dict(_FIELDS.findall(visit.headers.get("authorization", "").partition("Digest ")[2]))
        nonce = given.get("nonce", "")
        if nonce not in self.nonces:
            return ""
        if self.firmware == "form":
            self.nonces -= {nonce}
        user = given.get("username", "")
        password = self.users.get(user, "")
        first = _md5(f"{user}:{self.realm}:{password}")
        second = _md5(f"{visit.method}:{given.get('uri', '')}")
        wanted = _md5(f"{first}:{nonce}:{given.get('nc', '')}:{given.get('cnonce', '')}:auth:{second}")
        right = user in self.users and given.get("response") == wanted and given.get("uri") == visit.uri
        if not count:
            return user if right else ""
        verdict = self.judge(user, password if right else "")
        return {"ok": user, "full": "full" if self.firmware == "form" else ""}.get(verdict, "")

    @property
    def realm(self) -> str:
        return f"iRMC S{'2' if self.firmware == 's2' else '4'}@{self.name}"

    def _challenge(self) -> Reply:
        nonce = secrets.token_hex(12)
        self.nonces |= {nonce}
        asked = f'Digest realm="{self.realm}", qop="auth", nonce="{nonce}", opaque="x{self.name}"'
        text = "<html>This user is locked.</html>" if self.mood == "locked" else "<html>401 Unauthorized</html>"
        return self._reply(text, status=401, **{"WWW-Authenticate": asked})

    def _reply(self, body: str = "", status: int = 200, **headers: str) -> Reply:
        generation = self.realm.partition("@")[0]
        return Reply(body, status, headers={"Server": f"FUJITSU ServerView {generation} Webserver", **headers})


class IrmcS5Panel(VendorPanel):
    """Sessions of Redfish."""

    key: ClassVar[str] = "irmc-s5"

    def routes(self) -> dict[tuple[str, str], Handler]:
        root = json.dumps({"Id": "RootService", "Vendor": "Fujitsu", "Oem": {"ts_fujitsu": {}}})
        return {
            ("GET", "/"): lambda _visit: Reply("<html><title>iRMC S5 Web Server</title></html>"),
            ("GET", "/redfish/v1"): lambda _visit: Reply(root, type="application/json"),
            ("POST", _SESSIONS): self.sign_in,
            ("GET", "/avr.jnlp"): self.viewer,
        }

    def answer(self, visit: Visit) -> Reply | None:
        if visit.path.startswith(_SESSIONS + "/"):
            return self.sign_out(visit)
        return self.jar(visit.path.lstrip("/")) if visit.path.endswith(".jar") else None

    def sign_in(self, visit: Visit) -> Reply:
        given = visit.json if isinstance(visit.json, dict) else {}
        user = str(given.get("UserName", ""))
        verdict = self.judge(user, str(given.get("Password", "")))
        if verdict != "ok":
            named = {"full": "SessionLimitExceeded", "locked": "AccountLocked"}.get(verdict, "NoValidSession")
            return _json({"error": {"code": f"Base.1.0.{named}"}}, 503 if verdict == "full" else 401)
        session = self.enter(user)
        headers = {"X-Auth-Token": session, "Location": f"https://{host_of(visit)[0]}{_SESSIONS}/{session[:6]}"}
        return _json({"@odata.id": f"{_SESSIONS}/{session[:6]}"}, 201, **headers)

    def sign_out(self, visit: Visit) -> Reply:
        token = visit.headers.get("x-auth-token", "")
        if visit.method != "DELETE" or not visit.path.endswith("/" + token[:6]) or not self.leave(token):
            return _json({"error": {}}, 401)
        return Reply(status=204)

    def viewer(self, visit: Visit) -> Reply:
        session = visit.headers.get("x-auth-token", "")
        if session not in self.sessions:
            return Reply("<html>Unauthorized</html>", status=401)
        return _console(self, visit, session, old=False)


def _console(panel: VendorPanel, visit: Visit, session: str, *, old: bool) -> Reply:
    if panel.mood == "broken":
        return Reply("Internal Server Error", status=500)
    if panel.mood in {"html5", "licence"}:
        return Reply(_HTML5 if panel.mood == "html5" else _UNLICENSED)
    host, bare = host_of(visit)
    token = panel.mint(session)
    if old:
        arguments = [f"ipaddress={bare}", "username=admin", f"httpdata={token}", f"VncPort={panel.kvm_port}"]
    else:
        pairs = [("-hostname", bare), ("-kvmtoken", token), ("-webcookie", panel.mint(session))]
        pairs += [("-kvmsecure", "0"), ("-kvmport", str(panel.kvm_port)), ("-websecureport", "443")]
        arguments = [one for pair in pairs for one in pair]
    text = jnlp_text(
        codebase=f"https://{host}/",
        title="iRMC Advanced Video Redirection",
        main="com.fujitsu.avr.Main" if old else "com.ami.kvm.jviewer.JViewer",
        arguments=arguments,
        jars=[OLD_JAR if old else JAR],
        natives={("Linux", "amd64"): NATIVE, ("Linux", "x86_64"): NATIVE},
    )
    return Reply(text, type=JNLP_TYPE)


def _json(value: object, status: int, **headers: str) -> Reply:
    return Reply(json.dumps(value), status, "application/json", headers)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


PERSONALITIES: Final = (IrmcPanel, IrmcS5Panel)
