"""The control socket: the one that systemd passes, or else one of our own, which one daemon at a time may have.

Twisted's own ways are not used. Its port gives a socket that systemd passed the mode 0666, and when the daemon ends it
shuts the socket down and removes its file, so that nobody could start the daemon by it again. Its lock file holds a
process id, and keeps a new daemon out if another program has that id by then; the lock here is the kernel's and ends
with its process.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from ipmiproxyd.config import Settings
from ipmiproxyd.errors import InternalError

PASSED_NAME: Final = "control"
"""FileDescriptorName= of the socket unit."""

BACKLOG: Final = 128
_LOCK_TRIES: Final = 20

log = Logger()


class ControlSocketError(InternalError):
    """The control socket cannot be had."""


def control_endpoint(settings: Settings, reactor: Any) -> ControlEndpoint:
    """Take the control socket; the endpoint's ``listen`` then lets clients in.

    Call it before anything else is touched: while it is held, no other daemon with this control socket starts.
    Raises :class:`ControlSocketError`.
    """

    passed = passed_socket(reactor)
    if passed is not None:
        log.info("the control socket {path} is systemd's", path=passed.getsockname())
        return ControlEndpoint(passed, reactor, lambda: None)
    return own_endpoint(settings.control.socket, settings.control.mode, settings.control.group, reactor)


def own_endpoint(path: Path, mode: int, group: str, reactor: Any) -> ControlEndpoint:
    """A new socket of this mode and group ("" for the process's own). Raises :class:`ControlSocketError`."""

    gid = _group_id(group)
    lock = _Lock(path)
    try:
        _remove_stale(path)
        bound = _bind(path, mode, gid, group)
        made = _identity(path)
    except OSError as error:
        lock.release()
        raise _cannot(path, error) from None
    except ControlSocketError:
        lock.release()
        raise

    def give_back() -> None:
        if _identity(path) == made:
            path.unlink()
        lock.release()

    return ControlEndpoint(bound, reactor, give_back)


@implementer(IStreamServerEndpoint)
class ControlEndpoint:
    """A bound UNIX socket. ``listen`` may be called once; the end of its port, or :meth:`close`, gives it back."""

    def __init__(self, bound: socket.socket, reactor: Any, give_back: Callable[[], None]) -> None:
        self._bound: socket.socket | None = bound
        self._reactor = reactor
        self._give_back = give_back

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803 - the interface's name
        return maybeDeferred(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        if self._bound is None:
            raise ControlSocketError("The control socket was given back already.")
        bound, self._bound = self._bound, None
        port = _Port(bound, factory, self._reactor, self._give_back)
        port.startListening()
        return port

    def close(self) -> None:
        """Give the socket back without having listened. Idempotent; nothing once ``listen`` was called."""

        if self._bound is not None:
            self._bound.close()
            self._bound = None
            self._give_back()


class _Port(unix.Port):
    """A port around a bound socket: Twisted leaves alone its file, its mode and whoever else holds it."""

    _shouldShutdown = False

    def __init__(
        self, bound: socket.socket, factory: IProtocolFactory, reactor: Any, give_back: Callable[[], None]
    ) -> None:
        super().__init__(bound.getsockname(), factory, BACKLOG, reactor=reactor)
        self._bound = bound
        self._give_back = give_back

    def startListening(self) -> None:
        tcp._reservedFD.reserve()
        self.factory.doStart()  # type: ignore[union-attr]
        self.socket = self._bound
        self.socket.listen(self.backlog)
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        unix.Port.startReading(self)

    def connectionLost(self, reason: Any) -> None:
        self._give_back()
        tcp.Port.connectionLost(self, reason)


# --- systemd's socket -------------------------------------------------------------------------------------------------


def passed_socket(reactor: Any) -> socket.socket | None:
    """The listening socket that systemd passed under the name "control", or None.

    Raises :class:`ControlSocketError` if it is something else.
    """

    try:
        endpoint: Any = serverFromString(reactor, f"systemd:domain=UNIX:name={PASSED_NAME}")
    except KeyError:
        return None
    return adopt(endpoint.fileno)


def adopt(descriptor: int) -> socket.socket:
    """A listening UNIX socket from its descriptor. Raises :class:`ControlSocketError`."""

    try:
        passed = socket.socket(fileno=descriptor)
        listens = passed.family == socket.AF_UNIX and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ControlSocketError(f"The control socket that systemd passed cannot be used: {error.strerror}.") from None
    if not listens or passed.type != socket.SOCK_STREAM:
        passed.detach()
        raise ControlSocketError(
            "The control socket that systemd passed is not a listening UNIX stream socket.",
            hint="Give the socket unit ListenStream= with a path.",
        )
    passed.set_inheritable(False)
    passed.setblocking(False)
    return passed


# --- a socket of our own ----------------------------------------------------------------------------------------------


class _Lock:
    """An exclusive lock beside the socket, held until :meth:`release` or the end of the process."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path.with_name(socket_path.name + ".lock")
        for _ in range(_LOCK_TRIES):
            self._descriptor = self._open(socket_path)
            # Its last holder may have removed the file between our opening and locking it.
            if _identity(self._path) == _identity(self._descriptor):
                return
            os.close(self._descriptor)
        raise ControlSocketError(f"The lock file {self._path} is being replaced all the time.")

    def _open(self, socket_path: Path) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _cannot(self._path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _in_use(socket_path) from None
        return descriptor

    def release(self) -> None:
        if _identity(self._path) == _identity(self._descriptor):
            self._path.unlink()
        os.close(self._descriptor)


def _identity(file: Path | int) -> tuple[int, int] | None:
    try:
        status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Remove the socket that a dead daemon left. Raises ControlSocketError if it is alive or no socket at all."""

    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ControlSocketError(
            f"{path} is there already, and it is not a socket.", hint="Remove it, or set control.socket."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        status = probe.connect_ex(str(path))
    if status in (0, errno.EAGAIN):
        raise _in_use(path)
    if status != errno.ECONNREFUSED:
        raise OSError(status, os.strerror(status))
    path.unlink()


def _bind(path: Path, mode: int, gid: int | None, group: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(before)
    try:
        if gid is not None:
            os.chown(path, -1, gid)
        os.chmod(path, mode)
    except OSError as error:
        bound.close()
        path.unlink()
        raise ControlSocketError(
            f'The control socket cannot be given to the group "{group}": {error.strerror}.',
            hint="The daemon must be root or a member of that group.",
        ) from None
    return bound


def _group_id(group: str) -> int | None:
    if not group:
        return None
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ControlSocketError(f'control.group: there is no group "{group}" on this machine.') from None


def _cannot(path: Path, error: OSError) -> ControlSocketError:
    if isinstance(error, FileNotFoundError):
        return ControlSocketError(
            f"The folder {path.parent} does not exist.", hint="Make it, or set daemon.runtime-dir."
        )
    return ControlSocketError(f"{path} cannot be made: {error.strerror}.")


def _in_use(path: Path) -> ControlSocketError:
    return ControlSocketError(
        f"Another daemon is running: it listens on {path}.",
        hint="Stop it first, or give this one its own folders, ports and displays in a configuration file of its own.",
    )
