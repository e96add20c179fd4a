"""What operators do with the hosts of agents: from a bare one to an agent, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ipmiproxyd import config_kinds as kinds
from ipmiproxyd.agents.children import shielded
from ipmiproxyd.console.agent_desk import AgentDesk
from ipmiproxyd.errors import BadValue, Busy, MissingArgument, NotFound, ProxyError
from ipmiproxyd.interfaces import Javas, Progress
from ipmiproxyd.model import Administrator, RemoteAgent, Report, Verb, Wanted
from ipmiproxyd.wire.agent import checked, differing

NEEDED: Final = ("host", "key")
"""Fields without which nothing can be begun."""
BROWSER: Final = kinds.name(r"[a-z0-9][a-z0-9+.-]{0,63}", "chromium, none, or the name of a package")
REPOSITORY: Final = kinds.name(
    r"|deb [^\n\0]{1,500}", "a line for apt such as deb http://mirror.example.org/debian bookworm main"
)
NOTHING: Final = "Nothing had to be changed."

log = Logger()


class Reached(Protocol):
    """A host, where an administrator is signed in, and root or able to become it."""

    async def work(
        self, verb: Verb, wanted: Wanted, *, dry_run: bool = False, force: bool = False, progress: Progress
    ) -> Report: ...


class Provisioner(Protocol):
    """See :class:`~ipmiproxyd.provision.provisioner.Provisioner`."""

    def reach(self, agent: RemoteAgent, by: Administrator) -> AbstractAsyncContextManager[Reached]: ...


class ProvisionDesk:
    """Implements :class:`~ipmiproxyd.interfaces.Provisioning`.

    :param provisioner: gives it; asked for only where it is needed, as it costs memory.
    """

    def __init__(
        self, agents: AgentDesk, javas: Javas, provisioner: Callable[[], Provisioner], seconds: Callable[[], float]
    ) -> None:
        self._agents = agents
        self._javas = javas
        self._provisioner = provisioner
        self._seconds = seconds
        self._at_work: set[str] = set()

    async def provision(
        self,
        name: str,
        fields: Mapping[str, Any],
        by: Administrator,
        wanted: Wanted,
        *,
        known_hosts: bool = True,
        dry_run: bool = False,
        progress: Progress = lambda _: None,
    ) -> Mapping[str, Any]:
        tell = self._timed(progress)
        _check(wanted)
        with self._alone(name):
            known = await self._agents.known(name)
            agent = await self._new(name, fields, known_hosts) if known is None else _as_given(known, fields)
            async with self._provisioner().reach(agent, by) as host:
                report = await host.work("provision", wanted, dry_run=dry_run, progress=tell)
            if dry_run:
                row = {"name": name} if known is None else await self._agents.show(name)
                later = tuple(f"The Java {java}, if it is not there" for java in wanted.javas)
                return _answer(_more(report, Report(later)), row, dry_run=True)
            tell({"stage": "agent", "text": f"Signing in as {agent.user}"})
            if known is None:
                row = await self._agents.add(agent)
            else:
                row = await self._agents.look_again(name)
            javas = await self._install(name, wanted.javas, tell)
            return _answer(_more(report, javas), row, dry_run=False)

    async def unprovision(
        self,
        name: str,
        by: Administrator,
        *,
        force: bool = False,
        keep: bool = False,
        progress: Progress = lambda _: None,
    ) -> Mapping[str, Any]:
        work = self._unprovision(name, by, force, keep, self._timed(progress))
        return await shielded(Deferred.fromCoroutine(work))

    async def _unprovision(
        self, name: str, by: Administrator, force: bool, keep: bool, tell: Progress
    ) -> Mapping[str, Any]:
        with self._alone(name):
            agent = await self._known(name)
            await self._agents.check_free_to_go(name, force=force)
            async with self._provisioner().reach(agent, by) as host:
                report, warnings = await self._agents.withdraw(
                    name,
                    lambda: host.work("unprovision", Wanted(), force=force, progress=tell),
                    force=force,
                    keep=keep,
                )
            is_gone = await self._agents.known(name) is None
        removed = {"removed": name} if is_gone else {"kept": name}
        return _answer(_more(report, Report((), tuple(warnings))), removed, dry_run=False)

    async def update(self, name: str, by: Administrator, *, progress: Progress = lambda _: None) -> Mapping[str, Any]:
        tell = self._timed(progress)
        with self._alone(name):
            agent = await self._known(name)
            async with self._provisioner().reach(agent, by) as host:
                report = await host.work("update", Wanted(), progress=tell)
            tell({"stage": "agent", "text": "Taking it into use"})
            return _answer(report, await self._agents.look_again(name), dry_run=False)

    # --- parts --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        if name in self._at_work:
            raise Busy(f"The agent {name} is being provisioned already.", hint="Try again when that is done.")
        self._at_work.add(name)
        try:
            yield
        except ProxyError as error:
            words = " ".join(filter(None, (error.message, error.hint)))
            log.warn("agent {agent}: {words}", agent=name, words=words)
            raise
        finally:
            self._at_work.discard(name)

    def _timed(self, progress: Progress) -> Progress:
        begun = self._seconds()
        return lambda told: progress({**told, "ms": round((self._seconds() - begun) * 1000)})

    async def _known(self, name: str) -> RemoteAgent:
        agent = await self._agents.known(name)
        if agent is None:
            raise NotFound(f"There is no agent {name}.", hint="agent list shows all.")
        return agent

    async def _new(self, name: str, fields: Mapping[str, Any], known_hosts: bool) -> RemoteAgent:
        missing = [f"{field}=" for field in NEEDED if field not in fields]
        if missing:
            raise MissingArgument(
                f"There is no agent {name} yet: agent provision needs {' and '.join(missing)}.",
                hint="For example: host=192.0.2.10 key=/etc/ipmiproxyd/keys/east",
            )
        return await self._agents.trusted(checked(RemoteAgent(name=name, **fields)), known_hosts=known_hosts)

    async def _install(self, name: str, wanted: Sequence[str], progress: Progress) -> Report:
        """The Javas that are not there. One that cannot be installed is told, and the host is an agent all the same."""

        changes, warnings = [], []
        for java in wanted:
            listing = await self._javas.listing(name)
            if any(_is_meant(java, row["name"]) for row in listing["installed"]):
                continue
            there = [row["name"] for row in listing["available"] if row["there"] and _is_meant(java, row["name"])]
            progress({"stage": "java", "text": f"Installing the Java {java}"})
            try:
                done = await self._javas.install(name, *there[:1] or [java])
            except ProxyError as error:
                warnings.append(" ".join(filter(None, (error.message, error.hint))))
            else:
                changes.append(f"The Java {done['name']}")
        return Report(tuple(changes), tuple(warnings))


def _check(wanted: Wanted) -> None:
    """Raises BadValue for what no host would understand."""

    for field, kind in (("browser", BROWSER), ("repository", REPOSITORY)):
        try:
            kind(getattr(wanted, field))
        except kinds.KindError as error:
            ((_, words),) = error.mistakes
            raise BadValue(f"{field} {words}.") from None


def _is_meant(wanted: str, name: str) -> bool:
    """``wanted`` is a Java's name, or its number alone: 8 for jdk_8u121."""

    return wanted == name or (wanted.isdigit() and re.search(rf"_{wanted}(?:u|\Z)", name) is not None)


def _as_given(known: RemoteAgent, fields: Mapping[str, Any]) -> RemoteAgent:
    other = differing(known, fields)
    if other:
        raise BadValue(
            f"The agent {known.name} is known with another {' and another '.join(other)}.",
            hint=f"Leave that out, or change it first: agent set name={known.name} {other[0]}=…",
        )
    return known


def _more(report: Report, other: Report) -> Report:
    return Report((*report.changes, *other.changes), (*report.warnings, *other.warnings))


def _answer(report: Report, row: Mapping[str, Any], *, dry_run: bool) -> Mapping[str, Any]:
    warnings = [*report.warnings, *row.get("warnings", ())]
    told = {"changes": [*report.changes], "dry_run": dry_run, "warnings": warnings}
    return {**row, **(told if report.changes else {**told, "words": NOTHING})}
