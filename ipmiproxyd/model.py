"""The frozen values that rooms hand to each other. No I/O, no Twisted."""

from __future__ import annotations

import enum
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal


class Secret:
    """A text that must not be seen: prints as ``***``; :meth:`reveal` gives it where it enters a child's stdin,
    an anonymous file or a socket, and nowhere else."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __deepcopy__(self, _memo: dict[int, Any]) -> Secret:
        return self  # it never changes

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled")


Interface = Literal["lanplus", "lan"]
Privilege = Literal["callback", "user", "operator", "administrator"]
ConsoleType = Literal["panel", "panel-debug", "java", "html5", "vnc"]
"""What a console shows: the BMC's web panel in a locked-down browser, or in an ordinary one; the vendor's Java program;
the panel's own HTML5 console; a VNC server that is not ours."""
Clipboard = Literal["off", "in", "out", "both"]
"""Which way texts may go: "in" is from the browser to the server, "out" from the server to the browser."""
WebTrust = Literal["pin", "ca", "insecure"]
"""Which certificate of a web panel is the right one: the one that it showed first, one that an authority vouches for,
or any."""
Existing = Literal["reuse", "new", "replace"]
AsSet = Literal["default"]
"""Of a proxy's setting: as the daemon's own settings have it, whatever they are by then."""

IPMI_PORT: Final = 623


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One server's BMC: where it is and how to sign in.

    ``name`` is empty for a BMC that was given inline on a request. ``cipher`` is "auto" or the number of an IPMI
    cipher suite. ``kg`` is the BMC's second key (K_G) as hexadecimal text. ``web`` is the panel's base URL, by
    default ``https://<address>``. ``vnc`` is the ``host:port`` of the BMC's own VNC server (or of a KVM switch), if
    it has one; ``vnc_fingerprint`` the SHA-256 of its certificate in 64 hexadecimal digits, where it has one that no
    authority has signed. ``java`` is the profile of the Java that its console runs with, or empty for the usual one.
    """

    name: str = ""
    address: str
    port: int = IPMI_PORT
    username: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
    interface: Interface = "lanplus"
    cipher: str = "auto"
    privilege: Privilege = "administrator"
    kg: Secret = field(default_factory=lambda: Secret(""))
    web: str = ""
    web_username: str = ""
    web_password: Secret = field(default_factory=lambda: Secret(""))
    web_trust: WebTrust = "pin"
    java: str = ""
    vnc: str = ""
    vnc_password: Secret = field(default_factory=lambda: Secret(""))
    vnc_fingerprint: str = ""
    location: str = ""
    vendor: str = "auto"
    notes: str = ""

    @property
    def label(self) -> str:
        """What people call it: its name, or its address."""

        return self.name or self.bmc

    @property
    def bmc(self) -> str:
        """The BMC's identity: locks and remembered facts belong to it, whatever the device's name is."""

        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def web_url(self) -> str:
        """Base URL of the web panel, without a slash at its end."""

        if self.web:
            return self.web.rstrip("/")
        return f"https://[{self.address}]" if ":" in self.address else f"https://{self.address}"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A TLS certificate on the daemon's machine, as PEM: its file, in which those of the authority may follow it, and
    the file of its key; empty if that is in the certificate's."""

    certificate: str
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """How consoles of some locations are opened: what EasyDCIM calls an IPMI proxy server.

    ``agent`` is the one that reaches the BMCs there. ``idle`` in seconds; None for never. ``encrypt``: browsers reach
    its consoles by https and wss, with the certificate in the file ``certificate`` (its key in ``key``, or in the same
    file), or else with the relay's own. ``java`` is the profile of the Java that its consoles run with, or empty for
    the usual one.
    """

    name: str
    agent: str
    locations: tuple[str, ...]
    type: ConsoleType = "java"
    idle: float | AsSet | None = "default"
    login_buttons: bool | AsSet = "default"
    encrypt: bool = False
    certificate: str = ""
    key: str = ""
    java: str = ""

    @property
    def files(self) -> CertificateFiles | None:
        """The certificate that its consoles are served with; None for the relay's own, or for none."""

        return self.named_files if self.encrypt else None

    @property
    def named_files(self) -> CertificateFiles | None:
        """The certificate that is named, in use or not; None if there is none."""

        return CertificateFiles(self.certificate, self.key) if self.certificate else None


# --- agents and jobs -------------------------------------------------------------------------------------------------

SSH_AGENT: Final = "ssh-agent"
"""In the place of a key's file: whatever keys the daemon's ssh-agent holds."""

Users = Literal["auto", "always", "never"]
Transport = Literal["ssh", "direct"]
"""How the displays of an agent on another machine are reached: as all else, or by ports that are open there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAgent:
    """An agent on another machine, as an operator tells of it.

    ``key`` is the path of a private key's file where the daemon runs, or SSH_AGENT; ``passphrase`` decrypts it.
    ``host_keys`` are fingerprints ("SHA256:…") of the host's keys that are trusted. ``python`` runs the runner;
    ``runner`` is where that is installed, for sudo to start it. ``users`` says whether displays have Unix users of
    their own ("auto": where the runner may be root), ``group`` which Unix group reaches them ("" for the account's
    own). ``folder`` is what is ours there, ``jobs_name`` the runner's folder ("" for their defaults). ``transport``
    concerns the displays only.
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
    notes: str = ""


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


Vnc = Literal["unix", "tcp", "direct"]


class Ready(enum.Enum):
    """When a job's program counts as started."""

    DISPLAY = "display"  # it wrote its display number to file descriptor 3 (Xvnc -displayfd 3)
    TOLD = "told"  # a line was written to the file READY of agents/sandbox.py
    STARTED = "started"  # at once
    WINDOW = "window"  # a window of at least 100 x 100 pixels is on the display


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program inside a job. All its paths are inside the sandbox (see ``agents/sandbox.py``).

    ``stdin``: what it reads, at most 256 Ki characters; it goes through pipes and anonymous memory only. ``door``: its
    file descriptor 3 is a listening UNIX socket, :attr:`Job.door` to the agent; one program of a job may have it.
    """

    name: str
    argv: tuple[str, ...]
    ready: Ready = Ready.STARTED
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: Secret | None = field(default=None, repr=False)
    door: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A small file for a job. ``place`` is "home" (the console's own home), "chromium-policy" or "library" (beside the
    job's :class:`LibraryFile`); ``name`` may have folders; ``encoding`` says what ``text`` becomes."""

    place: Literal["home", "chromium-policy", "library"]
    name: str
    text: str = field(repr=False)
    encoding: Literal["utf-8", "base64"] = "utf-8"


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A file of the agent's cache that a job gets a copy of, in ``sandbox.LIBRARY``. The cache knows it by its SHA-256
    (64 hexadecimal digits), and so it cannot be another one."""

    sha256: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a job's programs may connect to, by TCP; there is no other network for them.

    ``address``: an IP address. ``ports``: first and last of each range. ``names``: host names that mean this address
    to the programs; they cannot resolve any other.
    """

    address: str
    ports: tuple[tuple[int, int], ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What the runner is to start: programs in order, each awaited until it is ready.

    The end of any one of them ends the job. ``lease`` in seconds: without a sign of life for so long the job ends
    by itself. ``vnc`` says where Xvnc is reached, so that the runner can report it: at a UNIX socket; at port 5900 + X
    of the agent's loopback interface; or at that port of the address by which the daemon reaches the agent, and then
    it is for the job to keep others out. ``java``: a folder of the agent that
    the programs are to see at the same path, read-only; what is below /usr or /opt they see anyway. ``reach``: all
    that they may connect to. ``memory``: bytes that they may take together, where the agent can hold them to it.
    ``least_free``: bytes of memory that the agent must have left, or the job is refused.
    """

    id: str
    display: int
    programs: tuple[Program, ...]
    files: tuple[JobFile, ...] = ()
    library: tuple[LibraryFile, ...] = ()
    java: str = ""
    vnc: Vnc = "unix"
    reach: tuple[Reach, ...] = ()
    memory: int = 2 << 30
    least_free: int = 256 << 20
    lease: float = 900.0
    start_timeout: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as its runner tells of it.

    :ivar door: where its program with :attr:`Program.door` listens.
    :ivar log: the file on the agent with the last that its programs said; empty if that is not known.
    """

    id: str
    display: int
    running: bool
    vnc: StreamAddress
    user: str
    reason: str = ""  # plain words, once it has ended
    door: UnixStream | None = None
    log: str = ""


@dataclass(frozen=True, slots=True)
class JobStage:
    """Progress of a launch: program ``name`` is ready, ``ms`` milliseconds after the launch began."""

    name: str
    ms: int


# --- consoles --------------------------------------------------------------------------------------------------------


class ConsoleState(enum.Enum):
    OPENING = "opening"
    READY = "ready"
    CLOSING = "closing"
    CLOSED = "closed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of opening: a stable ``name``, plain words for people, and milliseconds since opening began at
    which it was begun (and done). ``failed``: that is how it ended, and something else was tried instead."""

    name: str
    label: str
    begun_ms: int
    done_ms: int | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """What ``console open`` asks for. Times in seconds; None for ``idle`` or ``max_time`` means never.

    ``fall_back``: the types that may take the place of ``type``, in this order, where that cannot work. ``proxy`` is
    the name of the one that it goes by, or empty. ``encrypt``: by https and wss; with ``certificate``, or None for the
    relay's own.
    """

    device: Device
    type: ConsoleType = "panel"
    fall_back: tuple[ConsoleType, ...] = ()
    proxy: str = ""
    encrypt: bool = False
    certificate: CertificateFiles | None = None
    user: str = ""
    agent: str = "local"
    idle: float | None = 600.0
    max_time: float | None = None
    existing: Existing = "reuse"
    wait: bool = True
    clipboard: Clipboard = "both"
    login_buttons: bool = True  # whether the BMC's user name and password may be typed by a button


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerInfo:
    """A viewer of a console: one browser, as everybody but the relay sees it.

    :ivar id: that of its grant.
    :ivar peer: where it comes from, for operators only.
    :ivar steers: it has control just now.
    :ivar joined_at: seconds since the epoch.
    """

    id: str
    user: str
    peer: str
    control: bool
    steers: bool
    joined_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Typing:
    """A text that is being typed. ``what``: username, password or text; ``by``: the viewer's id."""

    what: str
    by: str
    done: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """A console as everybody but its machine sees it: a snapshot.

    ``serial`` grows with every change. Times are seconds since the epoch.
    """

    id: str
    serial: int
    device: str
    bmc: str
    type: ConsoleType
    user: str
    agent: str
    proxy: str = ""
    state: ConsoleState
    stages: tuple[Stage, ...]
    display: int | None
    relay_port: int | None
    viewers: tuple[ViewerInfo, ...]  # one for each connection, the longest present first
    opened_at: float
    ready_at: float | None
    last_activity: float
    idle: float | None
    max_time: float | None
    clipboard: Clipboard = "both"
    typing: Typing | None = None
    closes_in: float | None = None  # seconds, in the last minute before it closes by itself
    closes_why: str = ""  # idle or max-time
    slot_since: float | None = None  # since when it holds one of the few slots of its panel
    slot_until: float | None = None  # when that times out by itself, of panels that know no sign-out
    reason: str = ""  # a stable word: idle, closed, viewer, abandoned, max-time, replaced, shutdown, or an error's code
    message: str = ""  # the same in plain words
    log: str = ""  # the file on the agent with what its programs say, while it is open
    agent_away: bool = False  # its agent cannot be reached just now; the console's programs go on there


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The right of one viewer to use one console.

    :ivar id: short, unique among the console's grants; operators and other viewers see it.
    :ivar control: keys, pointer, cut text and closing; without it the viewer watches.
    :ivar credentials: have the BMC's user name and password typed. What is typed lands in whatever has the focus, so
        who has this right can make them visible.
    """

    console: str
    id: str = ""
    user: str = ""
    control: bool = True
    credentials: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRecord:
    """Something that a console must give back. ``data`` is plain JSON; secrets in it are :class:`Secret`."""

    console: str
    seq: int
    kind: str
    key: str
    data: Mapping[str, Any] = field(default_factory=dict)


# --- what is remembered of a BMC --------------------------------------------------------------------------------------

BMC_REFUSED: Final = "bmc-refused"
"""Kind of stored document: the credentials that a BMC has refused (hashed)."""

BMC_CIPHER: Final = "ipmi-cipher"
"""Kind of stored document: the cipher suite that a BMC has accepted."""


def bmc_key(bmc: str, agent: str = "") -> str:
    """Key of a document that one agent remembers of a BMC (:attr:`Device.bmc`); without ``agent`` the prefix of
    what all agents remember of it."""

    return f"{bmc} {agent}"
