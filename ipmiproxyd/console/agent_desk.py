"""What operators do with the agents, in the words of the control protocol."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.logger import Logger

from ipmiproxyd.agents.children import shielded
from ipmiproxyd.agents.findings import Finding, told
from ipmiproxyd.agents.fleet import Fleet, HostedAgent, RemoteHosted
from ipmiproxyd.agents.local import APART, BESIDE
from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.errors import Busy, Exists, Forbidden, InUse, ProxyError
from ipmiproxyd.interfaces import Consoles, Progress, agent_named
from ipmiproxyd.model import BMC_CIPHER, BMC_REFUSED, Console, ConsoleState, Device, Proxy, RemoteAgent
from ipmiproxyd.store.agents import StoredAgents
from ipmiproxyd.tools import java_console, panel_http, vendors
from ipmiproxyd.wire.agent import changed, checked, to_document

T = TypeVar("T")

OPEN: Final = (ConsoleState.OPENING, ConsoleState.READY, ConsoleState.CLOSING)
IN_USE: Final = (*OPEN, ConsoleState.LOST)
"""Those whose programs may be there."""
HOMES: Final = frozenset({"user", "folder", "jobs_name", "users", "group", "runner", "python"})
"""Fields that say where the programs of consoles are kept, and as whom they run."""
HERE: Final = {"address": "", "connected": True, "state": "connected"}
"""Shown of the local agent, as of the others how they are reached."""
QUIET: Final = frozenset({"notes", "browser"})
"""Fields that have nothing to do with how it is reached."""
SHOWN: Final = {"host_keys": "host_key", "runner": "runner_path"}
"""Fields that have other names where they are shown."""
REMEMBERED: Final = {
    BMC_CIPHER: 1, BMC_REFUSED: 1, java_console.AGENT_KIND: 0, panel_http.KIND: 1, vendors.KIND: 0,
}  # fmt: skip
"""What is remembered of BMCs and panels as one agent sees them: which word of the key is the agent's name."""

log = Logger()


class AgentMaker(Protocol):
    """See :class:`~ipmiproxyd.agents.ssh_maker.SshMaker`."""

    def make(self, agent: RemoteAgent) -> RemoteHosted: ...

    async def vouched(
        self, agent: RemoteAgent, *, check: bool, known_hosts: bool, neighbour: Callable[[str], str]
    ) -> RemoteAgent: ...

    async def trusted(self, agent: RemoteAgent, *, known_hosts: bool) -> RemoteAgent: ...


class Examiner(Protocol):
    """See :class:`~ipmiproxyd.doctor.doctor.Doctor`."""

    async def examine(
        self, agent: HostedAgent, *, device: Device | None, trial: bool, progress: Progress
    ) -> Sequence[Finding]:
        """Whatever becomes of one look, the others are made. Raises what stands in the way of all. Cancelling leaves
        nothing behind.

        :param device: the way to this one's BMC is tried, too.
        :param trial: trial consoles are opened.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskRooms:
    """What the desk works with.

    :ivar maker: gives what makes agents; asked for only where there are such agents, as it costs memory.
    :ivar configured: the agents of the configuration file.
    :ivar proxies: gives those that there are.
    :ivar limit: how many consoles one agent may have; 0 for no limit.
    """

    fleet: Fleet
    stored: StoredAgents
    maker: Callable[[], AgentMaker]
    consoles: Consoles
    displays: Mapping[str, DisplayPool]
    configured: Sequence[RemoteAgent]
    proxies: Callable[[], Coroutine[Any, Any, Sequence[Proxy]]]
    doctor: Examiner
    limit: int


class AgentDesk:
    """Implements :class:`~ipmiproxyd.interfaces.Agents`."""

    def __init__(self, rooms: DeskRooms) -> None:
        self._rooms = rooms
        self._fleet = rooms.fleet
        self._stored = rooms.stored
        self._configured = {agent.name: agent for agent in rooms.configured}
        self._lock = DeferredLock()
        self._away: set[str] = set()  # those that are being taken back: their names are not free

    async def load(self) -> None:
        """Have the agents of the configuration file, and those that are stored."""

        for agent in self._configured.values():
            self._fleet.put(await self._made(agent))
        for agent in await self._stored.list():
            if agent.name in self._fleet:
                log.warn("the stored agent {agent} is not used: the configuration file has one", agent=agent.name)
            else:
                self._fleet.put(await self._made(agent))
        if all(agent.kind == "local" for agent in self._fleet.values()):
            log.info("{words} {advice}", words=BESIDE, advice=APART)

    async def _made(self, agent: RemoteAgent) -> RemoteHosted:
        made = self._rooms.maker().make(agent)
        made.isolated = await self._stored.still_isolated(agent)
        made.when_isolated = lambda: self._note_isolated(agent.name)
        return made

    def _note_isolated(self, name: str) -> None:
        noting = Deferred.fromCoroutine(self._done(self._noted(name)))
        noting.addErrback(lambda failure: log.failure("agent {agent}", failure, agent=name))

    async def _noted(self, name: str) -> None:
        hosted: Any = self._fleet.get(name)
        if hosted is not None and hosted.isolated:
            await self._stored.note_isolated(self._configured.get(name) or await self._stored.get(name))

    # --- what is told -------------------------------------------------------------------------------------------------

    def listing(self) -> Sequence[Mapping[str, Any]]:
        return [self._row(agent) for agent in self._fleet.values()]

    def _row(self, agent: HostedAgent) -> dict[str, Any]:
        pool = self._rooms.displays[agent.name]
        return {
            "name": agent.name,
            "kind": agent.kind,
            "from": "config" if agent.kind == "local" or agent.name in self._configured else "store",
            **(HERE if agent.kind == "local" else {}),
            **agent.describe(),
            "browser": agent.browser,
            "consoles": len(self._open_on(agent.name)),
            "displays": {"total": pool.size, "in_use": pool.in_use},
            "limits": {"consoles": self._rooms.limit, "displays": pool.size},
        }

    def _open_on(self, name: str, states: Sequence[ConsoleState] = OPEN) -> Sequence[Console]:
        return [one for one in self._rooms.consoles.list() if one.agent == name and one.state in states]

    async def show(self, name: str) -> Mapping[str, Any]:
        agent = agent_named(self._fleet, name)
        if agent.kind == "local":
            return self._row(agent)
        known = self._configured.get(name) or await self._stored.get(name)
        return {**_fields(known), **self._row(agent)}

    # --- one more, another one, one less ------------------------------------------------------------------------------

    async def add(self, agent: RemoteAgent, *, check: bool = True, known_hosts: bool = True) -> Mapping[str, Any]:
        agent = checked(agent)
        self._check_free(agent.name)
        agent = await self._vouched(agent, check=check, known_hosts=known_hosts)
        await self._done(self._keep(agent))
        told = await self._told_of(agent, is_new=True)
        if told.get("isolation") == "none" and told["displays_run_as"]:
            words = f"All displays there run as the one user {told['displays_run_as']}: see agent check."
            told = {**told, "warnings": [words, *told["warnings"]]}
        return told

    async def _vouched(self, agent: RemoteAgent, *, check: bool, known_hosts: bool) -> RemoteAgent:
        return await self._rooms.maker().vouched(
            agent,
            check=check,
            known_hosts=known_hosts,
            neighbour=lambda place: self._fleet.at(place, but=agent.name),
        )

    async def _keep(self, agent: RemoteAgent) -> None:
        self._check_free(agent.name)
        await self._stored.create(agent.name, agent)
        await self._join(agent)
        log.info("agent {agent} was added: {user} at {host}", agent=agent.name, user=agent.user, host=agent.host)

    def _check_free(self, name: str) -> None:
        if name in self._fleet:
            is_stored = self._fleet[name].kind != "local" and name not in self._configured
            hint = "Use agent set to change it." if is_stored else "Choose another name: this one is not stored."
            raise Exists(f"There is an agent {name} already.", hint=hint)
        if name in self._away:
            raise Busy(f"The agent {name} is being taken back.", hint="Try again when that is done.")

    async def _told_of(self, agent: RemoteAgent, *, is_new: bool) -> Mapping[str, Any]:
        """Its row, and what to beware of.

        :param is_new: its host was not known before.
        """

        row = await self.show(agent.name)
        warnings = [row["problem"]] if "problem" in row else []
        return {**row, "warnings": [*warnings, *([f"{BESIDE} {APART}"] if is_new and _is_here(agent.host) else [])]}

    async def change(
        self, name: str, changes: Mapping[str, Any], *, check: bool = True, known_hosts: bool = True
    ) -> Mapping[str, Any]:
        before = await self._changeable(name)
        isolation = agent_named(self._fleet, name).describe().get("isolation")
        after = changed(before, changes)
        if after != before:
            self._check_homes(before, after)
            if changes.keys() - QUIET:
                after = await self._vouched(after, check=check, known_hosts=known_hosts)
            await self._done(self._swap(before, after))
        told = await self._told_of(after, is_new=after.host != before.host)
        if (isolation, told.get("isolation")) == ("users", "none"):
            whom = told["displays_run_as"]
            words = f"Displays on the agent {name} had Unix users of their own; now all run as {whom}: see agent check."
            told = {**told, "warnings": [words, *told["warnings"]]}
        if after.transport == "direct" and before.transport != "direct":
            words = f"The displays' ports there have to be open for the daemon: agent provision name={name} opens them."
            told = {**told, "warnings": [words, *told["warnings"]]}
        return told

    async def _swap(self, before: RemoteAgent, after: RemoteAgent) -> None:
        if await self._changeable(before.name) != before:
            raise InUse(f"Somebody else has changed the agent {before.name} meanwhile.", hint="Try again.")
        self._check_homes(before, after)
        await self._stored.put(after.name, after)
        if changed(before, {"notes": after.notes}) != after:
            hosted: Any = self._fleet[after.name]
            hosted.isolated = await self._stored.still_isolated(after)
            await hosted.change(after)
        log.info("agent {agent} was changed", agent=after.name)

    def _check_homes(self, before: RemoteAgent, after: RemoteAgent) -> None:
        fields = HOMES if set(after.host_keys) <= set(before.host_keys) else HOMES | {"host", "port"}
        moved = [field for field in sorted(fields) if getattr(before, field) != getattr(after, field)]
        if moved and self._open_on(before.name, IN_USE):
            raise InUse(
                f"{moved[0]} cannot be changed while consoles are open on the agent {before.name}.",
                hint="Close them first: see console list.",
            )

    async def _changeable(self, name: str) -> RemoteAgent:
        agent = agent_named(self._fleet, name)
        if agent.kind == "local":
            raise Forbidden(
                f"The agent {name} is the daemon's own machine.", hint="See [agent] in its configuration file."
            )
        if name in self._configured:
            raise Forbidden(
                f"The agent {name} stands in the daemon's configuration file, and is changed there.",
                hint=f"Change or remove its section [agents.{name}], and restart the daemon.",
            )
        return await self._stored.get(name)

    async def remove(self, name: str, *, force: bool = False) -> Sequence[str]:
        return await shielded(Deferred.fromCoroutine(self._remove(name, force)))

    async def _remove(self, name: str, force: bool) -> Sequence[str]:
        await self._changeable(name)
        await self._done(self._part(name, force))
        left = await self._close_all(name)
        await self._done(self._take_away(name))
        return left

    async def _close_all(self, name: str) -> Sequence[str]:
        """Of the consoles on an agent; those that could not be, in words."""

        tried: set[str] = set()
        while consoles := [one for one in self._open_on(name) if one.id not in tried]:
            tried.update(console.id for console in consoles)  # others may come that were asked for before
            await gatherResults([Deferred.fromCoroutine(self._close(console)) for console in consoles])
        left = ", ".join(console.id for console in self._open_on(name, IN_USE))
        return [f"Not closed, as the agent did not help: {left}. Their programs may go on for a while."] if left else []

    async def _part(self, name: str, force: bool) -> None:
        """From now on nothing new is begun there."""

        agent_named(self._fleet, name)
        await self.check_free_to_go(name, force=force)
        self._fleet.leaving.add(name)

    async def check_free_to_go(self, name: str, *, force: bool) -> None:
        """Raises InUse while consoles are open on an agent, or proxies name it, unless these do not count."""

        if not force:
            await self._check_unnamed(name)
            self._check_unused(name)

    async def _take_away(self, name: str) -> None:
        try:
            await self._fleet.leave(name)
        finally:
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        await self._stored.delete(name)
        await self._stored.forget(name, REMEMBERED)
        log.info("agent {agent} was removed", agent=name)

    async def _close(self, console: Console) -> None:
        try:
            await self._rooms.consoles.close(console_id=console.id)
        except Exception:
            log.failure("agent {agent}: {console} was not closed", agent=console.agent, console=console.id)

    async def _check_unnamed(self, name: str) -> None:
        proxies = [proxy.name for proxy in await self._rooms.proxies() if proxy.agent == name]
        if proxies:
            raise InUse(
                f"The agent {name} is that of {'the proxies' if proxies[1:] else 'the proxy'} {', '.join(proxies)}.",
                hint=f"Give them another one (proxy set name={proxies[0]} agent=OTHER), or say force=yes to remove it "
                "all the same: that closes the consoles that are open on it, and these proxies open no more.",
            )

    def _check_unused(self, name: str) -> None:
        count = len(self._open_on(name, IN_USE))
        if count:
            raise InUse(
                f"{count} {'consoles are' if count > 1 else 'console is'} open on the agent {name}.",
                hint="Close them first (console list), or say force=yes: that closes all that are open on it.",
            )

    async def _done(self, work: Coroutine[Any, Any, None]) -> None:
        """One after the other, and to the end, even if whoever asked for it has gone."""

        await shielded(Deferred.fromCoroutine(self._alone(work)))

    async def _alone(self, work: Coroutine[Any, Any, None]) -> None:
        await self._lock.acquire()
        try:
            await work
        finally:
            self._lock.release()

    # --- with provisioning --------------------------------------------------------------------------------------------

    async def known(self, name: str) -> RemoteAgent | None:
        """What is known of one, of the configuration file or stored; None where there is none. Raises Forbidden for the
        daemon's own machine."""

        if name not in self._fleet:
            return None
        if agent_named(self._fleet, name).kind == "local":
            words = f"The agent {name} is the daemon's own machine."
            raise Forbidden(words, hint="That one is set up by ipmiproxyctl setup.")
        return self._configured.get(name) or await self._stored.get(name)

    async def check_changeable(self, name: str) -> None:
        """Raises Forbidden for one that the configuration file has."""

        await self._changeable(name)

    async def trusted(self, agent: RemoteAgent, *, known_hosts: bool) -> RemoteAgent:
        """A new one with a host key that somebody vouches for. Raises HostKeyUnknown, HostKeyChanged, …"""

        self._check_free(agent.name)
        return await self._rooms.maker().trusted(agent, known_hosts=known_hosts)

    async def of_account(self, agent: RemoteAgent, user: str) -> Sequence[str]:
        """The names of other agents that are this account on the host of this one."""

        there = [*self._configured.values(), *await self._stored.list()]
        place = (agent.host, agent.port, user)
        return [one.name for one in there if (one.host, one.port, one.user) == place and one.name != agent.name]

    async def look_again(self, name: str) -> Mapping[str, Any]:
        """Take what is on an agent now into use; no viewer notices. Its row, and ``warnings``."""

        hosted: Any = agent_named(self._fleet, name)
        finding = await hosted.look_again()
        return {**await self.show(name), "warnings": [] if finding.level == "ok" else [finding.sentences]}

    async def withdraw(
        self, name: str, work: Callable[[], Coroutine[Any, Any, T]], *, force: bool, keep: bool
    ) -> tuple[T, Sequence[str]]:
        """Do ``work`` while no connection is kept to an agent and no console is open there; then have it no more. One
        of the configuration file stays, as one that is kept does, and one for which ``work`` failed. Whoever waits for
        it does not go away.

        Returns what ``work`` gave, and what is to be known. Raises as :meth:`remove`.
        """

        agent = self._configured.get(name) or await self._stored.get(name)
        await self._done(self._part(name, force))
        warnings = [*await self._close_all(name)]
        stays = True
        self._away.add(name)
        try:
            await self._fleet.leave(name)
            done = await work()
            stays = keep or name in self._configured
        finally:
            try:
                await self._done(self._join(agent) if stays else self._forget(name))
            finally:
                self._away.discard(name)
        if name in self._configured:
            warnings.append(f"The agent {name} stands in the daemon's configuration file: remove it there.")
        return done, warnings

    async def _join(self, agent: RemoteAgent) -> None:
        await self._fleet.join(await self._made(agent))

    # --- looking at one -----------------------------------------------------------------------------------------------

    async def check(
        self, name: str, progress: Progress, *, device: Device | None = None, trial: bool = True, fix: bool = False
    ) -> Mapping[str, Any]:
        agent = agent_named(self._fleet, name)
        fixed = await self._fixed(agent) if fix else []
        try:
            found = await self._rooms.doctor.examine(agent, device=device, trial=trial, progress=progress)
        except ProxyError as error:
            for failed in fixed:
                if failed.level == "fault":
                    raise type(error)(error.message, hint=failed.sentences, details=error.details) from error
            raise
        return {**self._row(agent), **told([*fixed, *found])}

    async def _fixed(self, agent: HostedAgent) -> Sequence[Finding]:
        if agent.describe().get("runner") == "sent":
            self._check_unused(agent.name)  # they would be lost sight of: another runner looks after other jobs
        repaired = await agent.repair()
        return [*([] if repaired is None else [repaired]), *await self._tidied(agent)]

    async def _tidied(self, agent: HostedAgent) -> Sequence[Finding]:
        try:
            removed = await self._rooms.consoles.tidy(agent)
        except ProxyError as error:
            words = f"What earlier consoles may have left was not cleared away: {error.message}"
            return [Finding("fix", "warning", words, error.hint or "")]
        return [Finding("fix", "ok", f"Cleared away: {'; '.join(removed)}.")] if removed else []


def _fields(agent: RemoteAgent) -> dict[str, Any]:
    """As it may be shown: of the secret only whether it is "set"."""

    shown = {SHOWN.get(field, field): value for field, value in to_document(agent).items() if field != "name"}
    return {**shown, "passphrase": "set" if agent.passphrase else ""}


def _is_here(host: str) -> bool:
    """Whether an address is the daemon's own machine, as far as the address tells."""

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


