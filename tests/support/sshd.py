"""A real sshd on this machine, with a port, a host key and a configuration of its own."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents.ssh_link import SshPlace
from ipmiproxyd.model import Secret
from tests.support import leftovers
from tests.support.account import made_account
from tests.support.ports import free_ports

SSHD: Final = "/usr/sbin/sshd"
NAME: Final = "ipmiproxyd-ssh"
ADDRESS: Final = "127.0.0.1"

_CONFIGURATION: Final = """
ListenAddress {address}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
PrintMotd no
UseDNS no
LogLevel VERBOSE
"""


def login_account() -> pwd.struct_passwd:
    """Whom to log in as: an account that is made where there is none yet, and stays; without root, ourselves."""

    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    return made_account(NAME, "/bin/sh")


def make_key(path: Path, *options: str, passphrase: str = "") -> str:
    """A key pair by OpenSSH; returns the fingerprint."""

    path.unlink(missing_ok=True)
    options = options or ("-t", "ed25519")
    subprocess.run(["ssh-keygen", "-q", *options, "-N", passphrase, "-C", "", "-f", path], check=True, timeout=60)
    said = subprocess.run(["ssh-keygen", "-l", "-f", f"{path}.pub"], check=True, capture_output=True, text=True)
    return said.stdout.split()[1]


class _Run(ProcessProtocol):
    """One sshd from its start to its end."""

    def __init__(self) -> None:
        self.log = b""
        self.listening: Deferred[None] = Deferred()
        self.exited: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()  # and whoever it served

    def errReceived(self, data: bytes) -> None:
        self.log += data
        if b"Server listening" in self.log and not self.listening.called:
            self.listening.callback(None)

    def processExited(self, _reason: Failure) -> None:
        self.exited.callback(None)

    def processEnded(self, _reason: Failure) -> None:
        self.ended.callback(None)
        if not self.listening.called:
            self.listening.errback(AssertionError(self.log.decode(errors="replace")))


class Sshd:
    """``folder`` may be passed by everybody. ``more``: further lines of its configuration."""

    address = ADDRESS
    port = 0
    configuration = _CONFIGURATION

    def __init__(self, folder: Path, *, more: Sequence[str] = ()) -> None:
        self.folder = folder
        self._runs: list[_Run] = []
        self.host_key = make_key(folder / "host_key")
        make_key(folder / "key")
        self.let_in(folder / "key.pub")
        self.port = self.port or free_ports(1)[0]
        text = self.configuration.format(address=self.address, port=self.port, folder=self.seen_as())
        (folder / "sshd.conf").write_text(text + "\n".join(more) + "\n")

    def seen_as(self) -> str:
        """The folder's path for sshd itself."""

        return str(self.folder)

    def let_in(self, public: Path) -> None:
        keys = self.folder / "authorized_keys"
        keys.write_text(public.read_text())
        keys.chmod(0o644)

    def another_host_key(self, *options: str) -> str:
        """Have one of another kind, too, from the next start on; returns its fingerprint."""

        path = self.folder / f"host_key_{options[1]}"
        found = make_key(path, *options)
        with (self.folder / "sshd.conf").open("a") as file:
            file.write(f"HostKey {path}\n")
        return found

    def place(self, **changes: Any) -> SshPlace:
        return SshPlace(
            **{
                "host": self.address,
                "port": self.port,
                "user": login_account().pw_name,
                "key": self.folder / "key",
                "passphrase": Secret(""),
                "host_keys": (self.host_key,),
                **changes,
            }
        )

    # --- its process --------------------------------------------------------------------------------------------------

    async def start(self, test: TestCase) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        run = _Run()
        self._runs.append(run)
        argv = [*self.wrapped(), SSHD, "-D", "-e", "-f", f"{self.seen_as()}/sshd.conf"]
        process = cast(IReactorProcess, reactor).spawnProcess(run, argv[0], argv, env={"PATH": os.environ["PATH"]})
        assert process is not None
        test.addCleanup(lambda: Deferred.fromCoroutine(self.finish()))
        await run.listening.addTimeout(10.0, cast(IReactorTime, reactor))

    def wrapped(self) -> Sequence[str]:
        """What starts it, if not we."""

        return ()

    @property
    def log(self) -> bytes:
        return self._runs[-1].log

    @property
    def listener(self) -> int:
        transport = self._runs[-1].transport
        assert transport is not None
        return cast(int, transport.pid)

    async def stop(self) -> None:
        """End the one that listens; its connections go on."""

        exited = self._runs[-1].exited
        if not exited.called:
            os.kill(self.listener, signal.SIGTERM)
            await exited

    async def finish(self) -> None:
        await self.stop()
        for run in self._runs:
            await run.ended

    def serving(self) -> list[int]:
        """The processes that serve its connections."""

        found, left = [], leftovers.children_of(self.listener)
        while left:
            pid = left.pop()
            if leftovers.read(f"/proc/{pid}/comm") == b"sshd\n":
                found.append(pid)
                left += leftovers.children_of(pid)
        return found

    def cut(self) -> None:
        """Kill them."""

        for pid in self.serving():
            leftovers.kill(pid)
