"""What is valid in a request to provision a host, or to take that back. What a host would not understand is refused
before anything is touched there: the engine has the same rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ipmiproxyd import config_kinds as kinds
from ipmiproxyd.errors import BadValue
from ipmiproxyd.model import Administrator, RemoteAgent, Wanted
from ipmiproxyd.wire.agent import USER

ACCOUNT: Final = r"[a-z_][a-z0-9_-]{0,31}"
PATH: Final = r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.+-]{1,100})+"

_PATH: Final = kinds.name(PATH, "an absolute path of letters, digits, _, ., + and -, to be provisioned")
_AGENT: Final = (
    ("user", kinds.name(rf"(?!root\Z){ACCOUNT}", "a name of small letters, digits, _ and -, and not root")),
    ("python", _PATH),
    ("runner", _PATH),
)
_REPOSITORY: Final = kinds.name(
    r"|deb [^\x00-\x1f\x7f]{1,500}", "a line for apt such as deb http://mirror.example.org/debian bookworm main"
)
_JAVA: Final = kinds.name(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "names of Javas such as jdk_8u121, or their numbers")


def check_agent(agent: RemoteAgent) -> None:
    """Raises BadValue for an agent that can only be set up by hand."""

    _check((field, kind, getattr(agent, field)) for field, kind in _AGENT)


def check_wanted(wanted: Wanted) -> None:
    """Raises BadValue."""

    javas = [("javas", _JAVA, java) for java in wanted.javas]
    _check([("repository", _REPOSITORY, wanted.repository), *javas])


def check_administrator(by: Administrator) -> None:
    """Raises BadValue."""

    _check([("as", USER, by.user), ("as_key", kinds.ssh_key, by.key)])
    if by.passphrase and not by.key:
        raise BadValue(
            "as_passphrase= is of the key of as_key=, which is not given.",
            hint="For the agent's own key: passphrase=, or agent set passphrase=.",
        )


def _check(given: Iterable[tuple[str, kinds.Kind[Any], object]]) -> None:
    problems: list[str] = []
    for field, kind, value in given:
        try:
            kind(value)
        except kinds.KindError as error:
            problems += [f"{field}: {words}" for _, words in error.mistakes]
    if problems:
        raise BadValue("; ".join(problems) + ".")
