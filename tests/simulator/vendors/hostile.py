"""A panel that means harm: a Supermicro in all but what it hands out."""

from __future__ import annotations

import io
import zipfile
from typing import ClassVar, Final

from tests.simulator.personality import Reply, Visit
from tests.simulator.vendors.supermicro import JAR, NATIVE, SupermicroPanel
from tests.simulator.vendors.vendor import JAR_TYPE, JNLP_TYPE, host_of

HUGE: Final = 2 << 30
_PIECE: Final = b"\0" * (1 << 20)
_BOMB: Final = "".join(f'<!ENTITY a{at} "{f"&a{at - 1};" * 10}">' for at in range(1, 12))


class HostilePanel(SupermicroPanel):
    """What it does is told by the name of whoever signs in: the keys of :meth:`tricks`, and those below.

    huge, endless    the jar: 2 GB by its header, or a stream that never ends
    bomb, climbing   the jar of native libraries: a few bytes that are gigabytes, or names that lead out of it
    circle           the jar is always at another place
    flood            its page after signing in is 300 MB
    """

    key: ClassVar[str] = "hostile"
    leads_to: str = ""
    """Where its first page leads, if anywhere."""
    evil: str = "evil.example"
    token: str = ""
    """What the viewer is told, and tells the KVM port."""

    def front(self, visit: Visit) -> Reply:
        return Reply(status=302, headers={"Location": self.leads_to}) if self.leads_to else super().front(visit)

    def sign_in(self, visit: Visit) -> Reply:
        reply = super().sign_in(visit)
        if visit.form.get("name") == "flood":
            return Reply(_PIECE, times=300, cookies=reply.cookies)
        return reply

    def viewer(self, visit: Visit) -> Reply:
        trick = self.tricks(visit).get(visit.user)
        if visit.user == "redirects":
            return Reply(status=302, headers={"Location": visit.uri})
        if trick is None:
            return super().viewer(visit)
        return Reply(trick, type=JNLP_TYPE)

    def jnlp(self, visit: Visit) -> str:
        text = super().jnlp(visit)
        # A file's address tells who asks for it.
        return text.replace(JAR, f"{visit.user}/{JAR}").replace(NATIVE, f"{visit.user}/{NATIVE}")

    def mint(self, session: str) -> str:
        if self.sessions[session] != "shell":
            return super().mint(session)
        self.tokens[self.token] = session
        return self.token

    def tricks(self, visit: Visit) -> dict[str, str]:
        """Descriptions of the console, by the user's name."""

        good = self.jnlp(visit) if visit.user not in ("flood", "") else ""
        host = host_of(visit)[0]
        head, _, rest = good.partition("\n")
        return {
            "entities": f'{head}\n<!DOCTYPE jnlp [<!ENTITY a0 "ha">{_BOMB}]>\n{rest.replace("ATEN", "&a11;")}',
            "file": f'{head}\n<!DOCTYPE jnlp [<!ENTITY a SYSTEM "file:///etc/passwd">]>\n{rest.replace("ATEN", "&a;")}',
            "climb": good.replace(f"{visit.user}/{JAR}", "../../../../tmp/" + JAR),
            "coded": good.replace(f"{visit.user}/{JAR}", "%2e%2e/%252e%252e/" + JAR),
            "elsewhere": good.replace(host, self.evil),
            "file-url": good.replace(f"{visit.user}/{JAR}", "file:///etc/passwd"),
            "page": "<!DOCTYPE html><html><body>Your session has expired.</body></html>",
            "option": good.replace("tw.com.aten.ikvm.KVMMain", "-version"),
            "long": good.replace("</jnlp>", f"<!--{'x' * (1 << 19)}-->\n</jnlp>"),
        }

    def answer(self, visit: Visit) -> Reply | None:
        trick, _, name = visit.path.strip("/").partition("/")
        if name not in (JAR, NATIVE):
            return super().answer(visit)
        if visit.method == "HEAD":
            return Reply(status=403)
        made = self._jar(trick) if name == JAR else self._native(trick)
        return made or self.jar(name)

    def _jar(self, trick: str) -> Reply | None:
        if trick == "huge":
            return Reply(b"PK\x03\x04", type=JAR_TYPE, length=HUGE)
        if trick == "endless":
            return Reply(_PIECE, type=JAR_TYPE, times=1 << 20)
        if trick == "circle":
            return Reply(status=302, headers={"Location": f"/circle/{JAR}"})
        return Reply("<html>Please sign in</html>") if trick == "no-jar" else None

    def _native(self, trick: str) -> Reply | None:
        if trick == "bomb":
            return Reply(_zip({"libiKVM64.so": b"\0" * (64 << 20)}), type=JAR_TYPE)
        if trick == "climbing":
            return Reply(_zip({"../../libiKVM64.so": b"\x7fELF"}), type=JAR_TYPE)
        return None


def _zip(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()
