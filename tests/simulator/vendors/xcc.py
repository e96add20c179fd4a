"""The simulated panel of Lenovo's XCC."""

from __future__ import annotations

import base64
import json
import secrets
from binascii import Error as NotBase64
from typing import ClassVar, Final

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, host_of, jnlp_text

JAR: Final = "avctIBMViewer.jar"
NATIVE: Final = "avctKVMIOLinux64.jar"
_REMOTE: Final = "/redfish/v1/Managers/1/Oem/Lenovo/RemoteControl/Actions"


class XccPanel(VendorPanel):
    """``nonce``: signing in needs a number that is asked for before. ``must_change``: the password is the first one."""

    key: ClassVar[str] = "xcc"
    nonce: bool = True
    must_change: bool = False
    nonces: frozenset[str] = frozenset()
    made: str = ""

    def routes(self) -> dict[tuple[str, str], Handler]:
        root = json.dumps({"Id": "RootService", "Vendor": "Lenovo", "Oem": {"Lenovo": {}}})
        return {
            ("GET", "/"): lambda visit: Reply(pages.try_out(self.name, signed_in=False)),
            ("GET", "/redfish/v1"): lambda _visit: Reply(root, type="application/json"),
            ("POST", "/api/providers/get_nonce"): self.number,
            ("POST", "/api/login"): self.sign_in,
            ("GET", "/api/providers/logout"): self.sign_out,
            ("GET", "/api/providers/rp_jnlp"): self.make,
            ("GET", "/download/rp.jnlp"): self.viewer,
            ("POST", f"{_REMOTE}/LenovoRemoteControlService.GetRemoteConsoleToken"): self.console_token,
        }

    def answer(self, visit: Visit) -> Reply | None:
        return self.jar(visit.path.rpartition("/")[2]) if visit.path.startswith("/download/") else None

    def number(self, _visit: Visit) -> Reply:
        if not self.nonce:
            return Reply("Not Found", status=404)
        number = secrets.token_hex(8)
        self.nonces |= {number}
        return _json({"return": 0, "nonce": number})

    def sign_in(self, visit: Visit) -> Reply:
        number = visit.headers.get("content-security-policy", "").removeprefix("nonce=")
        if self.nonce and number not in self.nonces:
            return _json({"return": 1, "description": "nonce"}, 400)
        self.nonces -= {number}
        given = visit.json if isinstance(visit.json, dict) else {}
        user = str(given.get("username", ""))
        verdict = self.judge(user, str(given.get("password", "")))
        if verdict == "full":
            return _json({"description": "The maximum number of sessions is in use"}, 503)
        if verdict != "ok":
            return _json({"locktime": 3600 if verdict == "locked" else 0, "description": "refused"}, 401)
        session = self.enter(user)
        said = {"access_token": session, **({"reason": "first_access"} if self.must_change else {})}
        reply = _json(said)
        return Reply(reply.body, type=reply.type, cookies=(f"_csrf_token={session[::-1]}%3D; path=/; secure",))

    def _session(self, visit: Visit) -> str:
        """Whose bearer token came, with the token against forged requests."""

        session = visit.headers.get("authorization", "").removeprefix("Bearer ")
        right = visit.headers.get("x-xsrf-token") == session[::-1] + "="
        return session if session in self.sessions and right else ""

    def sign_out(self, visit: Visit) -> Reply:
        return _json({"return": 0 if self.leave(self._session(visit)) else 1})

    def make(self, visit: Visit) -> Reply:
        session = self._session(visit)
        if not session:
            return _json({"return": 1}, 401)
        if self.mood == "html5":
            return Reply("Not Found", status=404)
        if self.mood == "licence":
            return _json({"return": 12, "description": "No license for remote presence"})
        self.made = session
        return _json({"return": 0})

    def viewer(self, visit: Visit) -> Reply:
        session = self._session(visit)
        if not session or self.made != session:
            return Reply("Not Found", status=404)
        if self.mood == "broken":
            return Reply("Internal Server Error", status=500)
        self.made = ""
        host, bare = host_of(visit)
        arguments = {"title": f"{self.name} Remote Presence", "ip": bare, "user": f"0x{self.mint(session)}"}
        arguments |= {"passwd": "", "kmport": str(self.kvm_port), "vport": str(self.kvm_port), "apcp": "1"}
        text = jnlp_text(
            codebase=f"https://{host}/download",
            title=arguments["title"],
            main="com.avocent.ibmc.kvm.Main",
            arguments=[f"{name}={value}" for name, value in arguments.items()],
            jars=[JAR],
            natives={("Linux", "amd64"): NATIVE, ("Linux", "x86_64"): NATIVE},
        )
        return Reply(text, type=JNLP_TYPE)

    def console_token(self, visit: Visit) -> Reply:
        try:
            given = base64.b64decode(visit.headers.get("authorization", "").removeprefix("Basic ")).decode()
        except (NotBase64, UnicodeDecodeError):
            given = ""
        user, _, password = given.partition(":")
        if self.users.get(user) != password or not password:
            return _json({"error": {"code": "Base.1.8.NoValidSession"}}, 401)
        if self.mood == "licence":
            return _json({"error": {"code": "License"}}, 400)
        return _json({"Token": self.mint(user)})


def _json(value: object, status: int = 200) -> Reply:
    return Reply(json.dumps(value), status, "application/json")


PERSONALITIES: Final = (XccPanel,)
