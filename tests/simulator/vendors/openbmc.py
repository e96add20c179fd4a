"""The simulated panel of OpenBMC: bmcweb as its code has it."""

from __future__ import annotations

import json
from typing import ClassVar, Final

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import VendorPanel

_SESSIONS: Final = "/redfish/v1/SessionService/Sessions"
_FRONT: Final = """<!DOCTYPE html><html lang="en"><head><title>OpenBMC</title></head><body><noscript><strong>We're sorry
but webui-vue doesn't work properly without JavaScript enabled.</strong></noscript><div id="app"></div></body></html>
"""


class OpenBmcPanel(VendorPanel):
    """``redfish_only``: a build without ``/login``. ``console``: whether KVM is switched on."""

    key: ClassVar[str] = "openbmc"
    cookie: ClassVar[str] = "SESSION"
    redfish_only: bool = False
    console: bool = True

    def routes(self) -> dict[tuple[str, str], Handler]:
        shared: dict[tuple[str, str], Handler] = {
            ("GET", "/"): self.front,
            ("GET", "/redfish/v1/"): self.root,
            ("GET", "/redfish/v1"): self.root,
            ("GET", "/redfish/v1/Managers/bmc"): self.manager,
            ("POST", _SESSIONS): self.redfish_sign_in,
        }
        if self.redfish_only:
            return shared
        return {**shared, ("POST", "/login"): self.sign_in, ("POST", "/logout"): self.sign_out}

    def answer(self, visit: Visit) -> Reply | None:
        if visit.path in {"/login", "/logout"} and not self.redfish_only:
            return Reply(status=405, headers={"Allow": "POST"})
        if visit.method == "DELETE" and visit.path.startswith(f"{_SESSIONS}/"):
            session = visit.session or visit.headers.get("x-auth-token", "")
            if not self._may(visit) or visit.path.rpartition("/")[2] != session[:10] or not self.leave(session):
                return _json({"error": {"code": "Base.1.13.0.NoValidSession"}}, 401)
            return _json({}, 200)
        return None

    def front(self, visit: Visit) -> Reply:
        """The one page of the program; for who is signed in it can be tried out (the way after # never comes here)."""

        return Reply(pages.try_out(self.name, signed_in=True) if visit.user else _FRONT)

    def root(self, _visit: Visit) -> Reply:
        links = {"ManagerProvidingService": {"@odata.id": "/redfish/v1/Managers/bmc"}}
        return _json({"Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.17.0", "Links": links}, 200)

    def manager(self, visit: Visit) -> Reply:
        if self.mood == "broken":
            return _json({"error": {"code": "Base.1.13.0.InternalError"}}, 500)
        if not visit.user:
            return _json({"error": {"code": "Base.1.13.0.NoValidSession"}}, 401)
        return _json(
            {"Id": "bmc", "GraphicalConsole": {"ServiceEnabled": self.console, "MaxConcurrentSessions": 4}}, 200
        )

    def sign_in(self, visit: Visit) -> Reply:
        given = visit.json if isinstance(visit.json, dict) else {}
        pair = given.get("data")
        if not (isinstance(pair, list) and len(pair) == 2):
            return Reply(status=400)
        refused = self._judged(*map(str, pair))
        if refused:
            return refused
        session = self.enter(str(pair[0]))
        reply = _json({"data": "User logged in", "message": "200 OK", "status": "ok"}, 200)
        return Reply(reply.body, 200, reply.type, cookies=_cookies(session))

    def sign_out(self, visit: Visit) -> Reply:
        if not self._may(visit):
            return Reply(status=401)
        self.leave(visit.session)
        return _json({"message": "200 OK", "status": "ok"}, 200)

    def redfish_sign_in(self, visit: Visit) -> Reply:
        given = visit.json if isinstance(visit.json, dict) else {}
        refused = self._judged(str(given.get("UserName")), str(given.get("Password")))
        if refused:
            return refused
        session = self.enter(str(given["UserName"]))
        headers = {"Location": f"{_SESSIONS}/{session[:10]}"}
        by_browser = "x-requested-with" in visit.headers
        if not by_browser:
            headers["X-Auth-Token"] = session
        reply = _json({"Id": session[:10]}, 201)
        return Reply(reply.body, 201, reply.type, headers, _cookies(session) if by_browser else ())

    def _judged(self, user: str, password: str) -> Reply | None:
        verdict = self.judge(user, password)
        if verdict == "ok":
            return None
        if verdict == "full":
            return _json({"error": {"code": "Base.1.13.0.SessionLimitExceeded"}}, 503)
        code = "AccountLocked" if verdict == "locked" else "ResourceAtUriUnauthorized"
        return _json({"error": {"code": f"Base.1.13.0.{code}", "message": "Invalid username or password"}}, 401)

    def _may(self, visit: Visit) -> bool:
        by_cookie = bool(visit.user) and visit.headers.get("x-xsrf-token") == visit.session[:20]
        return by_cookie or visit.headers.get("x-auth-token", "") in self.sessions


def _cookies(session: str) -> tuple[str, ...]:
    return (
        f"XSRF-TOKEN={session[:20]}; Path=/; SameSite=Strict; Secure",
        f"SESSION={session}; Path=/; SameSite=Strict; Secure; HttpOnly",
    )


def _json(value: object, status: int) -> Reply:
    return Reply(json.dumps(value), status, "application/json")


PERSONALITIES: Final = (OpenBmcPanel,)
