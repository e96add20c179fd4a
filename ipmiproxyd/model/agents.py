"""Agents: where they are, what is run there, and the streams to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ipmiproxyd.model.browsers import CHROMIUM
from ipmiproxyd.model.secret import Secret

SSH_AGENT: Final = "ssh-agent"
"""In the place of a key's file: whatever keys the daemon's ssh-agent holds."""
Users = Literal["auto", "always", "never"]
Transport = Literal["ssh", "direct"]
"""How the displays of an agent on another machine are reached: as all else, or by ports that are open there."""
Verb = Literal["provision", "unprovision", "update"]
"""What is done with an agent's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAgent:
    """An agent on another machine, as an operator tells of it.

    ``key`` is the path of a private key's file where the daemon runs, or SSH_AGENT; ``passphrase`` decrypts it.
    ``host_keys`` are fingerprints ("SHA256:…") of the host's keys that are trusted. ``python`` runs the runner;
    ``runner`` is where that is installed, for sudo to start it. ``users`` says whether displays have Unix users of
    their own ("auto": where the runner may be root), ``group`` which Unix group reaches them ("" for the account's
    own). ``folder`` is what is ours there, ``jobs_name`` the runner's folder ("" for their defaults). ``transport``
    concerns the displays only. ``browser`` is the one that shows panels: a name of POLICY_PLACES, or NO_BROWSER.
    """

    name: str
    host: str
    port: int = 22
    user: str = "ipmiproxyd"
    key: str
    passphrase: Secret = field(default_factory=lambda: Secret(""))
    host_keys: tuple[str, ...] = ()
    python: str = "/usr/bin/python3"
    users: Users = "auto"
    group: str = ""
    runner: str = "/usr/local/lib/ipmiproxyd/runner.py"
    folder: str = ""
    jobs_name: str = ""
    transport: Transport = "ssh"
    browser: str = CHROMIUM
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    """The account by which we come to provision an agent's host: root, or one that sudo lets do all.

    ``key`` is as that of a :class:`RemoteAgent`, "" for the agent's own. ``sudo_password`` is empty where sudo asks for
    none.
    """

    user: str = "root"
    key: str = ""
    passphrase: Secret = field(default_factory=lambda: Secret(""))
    sudo_password: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a host is to have beside what every agent has.

    ``repository`` is a line for apt's sources, or "". ``javas`` are names as of ``java install``.
    """

    repository: str = ""
    javas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What is to be done on the host of an agent, to make it one or to take that back.

    :ivar name: the agent's.
    :ivar fields: of :class:`RemoteAgent`, as far as they are given; those of a known agent may only say what is stored,
        but for the browser, which is stored then.
    :ivar known_hosts: the daemon's files of known hosts may vouch for the host.
    :ivar dry_run: change nothing, and tell what would be changed.
    :ivar force: close consoles that are open there, and pass over proxies that name the agent.
    :ivar keep: the agent stays known.
    """

    name: str
    by: Administrator
    fields: Mapping[str, Any] = field(default_factory=dict)
    wanted: Wanted = Wanted()
    known_hosts: bool = True
    dry_run: bool = False
    force: bool = False
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What provisioning has changed on a host, or would change, and what is to be known, in words."""

    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One short program run on an agent. ``argv`` holds no secret; secrets go by ``stdin``.

    The agent supplies PATH, LANG=C.UTF-8 and a HOME of its own in which the tools' small files are.
    ``timeout`` in seconds; then TERM and, two seconds later, KILL to the whole process group. The same befalls a
    program that says more than ``output_limit`` bytes.
    """

    argv: tuple[str, ...]
    stdin: bytes = field(default=b"", repr=False)
    timeout: float = 20.0
    output_limit: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a :class:`Command` ended. Exactly one of ``status`` and ``signal`` is set."""

    status: int | None
    signal: int | None = None
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def last_words(self) -> str:
        """The last line of its standard error, for people."""

        said = self.stderr.decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else "it said nothing"


@dataclass(frozen=True, slots=True)
class UnixStream:
    """A UNIX socket on an agent."""

    path: str


@dataclass(frozen=True, slots=True)
class TcpStream:
    """A TCP port as seen from an agent."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class DirectStream:
    """A TCP port of an agent's own machine, connected to across the network, whatever else goes through SSH."""

    port: int


StreamAddress = UnixStream | TcpStream | DirectStream
