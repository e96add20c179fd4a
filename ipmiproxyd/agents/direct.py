"""Displays whose ports are open on their agent: connecting to them past SSH, and finding out whether that works."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as ListenTimeout
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.agents.ssh_checks import said_meanwhile
from ipmiproxyd.agents.ssh_exec import RemoteProgram
from ipmiproxyd.agents.with_runner import DIAL_LIMIT, tcp_endpoint
from ipmiproxyd.errors import AgentUnreachable

VNC_BASE_PORT: Final = 5900

# The lowest and the highest port that is free. The kernel answers for whoever listens.
_LISTEN: Final = """
import socket, sys, time
address, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
def free(ports):
    for port in ports:
        try:
            return socket.create_server((address, port), family=family)
        except OSError as error:
            problem = error
    sys.exit(f"no port can be had at {address}: {problem.strerror}")
held = [free(range(first, last + 1))]
if first < last:
    held.append(free(range(last, first - 1, -1)))
print(*[one.getsockname()[1] for one in held], flush=True)
time.sleep(30)
"""


@implementer(IStreamClientEndpoint)
class DirectEndpoint:
    """Connects to a port of an agent's machine. Fails with AgentUnreachable."""

    def __init__(self, reactor: Any, agent: str, host: str, port: int) -> None:
        self._endpoint = tcp_endpoint(reactor, host, port)
        self._agent = agent
        self._place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - the interface's name
        return self._endpoint.connect(protocolFactory).addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        failure.trap(ConnectError, DNSLookupError, OSError)
        raise AgentUnreachable(
            f"The display's port {self._place} on the agent {self._agent} cannot be reached: {_why(failure.value)}.",
            hint="Open its VNC ports for the daemon's host (agent provision does it), or set transport=ssh.",
        ) from failure.value


def _why(error: Any) -> str:
    if isinstance(error, ConnectTimeout):
        return f"there was no answer within {DIAL_LIMIT:g} s"
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else str(error).rstrip(".")


async def direct_finding(
    reactor: Any,
    python: str,
    address: str,
    displays: Sequence[int],
    program: Callable[..., RemoteProgram],
    dial: Callable[[int], IStreamClientEndpoint],
) -> Finding:
    """Whether displays' ports can be reached; found out with sockets that are made for it.

    :param address: of the agent, where the ports are.
    :param program: starts one there (argv, stdin=, on_line=).
    :param dial: gives the way to a port.
    """

    first, last = (VNC_BASE_PORT + display for display in (displays[0], displays[-1]))
    argv = (python, "-I", "-S", "-c", _LISTEN, address, str(first), str(last))
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    try:
        async with said_meanwhile(reactor, program, argv) as said:
            ports = list(dict.fromkeys(map(int, said.split())))
            for port in ports:
                protocol: Any = await dial(port).connect(factory)
                protocol.transport.loseConnection()
    except ListenTimeout as error:
        return Finding("direct", "fault", f"Displays' ports cannot be tried: {error}.")
    except AgentUnreachable as error:
        advice = f"Open {first}-{last}/tcp at {address} there for the daemon's host, and for nobody else."
        return Finding("direct", "fault", error.message, f"{advice} Or set transport=ssh.")
    tried = " and ".join(map(str, ports))
    return Finding("direct", "ok", f"Displays can be reached at their ports, at {address} there: tried {tried}.")
