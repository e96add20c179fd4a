"""Machines for tests of what happens between machines: a panel host, and locations with an agent and a BMC network.

    panel ── 10.77.N.0/24 ── agent of location N ── 10.78.N.0/24 ── two servers' BMCs

Each is a network namespace; an agent has process numbers, a file system, a host name and an sshd of its own, too. Its
file system is this machine's, with all that changes in memory. Nothing of it has a name on this machine, and all of it
ends with the test.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents import runner
from tests.simulator.process import Child, the_reactor
from tests.simulator.server import SimulatedServer
from tests.support import leftovers
from tests.support.network_namespace import NetworkNamespace, ReactorIn
from tests.support.sshd import Sshd

PYTHON: Final = ("/usr/bin/python3", "-I", "-S")
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROBE: Final = Path(__file__).with_name("probe.py").read_text()
ENTER: Final = Path(__file__).with_name("enter_job.py")
REPOSITORY: Final = Path(__file__).resolve().parents[2]
INIT: Final = Path(__file__).with_name("host_init.sh")
SSH_FOLDER: Final = "/etc/ssh/host"
RUNNER: Final = "/usr/local/lib/ipmiproxyd/runner.py"
SUDOERS: Final = "/etc/sudoers.d/ipmiproxyd-agent"
JOBS: Final = "/run/ipmiproxyd-jobs"
LOCKS: Final = "/run/ipmiproxyd-displays"
USERS: Final = 100
"""Unix users that an agent may have."""
START_LIMIT: Final = 20.0


@dataclass(frozen=True)
class HostProcess:
    """A process of an agent host, with its numbers there."""

    pid: int
    parent: int
    uid: int
    command: str


class AgentHost:
    """A machine of its own. :meth:`reboot` ends all that runs there and all that was written there.

    :param number: 0 to 3, another one for each host of a test.
    :param keys: the folder of its SSH keys, which it keeps.
    :param shown: folders of this machine, and where they are found on the host, not to be written.
    :ivar sshd: answers at port 22 of all its addresses.
    """

    def __init__(
        self, test: TestCase, name: str, number: int, keys: Path, *, shown: Mapping[Path, str] | None = None
    ) -> None:
        self.name = name
        self._shown = [str(part) for pair in (shown or {}).items() for part in pair]
        self._test = test
        self._child = Child()
        self._init = 0
        # Unix users with numbers of their own: on this machine, too, the kernel counts and kills by them alone.
        self.first_uid = 1_000_000 + USERS * (4 * os.getpid() + number)
        self.sshd = self.make_sshd(keys)

    def make_sshd(self, keys: Path) -> HostSshd:
        return HostSshd(self, keys)

    async def start(self) -> None:
        """Returns when it is there, without network and sshd."""

        up: Deferred[None] = Deferred()
        self._child = Child(lambda line: up.callback(None) if line == "up" else None)
        self._child.when_ended().addCallback(lambda _: None if up.called else up.cancel())
        apart = ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child=KILL"]
        init = ["sh", str(INIT), self.name, str(self.first_uid), str(self.first_uid + USERS - 1)]
        init += [*self.below(), *self._shown]
        argv = ["setpriv", "--pdeathsig", "KILL", *apart, "--propagation", "private", *init]
        the_reactor().spawnProcess(self._child, "/usr/bin/setpriv", argv, env={"PATH": PATH})
        try:
            await up.addTimeout(START_LIMIT, IReactorTime(reactor))
        except BaseException as error:
            await self._child.stop(IReactorTime(reactor))
            raise RuntimeError(f"the host {self.name} did not start: {self._child.output!r}") from error
        (self._init,) = leftovers.children_of(self._child.pid)
        self.install()

    def below(self) -> Sequence[str]:
        """Where its files and packages come from, see host_init.sh."""

        return "/", ""

    def install(self) -> None:
        """What docs/agents.md tells to do as root."""

        self.install_runner()
        shutil.copy(REPOSITORY / "etc/sudoers.d/ipmiproxyd-agent", self.path(SUDOERS))
        self.path(SUDOERS).chmod(0o440)
        self.sshd.put_keys()

    def install_runner(self) -> None:
        shutil.copy(runner.__file__, self.path(RUNNER))
        self.path(RUNNER).chmod(0o644)

    async def stop(self) -> None:
        """End everything there, at once. Idempotent."""

        if self._init:
            leftovers.kill(self._init)
            self._init = 0
            await self._child.when_ended()
            await self.sshd.all_ended()

    # --- what is there ------------------------------------------------------------------------------------------------

    @property
    def init(self) -> int:
        """Its process 1, in this machine's numbers."""

        assert self._init, f"{self.name} does not run"
        return self._init

    def path(self, path: str) -> Path:
        """A file of it."""

        return Path(f"/proc/{self.init}/root{path}")

    def inside(self) -> list[str]:
        """In front of a command line: runs it there, as root."""

        return ["/usr/bin/nsenter", f"--target={self.init}", "--all", "--"]

    def run(self, *argv: str) -> str:
        """A short program there, as root; its output. It must succeed."""

        done = subprocess.run([*self.inside(), *argv], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise AssertionError(f"on {self.name}, {argv} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def processes(self) -> list[HostProcess]:
        """All that runs there, apart from process 1."""

        found = []
        for folder in self.path("/proc").iterdir():
            if folder.name.isdigit() and folder.name != "1" and (status := leftovers.status(folder)):
                command = leftovers.read(folder / "cmdline").replace(b"\0", b" ").decode(errors="replace")
                uid = int(status["Uid"].split()[0])
                found.append(HostProcess(int(folder.name), int(status["PPid"]), uid, command))
        return found

    def console_processes(self) -> dict[int, str]:
        """What belongs to consoles: all of the displays' users, and what left whoever had started it (keepers)."""

        users = {uid for name, uid in self.users().items() if name.startswith("easydcim_vnc_")}
        return {
            one.pid: f"{one.uid} {one.command[:200]}"
            for one in self.processes()
            if one.uid in users or (one.parent == 1 and not one.command.startswith("sshd"))
        }

    def users(self) -> dict[str, int]:
        """Its Unix users and their numbers."""

        users = (line.split(":") for line in self.path("/etc/passwd").read_text().splitlines())
        return {user[0]: int(user[2]) for user in users}

    def user_of(self, display: int) -> int:
        """The number of a display's Unix user."""

        return self.users()[f"easydcim_vnc_{display}"]

    async def probe(self, targets: Sequence[Sequence[Any]]) -> list[Any]:
        """What root reaches there, outside of any console: see probe.py."""

        return await _probed(reactor, [*self.inside(), *PYTHON, "-c", PROBE], targets)

    async def probe_inside(self, display: int, program: str, targets: Sequence[Sequence[Any]]) -> list[Any]:
        """What a console's user reaches from inside, by a process of the console: see probe.py."""

        uid = self.user_of(display)
        pid = next(pid for pid in self.here(uid) if program.encode() in leftovers.read(f"/proc/{pid}/cmdline"))
        argv = [*PYTHON, str(ENTER), str(pid), str(uid), str(uid), PROBE]
        return await _probed(reactor, argv, targets)

    def here(self, uid: int) -> list[int]:
        """A user's processes, in this machine's numbers."""

        folders = [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
        mine = [folder for folder in folders if leftovers.status(folder).get("Uid", "").startswith(f"{uid}\t")]
        return [int(folder.name) for folder in mine]

    def job_folders(self) -> list[str]:
        """The folders of jobs, as seen there."""

        above = [JOBS, *(f"{JOBS}/{path.name}" for path in self.path(JOBS).glob("main"))]
        found = [f"{folder}/{name}" for folder in above for name in leftovers.files_of(self.path(folder))]
        return [path for path in found if path not in above]

    def console_files(self, away: bool = False) -> list[str]:
        """What consoles leave in files, apart from what the runner always keeps.

        :param away: nobody could ask yet how they ended, and it is kept.
        """

        kept = ["state.json"] if away else None
        found = [folder for folder in self.job_folders() if _listing(self.path(folder)) != kept]
        found += [path.name for path in self.path(LOCKS).glob("*.lock") if _is_locked(path)]
        found += [f"/tmp/{path.name}" for path in self.path("/tmp").rglob(".X*")]
        return found

    def listening(self) -> list[str]:
        """The TCP and UDP sockets that somebody can reach, maybe from the host itself: ``tcp 0.0.0.0:22``."""

        told = self._network(["ss", "-HOntul"])
        return sorted(" ".join(line.split()[index] for index in (0, 4)) for line in told)

    def connections(self) -> list[str]:
        """SSH connections to it."""

        return self._network(["ss", "-HOnt", "state", "established", "sport = :22"])

    def nft(self) -> str:
        """The rules that are in force."""

        return "\n".join(self._network(["nft", "list", "ruleset"]))

    def _network(self, argv: Sequence[str]) -> list[str]:
        namespace = NetworkNamespace.of(self.init)
        try:
            return namespace.run(argv).splitlines()
        finally:
            namespace.close()

    async def is_clean(self, *, away: bool = False) -> None:
        """Wait until no console has left anything."""

        await leftovers.until_none(self.console_processes)
        await leftovers.until_none(lambda: self.console_files(away))
        self._test.assertEqual([one for one in self.listening() if not one.endswith(":22")], [])

    def serving(self) -> list[int]:
        """The sshd processes that serve connections, also those of an sshd that listens no more."""

        servers = [one for one in self.processes() if one.command.startswith(("sshd: ", "sshd-session: "))]
        return [one.pid for one in servers if "[listener]" not in one.command]

    # --- troubles -----------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Kill whatever serves a connection."""

        self.run("sh", "-c", 'kill -KILL "$@" || :', "sh", *map(str, self.serving()))

    @contextmanager
    def full_disks(self) -> Iterator[None]:
        """Not a byte is free there."""

        fillers = [self.path(f"{folder}/filler") for folder in ("/", "/run", "/tmp", "/home")]
        for filler in fillers:
            _fill(filler)
        try:
            yield
        finally:
            for filler in fillers:
                filler.unlink()


MakeHost = Callable[[TestCase, str, int, Path], AgentHost]


class HostSshd(Sshd):
    """The sshd of a host. ``folder`` keeps the keys over its reboots.

    :ivar within: what starts it there, from its next start on: see few_namespaces.py.
    """

    port = 22
    address = "0.0.0.0"

    def __init__(self, host: AgentHost, folder: Path) -> None:
        self.host = host
        self.within: Sequence[str] = ()
        folder.mkdir(parents=True)
        super().__init__(folder, more=["ListenAddress [::]:22"])

    def put_keys(self) -> None:
        """What is in the folder counts on the host from its next start on (``authorized_keys`` at once)."""

        for file in self.folder.iterdir():
            shutil.copy(file, self.host.path(f"{SSH_FOLDER}/{file.name}"))

    async def finish(self) -> None:
        """With its host: what it serves may wait for a network that is not there."""

        await self.host.stop()

    async def all_ended(self) -> None:
        """Once its host has."""

        for run in self._runs:
            await run.ended
        self._runs = []

    def seen_as(self) -> str:
        return SSH_FOLDER

    def wrapped(self) -> Sequence[str]:
        return [*self.host.inside(), *self.within]

    @property
    def listener(self) -> int:
        return next(iter(leftovers.children_of(super().listener)), 0)


class Location:
    """An agent and its BMC network, with two servers ``NAME1`` and ``NAME2``, whose BMCs have the usual ports.

    :param number: 1 to 3.
    :param make: makes the host, as :class:`AgentHost` does.
    :ivar namespace: the BMC network's; ``reactor`` starts things there.
    """

    def __init__(
        self, test: TestCase, panel: NetworkNamespace, name: str, number: int, folder: Path, make: MakeHost
    ) -> None:
        self.name = name
        self.host = make(test, name, number, folder / "keys")
        self.namespace = NetworkNamespace.make()
        test.addCleanup(self.namespace.close)
        self.reactor: Any = ReactorIn(reactor, self.namespace)
        self._panel = panel
        self._number = number
        self.panel_address, self.address = f"10.77.{number}.1", f"10.77.{number}.2"
        self.bmc_side = f"10.78.{number}.1"
        self.servers: dict[int, SimulatedServer] = {}
        self._folder = folder
        self._test = test

    # --- start and end ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._test.addCleanup(lambda: Deferred.fromCoroutine(self.host.stop()))
        await self.host.start()
        self._connect()
        await self.host.sshd.start(self._test)

    def _connect(self) -> None:
        """The two networks of the agent. No packet goes from one to the other: it does not forward."""

        number, cable = self._number, self._cable
        agent = NetworkNamespace.of(self.host.init)
        try:
            agent.ip(
                "link set lo up",
                f"link add panel0 type veth peer name {cable} netns {self._panel.path}",
                f"link add bmc0 type veth peer name agent0 netns {self.namespace.path}",
                *_up("panel0", f"{self.address}/24", f"fd77:{number}::2/64"),
                *_up("bmc0", f"{self.bmc_side}/24", f"fd78:{number}::1/64"),
            )
        finally:
            agent.close()
        self._panel.ip(*_up(cable, f"{self.panel_address}/24", f"fd77:{number}::1/64"))
        bmcs = [f"10.78.{number}.{last}/24" for last in (11, 12)] + [f"fd78:{number}::{last}/64" for last in (11, 12)]
        self.namespace.ip(*_up("agent0", *bmcs))

    async def reboot(self) -> None:
        """The agent host loses power and comes up again, with the same keys. What it had written is gone."""

        # The kernel would take its time to remove what leads there.
        self._panel.ip(f"link delete {self._cable}")
        self.namespace.ip("link delete agent0")
        await self.host.stop()
        await self.host.start()
        self._connect()
        await self.host.sshd.start(self._test)

    @property
    def _cable(self) -> str:
        return f"to-{self.name}"

    def pull_cable(self) -> None:
        """Of the panel host, to this location."""

        self._panel.ip(f"link set {self._cable} down")

    def plug_cable(self) -> None:
        self._panel.ip(f"link set {self._cable} up")

    # --- servers ------------------------------------------------------------------------------------------------------

    def bmc_address(self, number: int) -> str:
        return f"10.78.{self._number}.{10 + number}"

    def server(self, number: int, **more: Any) -> SimulatedServer:
        """One of the two (1, 2); whoever asks starts it, or its BMC. It is stopped at the end of the test."""

        name = f"{self.name}{number}"
        server = SimulatedServer(
            self._folder / name,
            name=name,
            address=self.bmc_address(number),
            bmc_port=623,
            web_port=443,
            reactor=self.reactor,
            **more,
        )
        self._test.addCleanup(server.stop)
        self.servers[number] = server
        return server

    def settings(self) -> Mapping[str, Any]:
        """The agent's section in the daemon's configuration."""

        sshd = self.host.sshd
        key = str(sshd.folder / "key")
        return {"host": self.address, "key": key, "host-keys": [sshd.host_key], "users": "always"}


class Hosts:
    """The panel host and its locations. In ``panel`` run the daemon and its viewers.

    :param make: makes the agents' hosts.
    """

    def __init__(
        self, test: TestCase, folder: Path, names: Sequence[str] = ("east", "west"), make: MakeHost = AgentHost
    ) -> None:
        self.panel = NetworkNamespace.make()
        test.addCleanup(self.panel.close)
        self.reactor = ReactorIn(reactor, self.panel)
        self.locations = {
            name: Location(test, self.panel, name, number, folder / name, make)
            for number, name in enumerate(names, 1)
        }

    async def probe(self, targets: Sequence[Sequence[Any]]) -> list[Any]:
        """What the panel host reaches: see probe.py."""

        return await _probed(self.reactor, [*PYTHON, "-c", PROBE], targets)

    async def start(self) -> None:
        await gatherResults([Deferred.fromCoroutine(one.start()) for one in self.locations.values()])

    def __getitem__(self, name: str) -> Location:
        return self.locations[name]


async def _probed(spawner: Any, argv: Sequence[str], targets: Sequence[Sequence[Any]]) -> list[Any]:
    """It may ask this very process, which must not wait for it."""

    asked = json.dumps(targets).encode()
    told = await getProcessOutputAndValue(argv[0], argv[1:], {"PATH": PATH}, reactor=spawner, stdinBytes=asked)
    if told[2]:
        raise AssertionError(f"the probe ended with {told[2]}: {told[1].decode()}")
    found: list[Any] = json.loads(told[0])
    return found


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _fill(path: Path) -> None:
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]


def _up(interface: str, *addresses: str) -> list[str]:
    """The IPv6 addresses are there at once: without a look whether somebody else has them."""

    added = [f"address add {address} dev {interface}{' nodad' if ':' in address else ''}" for address in addresses]
    return [*added, f"link set {interface} up"]
