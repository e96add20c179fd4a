"""What a console's own programs reach: their BMC, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

from tests.simulator.bmc import HELLO
from tests.simulator.process import Child, the_reactor
from tests.support.hosts import JOBS, PYTHON
from tests.support.hosts_world import HostsWorld
from tests.support.network_namespace import NetworkNamespace, ReactorIn

reactor: Any = global_reactor
REDIS = 6379
Target = tuple[Any, ...]
Console = dict[str, Any]

# On the agent: listens on a UNIX socket with a path, and on one without.
_LISTEN = """
import socket, sys
listening = []
for address in ("/run/service", "\\0a-service"):
    listening.append(socket.socket(socket.AF_UNIX))
    listening[-1].bind(address)
    listening[-1].listen()
print("listening", flush=True)
sys.stdin.read()
"""


class _Echo(DatagramProtocol):
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(datagram, addr)


class FenceTests(HostsWorld):
    """Two consoles are on one agent, each to a BMC of its own. What is tried is open on the agent itself."""

    panels: ClassVar[Sequence[tuple[str, int]]] = (("east", 1), ("east", 2))

    async def two_consoles(self) -> tuple[Console, Console]:
        first = await self.opened("device=east1 agent=east")
        second = await self.opened("device=east2 agent=east")
        return await self.show(first["console"]), await self.show(second["console"])

    def listen(self, namespace: NetworkNamespace, port: int, *addresses: str) -> None:
        """Services on a host, for TCP and UDP."""

        inside = ReactorIn(reactor, namespace)
        for address in addresses:
            for one in (
                inside.listenTCP(port, Factory.forProtocol(Protocol), interface=address),
                inside.listenUDP(port, _Echo(), interface=address),
            ):
                self.addCleanup(one.stopListening)

    async def listen_on_sockets(self) -> None:
        listens: Deferred[None] = Deferred()
        child = Child(lambda _: listens.callback(None))
        argv = [*self.east.host.inside(), *PYTHON, "-c", _LISTEN]
        the_reactor().spawnProcess(child, argv[0], argv, env={"PATH": "/usr/bin"})
        self.addCleanup(child.when_ended)
        self.addCleanup(child.close_stdin)
        await listens.addTimeout(10.0, IReactorTime(reactor))

    async def test_network(self) -> None:
        console, _ = await self.two_consoles()
        agent = NetworkNamespace.of(self.east.host.init)
        self.addCleanup(agent.close)
        of_agent = ("127.0.0.1", "::1", self.east.address, self.east.bmc_side, "fd77:1::2", "fd78:1::1")
        of_panel = (self.east.panel_address, "fd77:1::1")
        self.listen(agent, REDIS, *of_agent)
        self.listen(self.hosts.panel, REDIS, *of_panel)
        self.listen(self.east.namespace, 443, "fd78:1::11", "fd78:1::12")
        mine, other, hello = self.east.bmc_address(1), self.east.bmc_address(2), HELLO.hex()
        forbidden: list[Target] = [("tcp", host, REDIS) for host in (*of_agent, *of_panel)]
        forbidden += [("udp", host, REDIS, hello) for host in (*of_agent, *of_panel)]
        forbidden += [("tcp", host, 22) for host in of_agent]
        forbidden += [("tcp", host, 443) for host in (other, "fd78:1::11", "fd78:1::12")]
        forbidden += [("udp", host, 623, hello) for host in (mine, other)]
        await self.assert_fenced(console, [("tcp", mine, 443)], forbidden)

    async def test_neighbours(self) -> None:
        console, other = await self.two_consoles()
        await self.listen_on_sockets()
        display = other["display"]
        (folder,) = (path for path in self.east.host.job_folders() if path.endswith(other["console"]))
        forbidden: list[Target] = [("unix", "/run/service"), ("abstract", "a-service")]
        forbidden += [("unix", f"{folder}/vnc/socket"), ("file", JOBS), ("file", folder), ("file", "/home/ipmiproxyd")]
        await self.assert_fenced(console, [("file", "/usr/bin/python3")], forbidden)

        for kind in ("unix", "abstract"):
            forbidden += [(kind, f"/tmp/.X11-unix/X{display}")]
        told = await self.east.host.probe_inside(console["display"], "xmessage", [*forbidden, ("processes",)])
        self.assertNotIn("open", told)
        running = " ".join(told[-1])
        self.assertIn(f"Xvnc :{console['display']} ", running)
        for foreign in (f":{display} ", "sshd", "runner.py"):
            self.assertNotIn(foreign, running)

    async def assert_fenced(self, console: Console, allowed: Sequence[Target], forbidden: Sequence[Target]) -> None:
        targets = [*allowed, *forbidden]
        outside = await self.east.host.probe(targets)
        self.assertEqual([pair for pair in zip(targets, outside, strict=True) if pair[1] != "open"], [])
        inside = await self.east.host.probe_inside(console["display"], "xmessage", targets)
        reached = [target for target, found in zip(targets, inside, strict=True) if found == "open"]
        self.assertEqual(reached, list(allowed), inside)
