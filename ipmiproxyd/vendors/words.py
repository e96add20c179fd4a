"""What several families say or read alike: refusals in the same words, JSON, JNLP."""

from __future__ import annotations

import json
from typing import Any

from ipmiproxyd.errors import BmcAuth, BmcError, BmcLocked, BmcPrivilege, Html5Only, NoLicence, NoSlot
from ipmiproxyd.vendors.talk import Answer


def wrong_password(hint: str = "") -> BmcAuth:
    known = "Check the device's user name and password. It was tried once only, since panels lock accounts."
    return BmcAuth("The panel refused the user name or the password.", hint=f"{hint} {known}".strip())


def no_slot() -> NoSlot:
    return NoSlot(
        "The panel has no free session.",
        hint="Sign out of it in other browsers, or wait until a forgotten session has timed out there.",
    )


def ended() -> BmcError:
    return BmcError("The panel has ended our session.", hint="Try again.")


def locked(seconds: int = 0) -> BmcLocked:
    while_ = f"for {seconds} seconds" if seconds else "for a while"
    return BmcLocked(
        f"The panel accepts no sign-in of this user {while_}.",
        hint="It does so after several wrong passwords. Wait, and check the password before the next try.",
    )


def no_licence(name: str = "") -> NoLicence:
    which = f" ({name})" if name else ""
    return NoLicence(
        f"The panel has no licence for a remote console{which}.",
        hint="Install the licence on the panel. Power control works without it.",
    )


def html5_only(use: str = "type=html5 or type=panel") -> Html5Only:
    return Html5Only(
        "The panel is set to offer its remote console as a page, not as a Java program.",
        hint=f"Use {use}, or choose Java in the panel's own settings.",
    )


def no_right() -> BmcPrivilege:
    return BmcPrivilege(
        "The panel does not let this user open a remote console.", hint="Give the user that right in the panel."
    )


def odd(request: str, answer: Answer) -> BmcError:
    """The panel's answer to a request (in words) makes no sense."""

    words = f"The panel's answer to {request} (HTTP status {answer.status}) is not understood."
    return BmcError(words, hint="Open it with type=panel to see what it says.")


def json_of(answer: Answer) -> dict[str, Any]:
    """The object in the body; an empty one if there is none."""

    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def text_in(values: dict[str, Any], name: str) -> str:
    """A member that is a text of one line, or a number; empty if it is neither."""

    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value)
    return text if text.isprintable() else ""


def number_in(values: dict[str, Any], name: str) -> int:
    text = text_in(values, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def is_jnlp(answer: Answer) -> bool:
    """Whatever its Content-Type says."""

    return answer.status < 400 and b"<jnlp" in answer.body


def jnlp_of(answer: Answer) -> bytes:
    """The description of a Java console. Raises for everything else that a panel may send in its place."""

    if is_jnlp(answer):
        return answer.body
    if answer.status == 403:
        raise no_right()
    raise odd("the request for the Java console", answer)
