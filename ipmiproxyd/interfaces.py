"""What rooms offer each other. Implementations import this module, never one another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from ipmiproxyd.errors import NotFound
from ipmiproxyd.model import (
    CertificateFiles,
    Command,
    Console,
    Device,
    Errand,
    Grant,
    Job,
    JobSpec,
    JobStage,
    OpenRequest,
    Outcome,
    Proxy,
    RemoteAgent,
    Secret,
    StreamAddress,
    Typing,
    ViewerInfo,
)

Progress = Callable[[Mapping[str, Any]], None]
"""Takes one JSON-able object a person who waits may see, e.g. ``{"stage": "display", "text": "…", "ms": 120}``."""


class Agent(Protocol):
    """A host that reaches the BMC network and runs the tools. A tool never knows where it runs.

    Every method may raise :class:`~ipmiproxyd.errors.AgentUnreachable` or
    :class:`~ipmiproxyd.errors.ToolMissing`.
    """

    name: str

    @property
    def python(self) -> str:
        """What runs our programs there: Python, 3.9 or later."""

    @property
    def browser(self) -> str:
        """What shows panels there: see :class:`~ipmiproxyd.model.RemoteAgent`."""

    @property
    def is_direct(self) -> bool:
        """Whether displays are to be reached without it, across the network: :attr:`JobSpec.vnc` is "direct" then."""

    @property
    def cache(self) -> str:
        """The folder on the agent from which jobs get the files of their library, by their SHA-256."""

    async def run(self, command: Command) -> Outcome:
        """Run a short program. It dies with its caller: cancelling ends the whole process group and waits for it."""

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        """Start a named, detached job; idempotent by ``spec.id``. Returns when its last program is ready.

        Raises JobFailed (with the program's own last words), NoFreeDisplay (the display is held by somebody
        else), TimedOut. Cancelling only stops waiting: give the job back with :meth:`stop`.
        """

    async def jobs(self) -> list[Job]:
        """Every job of ours that the agent still knows."""

    async def stop(self, job_id: str) -> None:
        """End a job and wait until nothing of it is left. Unknown ids are fine; a job of that id that is still on
        its way will not start."""

    async def sweep(self) -> list[str]:
        """Remove whatever ended jobs left behind, once no launch is on its way that has yet to read how its job ended;
        returns what was removed, in words."""

    def dial(self, address: StreamAddress) -> IStreamClientEndpoint:
        """An endpoint that connects to a stream as the agent sees it."""

    def watch(self, ended: Callable[[Job], None]) -> None:
        """Call ``ended`` for each job that ends by itself. One listener; it also keeps the jobs' lease alive."""


_A = TypeVar("_A", bound=Agent)


def is_leaving(agents: Mapping[str, Any], name: str) -> bool:
    """Whether an agent is being removed, where ``agents`` know such a thing: nothing new is begun on it."""

    return name in getattr(agents, "leaving", ())


def agent_named(agents: Mapping[str, _A], name: str) -> _A:
    """The agent that an operator means, for something new. Raises NotFound, also for one that is being removed."""

    if is_leaving(agents, name):
        raise NotFound(f"The agent {name} is being removed.")
    try:
        return agents[name]
    except KeyError:
        raise NotFound(f"There is no agent {name}.", hint="agent list shows all.") from None


class Store(Protocol):
    """Documents that survive. A document is a JSON object, in which :class:`~ipmiproxyd.model.Secret` values may
    stand: they are encrypted at rest. Never blocks the reactor. ``kind`` is a short word ("device", "console", …).
    """

    async def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Create or replace; durable when it returns."""

    async def create(self, kind: str, key: str, document: Mapping[str, Any]) -> bool:
        """Create; False if the key is taken."""

    async def get(self, kind: str, key: str) -> dict[str, Any] | None: ...

    async def list(self, kind: str, prefix: str = "") -> dict[str, dict[str, Any]]:
        """All documents of a kind whose key begins with ``prefix``, by key, in key order."""

    async def delete(self, kind: str, key: str) -> bool:
        """False if there was none."""

    async def close(self) -> None: ...


# --- what the control protocol's commands drive -----------------------------------------------------------------------


class Devices(Protocol):
    """The stored devices. Raises NotFound, Exists, BadValue."""

    async def add(self, device: Device) -> Device: ...

    async def change(self, name: str, changes: Mapping[str, Any]) -> Device:
        """``changes`` are fields of :class:`~ipmiproxyd.model.Device`."""

    async def get(self, name: str) -> Device: ...

    async def list(self) -> list[Device]: ...

    async def remove(self, name: str) -> None: ...


class Proxies(Protocol):
    """The stored proxies, and which of them a request goes by. Raises NotFound, Exists, BadValue, Forbidden."""

    async def add(self, proxy: Proxy) -> Proxy: ...

    async def change(self, name: str, changes: Mapping[str, Any]) -> Proxy:
        """``changes`` are fields of :class:`~ipmiproxyd.model.Proxy`. Consoles that are open stay as they are."""

    async def get(self, name: str) -> Proxy: ...

    async def list(self) -> Sequence[Proxy]: ...

    async def remove(self, name: str) -> Proxy:
        """Its consoles that are open go on."""

    def consoles(self, name: str) -> int:
        """How many are open by a proxy."""

    async def of(self, device: Device) -> Proxy | None:
        """The proxy of a device's location, the first by name; None if it has none."""

    async def pick(self, device: Device, *, name: str = "", agent: str = "", user: str = "") -> Proxy | None:
        """The proxy for a console: the one of this name, or of those of the device's location the one with the fewest
        consoles open, then by name; but rather one by which this user has a console to the device already.

        :param agent: only those of this agent, if there are any.
        """


class Power(Protocol):
    """Power actions by IPMI. Raises the Bmc… errors, AgentUnreachable, ToolMissing, TimedOut."""

    async def status(self, device: Device, *, agent: str = "local", force: bool = False) -> str:
        """"on" or "off"."""

    async def act(
        self,
        device: Device,
        action: str,
        *,
        agent: str = "local",
        force: bool = False,
        wait: float | None = None,
        progress: Progress = lambda _: None,
    ) -> Mapping[str, Any]:
        """``action``: on, off, cycle, reset, soft or diag. ``wait``: seconds to await the state it leads to.

        Returns ``{"action": …, "power": "on"|"off"|None}``; ``power`` is what the BMC reported, if it was asked.
        """


class Vendors(Protocol):
    """The families of web panels."""

    def listing(self) -> Sequence[Mapping[str, Any]]:
        """Each with its key, label, evidence, consoles, when it signs out."""

    async def look(self, agent: str, device: Device) -> Mapping[str, Any]:
        """Which family a device's panel is of, and why. Raises VendorUnknown, BmcUnreachable, …"""

    async def unlearn(self, agent: str, device: Device) -> None:
        """Forget what is remembered of a device's panel."""


class Javas(Protocol):
    """The Javas on agents. Raises NotFound, Exists, BadValue, Forbidden, ToolMissing, AgentUnreachable."""

    async def listing(self, agent: str) -> Mapping[str, Any]: ...

    async def use(self, agent: str, name: str) -> Mapping[str, Any]: ...

    async def install(self, agent: str, name: str) -> Mapping[str, Any]: ...

    async def register(self, agent: str, name: str, home: str) -> Mapping[str, Any]: ...

    async def remove(self, agent: str, name: str) -> None:
        """Refused while a console uses it."""


class Agents(Protocol):
    """The machines that reach the BMCs. Those of the configuration file raise Forbidden where they would be changed."""

    def listing(self) -> Sequence[Mapping[str, Any]]:
        """Each with its name, whether it is there, and as whom displays run. Nobody is asked."""

    async def show(self, name: str) -> Mapping[str, Any]:
        """The same of one, and how it is reached. Raises NotFound."""

    async def add(self, agent: RemoteAgent, *, check: bool = True, known_hosts: bool = True) -> Mapping[str, Any]:
        """Store one and connect to it; it stays even if that does not come to anything at once.

        :param check: sign in first, and store nothing if that fails.
        :param known_hosts: OpenSSH's files of known hosts may vouch for a host whose key is not given.

        As :meth:`show`, and ``warnings``. Raises BadValue, Exists, MissingArgument, HostKeyUnknown, HostKeyChanged,
        KeyRefused, AgentUnreachable.
        """

    async def change(
        self, name: str, changes: Mapping[str, Any], *, check: bool = True, known_hosts: bool = True
    ) -> Mapping[str, Any]:
        """Likewise. ``changes`` are fields of :class:`~ipmiproxyd.model.RemoteAgent`. Raises NotFound, and InUse for
        fields on which open consoles depend."""

    async def remove(self, name: str, *, force: bool = False) -> Sequence[str]:
        """Returns what is to be known, in words: consoles that could not be closed. Raises NotFound, and InUse while
        consoles are open on it, unless these are to be closed (``force``)."""

    async def check(
        self, name: str, progress: Progress, *, device: Device | None = None, trial: bool = True, fix: bool = False
    ) -> Mapping[str, Any]:
        """As :meth:`listing`, and ``findings``, ``problems`` and ``warnings``: what it has and what is missing, in
        words. Raises NotFound, AgentUnreachable, …

        :param device: the way to this one's BMC is tried, too.
        :param trial: open trial consoles.
        :param fix: first copy the runner there, and clear away what earlier consoles left.
        """


class Provisioning(Protocol):
    """What makes bare hosts agents, and takes that back.

    All of it raises what stands in the way of signing in, SudoRefused, SystemUnsupported, PackagesFailed, Busy,
    ToolMissing, TimedOut. What was broken off is completed by saying the same again.
    """

    async def provision(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        """Make a host an agent. One that is not known yet is added afterwards, as by :meth:`Agents.add`.

        As :meth:`Agents.show`, and ``changes``, ``words`` where there is none, ``dry_run`` and ``warnings``.
        """

    async def unprovision(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        """Put the host back as it was, and have the agent no more, unless it is to be kept. Goes on to its end even if
        whoever asked for it has gone. Raises InUse as :meth:`Agents.remove`.

        A host is put back by the errand's fields also where no such agent is known. Of what is wanted only the
        repository counts: for Python, which is installed again where it went before all else did.

        ``changes``, ``words`` where there is none, ``dry_run``, ``warnings``, and ``removed`` or ``kept`` (in a dry run
        ``name``), or ``host`` where no agent was known.
        """

    async def update(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        """Bring the runner there to the daemon's own. Consoles that are open go on, and so do their viewers. As
        :meth:`provision`."""


class Consoles(Protocol):
    """The life of consoles."""

    async def open(self, request: OpenRequest, progress: Progress) -> Mapping[str, Any]:
        """Open one. Returns ``{"console": Console, "url": str, "reused": bool, "warnings": [str]}``. Cancelling
        (the client hung up) while it is opening closes it."""

    def list(self) -> Sequence[Console]: ...

    def show(self, console_id: str) -> Console: ...

    async def close(
        self, *, console_id: str = "", device: str = "", user: str = "", reason: str = "closed"
    ) -> Sequence[Console]:
        """Close one by id, or all of a device or user; waits until everything is given back. Raises NotFound for
        an unknown id."""

    def url(self, console_id: str) -> str:
        """A new one-time URL."""

    def share(self, console_id: str, *, user: str = "", control: bool = False, credentials: bool = False) -> Grant:
        """A further right to a console, for somebody else. Raises NotFound; BadValue for rights that the console
        does not give (credentials without control, or where its login buttons are off)."""

    def grant_url(self, grant: Grant) -> str:
        """A one-time URL for a grant that :meth:`share` made."""

    def grants(self, console_id: str) -> Sequence[Grant]:
        """Every right that is out for a console, whether somebody uses it just now or not. Raises NotFound."""

    def revoke(self, console_id: str, *, viewer: str = "", user: str = "") -> Sequence[Grant]:
        """Take back the grant ``viewer``, or all of a user, and cut its live viewers at once. Raises NotFound."""

    async def screenshot(self, console_id: str) -> bytes:
        """A PNG of what the console shows. Raises NotFound, BmcState, and what the display's server refuses."""

    def extend(self, console_id: str, by: float) -> Console:
        """Let a console stay: its idle time begins anew, and a limit of its whole time moves by ``by`` seconds.
        Raises NotFound."""

    async def tidy(self, agent: Agent) -> Sequence[str]:
        """End what runs on an agent and belongs to no console, and clear away what is left there of ended jobs.
        Returns what that was, in words."""


class Daemon(Protocol):
    """The daemon as a whole."""

    async def status(self) -> Mapping[str, Any]: ...

    async def stop(self) -> Mapping[str, Any]:
        """Close all consoles, then end the daemon after the reply has gone out."""


# --- between consoles and the relay -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VncServer:
    """Where a console's screen is, and how to sign in there.

    :ivar host: for its certificate; empty for displays of ours.
    :ivar fingerprint: see :class:`~ipmiproxyd.model.Device`.
    """

    endpoint: IStreamClientEndpoint
    host: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
    fingerprint: str = ""


class RelayedConsole(Protocol):
    """What the relay asks of a console."""

    @property
    def id(self) -> str: ...

    def snapshot(self) -> Console: ...

    def when_changed(self, serial: int) -> Deferred[None]:
        """Fires once the snapshot's serial is greater than ``serial`` (at once if it is already). May be cancelled."""

    def screen(self) -> VncServer:
        """Where its display is. Raises BmcState while the console is not ready."""

    def viewers_changed(self, viewers: Sequence[ViewerInfo]) -> None:
        """Who is there now; one for each connection."""

    def typing_changed(self, typing: Typing | None) -> None: ...

    def credential(self, which: Literal["username", "password"]) -> Secret:
        """What the login buttons type: the panel's sign-in. Raises Forbidden where they are off, BadValue if the
        device has none."""

    def user_active(self) -> None:
        """A key, pointer or cut-text message came from the user."""

    def close_by_viewer(self) -> None:
        """The viewer pressed Close."""


class RelayPort(Protocol):
    """One bound relay port that serves one console's page and WebSocket."""

    number: int | None
    """None where the console is served by the gateway alone."""

    def cut(self, grant_id: str) -> None:
        """Close the WebSockets of a grant that was revoked."""

    def close(self, code: str, message: str) -> Deferred[None]:
        """Answer waiting pages, close WebSockets with these words, stop listening. The port rests afterwards.
        Idempotent."""


class RelayHost(Protocol):
    async def judge(self, certificate: CertificateFiles | None, others: Collection[CertificateFiles]) -> None:
        """See whether consoles can be served by https with this certificate (None: with the relay's own), beside
        ``others``. Raises BadValue with what is wrong with it, or with the configuration."""

    async def prepare(self, certificate: CertificateFiles | None) -> None:
        """Have a certificate ready for :meth:`open` (None: the relay's own). Raises BadValue."""

    def open(
        self, console: RelayedConsole, certificate: CertificateFiles | None = None, *, encrypt: bool = False
    ) -> RelayPort:
        """Serve the console: on a port of its own from the pool, on the gateway, or on both; with this certificate,
        which is prepared, or as the relay is set. Raises NoFreePort.

        :param encrypt: on no port of its own that is without TLS.
        """

    def url(self, port: RelayPort, token: str) -> str: ...

    def warnings(self, port: RelayPort | None = None) -> Sequence[str]:
        """What will hinder browsers at a console, in plain words (a page by https cannot frame one by http, …)."""


class Grants(Protocol):
    """One-time tokens and the keys they are traded for. Only hashes are kept."""

    def issue(self, grant: Grant) -> str:
        """A new one-time token (URL-safe text)."""

    def redeem(self, console_id: str, token: str) -> str | None:
        """Trade a token for a key; None if it is unknown, used, expired, or another console's."""

    def check(self, console_id: str, key: str) -> Grant | None: ...

    def all(self, console_id: str) -> Sequence[Grant]:
        """The grants of a console whose token or key is still good, the oldest first."""

    def revoke(self, console_id: str, grant_id: str = "") -> None:
        """Forget every token and key of a console, or of one grant."""
