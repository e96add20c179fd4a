"""The daemon's own life: its start, its end, and what it tells about itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.defer import TimeoutError as TooSlow
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from ipmiproxyd import __version__
from ipmiproxyd.agents.children import shielded
from ipmiproxyd.agents.fleet import Fleet
from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.console.machine import Ending
from ipmiproxyd.console.manager import ConsoleManager
from ipmiproxyd.control.server import ControlServer
from ipmiproxyd.errors import ProxyError
from ipmiproxyd.model import ConsoleState

STOPPED: Final = Ending("shutdown", "The gateway was stopped.")
RECONCILE_WAIT: Final = 10.0
"""Seconds for which the start waits until the agents that are there have ended what an earlier run left."""

log = Logger()


class HostedStore(Protocol):
    """A store as the daemon looks after it."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class Supervisor(Protocol):
    """Whoever started the daemon and wants to know how it is (systemd)."""

    def ready(self) -> None: ...

    def stopping(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the daemon starts and ends.

    :ivar load_agents: puts the agents into the fleet; the store is open by then.
    :ivar shown: what ``daemon status`` tells of the configuration.
    :ivar end_process: stops the reactor; the argument becomes the exit status.
    """

    store: HostedStore
    agents: Fleet
    load_agents: Callable[[], Awaitable[None]]
    displays: Mapping[str, DisplayPool]
    consoles: ConsoleManager
    supervisor: Supervisor
    clock: IReactorTime
    on_stop: Literal["keep", "close"]
    shown: Mapping[str, Any]
    end_process: Callable[[int], None]


class DaemonService(Service):
    """Starts the parts and ends them; implements :class:`~ipmiproxyd.interfaces.Daemon`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._since = parts.clock.seconds()
        self._control: tuple[ControlServer, IStreamServerEndpoint] | None = None
        self._port: IListeningPort | None = None
        self._starting: Deferred[None] | None = None
        self._close_all = parts.on_stop == "close"

    def serve(self, control: ControlServer, endpoint: IStreamServerEndpoint) -> None:
        """What to listen with, once the start is done. The commands of ``control`` need this object first."""

        self._control = (control, endpoint)

    # --- start and end ------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._since = self._parts.clock.seconds()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    async def _start(self) -> None:
        parts = self._parts
        await parts.store.open()
        await parts.load_agents()
        await parts.agents.start(parts.consoles.job_ended)
        left = await parts.consoles.recover()
        if left:
            log.info("consoles of an earlier run that are closed now: {count}", count=left)
        await self._reconcile()
        if self._control is not None:
            control, endpoint = self._control
            self._port = await endpoint.listen(control)
        parts.supervisor.ready()
        log.info("ipmiproxyd {version} is ready, process {pid}", version=__version__, pid=os.getpid())

    async def _reconcile(self) -> None:
        """With the agents that are there, all at a time; the others follow when they come. One that does not answer
        holds the start up for a moment only."""

        parts = self._parts
        parts.agents.welcome(parts.consoles.reconcile)
        there = [agent for agent in parts.agents.values() if agent.describe().get("connected", True)]
        all_done = gatherResults(
            [Deferred.fromCoroutine(parts.consoles.reconcile(agent)) for agent in there], consumeErrors=True
        )
        try:
            await shielded(all_done).addTimeout(RECONCILE_WAIT, parts.clock)
        except TooSlow:
            log.warn("consoles of an earlier run are not all closed yet")
        except CancelledError:
            all_done.cancel()
            raise

    def _start_failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        if isinstance(error, ProxyError):
            log.critical("ipmiproxyd cannot start: {words}", words=" ".join(filter(None, (error.message, error.hint))))
        else:
            log.failure("ipmiproxyd cannot start", failure)
        self._parts.end_process(1)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        parts = self._parts
        parts.supervisor.stopping()
        if self._starting is not None:
            self._starting.cancel()
        if self._port is not None:
            stopped = self._port.stopListening()
            if stopped is not None:
                await stopped
        if self._close_all:
            await parts.consoles.close_all(STOPPED)
        else:
            await parts.consoles.leave()
        if self._control is not None:
            await self._control[0].close()
        await parts.agents.close()
        await parts.store.close()
        log.info("ipmiproxyd has ended")

    # --- what the commands ask for ------------------------------------------------------------------------------------

    async def status(self) -> Mapping[str, Any]:
        parts = self._parts
        consoles = parts.consoles.list()
        states = Counter(console.state for console in consoles)
        present = [state for state in ConsoleState if state is not ConsoleState.CLOSED]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(parts.clock.seconds() - self._since, 3),
            "consoles": {"total": len(consoles), **{state.value: states[state] for state in present}},
            "viewers": sum(len(console.viewers) for console in consoles),
            "agents": [
                {
                    "name": agent.name,
                    "kind": agent.kind,
                    **agent.describe(),
                    "displays": {
                        "total": parts.displays[agent.name].size,
                        "in_use": parts.displays[agent.name].in_use,
                    },
                }
                for agent in parts.agents.values()
            ],
            **parts.shown,
        }

    async def stop(self) -> Mapping[str, Any]:
        """Closes the consoles before it answers; the process ends once the answer is out."""

        self._close_all = True
        closed = len(self._parts.consoles.list())
        try:
            await self._parts.consoles.close_all(STOPPED)
        finally:
            # Also if the client has gone meanwhile: the daemon's end closes what is still open.
            self._parts.clock.callLater(0, self._parts.end_process, 0)
        return {"closed": closed}
