"""The simulated panels of Huawei's iBMC."""

from __future__ import annotations

import json
import secrets
from html import escape
from typing import ClassVar, Final

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of

JAR: Final = "vconsole.jar"
_CODES: Final = {"wrong": 130, "locked": 131, "full": 144}
_NO_KVM: Final = "<h2>BMC does not support kvm. Please use a later version.</h2>"


class IbmcOldPanel(VendorPanel):
    """``code``: what is answered to each sign-in, if not 0 (136, 137). ``html5``: the page is there."""

    key: ClassVar[str] = "ibmc-old"
    cookie: ClassVar[str] = "SessionId3"
    code: int = 0
    html5: bool = True
    greeted: bool = False
    given: frozenset[str] = frozenset()

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): lambda _visit: Reply(status=302, headers={"Location": "/login.html"}),
            ("GET", "/login.html"): self.front,
            ("POST", "/bmc/php/processparameter.php"): self.process,
            ("POST", "/bmc/php/gettoken.php"): self.csrf,
            ("GET", "/bmc/pages/remote/kvm.php"): self.viewer,
            ("GET", "/bmc/pages/remote/kvm_by_html5.html"): self.page,
        }

    def answer(self, visit: Visit) -> Reply | None:
        return self.jar(visit.path.rpartition("/")[2]) if visit.path.startswith("/bmc/pages/jar/") else None

    def front(self, _visit: Visit) -> Reply:
        self.greeted = True
        return Reply("<html><head><title>iBMC Login</title></head></html>", cookies=("locale=en; path=/",))

    def _from_front(self, visit: Visit) -> bool:
        return self.greeted and visit.headers.get("referer", "").endswith("/login.html")

    def process(self, visit: Visit) -> Reply:
        """Signing in and out are functions of the same page."""

        if not self._from_front(visit):
            return Reply("Forbidden", status=403)
        if visit.form.get("func") == "DelSession":
            right = visit.form.get("token") == self._token(visit.session)
            return _json([{"DelSession": [0 if right and self.leave(visit.session) else 1]}])
        user = visit.form.get("user_name", "")
        verdict = self.judge(user, visit.form.get("check_pwd", ""))
        code = self.code or _CODES.get(verdict, 0)
        if code:
            return _json([{"AddSession": [code]}])
        session = self.enter(user)
        reply = _json([{"AddSession": [0, session]}])
        return Reply(reply.body, type=reply.type, cookies=(f"{self.cookie}={session}; path=/; secure",))

    def csrf(self, visit: Visit) -> Reply:
        return Reply(self._token(visit.session), type="text/plain") if visit.user else Reply(status=403)

    def _token(self, session: str) -> str:
        return session[::-1]

    def viewer(self, visit: Visit) -> Reply:
        if not self._from_front(visit):
            return Reply("Forbidden", status=403)
        if not visit.user or visit.session in self.given:
            return Reply("<html><head><title>iBMC Login</title></head></html>")
        if self.mood == "broken":
            return Reply("Internal Server Error", status=500)
        if self.mood == "html5":
            return Reply(_NO_KVM)
        self.given |= {visit.session}
        return Reply(_jnlp(self, visit, visit.session), type=JNLP_TYPE)

    def page(self, visit: Visit) -> Reply:
        if not self.html5:
            return Reply("Not Found", status=404)
        return Reply(pages.try_out(self.name, signed_in=bool(visit.user)))


class IbmcPanel(VendorPanel):
    """The REST interface."""

    key: ClassVar[str] = "ibmc"
    cookie: ClassVar[str] = "SessionId"

    def routes(self) -> dict[tuple[str, str], Handler]:
        about = {"ProductName": self.name, "ProductAlias": "2288H"}
        return {
            ("GET", "/"): lambda _visit: Reply("<html><head><title>iBMC</title></head></html>"),
            ("GET", "/UI/Rest/Login"): lambda _visit: _json(about),
            ("POST", "/UI/Rest/Login"): self.sign_in,
            ("POST", "/UI/Rest/Services/KVM/GenerateStartupFile"): self.viewer,
        }

    def answer(self, visit: Visit) -> Reply | None:
        if visit.path.startswith("/UI/Rest/Sessions/") and visit.method == "DELETE":
            return self.sign_out(visit)
        return self.jar(visit.path.rpartition("/")[2]) if visit.path.startswith("/bmc/pages/jar/") else None

    def sign_in(self, visit: Visit) -> Reply:
        given = visit.json if isinstance(visit.json, dict) else {}
        user = str(given.get("UserName", ""))
        if (given.get("Domain"), given.get("Type")) != ("LocaliBMC", "Local"):
            return _json({"error": [{"code": "PropertyMissing"}]}, 400)
        verdict = self.judge(user, str(given.get("Password", "")))
        if verdict != "ok":
            named = {"full": "SessionLimitExceeded", "locked": "UserLocked"}.get(verdict, "LoginFailed")
            return _json({"error": [{"code": named}]}, 401)
        session = self.enter(user)
        said = {"XCSRFToken": self._token(session), "Session": {"SessionID": session[:6]}}
        reply = _json(said)
        cookie = f"{self.cookie}={session}; path=/; secure; httponly; samesite=strict"
        return Reply(reply.body, type=reply.type, cookies=(cookie,))

    def _token(self, session: str) -> str:
        return session[::-1]

    def _with_token(self, visit: Visit) -> bool:
        return bool(visit.user) and visit.headers.get("x-csrf-token") == self._token(visit.session)

    def sign_out(self, visit: Visit) -> Reply:
        if not self._with_token(visit) or not visit.path.endswith("/" + visit.session[:6]):
            return _json({"error": []}, 401)
        self.leave(visit.session)
        return _json({})

    def viewer(self, visit: Visit) -> Reply:
        if not self._with_token(visit):
            return _json({"error": [{"code": "NoPermission"}]}, 401)
        if self.mood == "broken":
            return Reply("Internal Server Error", status=500)
        if self.mood == "html5":
            return Reply("", status=501)
        return Reply(_jnlp(self, visit, visit.session), type=JNLP_TYPE)


def _jnlp(panel: VendorPanel, visit: Visit, session: str) -> str:
    """An applet's description; its jar's address has a query."""

    host, bare = host_of(visit)
    number = secrets.randbelow(1 << 31)
    title = escape(f"Remote Virtual Console   IP : {bare}   SN : {panel.name}")
    values = {
        "verifyValue": number,
        "mmVerifyValue": number,
        "decrykey": secrets.token_hex(32),
        "local": "en",
        "compress": 1,
        "vmm_compress": 1,
        "port": panel.kvm_port,
        "vmmPort": 8208,
        "privilege": 4,
        "bladesize": 1,
        "IPA": bare,
        "IPB": bare,
        "verifyValueExt": panel.mint(session),
        "title": title,
    }
    params = "\n".join(f'    <param name="{name}" value="{value}"/>' for name, value in values.items())
    return f"""<?xml version="1.0" encoding="UTF-8"?>
  <jnlp spec="1.0+" codebase="https://{host}">
  <information><title>{title}</title><vendor>iBMC</vendor></information>
  <resources><j2se version="1.7+" /><jar href="/bmc/pages/jar/{JAR}?authParam={number}" main="true"/></resources>
  <applet-desc name="{title}" main-class="com.kvm.KVMApplet" width="950" height="700" >
{params}
  </applet-desc>
  <security><all-permissions/></security>
  </jnlp>
"""


def _json(value: object, status: int = 200) -> Reply:
    return Reply(json.dumps(value), status, "application/json")


PERSONALITIES: Final = (IbmcOldPanel, IbmcPanel)
