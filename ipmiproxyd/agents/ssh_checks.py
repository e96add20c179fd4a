"""What can be found out about an agent's sshd, and about the runner there."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as ListenTimeout
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from ipmiproxyd.agents.children import run_child
from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.ssh_channel import Channel, Connection
from ipmiproxyd.agents.ssh_exec import RemoteProgram
from ipmiproxyd.agents.ssh_transport import Transport
from ipmiproxyd.agents.with_runner import RUNNER_LIMIT
from ipmiproxyd.errors import AgentUnreachable, ProxyError
from ipmiproxyd.model import Outcome, RemoteAgent, StreamAddress, TcpStream, UnixStream

SESSIONS_NEEDED: Final = 10
"""Sessions at once over one connection that we may need: sshd's own MaxSessions."""
FEWEST: Final = 2
"""With so many nothing works: one is for the watch, one for a program, and one to end that."""
OLDEST_PYTHON: Final = (3, 9)
PROBE_LIMIT: Final = 10.0
SUDOERS: Final = "/etc/sudoers.d/ipmiproxyd-agent"
SECOND_LOOK: Final = 0.3
"""Seconds until too few sessions are counted again."""

_LISTEN: Final = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with socket.socket(socket.AF_UNIX) as near, socket.create_server(("127.0.0.1", 0)) as far:
    near.bind(sys.argv[1])
    try:
        near.listen()
        print(far.getsockname()[1], flush=True)
        for listener in (near, far):
            listener.settimeout(10)
            try:
                listener.accept()
            except OSError:
                pass
    finally:
        os.unlink(sys.argv[1])
"""

INSTALL: Final = """
import json, os, sys
given = json.load(sys.stdin)
folder = os.path.dirname(given["path"])
os.makedirs(folder, mode=0o755, exist_ok=True)
held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
status = os.fstat(held)
if status.st_uid != 0 or status.st_mode & 0o022:
    sys.exit(f"{folder} can be changed by others than root")
name = os.path.basename(given["path"])
new = f"{name}.{os.getpid()}"
made = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=held)
with os.fdopen(made, "w") as file:
    file.write(given["text"])
    os.fchmod(made, 0o644)
    os.fsync(made)
os.replace(new, name, src_dir_fd=held, dst_dir_fd=held)
"""
"""Puts a file where only root can change it."""

Dial = Callable[[StreamAddress], IStreamClientEndpoint]


def prepared(name: str, outcome: Outcome) -> Mapping[str, Any]:
    """What preparing.py told of the agent of this name. Raises AgentUnreachable."""

    try:
        found: Mapping[str, Any] = json.loads(outcome.stdout)
    except ValueError:
        raise AgentUnreachable(
            f"Python does not work on the agent {name}: {outcome.last_words}.",
            hint="Check python= of the agent, and that its user has a shell that runs commands.",
        ) from None
    if "failed" in found:
        raise AgentUnreachable(
            f"The agent {name} cannot be prepared: {found['failed']}.",
            hint="Give its user there a home that it may write to, or name such a folder= (and its group=, if any).",
        )
    if tuple(found["python"]) < OLDEST_PYTHON:
        version = ".".join(map(str, found["python"]))
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise AgentUnreachable(f"The agent {name} has Python {version} only; {oldest} or later is needed.")
    return found


def connection_finding(transport: Transport, user: str) -> Finding:
    """How we came in."""

    agreed = {
        setting: next((name for name in names if name in transport.offered()[setting]), "")
        for setting, names in transport.known().items()
    }
    words = f"Signed in as {user}; host key {transport.shown} ({transport.kind})"
    return Finding("ssh", "ok", f"{words}, {agreed['KexAlgorithms']}, {agreed['Ciphers']}.")


async def forwarding_findings(
    reactor: Any, python: str, folder: str, program: Callable[..., RemoteProgram], dial: Dial
) -> list[Finding]:
    """Whether the displays' sockets and TCP ports can be reached; found out with sockets that are made for it.

    :param program: starts one there (argv, stdin=, on_line=).
    """

    path = f"{folder}/check-{secrets.token_hex(8)}"  # several may look at once
    try:
        async with said_meanwhile(reactor, program, (python, "-I", "-S", "-c", _LISTEN, path)) as port:
            displays = await _cannot_dial(dial(UnixStream(path)))
            tcp = await _cannot_dial(dial(TcpStream("127.0.0.1", int(port))))
    except ListenTimeout as error:
        return [Finding("displays", "fault", f"Displays cannot be reached: {error}.")]
    return [_displays(displays), _tcp(tcp)]


@asynccontextmanager
async def said_meanwhile(
    reactor: Any, program: Callable[..., RemoteProgram], argv: tuple[str, ...]
) -> AsyncIterator[bytes]:
    """The first line of a program there that opens sockets and then waits; it is ended afterwards. Raises
    ListenTimeout if it says none."""

    listening: Deferred[bytes] = Deferred()

    def line(said: bytes) -> None:
        if not listening.called:
            listening.callback(said)

    def over(outcome: Any) -> None:
        if not listening.called:
            words = outcome.last_words if isinstance(outcome, Outcome) else "no socket could be made there"
            listening.errback(ListenTimeout(words))

    listener = program(lambda: argv, stdin=bytes, on_line=line)
    ended: Deferred[Any] = Deferred.fromCoroutine(run_child(listener, RUNNER_LIMIT))
    ended.addErrback(lambda failure: failure.trap(ProxyError, CancelledError))
    ended.addCallback(over)
    try:
        yield await listening.addTimeout(RUNNER_LIMIT, reactor)
    finally:
        ended.cancel()
        await ended


def _displays(problem: str) -> Finding:
    if not problem:
        return Finding("displays", "ok", "Displays can be reached: sshd connects to UNIX sockets.")
    advice = "Set AllowStreamLocalForwarding local in its sshd_config, also in the Match blocks of the account."
    return Finding("displays", "fault", f"Displays cannot be reached: {problem}.", advice)


def _tcp(problem: str) -> Finding:
    if not problem:
        return Finding("tcp", "ok", "VNC servers can be reached: sshd connects to TCP ports.")
    words = f"Consoles of type=vnc will not work, and displays.vnc = \"tcp\" not either: {problem}."
    return Finding("tcp", "warning", words, "Set AllowTcpForwarding local in its sshd_config.")


async def _cannot_dial(endpoint: IStreamClientEndpoint) -> str:
    try:
        protocol: Any = await endpoint.connect(Factory.forProtocol(Protocol))
    except ConnectError as error:
        return str(getattr(error, "strerror", None) or error)
    protocol.transport.loseConnection()
    return ""


class _Session(Channel):
    """A session in which nothing runs."""

    name = b"session"


async def sessions_finding(reactor: Any, connection: Connection) -> Finding:
    """How many sessions sshd allows, up to what is needed."""

    count = await _count_sessions(reactor, connection)
    if count < SESSIONS_NEEDED:  # it may have counted one that was just ending
        await deferLater(reactor, SECOND_LOOK)
        count = max(count, await _count_sessions(reactor, connection))
    if count >= SESSIONS_NEEDED:
        return Finding("sessions", "ok", f"sshd runs {SESSIONS_NEEDED} programs at once over one connection.")
    return Finding(
        "sessions",
        "warning" if count > FEWEST else "fault",
        f"sshd runs only {count} programs at once over one connection: commands will wait for each other.",
        f"Set MaxSessions {SESSIONS_NEEDED} or more in its sshd_config.",
    )


async def _count_sessions(reactor: Any, connection: Connection) -> int:
    """Sessions are opened, and closed again. Others who want one meanwhile try again until there is room (see
    ssh_exec)."""

    probes = [_Session() for _ in range(SESSIONS_NEEDED - _open_sessions(connection))]
    opening: Deferred[list[tuple[bool, Any]]] = DeferredList(
        [probe.open_on(connection) for probe in probes], consumeErrors=True
    )
    try:
        await opening.addTimeout(PROBE_LIMIT, reactor)
    except ListenTimeout:
        pass  # it answers to none of them
    finally:
        count = _open_sessions(connection)
        for probe in probes:
            probe.unwanted = True
            probe.close_now()
    return count


def _open_sessions(connection: Connection) -> int:
    return sum(channel.name == b"session" and channel.is_open for channel in connection.channels.values())


def runner_finding(found: Mapping[str, Any], agent: RemoteAgent, *, can_fix: bool) -> Finding:
    """As whom displays run, and why.

    :param found: see :class:`~ipmiproxyd.agents.ssh_greeting.Seen`.
    :param can_fix: ``fix=yes`` may be of use: it has not been tried in vain.
    """

    if found["as_root"] and not found["root"] and (place := found["loose"]):
        return loose_finding(place, agent.runner)
    if found["as_root"]:
        return Finding("runner", "ok", "The runner is the daemon's own; each display has a Unix user of its own.")
    user = agent.user
    if agent.users == "never":
        return Finding("runner", "ok", f"All displays run as {user}, as is set (users=never).")
    words = f"All displays run there as the one user {user}"
    rule = (
        f"put into {SUDOERS}: "
        f"Defaults:{user} !use_pty, !requiretty, !mail_badpass (a line of its own), and "
        f"{user} ALL=(root) NOPASSWD: {agent.python} -I -S {agent.runner}"
    )
    if found["installed"]:
        advice = f"agent provision name={agent.name}, or as root there, {rule}"
        return Finding("runner", "warning", f"{words}: {sudo_words(found['sudo'])}.", advice)
    fix = " (agent check fix=yes does that where the account has sudo)" if can_fix else ""
    advice = f"agent provision name={agent.name}, or as root there: {install_command(agent.runner)}{fix}; and {rule}"
    return Finding("runner", "warning", f"{words}: the runner is not installed there.", advice)


def loose_finding(place: Mapping[str, Any], runner: str) -> Finding:
    """What sudo starts as root can be changed by others.

    :param place: what preparing.loose tells.
    """

    path = place["path"]
    whose = f"mode {place['mode']}" if not place["owner"] else f"it belongs to the user {place['owner']}"
    words = f"Others than root can change {path} ({whose}), and sudo starts {runner} as root: they could be root there."
    command = f"chown -h root:root {shlex.quote(path)}; chmod go-w {shlex.quote(path)}"
    return Finding("runner", "fault", words, f"As root there: {command}")


def sudo_words(said: str) -> str:
    """Why the runner cannot be started as root, by what sudo says."""

    if "password is required" in said or "not allowed" in said:
        return f"the rule for sudo, {SUDOERS}, is missing or does not count (sudo says {said!r})"
    return f"sudo says {said!r}"


def install_command(installed: str) -> str:
    return f"install -D -o root -g root -m 644 runner.py {installed} (the daemon's ipmiproxyd/agents/runner.py)"
