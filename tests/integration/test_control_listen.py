"""The control socket on a real file system: who has it, who may connect, and what is left afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import socket
import stat
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ipmiproxyd.config import parse
from ipmiproxyd.control.listen import ControlEndpoint, ControlSocketError, adopt, control_endpoint, own_endpoint
from tests.support.scratch import scratch


class Greeter(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


class Reader(Protocol):
    """Everything that came, once the connection has ended."""

    def __init__(self) -> None:
        self.got = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(self.got)


async def greeting(path: Path) -> bytes:
    reader = Reader()
    await connectProtocol(UNIXClientEndpoint(reactor, str(path), timeout=5), reader)
    return await reader.ended


def left_by_a_dead_daemon(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


class OwnSocketTests(TestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)
        self.path = self.folder / "control.sock"

    def take(self, mode: int = 0o660, group: str = "") -> ControlEndpoint:
        endpoint = own_endpoint(self.path, mode, group, reactor)
        self.addCleanup(endpoint.close)
        return endpoint

    def refused(self, group: str = "") -> str:
        error = self.assertRaises(ControlSocketError, own_endpoint, self.path, 0o660, group, reactor)
        return str(error.message)

    async def test_clients_are_served_and_nothing_is_left(self) -> None:
        port = await self.take().listen(Factory.forProtocol(Greeter))
        self.assertEqual(await greeting(self.path), b"hello")
        await maybeDeferred(port.stopListening)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_mode_and_group(self) -> None:
        group = grp.getgrgid(os.getgroups()[-1] if os.getgroups() else os.getgid())
        for mode in (0o600, 0o660, 0o666):
            for name in (group.gr_name, str(group.gr_gid)):
                endpoint = own_endpoint(self.path, mode, name, reactor)
                status = os.lstat(self.path)
                endpoint.close()
                self.assertEqual((stat.S_IMODE(status.st_mode), status.st_gid), (mode, group.gr_gid))

    def test_the_umask_is_as_before(self) -> None:
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        self.take()
        self.assertEqual(os.umask(0o027), 0o027)

    async def test_before_it_listens_clients_are_refused(self) -> None:
        endpoint = self.take()
        with socket.socket(socket.AF_UNIX) as client:
            self.assertRaises(ConnectionRefusedError, client.connect, str(self.path))
        endpoint.close()
        await self.assertFailure(endpoint.listen(Factory.forProtocol(Greeter)), ControlSocketError)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_the_socket_of_a_dead_daemon_is_replaced(self) -> None:
        left_by_a_dead_daemon(self.path)
        (self.folder / "control.sock.lock").touch()
        before = os.lstat(self.path).st_ino, os.lstat(self.path).st_ctime_ns
        self.take()
        self.assertNotEqual((os.lstat(self.path).st_ino, os.lstat(self.path).st_ctime_ns), before)

    async def test_a_second_daemon_is_told_of_the_first(self) -> None:
        first = self.take()
        self.assertIn("Another daemon is running", self.refused())
        port = await first.listen(Factory.forProtocol(Greeter))
        self.assertIn("Another daemon is running", self.refused())
        self.assertEqual(await greeting(self.path), b"hello")
        await maybeDeferred(port.stopListening)
        self.take()

    async def test_one_without_our_lock_is_left_in_peace_too(self) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            other.listen()
            self.assertIn("Another daemon is running", self.refused())
            self.assertTrue(self.path.is_socket())
        self.take()

    def test_a_lock_without_a_socket_holds(self) -> None:
        with (self.folder / "control.sock.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertIn("Another daemon is running", self.refused())
        self.take()

    def test_a_lock_file_that_is_a_link_is_not_followed(self) -> None:
        (self.folder / "control.sock.lock").symlink_to(self.folder / "elsewhere")
        self.assertIn("control.sock.lock cannot be made", self.refused())
        self.assertFalse((self.folder / "elsewhere").exists())

    def test_another_kind_of_file_is_not_removed(self) -> None:
        self.path.write_text("precious")
        self.assertIn("not a socket", self.refused())
        self.assertEqual(self.path.read_text(), "precious")
        self.assertEqual([file.name for file in self.folder.iterdir()], ["control.sock"])

    def test_no_folder(self) -> None:
        self.path = self.folder / "none" / "control.sock"
        self.assertIn("does not exist", self.refused())

    def test_no_such_group(self) -> None:
        self.assertIn('there is no group "no-such-group"', self.refused("no-such-group"))
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_a_socket_that_took_its_place_stays(self) -> None:
        port = await self.take().listen(Factory.forProtocol(Greeter))
        self.path.unlink()
        left_by_a_dead_daemon(self.path)
        await maybeDeferred(port.stopListening)
        self.assertEqual([file.name for file in self.folder.iterdir()], ["control.sock"])

    async def test_by_the_settings(self) -> None:
        settings = parse(f'[daemon]\nruntime-dir = "{self.folder}"\n[control]\nmode = "0600"\n')
        endpoint = control_endpoint(settings, reactor)
        self.addCleanup(endpoint.close)
        self.assertEqual(stat.S_IMODE(os.lstat(self.path).st_mode), 0o600)


CHILD = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[1])
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from ipmiproxyd.config import parse
from ipmiproxyd.control.listen import control_endpoint
endpoint = control_endpoint(parse(Path(sys.argv[2]).read_text()), reactor)
class Server(Protocol):
    def connectionMade(self):
        self.transport.write(b"passed")
        self.transport.loseConnection()
    def connectionLost(self, reason):
        port.stopListening().addCallback(lambda _: reactor.stop())
port = None
def listening(it):
    global port
    port = it
    print(port.getHost().name.decode(), flush=True)
endpoint.listen(Factory.forProtocol(Server)).addCallback(listening)
reactor.run()
"""


class Child(ProcessProtocol):
    def __init__(self) -> None:
        self.said: Deferred[bytes] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.errors = b""

    def outReceived(self, data: bytes) -> None:
        self.said.callback(data)

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    async def end(self, process: IProcessTransport) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            process.signalProcess("KILL")
        await self.ended

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None) if reason.check(ProcessDone) else self.ended.errback(Exception(self.errors.decode()))


class PassedSocketTests(TestCase):
    """A socket as systemd passes it: ours to serve, not ours to change."""

    def setUp(self) -> None:
        self.path = scratch(self) / "passed.sock"
        self.passed = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.passed.close)
        self.passed.bind(str(self.path))
        os.chmod(self.path, 0o640)

    async def test_it_is_served_and_stays_as_it_is(self) -> None:
        self.passed.listen()
        config = self.path.with_name("c.toml")
        config.write_text(f'[daemon]\nruntime-dir = "{self.path.parent}"\n')
        child, processes = Child(), IReactorProcess(reactor)
        process = processes.spawnProcess(
            child,
            sys.executable,
            [sys.executable, "-c", CHILD, "control", str(config)],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.defpath},
            childFDs={0: 0, 1: "r", 2: "r", 3: self.passed.fileno()},
        )
        self.addCleanup(child.end, process)
        self.assertEqual((await child.said).strip(), os.fsencode(self.path))
        self.assertEqual(stat.S_IMODE(os.lstat(self.path).st_mode), 0o640)
        self.assertEqual(await greeting(self.path), b"passed")
        await child.ended
        self.assertEqual(stat.S_IMODE(os.lstat(self.path).st_mode), 0o640)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
        self.passed.settimeout(5)
        self.passed.accept()[0].close()
        self.assertFalse((self.path.parent / "control.sock").exists())

    def test_what_does_not_listen_is_refused(self) -> None:
        error = self.assertRaises(ControlSocketError, adopt, self.passed.fileno())
        self.assertIn("not a listening UNIX stream socket", error.message)

    def test_an_internet_socket_is_refused(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            self.assertRaises(ControlSocketError, adopt, other.fileno())

    def test_no_socket_at_all_is_refused(self) -> None:
        with self.path.with_name("file").open("w") as file:
            self.assertRaises(ControlSocketError, adopt, file.fileno())
