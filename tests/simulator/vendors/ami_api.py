"""The simulated panel of AMI MegaRAC with JSON below ``/api``."""

from __future__ import annotations

import json
from typing import ClassVar, Final

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

_VIEWER: Final = """<script>
fetch("/api/kvm/viewer", { headers: { "X-CSRFTOKEN": sessionStorage.getItem("garc"),
  "X-Token": JSON.parse(sessionStorage.getItem("token") || "{}").token } });
</script>"""
_FRONT: Final = """<!DOCTYPE html><html><head><title>{title}</title>
<script data-main="/app/main" src="/source.min.js"></script></head><body></body></html>
"""


class AmiApiPanel(VendorPanel):
    """``jnlp_at``: which of the known paths gives the JNLP. ``seeded``: whether only who has seen the first page may
    sign in. Everything comes packed, as from Quanta's boards."""

    key: ClassVar[str] = "ami-api"
    cookie: ClassVar[str] = "QSESSIONID"
    jnlp_at: str = "/api/kvmjnlp"
    seeded: bool = True
    kvm_slots: int = 2
    announced: bool = False

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): self.front,
            ("POST", "/api/session"): self.sign_in,
            ("DELETE", "/api/session"): self.sign_out,
            ("GET", "/api/session"): lambda _visit: _json({"error": "Invalid Authentication", "code": 7}, 401),
            ("GET", "/api/kvm/token"): self.token,
            ("GET", "/api/configuration/project"): lambda visit: _json([{"feature": "KVM"}], 200),
            ("GET", "/viewer.html"): self.page,
            ("GET", "/api/kvm/viewer"): self.opened,
        }

    def answer(self, visit: Visit) -> Reply | None:
        if visit.method == "HEAD":
            return Reply(status=405)
        if visit.path == "/api/kvm/download" and self.jnlp_at == "/video/jviewer.jnlp":
            self.announced = self._may(visit)
            return _json({"cc": 0}, 200)
        if visit.path == self.jnlp_at and (self.jnlp_at != "/video/jviewer.jnlp" or self.announced):
            return self.viewer(visit)
        name = visit.path.rpartition("/")[2]
        if visit.path.startswith("/Java/release/") and name != "JViewer-SOC.jar":
            return self.jar(name)
        return _json({"error": "Invalid API Call", "code": 1010}, 404) if visit.path.startswith("/api/") else None

    def front(self, _visit: Visit) -> Reply:
        seed = ("QSESSIONID=anonymous; Path=/; Secure; HttpOnly",) if self.seeded else ()
        return Reply(_FRONT.format(title="MegaRAC SP-X"), cookies=seed, gzip=True)

    def sign_in(self, visit: Visit) -> Reply:
        if self.seeded and visit.session != "anonymous":
            return _json({"error": "Invalid Authentication", "code": 7}, 401)
        user = visit.form.get("username", "")
        verdict = self.judge(user, visit.form.get("password", ""))
        if verdict == "full":
            return _json({"error": "Maximum number of sessions already in use", "code": 15000}, 401)
        if verdict == "locked":
            return _json({"error": "User account is locked", "code": 7}, 401)
        if verdict != "ok":
            return _json({"error": "Invalid Authentication", "code": 7}, 401)
        session = self.enter(user)
        told = {
            "ok": 0,
            "privilege": 4,
            "extendedpriv": 259,
            "racsession_id": len(self.sessions),
            "remote_addr": "10.0.0.1",
            "server_addr": host_of(visit)[1],
            "server_name": self.name,
            "HTTPSEnabled": 1,
            "CSRFToken": session[:8],
        }
        reply = _json(told, 200)
        return Reply(
            reply.body, 200, reply.type, cookies=(f"QSESSIONID={session}; Path=/; Secure; HttpOnly",), gzip=True
        )

    def sign_out(self, visit: Visit) -> Reply:
        if not self._may(visit):
            return _json({"error": "Invalid Authentication", "code": 7}, 401)
        self.leave(visit.session)
        return _json({"ok": 0}, 200)

    def viewer(self, visit: Visit) -> Reply:
        if self.mood == "html5":
            return _json({"error": "Invalid API Call", "code": 1010}, 404)
        if self.mood == "broken":
            return _json({"cc": 255}, 500)
        if not self._may(visit):
            return _json({"error": "Invalid Authentication", "code": 7}, 401)
        if len(self.tokens) >= self.kvm_slots:
            return _json({"error": "Forbidden", "code": 13}, 403)
        return Reply(self.jnlp(visit), type=JNLP_TYPE, gzip=True)

    def jnlp(self, visit: Visit) -> str:
        host, bare = host_of(visit)
        named = {
            "apptype": "JViewer",
            "hostname": bare,
            "kvmtoken": self.mint(visit.session),
            "kvmsecure": "1",
            "kvmport": str(self.kvm_port),
            "webcookie": visit.session,
            "websecureport": "443",
            "singleportenabled": "1",
            "extendedpriv": "259",
        }
        return jnlp_text(
            codebase=f"https://{host}/Java",
            title="JViewer",
            main="com.ami.kvm.jviewer.JViewer",
            arguments=[text for name, value in named.items() for text in (f"-{name}", value)],
            jars=["release/JViewer.jar", "release/JViewer-SOC.jar"],
            natives={("Linux", "x86_64"): "release/Linux_x86_64.jar", ("Linux", "amd64"): "release/Linux_x86_64.jar"},
            java="1.7+",
        )

    def token(self, visit: Visit) -> Reply:
        if not self._may(visit):
            return _json({"error": "Invalid Authentication", "code": 7}, 401)
        if self.mood == "broken":
            return _json({"cc": 255}, 500)
        told = {"client_ip": "10.0.0.1", "token": self.mint(visit.session), "session": visit.session}
        return _json(told, 200)

    def page(self, visit: Visit) -> Reply:
        """Signed in for who has the cookie; its script reads the rest from sessionStorage."""

        shown = pages.try_out(self.name, signed_in=bool(visit.user)) + _VIEWER
        return Reply(shown, status=200 if visit.user else 403)

    def opened(self, visit: Visit) -> Reply:
        right = self._may(visit) and visit.headers.get("x-token") in self.tokens
        return _json({}, 200 if right else 401)

    def _may(self, visit: Visit) -> bool:
        return bool(visit.user) and visit.headers.get("x-csrftoken") == visit.session[:8]


def _json(value: object, status: int) -> Reply:
    return Reply(json.dumps(value), status, "application/json", gzip=True)


PERSONALITIES: Final = (AmiApiPanel,)
