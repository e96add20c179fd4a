"""A board of no known make, and the section of the configuration file that describes it."""

from __future__ import annotations

from typing import ClassVar, Final

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

SECTION: Final = """\
[vendor.acme]
label = "Acme BMC-1"
recognise = "<title>Acme Management"
first-path = "/"
sign-in-path = "/session/login.cgi"
user-field = "user"
password-field = "pass"
fields = { lang = "en" }
refused = ["Login failed"]
full = ["No session left"]
unlicensed = ["KVM key required"]
cookie = "ACME"
cookie-in = "sessionId"
values = { csrf = "token" }
headers = { X-Acme-Token = "{csrf}" }
referer = "/console.html"
jnlp-path = "/kvm/{cookie}.jnlp?host={address}"
sign-out-path = "/session/logout.cgi?id={cookie}"
sign-out-method = "POST"
"""


class AcmePanel(VendorPanel):
    """Tells the cookie in the body only, and refuses whoever does not send its token and a Referer."""

    key: ClassVar[str] = "acme"
    cookie: ClassVar[str] = "ACME"

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): self.front,
            ("POST", "/session/login.cgi"): self.sign_in,
            ("POST", "/session/logout.cgi"): self.sign_out,
            ("GET", "/console.html"): lambda visit: Reply(pages.try_out(self.name, signed_in=bool(visit.user))),
        }

    def answer(self, visit: Visit) -> Reply | None:
        if visit.path == f"/kvm/{visit.session}.jnlp" and self._may(visit):
            return self.viewer(visit)
        return self.jar(visit.path.rpartition("/")[2]) if visit.path.startswith("/kvm/lib/") else None

    def front(self, _visit: Visit) -> Reply:
        return Reply("<html><head><title>Acme Management</title></head></html>", cookies=("lang=en; Path=/",))

    def sign_in(self, visit: Visit) -> Reply:
        user = visit.form.get("user", "")
        if visit.cookies.get("lang") != visit.form.get("lang"):
            return Reply("<b>What language?</b>", status=500)
        verdict = self.judge(user, visit.form.get("pass", ""))
        if verdict == "full":
            return Reply("<b>No session left</b>")
        if verdict != "ok":
            return Reply("<b>Login failed</b>")
        session = self.enter(user)
        return Reply(f"<script>var sessionId = '{session}'; var token = '{session[:6]}';</script>")

    def sign_out(self, visit: Visit) -> Reply:
        if not self._may(visit) or visit.form.get("id") != visit.session:
            return Reply(status=403)
        self.leave(visit.session)
        return Reply("bye")

    def viewer(self, visit: Visit) -> Reply:
        if self.mood == "broken":
            return Reply("<b>Error</b>", status=500)
        if self.mood == "licence":
            return Reply("<b>KVM key required</b>")
        return Reply(self.jnlp(visit), type=JNLP_TYPE)

    def jnlp(self, visit: Visit) -> str:
        return jnlp_text(
            codebase=f"https://{host_of(visit)[0]}/kvm/lib",
            title="Acme Viewer",
            main="com.example.acme.Viewer",
            arguments=[visit.query.get("host", ""), str(self.kvm_port), self.mint(visit.session)],
            jars=["viewer.jar"],
            natives={("Linux", "x86_64"): "linux.jar", ("Linux", "amd64"): "linux.jar"},
        )

    def _may(self, visit: Visit) -> bool:
        token, referer = visit.headers.get("x-acme-token"), visit.headers.get("referer", "")
        return bool(visit.user) and token == visit.session[:6] and referer.endswith("/console.html")


PERSONALITIES: Final = (AcmePanel,)
