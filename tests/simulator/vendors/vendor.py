"""What the simulated panels of vendors have in common: sessions in slots, moods, a viewer's tokens and jars."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from html import escape
from typing import ClassVar, Literal

from tests.simulator.personality import Personality, Reply, Visit

Verdict = Literal["ok", "wrong", "full", "locked"]
JAR_TYPE = "application/java-archive"
JNLP_TYPE = "application/x-java-jnlp-file"


class VendorPanel(Personality):
    """A panel with a mood.

    :cvar slots: how many sessions it allows.
    :ivar mood: "" normal, "full" (no free session), "licence" (none), "html5" (the console is set to HTML5 only),
        "locked", "broken" (an error 500 where the JNLP should be).
    :ivar kvm_port: where the viewer's server is.
    :ivar tokens: sessions by the viewer's tokens, while those are good.
    :ivar jars: by file name.
    """

    slots: int = 4
    mood: str = ""
    kvm_port: int = 0
    jars: Mapping[str, bytes] = {}
    viewer_dies: ClassVar[bool] = True
    """Whether signing out ends the viewer."""

    @property
    def tokens(self) -> dict[str, str]:
        found: dict[str, str] = self.__dict__.setdefault("_tokens", {})
        return found

    def judge(self, user: str, password: str) -> Verdict:
        """A sign-in, which is written down."""

        verdict: Verdict = "ok"
        if self.mood == "locked":
            verdict = "locked"
        elif user not in self.users or self.users[user] != password:
            verdict = "wrong"
        elif self.mood == "full" or len(self.sessions) >= self.slots:
            verdict = "full"
        self.record("sign-in", {"user": user, "password_length": len(password), "ok": verdict == "ok"})
        return verdict

    def enter(self, user: str) -> str:
        """A new session."""

        session = secrets.token_hex(16)
        self.sessions[session] = user
        return session

    def leave(self, session: str) -> bool:
        """The session's end, which is written down. False if there was none."""

        user = self.sessions.pop(session, None)
        if user is None:
            return False
        self.record("sign-out", {"user": user})
        if self.viewer_dies:
            for token in [token for token, owner in self.tokens.items() if owner == session]:
                del self.tokens[token]
        return True

    def mint(self, session: str) -> str:
        """A token for a viewer."""

        token = secrets.token_hex(8)
        self.tokens[token] = session
        return token

    def jar(self, name: str) -> Reply:
        content = self.jars.get(name)
        return Reply("No such file.", status=404) if content is None else Reply(content, type=JAR_TYPE)


def host_of(visit: Visit) -> tuple[str, str]:
    """The panel as its visitor calls it: with its port, and without."""

    host = visit.headers.get("host", "127.0.0.1")
    bare = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return host, bare.strip("[]")


def jnlp_text(
    *,
    codebase: str,
    title: str,
    main: str,
    arguments: Sequence[str],
    jars: Sequence[str],
    natives: Mapping[tuple[str, str], str],
    java: str = "1.6.0+",
    properties: Mapping[str, str] | None = None,
) -> str:
    """A description as Web Start takes it. ``natives``: by operating system and architecture."""

    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<jnlp spec="1.0+" codebase="{escape(codebase)}">',
        f"  <information><title>{escape(title)}</title><vendor>simulated</vendor></information>",
        "  <security><all-permissions/></security>",
        f'  <resources>\n    <j2se version="{escape(java)}"/>',
        *(f'    <jar href="{escape(jar)}"{" main=" + chr(34) + "true" + chr(34) if not at else ""}/>'
          for at, jar in enumerate(jars)),
        *(f'    <property name="{escape(name)}" value="{escape(value)}"/>'
          for name, value in (properties or {}).items()),
        "  </resources>",
        *(f'  <resources os="{system}" arch="{machine}"><nativelib href="{escape(jar)}"/></resources>'
          for (system, machine), jar in natives.items()),
        f'  <application-desc main-class="{escape(main)}">',
        *(f"    <argument>{escape(argument)}</argument>" for argument in arguments),
        "  </application-desc>",
        "</jnlp>",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
