"""Jobs: a console's programs on an agent."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ipmiproxyd.model.agents import StreamAddress, UnixStream
from ipmiproxyd.model.browsers import PolicyPlace
from ipmiproxyd.model.secret import Secret

Vnc = Literal["unix", "tcp", "direct"]

JOB_LOG: Final = 128 << 10
"""Bytes of a job's log, as a rule."""


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
    """A small file for a job. ``place`` is "home" (the console's own home), "library" (beside the job's
    :class:`LibraryFile`) or that of a browser's policies; ``name`` may have folders; ``encoding`` says what ``text``
    becomes."""

    place: Literal["home", "library"] | PolicyPlace
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
    it is for the job to keep others out. ``java``: a folder of the agent that the programs are to see at the same path,
    read-only; what is below /usr or /opt they see anyway. ``reach``: all that they may connect to. ``memory``: bytes
    that they may take together, where the agent can hold them to it. ``least_free``: bytes of memory that the agent
    must have left, or the job is refused. ``log``: bytes of what its programs say that are kept; of more, the last.
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
    log: int = JOB_LOG
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
