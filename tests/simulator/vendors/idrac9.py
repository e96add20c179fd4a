"""The simulated iDRAC9."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any, ClassVar, Final
from urllib.parse import quote

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

JAR: Final = "avctKVM.jar"
NATIVE: Final = "avctKVMIOLinux64.jar"

_START: Final = """<html><head><title>iDRAC9</title></head><body>
<idrac-start-screen config="settings" on-button-click="onBtnAction(action)" on-text-change="onChange(map)">
</idrac-start-screen></body></html>
"""


class Idrac9Panel(VendorPanel):
    """``java``: whether the firmware still has the Java console. ``port``: the console's own, in older firmware.
    ``redfish``: whether it makes accounts for one console. ``default_password``: it warns of one."""

    key: ClassVar[str] = "idrac9"
    cookie: ClassVar[str] = "-http-session-"
    slots = 8
    java: bool = True
    port: int = 0
    redfish: bool = True
    default_password: bool = False

    @property
    def guards(self) -> dict[str, str]:
        """The token against forged requests by session."""

        guards: dict[str, str] = self.__dict__.setdefault("_guards", {})
        return guards

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): lambda _visit: Reply(status=302, headers={"Location": "/restgui/start.html"}),
            ("GET", "/restgui/start.html"): self.start,
            ("GET", "/restgui/vconsole/index.html"): self.html5_page,
            ("GET", "/console"): self.temporary_page,
            ("GET", "/redfish/v1"): lambda _visit: _json({"Name": "Root Service", "Oem": {"Dell": {}}}),
            ("GET", "/sysmgmt/2015/bmc/info"): self.info,
            ("POST", "/sysmgmt/2015/bmc/session"): self.sign_in,
            ("DELETE", "/sysmgmt/2015/bmc/session"): self.sign_out,
            ("GET", "/sysmgmt/2015/server/vconsole"): self.console,
        }

    def answer(self, visit: Visit) -> Reply | None:
        folder, _, name = visit.path.rpartition("/")
        if visit.method == "POST" and name == "DelliDRACCardService.GetKVMSession" and self.redfish:
            return self.temporary(visit)
        return self.jar(name) if folder == "/software" else None

    def start(self, visit: Visit) -> Reply:
        if "gzip" not in visit.headers.get("accept-encoding", ""):
            return Reply("<html>404</html>", status=404)
        return Reply(_START, gzip=True)

    def info(self, _visit: Visit) -> Reply:
        licence = "Express" if self.mood == "licence" else "Enterprise"
        return _json({"Attributes": {"FwVer": "3.15.15.15", "License": licence, "ServerGen": "14G"}})

    def sign_in(self, visit: Visit) -> Reply:
        user, password = (_unquoted(visit.headers.get(name, "")) for name in ("user", "password"))
        if visit.body:
            return _json({"authResult": 99}, 400)
        verdict = self.judge(user, password)
        if verdict == "full":
            return _json({"error": "RAC0218"}, 503)
        if verdict != "ok":
            return _json({"authResult": 1, "blockingTime": 30 if verdict == "locked" else 0}, 401)
        session = self.enter(user)
        self.guards[session] = secrets.token_hex(16)
        reply = _json({"authResult": 7 if self.default_password else 0}, 201)
        cookies = (f"{self.cookie}={session}; path=/; secure; HttpOnly",)
        return Reply(reply.body, 201, reply.type, {"XSRF-TOKEN": self.guards[session]}, cookies)

    def guarded(self, visit: Visit) -> bool:
        return bool(visit.user) and visit.headers.get("xsrf-token") == self.guards[visit.session]

    def sign_out(self, visit: Visit) -> Reply:
        if not self.guarded(visit):
            return Reply(status=401)
        self.leave(visit.session)
        del self.guards[visit.session]
        return Reply(status=204)

    def console(self, visit: Visit) -> Reply:
        if not self.guarded(visit):
            return Reply(status=401)
        if self.mood == "broken":
            return _json({"error": "internal"}, 500)
        if self.mood == "licence":
            return _json({"Location": ""})
        wants_java = visit.query.get("type") == "Java"
        if wants_java and not self.java:
            return Reply(status=404)
        if wants_java and self.mood != "html5":
            return Reply(self.jnlp(visit), type=JNLP_TYPE)
        return _json({"Location": self.place(visit)})

    def place(self, visit: Visit) -> str:
        """Where the page of the console is, once."""

        host, bare = host_of(visit)
        if self.port:
            return f"https://{bare}:{self.port}/index.html?ip={bare}"
        first, second = self.mint(visit.session), secrets.token_hex(8)
        title = quote(f"{self.name}, PowerEdge R640, User: {visit.user}")
        return f"https://{host}/restgui/vconsole/index.html?ip={bare}&kvmport=443&title={title}&VCSID={first}&VCSID2={second}"

    def html5_page(self, visit: Visit) -> Reply:
        owner = self.tokens.pop(visit.query.get("VCSID", ""), None)
        return Reply(pages.try_out(self.name, signed_in=bool(visit.user) and owner == visit.session))

    def temporary(self, visit: Visit) -> Reply:
        scheme, _, pair = visit.headers.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(pair).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if self.users.get(user, None) != password:
            return _json({"error": {}}, 401)
        if visit.json != {"SessionTypeName": "HTML5"}:
            return _json({"error": {}}, 400)
        name = secrets.token_hex(4)
        return _json({"TempUsername": name, "TempPassword": self.mint(name)}, 202)

    def temporary_page(self, visit: Visit) -> Reply:
        owner = self.tokens.pop(visit.query.get("tempPassword", ""), None)
        return Reply(pages.try_out(self.name, signed_in=bool(owner) and owner == visit.query.get("tempUsername")))

    def jnlp(self, visit: Visit) -> str:
        host, bare = host_of(visit)
        token = self.mint(visit.session)
        arguments = [
            f"ip={bare}",
            "vmprivilege=true",
            f"title={self.name}, PowerEdge R640, User: {visit.user}",
            f"user={token}",
            f"passwd={token}",
            f"kmport={self.kvm_port}",
            f"vport={self.kvm_port}",
            "apcp=1",
            "version=2",
        ]
        return jnlp_text(
            codebase=f"https://{host}",
            title="iDRAC9 Virtual Console Client",
            main="com.avocent.idrac.kvm.Main",
            arguments=arguments,
            jars=[f"https://{host}/software/{JAR}"],
            natives={("Linux", machine): f"https://{host}/software/{NATIVE}" for machine in ("x86_64", "amd64")},
            java="1.6+",
        )


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value), status, "application/json")


PERSONALITIES: Final = (Idrac9Panel,)
