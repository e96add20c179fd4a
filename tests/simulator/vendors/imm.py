"""The simulated panels of IBM's IMM and IMM2."""

from __future__ import annotations

import json
import re
import secrets
from typing import ClassVar, Final

from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

MAIN: Final = "com.avocent.ibmc.kvm.Main"
_UNLICENSED: Final = "This advanced option requires the purchase and installation of the IBM Virtual Media Key feature."
_HOME: Final = """<!-- *************************************************************
 ***    (C)Copyright 2007-2008, American Megatrends Inc.        **
 * Filename: home.html
 ************************************************************* -->
<html><head><script>window.location = "/page/session.html";</script></head></html>
"""
_SIGN_IN: Final = """<html><head><script>
function login() { xmlhttp.open("POST", "/session/create", true); xmlhttp.send(user + "," + password); }
</script></head><body>Integrated Management Module</body></html>
"""
_VIEWER: Final = re.compile(r"/designs/imm/viewer\(([^()]*)\)(\.jnlp)?")


class Imm1Panel(VendorPanel):
    """Confused, unless /page/session.html was looked at after signing in."""

    key: ClassVar[str] = "imm1"
    cookie: ClassVar[str] = "session_id"
    jar_name: ClassVar[str] = "avctIBMViewer.jar"
    native_name: ClassVar[str] = "avctKVMIOLinux64.jar"
    looked: bool = False

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): lambda _visit: Reply(_HOME),
            ("GET", "/page/session.html"): self.session_page,
            ("POST", "/session/create"): self.sign_in,
            ("POST", "/session/deactivate"): self.sign_out,
            ("GET", "/kvm/kvm/jnlp"): self.viewer,
        }

    def answer(self, visit: Visit) -> Reply | None:
        return self.jar(visit.path.rpartition("/")[2]) if visit.path.startswith("/kvm/kvm/") else None

    def session_page(self, visit: Visit) -> Reply:
        self.looked = bool(visit.user)
        return Reply(_SIGN_IN)

    def sign_in(self, visit: Visit) -> Reply:
        user, _, password = visit.body.decode().partition(",")
        verdict = self.judge(user, password)
        if verdict == "full":
            return Reply("error:maximum number of sessions exceeded", type="text/plain")
        if verdict != "ok":
            return Reply("error:invalid login", type="text/plain")
        return Reply(f"ok:{self.enter(user)}\n", type="text/plain")

    def sign_out(self, visit: Visit) -> Reply:
        self.leave(visit.session)
        return Reply("ok", type="text/plain")

    def viewer(self, visit: Visit) -> Reply:
        session = visit.query.get("session_id") or visit.headers.get("session_id") or visit.session
        if session not in self.sessions or not self.looked:
            return Reply("<html>The session has expired.</html>")
        if self.mood == "broken":
            return Reply("Internal Server Error", status=500)
        if self.mood == "licence":
            return Reply(_UNLICENSED)
        return Reply(_jnlp(self, visit, session, f"https://{host_of(visit)[0]}/kvm/kvm", 1), type=JNLP_TYPE)


class Imm2Panel(VendorPanel):
    """``counts``: how many parameters the viewer's address must have. A jar comes once for each description of the
    console, and never to a HEAD."""

    key: ClassVar[str] = "imm2"
    cookie: ClassVar[str] = "_appwebSessionId_"
    viewer_dies: ClassVar[bool] = False
    jar_name: ClassVar[str] = "avctIBMViewer__V030321.jar"
    native_name: ClassVar[str] = "avctKVMIOLinux64__V030321.jar"
    counts: int = 14
    token: str = ""
    fetched: frozenset[str] = frozenset()

    def routes(self) -> dict[tuple[str, str], Handler]:
        front = Reply('<html><img src="/designs/imm/images/title-imm.png"></html>')
        return {
            ("GET", "/"): lambda _visit: Reply(status=301, headers={"Location": "/designs/imm/"}),
            ("GET", "/designs/imm/"): lambda _visit: front,
            ("GET", "/designs/imm/index.php"): lambda _visit: front,
            ("POST", "/data/login"): self.sign_in,
            ("GET", "/data/logout"): self.sign_out,
            ("GET", "/designs/imm/remote-control.php"): self.remote_control,
        }

    def answer(self, visit: Visit) -> Reply | None:
        if found := _VIEWER.fullmatch(visit.path):
            return self.viewer(visit, found[1].split("@"))
        name = visit.path.rpartition("/")[2]
        if not visit.path.startswith("/designs/imm/aessrp/"):
            return None
        if visit.method != "GET" or name in self.fetched:
            return Reply("Method Not Allowed", status=405)
        self.fetched |= {name}
        return self.jar(name)

    def sign_in(self, visit: Visit) -> Reply:
        if not visit.headers.get("referer", "").endswith("/designs/imm/index.php"):
            return Reply("Forbidden", status=403)
        user = visit.form.get("user", "")
        verdict = self.judge(user, visit.form.get("password", ""))
        result = {"ok": "0", "wrong": "1", "locked": "1", "full": "5"}[verdict]
        said = {"status": "ok", "authResult": result, "TimeWait": "300" if verdict == "locked" else "0"}
        said |= {"forwardUrl": "index-console.php", "redirection": "home.php", "errorMsg": ""}
        if verdict != "ok":
            return _json(said)
        self.token = secrets.token_hex(8)
        said |= {"token1_name": "ST1", "token1_value": self.token}
        reply = _json(said)
        return Reply(reply.body, type=reply.type, cookies=(f"{self.cookie}={self.enter(user)}; path=/; httponly",))

    def sign_out(self, visit: Visit) -> Reply:
        self.leave(visit.session)
        return _json({"status": "ok"})

    def remote_control(self, visit: Visit) -> Reply:
        if not visit.user:
            return Reply(status=302, headers={"Location": "/designs/imm/index.php"})
        return Reply(f"<html><script>var isRPInstalled = '{int(self.mood != 'licence')}';</script></html>")

    def viewer(self, visit: Visit, given: list[str]) -> Reply:
        if not visit.user:
            return _json({"status": "error", "message": "Not signed in"})
        if self.mood == "broken":
            return Reply("Internal Server Error", status=500)
        if len(given) != self.counts:
            return _json({"status": "error", "message": "Too few parameters"}) if self.counts == 14 else Reply("")
        if visit.query.get("ST1", self.token) != self.token or "jnlp" not in given:
            return _json({"status": "error", "message": "Bad parameters"})
        self.fetched = frozenset()
        where = f"https://{host_of(visit)[0]}/designs/imm/aessrp"
        return Reply(_jnlp(self, visit, visit.session, where, 2), type=JNLP_TYPE)


def _jnlp(panel: Imm1Panel | Imm2Panel, visit: Visit, session: str, codebase: str, version: int) -> str:
    host, bare = host_of(visit)
    arguments = {
        "title": f"{panel.name}-Video Viewer",
        "ip": bare,
        "helpurl": f"https://{host}/aessrp/help/contents.html",
        "user": f"0x{panel.mint(session)}",
        "passwd": "",
        "apcp": "1",
        "version": "2",
        "kmport": str(panel.kvm_port),
        "vport": str(panel.kvm_port),
        "vm": "1",
        "power": "1",
        "statusbar": "led",
        "immversion": str(version),
    }
    return jnlp_text(
        codebase=codebase,
        title=f"{panel.name} Video Viewer",
        main=MAIN,
        arguments=[f"{name}={value}" for name, value in arguments.items()],
        jars=[panel.jar_name],
        natives={("Linux", "amd64"): panel.native_name, ("Linux", "x86_64"): panel.native_name},
    )


def _json(value: object) -> Reply:
    return Reply(json.dumps(value), type="text/json")


PERSONALITIES: Final = (Imm1Panel, Imm2Panel)
