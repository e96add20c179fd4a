"""The fields of an agent on another machine: what is valid in them, and agent ⇄ stored document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final, get_args

from ipmiproxyd import config_kinds as kinds
from ipmiproxyd.errors import BadValue
from ipmiproxyd.model import SSH_AGENT, RemoteAgent, Secret, Transport, Users

NOTES: Final = 4096
SECRET: Final = 256

USER: Final = kinds.name(r"[a-z_][a-z0-9_.-]{0,31}", "a Unix user's name")
NAME: Final = kinds.name(kinds.AGENT_NAME.pattern, f"up to 64 {kinds.AGENT_NAME_WORDS}, the first a letter or digit")


def checked(agent: RemoteAgent) -> RemoteAgent:
    """The agent with its fields in one spelling.

    :raises BadValue: some fields are not valid; all of them are named.
    """

    problems: list[str] = []
    values: dict[str, Any] = {}
    for field, kind in _KINDS.items():
        try:
            values[field] = kind(getattr(agent, field))
        except kinds.KindError as error:
            problems += [f"{_SHOWN.get(field, field)}: {explanation}" for _, explanation in error.mistakes]
    if problems:
        raise BadValue("; ".join(problems) + ".")
    return replace(agent, **values)


def changed(agent: RemoteAgent, changes: Mapping[str, Any]) -> RemoteAgent:
    """The agent with some fields replaced, and checked. Raises BadValue."""

    return checked(replace(agent, **changes))


def differing(agent: RemoteAgent, fields: Mapping[str, Any]) -> Sequence[str]:
    """Which of these fields the agent has otherwise, as operators call them. Raises BadValue."""

    other = changed(agent, fields)
    return [_SHOWN.get(name, name) for name in fields if getattr(other, name) != getattr(agent, name)]


def to_document(agent: RemoteAgent) -> dict[str, Any]:
    return {field.name: getattr(agent, field.name) for field in fields(RemoteAgent)} | {
        "host_keys": list(agent.host_keys)
    }


def from_document(document: Mapping[str, Any]) -> RemoteAgent:
    """Fields that are missing have their defaults; unknown ones are passed over (a later version wrote them)."""

    known = {field.name: document[field.name] for field in fields(RemoteAgent) if field.name in document}
    return RemoteAgent(**known | {"host_keys": tuple(known.get("host_keys", ()))})


# --- kinds: each gives the value, or raises KindError -----------------------------------------------------------------


def _host(raw: object) -> str:
    host = kinds.host(raw)
    if not host:
        raise kinds.wrong("must be a host name or address")
    return host


def _key(raw: object) -> str:
    if not raw:
        raise kinds.wrong(f"must be the path of a private key's file, or {SSH_AGENT}")
    return kinds.ssh_key(raw)


def _secret(raw: object) -> Secret:
    if not isinstance(raw, Secret) or len(raw.reveal()) > SECRET:
        raise kinds.wrong(f"must be a secret of at most {SECRET} characters")
    return raw


def _notes(raw: object) -> str:
    if not isinstance(raw, str) or len(raw) > NOTES or not all(mark.isprintable() or mark in "\n\t" for mark in raw):
        raise kinds.wrong(f"must be a text of at most {NOTES} characters, without control characters")
    return raw


_SHOWN: Final = {"host_keys": "host_key"}
_KINDS: Final[Mapping[str, kinds.Kind[Any]]] = {
    "name": NAME,
    "host": _host,
    "port": kinds.whole(1, 65535),
    "user": USER,
    "key": _key,
    "passphrase": _secret,
    "host_keys": kinds.list_of(kinds.ssh_fingerprint, empty=True),
    "python": kinds.program,
    "users": kinds.choice(*get_args(Users)),
    "group": kinds.group,
    "runner": kinds.agent_path,
    "folder": kinds.agent_path,
    "jobs_name": kinds.jobs_name,
    "transport": kinds.choice(*get_args(Transport)),
    "browser": kinds.browser,
    "notes": _notes,
}
