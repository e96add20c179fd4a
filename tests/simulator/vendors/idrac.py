"""The simulated iDRAC6 (two firmwares), iDRAC7 and iDRAC8."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import ClassVar, Final
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from tests.simulator import pages
from tests.simulator.personality import Handler, Reply, Visit
from tests.simulator.vendors.vendor import JNLP_TYPE, VendorPanel, Verdict, host_of, jnlp_text

JAR: Final = "avctKVM.jar"
NATIVES: Final = ("avctKVMIOLinux64.jar", "avctVMLinux64.jar")

_VIEWER: Final = re.compile(r"/viewer\.jnlp\((.*)\)")
_LOGIN: Final = """<html><head><title>{title}</title><script>
{encode}
function signIn() {{
  fetch('/data/login', {{method: 'POST', headers: {{'Content-Type': 'application/x-www-form-urlencoded'}},
    body: 'user=' + coded(user.value) + '&password=' + coded(password.value)}})
  .then(function (answer) {{ return answer.text(); }})
  .then(function (text) {{
    var xml = new DOMParser().parseFromString(text, 'text/xml');
    var result = xml.getElementsByTagName('authResult')[0].textContent;
    if (result == '0') document.location = xml.getElementsByTagName('forwardUrl')[0].textContent;
    else document.getElementById('said').textContent = 'Sign-in failed (' + result + ')';
  }});
}}
</script></head><body><h1>{title}</h1>
<input id="user" name="user" type="text"><input id="password" name="password" type="password">
<button id="btnOK" onclick="signIn()">Submit</button><p id="said"></p></body></html>
"""
_ENCODED: Final = "function coded(text) { return encodeURIComponent(text); }"
_ESCAPED: Final = r"""function coded(text) {
  return escape(text.replace(/\\/g, '\\\\').replace(/[@(),:?=&#+%]/g,
    function (sign) { return "@0" + sign.charCodeAt(0).toString(16); }));
}"""


class IdracPanel(VendorPanel):
    """What the generations share: the XML, and /data.

    :cvar separator: between the tokens in the forwardUrl.
    :cvar packed: pages are kept in gzip, and are not there for whoever does not take it.
    """

    generation: ClassVar[str]
    endpoint: ClassVar[str]
    separator: ClassVar[str] = ","
    packed: ClassVar[bool] = False

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """ST1 and ST2 by session."""

        pairs: dict[str, tuple[str, str]] = self.__dict__.setdefault("_pairs", {})
        return pairs

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/"): lambda _visit: Reply(status=302, headers={"Location": "/start.html"}),
            ("GET", "/start.html"): self.start,
            ("GET", "/login.html"): self.login_page,
            ("GET", "/index.html"): self.index,
            ("GET", "/cgi-bin/discover"): self.discover,
            ("POST", "/data/login"): self.sign_in,
            ("GET", "/data/logout"): self.sign_out,
            ("POST", "/data/logout"): self.sign_out,
            ("POST", "/data"): self.data,
        }

    def answer(self, visit: Visit) -> Reply | None:
        if found := _VIEWER.fullmatch(visit.uri):
            return self.viewer(visit, found.group(1).split("@"))
        folder, _, name = visit.path.rpartition("/")
        if folder == "/software":
            return self.jar(name)
        return self.not_signed_in() if visit.path.endswith(".html") and not visit.user else None

    def page(self, visit: Visit, text: str) -> Reply:
        if self.packed and "gzip" not in visit.headers.get("accept-encoding", ""):
            return Reply("<html>404</html>", status=404)
        return Reply(text, gzip=self.packed)

    def not_signed_in(self) -> Reply:
        return Reply(status=302, headers={"Location": "/start.html"})

    def start(self, visit: Visit) -> Reply:
        """A visitor gets the cookie here, long before it is worth anything."""

        page = self.page(visit, "<html><script>document.location = '/login.html';</script></html>")
        if visit.session or page.status != 200:
            return page
        return Reply(page.body, gzip=page.gzip, cookies=(self.cookie_line(secrets.token_hex(16)),))

    def cookie_line(self, session: str) -> str:
        return f"{self.cookie}={session}; path=/; secure"

    def login_page(self, visit: Visit) -> Reply:
        title = f"Integrated Dell Remote Access Controller {self.generation}"
        return self.page(visit, _LOGIN.format(title=title, encode=_ENCODED))

    def index(self, visit: Visit) -> Reply:
        return self.page(visit, pages.try_out(self.name, signed_in=True)) if visit.user else self.not_signed_in()

    def discover(self, _visit: Visit) -> Reply:
        kind = f"<ENDPOINTTYPE>{self.endpoint}</ENDPOINTTYPE><ENDPOINTVER>1.00</ENDPOINTVER>"
        return _xml(f"<DISCOVER><RESP><RC>0x0</RC>{kind}<PROTOCOLTYPE>HTTPS</PROTOCOLTYPE></RESP></DISCOVER>")

    def given(self, visit: Visit) -> tuple[str, str] | None:
        """User and password; None if they are not where they are looked for: the user comes first."""

        names = [part.partition("=")[0] for part in visit.body.decode("ascii").split("&")]
        if names != ["user", "password"]:
            return None
        user, password = (_decoded(part.partition(b"=")[2]) for part in visit.body.split(b"&"))
        return user, password

    def sign_in(self, visit: Visit) -> Reply:
        given = self.given(visit)
        if given is None:
            return self.verdict("2")
        results: Mapping[Verdict, str] = {"ok": "0", "wrong": "1", "full": "5", "locked": "1"}
        verdict = self.judge(*given)
        if verdict != "ok":
            return self.verdict(results[verdict], blocked=30 if verdict == "locked" else 0)
        session = self.enter(given[0])
        self.pairs[session] = (secrets.token_hex(16), secrets.token_hex(16))
        return self.verdict("0", forward=self.forward(session), cookies=(self.cookie_line(session),))

    def forward(self, session: str) -> str:
        first, second = self.pairs[session]
        return f"index.html?ST1={first}{self.separator}ST2={second}"

    def verdict(
        self, result: str, *, forward: str = "index.html", blocked: int = 0, cookies: tuple[str, ...] = ()
    ) -> Reply:
        blocking = f"<blockingTime>{blocked}</blockingTime>" if self.packed else ""
        text = f"<status>ok</status><authResult>{result}</authResult>{blocking}<forwardUrl>{forward}</forwardUrl>"
        return _xml(f"<root>{text}<errorMsg></errorMsg></root>", cookies)

    def sign_out(self, visit: Visit) -> Reply:
        self.leave(visit.session)
        self.pairs.pop(visit.session, None)
        return Reply(status=303, headers={"Location": "/login.html"})

    def data(self, visit: Visit) -> Reply:
        asked = dict(parse_qsl(visit.uri.partition("?")[2])).get("get", "").split(",")
        if not visit.user or visit.headers.get("st2", "") != self.second(visit):
            return Reply("<html>Unauthorized</html>", status=401)
        told = {
            "kvmEnabled": "1",
            "kvmPluginType": "2" if self.mood == "html5" else "1",
            "kvmActSes": "0",
            "kvmMaxSessions": "6",
            "ameaPresent": "0" if self.mood == "licence" else "1",
            "prodClassName": "Express" if self.mood == "licence" else "Enterprise",
        }
        text = "".join(f"<{name}>{told.get(name, '')}</{name}>" for name in asked)
        return _xml(f"<root>{text}<status>ok</status></root>")

    def second(self, visit: Visit) -> str:
        return self.pairs[visit.session][1]

    def mint(self, session: str) -> str:
        """A number."""

        token = str(secrets.randbelow(9 * 10**9) + 10**9)
        self.tokens[token] = session
        return token

    def viewer(self, visit: Visit, parts: list[str]) -> Reply:
        if not visit.user or not self.fits(visit, parts):
            return self.not_signed_in()
        if self.mood == "broken":
            return Reply("<html>500</html>", status=500)
        if self.mood == "licence" or (self.mood == "html5" and self.packed):
            return Reply("<html>404</html>", status=404)
        return Reply(self.jnlp(visit, parts), type=JNLP_TYPE)

    def fits(self, visit: Visit, parts: list[str]) -> bool:
        return len(parts) == 5 and parts[4] == f"ST1={self.pairs[visit.session][0]}"

    def credentials(self, visit: Visit) -> tuple[str, str]:
        """For the viewer."""

        token = self.mint(visit.session)
        return token, token

    def jnlp(self, visit: Visit, parts: list[str]) -> str:
        base = f"https://{host_of(visit)[0]}"
        user, password = self.credentials(visit)
        return jnlp_text(
            codebase=base,
            title=f"{self.endpoint} Virtual Console Client",
            main="com.avocent.idrac.kvm.Main",
            arguments=[
                f"ip={parts[0]}",
                "vmprivilege=true",
                f"helpurl={base}/help/contents.html",
                f"title={unquote(parts[2])}",
                f"user={user}",
                f"passwd={password}",
                f"kmport={self.kvm_port}",
                f"vport={self.kvm_port}",
                "apcp=1",
                "version=2",
            ],
            jars=[f"{base}/software/{JAR}"],
            natives={("Linux", machine): f"{base}/software/{NATIVES[0]}" for machine in ("x86_64", "amd64")},
            java="1.6+",
        )


class Idrac6Panel(IdracPanel):
    key: ClassVar[str] = "idrac6"
    cookie: ClassVar[str] = "_appwebSessionId_"
    generation = "6"
    endpoint = "iDRAC"

    def judge(self, user: str, password: str) -> Verdict:
        if self.mood != "locked":
            return super().judge(user, password)
        self.mood = ""  # it cannot tell that it is
        try:
            return super().judge(user, password)
        finally:
            self.mood = "locked"


class Idrac6OldPanel(Idrac6Panel):
    """Old firmware: no tokens, special characters in a way of its own, and the password itself in the descriptor."""

    key: ClassVar[str] = "idrac6-old"

    def login_page(self, visit: Visit) -> Reply:
        title = f"Integrated Dell Remote Access Controller {self.generation}"
        return self.page(visit, _LOGIN.format(title=title, encode=_ESCAPED))

    def given(self, visit: Visit) -> tuple[str, str] | None:
        given = super().given(visit)
        return given and (_unescaped(given[0]), _unescaped(given[1]))

    def forward(self, session: str) -> str:
        return "index.html"

    def second(self, visit: Visit) -> str:
        return ""

    def fits(self, visit: Visit, parts: list[str]) -> bool:
        return len(parts) == 4

    def credentials(self, visit: Visit) -> tuple[str, str]:
        password = self.users[visit.user]
        self.tokens[password] = visit.session
        return visit.user, password


class Idrac7Panel(IdracPanel):
    """``html5``: whether the firmware has that console."""

    key: ClassVar[str] = "idrac7"
    cookie: ClassVar[str] = "-http-session-"
    slots = 6
    generation = "7"
    endpoint = "iDRAC7"
    packed = True
    html5: bool = True

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            **super().routes(),
            ("GET", "/session"): self.session,
            ("GET", "/virtualconsolehtml5.html"): self.html5_page,
        }

    def cookie_line(self, session: str) -> str:
        return f"{self.cookie}={session}; path=/; secure; httponly"

    def session(self, visit: Visit) -> Reply:
        if visit.query.get("aimGetProp") == "fwVersion":
            return Reply('{"aimGetProp":{"fwVersion":"2.65.65","status":"OK"}}', type="application/json")
        if visit.query.get("getSsnVar") != "aimSession" or not visit.user or not self.knows(visit.headers.get("st2")):
            return self.not_signed_in()
        number = list(self.sessions).index(visit.session) + 1
        return Reply(f'{{"getSsnVar":{{"aimSession":{number},"status":"OK"}}}}', type="application/json")

    def knows(self, second: str | None) -> bool:
        return second in {pair[1] for pair in self.pairs.values()}

    def html5_page(self, visit: Visit) -> Reply:
        if not visit.user:
            return Reply(status=302, headers={"Location": "/login.html?console"})
        if not self.html5 or self.mood == "licence":
            return Reply("<html>404</html>", status=404)
        if self.mood == "broken":
            return Reply("<html>500</html>", status=500)
        query = visit.query
        pair = (query.get("TokenKey", ""), query.get("ST2", ""))
        signed_in = query.get("TokenName") == "ST1" and pair == self.pairs[visit.session] and "aimSession" in query
        return self.page(visit, pages.try_out(self.name, signed_in=signed_in))


class Idrac8Panel(Idrac7Panel):
    key: ClassVar[str] = "idrac8"
    generation = "8"
    endpoint = "iDRAC8"
    separator = "&"


def _decoded(value: bytes) -> str:
    """A lone section sign is in Latin-1."""

    return unquote_to_bytes(re.sub(rb"(?<!%C2)%A7", b"%C2%A7", value)).decode("utf-8", "replace")


def _unescaped(text: str) -> str:
    plain = re.sub(r"@0([0-9a-f]{2})", lambda found: chr(int(found.group(1), 16)), text)
    return plain.replace("\\\\", "\\")


def _xml(text: str, cookies: tuple[str, ...] = ()) -> Reply:
    return Reply(f'<?xml version="1.0" encoding="UTF-8"?>{text}', type="text/xml", cookies=cookies)


PERSONALITIES: Final = (Idrac6Panel, Idrac6OldPanel, Idrac7Panel, Idrac8Panel)
