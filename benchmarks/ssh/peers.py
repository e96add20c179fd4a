"""What is compared: our streams, and OpenSSH's client with its own ciphers and with ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from benchmarks.relay.relays import LOAD_CORE, NONE, RELAY_CORE, SSH, Certificate, Nothing, Other, on_core
from benchmarks.relay.relays import Ours as Daemon
from benchmarks.relay.session import Target
from tests.support.sshd import ADDRESS, Sshd, login_account

OURS: Final = "ipmiproxyd"
DEFAULT: Final = SSH
SAME: Final = "ssh -L, our cipher"
CIPHER: Final = "aes128-gcm@openssh.com"
"""What our side and an sshd as it is installed agree upon."""

STREAM: Final = "stream"
RELAY: Final = "relay"

NAMES: Final = (OURS, DEFAULT, SAME, NONE)


class Host:
    """An sshd, which lives with the benchmark's folder, on the core of the load."""

    def __init__(self) -> None:
        self._cleanups: list[Callable[[], Deferred[None]]] = []
        self.sshd: Sshd
        self.folder = Path()

    def addCleanup(self, cleanup: Callable[[], Deferred[None]]) -> None:
        self._cleanups.append(cleanup)

    async def start(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sshd", "mine"):
            (folder / name).mkdir(mode=0o711)
        if os.geteuid() == 0:
            os.chown(folder / "mine", login_account().pw_uid, -1)
        self.sshd = Sshd(folder / "sshd")
        public = (folder / "sshd" / "host_key.pub").read_text()
        (folder / "known_hosts").write_text(f"[{ADDRESS}]:{self.sshd.port} {public}")
        with on_core(LOAD_CORE):
            await self.sshd.start(cast(TestCase, self))

    async def stop(self) -> None:
        while self._cleanups:
            await self._cleanups.pop()()

    @property
    def pid(self) -> int:
        return self.sshd.listener

    @property
    def facts(self) -> dict[str, Any]:
        """Of the connection, for :mod:`benchmarks.ssh.forward`."""

        place = self.sshd.place()
        host_key = self.sshd.host_key
        return {"host": place.host, "port": place.port, "user": place.user, "key": str(place.key), "host_key": host_key}

    def agent(self) -> dict[str, Any]:
        """The section of the daemon's configuration."""

        facts = self.facts
        facts["host-keys"] = [facts.pop("host_key")]
        mine = self.folder / "mine" / "agent"
        return {**facts, "folder": str(mine), "runner": str(self.folder / "runner.py")}


class Forward:
    """Our streams, in a process that does what ``ssh -L`` does."""

    name = OURS

    def __init__(self, host: Host, _folder: Path, _backend: int, _certificate: Certificate | None) -> None:
        self._host = host
        self._child: subprocess.Popen[str] | None = None

    async def start(self) -> Target:
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "benchmarks.ssh.forward"]
        with on_core(RELAY_CORE):
            self._child = child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({**self._host.facts, "path": str(self._host.folder / "socket")}) + "\n")
        child.stdin.flush()
        port = await deferToThread(child.stdout.readline)
        return Target(port=int(port), pid=child.pid, beside=(self._host.pid,))

    async def stop(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            assert child.stdin is not None
            child.stdin.close()
            await deferToThread(child.wait, 10)


class Ssh(Other):
    """``ssh -L``. ``far``: what it forwards to, instead of the UNIX socket."""

    name = DEFAULT
    options: tuple[str, ...] = ()

    def __init__(
        self, host: Host, folder: Path, backend: int, certificate: Certificate | None, *, far: str = ""
    ) -> None:
        super().__init__(folder, backend, certificate)
        self._host = host
        self._far = far or str(host.folder / "socket")

    def command(self, port: int) -> list[str]:
        facts = self._host.facts
        options = {
            "BatchMode": "yes",
            "ExitOnForwardFailure": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self._host.folder / "known_hosts"),
        }
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        forwarded = f"{ADDRESS}:{port}:{self._far}"
        where = ("-i", facts["key"], "-p", str(facts["port"]), f"{facts['user']}@{facts['host']}")
        return ["ssh", "-N", "-F", "none", *settings, *self.options, "-L", forwarded, *where]

    def target(self, port: int, pid: int) -> Target:
        return Target(port=port, pid=pid, beside=(self._host.pid,))


class SameSsh(Ssh):
    name = SAME
    options = ("-c", CIPHER)


class OverAgent(Daemon):
    """The daemon, and an SSH agent."""

    name = OURS
    more = "agent=east"

    def __init__(self, host: Host, folder: Path, backend: int, certificate: Certificate | None) -> None:
        super().__init__(folder, backend, certificate)
        self._host = host

    def more_settings(self) -> dict[str, dict[str, Any]]:
        return {"agents": {"east": self._host.agent()}}

    async def start(self) -> Target:
        return replace(await super().start(), beside=(self._host.pid,))


class OverSsh:
    """The daemon, and ``ssh -L`` beside it: their costs are counted together."""

    name = DEFAULT
    ssh: type[Ssh] = Ssh

    def __init__(self, host: Host, folder: Path, backend: int, certificate: Certificate | None) -> None:
        self._folder = folder
        self._certificate = certificate
        self._host = host
        self._ssh = self.ssh(host, folder / "ssh", backend, certificate, far=f"127.0.0.1:{backend}")
        self._daemon: Daemon | None = None

    async def start(self) -> Target:
        forwarded = await self._ssh.start()
        self._daemon = Daemon(self._folder / "d", forwarded.port, self._certificate)
        target = await self._daemon.start()
        return replace(target, also=(forwarded.pid,), beside=forwarded.beside)

    async def stop(self) -> None:
        if self._daemon is not None:
            await self._daemon.stop()
        await self._ssh.stop()


class OverSameSsh(OverSsh):
    name = SAME
    ssh = SameSsh


class NoSsh(Nothing):
    """The load generator, or the daemon, and no SSH at all: what all the rest costs."""

    def __init__(self, _host: Host, folder: Path, backend: int, certificate: Certificate | None) -> None:
        super().__init__(folder, backend, certificate)


class OverNothing(Daemon):
    name = NONE

    def __init__(self, _host: Host, folder: Path, backend: int, certificate: Certificate | None) -> None:
        super().__init__(folder, backend, certificate)


PEERS: Final[dict[str, tuple[Any, ...]]] = {
    STREAM: (Forward, Ssh, SameSsh, NoSsh),
    RELAY: (OverAgent, OverSsh, OverSameSsh, OverNothing),
}
