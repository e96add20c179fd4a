"""What operators do with the hosts of agents: from a bare one to an agent, and back."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import fields as fields_of
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ipmiproxyd.agents.children import shielded
from ipmiproxyd.console.agent_desk import AgentDesk
from ipmiproxyd.errors import (
    BadRequest,
    BadValue,
    Busy,
    Exists,
    InUse,
    MissingArgument,
    NotFound,
    ProxyError,
    SystemUnsupported,
)
from ipmiproxyd.interfaces import Javas, Progress
from ipmiproxyd.model import Administrator, Errand, RemoteAgent, Report, Secret, Verb, Wanted
from ipmiproxyd.wire.agent import changed, checked, differing, to_document
from ipmiproxyd.wire.provision import check_administrator, check_agent, check_wanted

NEEDED: Final = ("host", "key")
"""Fields without which nothing can be begun."""
NOTHING: Final = "Nothing had to be changed."
NOTHING_THERE: Final = "Nothing of it is there."
GOES_ON: Final = "The host ends what it has begun, such as packages: say the same line again in a minute or two."
GOES_ON_WHOLE: Final = "The daemon goes on with it to its end: say the same line again in a minute or two."
NO_CHANGE: Final = "Nothing was changed."
"""Of a request that nobody waits for any more."""
UNTOUCHED: Final = (BadRequest, BadValue, Busy, Exists, InUse, SystemUnsupported)
"""Refusals at which nothing has been changed on a host, or at which what is there is another agent's."""

log = Logger()


class Reached(Protocol):
    """A host, where an administrator is signed in, and root or able to become it."""

    async def work(
        self, verb: Verb, wanted: Wanted, *, dry_run: bool = False, force: bool = False, progress: Progress
    ) -> Report: ...

    async def kin(self) -> Sequence[str]:
        """Other accounts there that were provisioned for the agent's key; once ``work`` is done."""


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

    async def provision(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        name, wanted, dry_run = errand.name, errand.wanted, errand.dry_run
        tell = self._timed(progress, NO_CHANGE if dry_run else GOES_ON)
        check_wanted(wanted)
        check_administrator(errand.by)
        with self._alone(name):
            known, agent = await self._meant(errand)
            has_other_browser = known is not None and known.browser != agent.browser
            if has_other_browser:
                await self._agents.check_changeable(name)
            way_back = "" if known or dry_run else _way_back(agent, errand.by)
            async with self._provisioner().reach(agent, errand.by) as host:
                with _hinting(way_back):
                    report = await host.work("provision", wanted, dry_run=dry_run, progress=tell)
                kin = await self._kin(host, agent)
            stored = (f"What is stored of its browser: {agent.browser}",) if has_other_browser else ()
            report = _more(report, Report(stored, tuple(kin)))
            if dry_run:
                row = {"name": name} if known is None else await self._agents.show(name)
                later = tuple(f"The Java {java}, if it is not there" for java in wanted.javas)
                return _answer(_more(report, Report(later)), row, dry_run=True)
            tell({"stage": "agent", "text": f"Signing in as {agent.user}"})
            with _hinting(" ".join(filter(None, (*kin, way_back)))):
                if has_other_browser:
                    await self._agents.change(name, {"browser": agent.browser}, check=False)
                row = await (self._agents.add(agent) if known is None else self._agents.look_again(name))
            javas = await self._install(name, wanted.javas, tell)
            return _answer(_more(report, javas), row, dry_run=False)

    async def unprovision(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        check_wanted(errand.wanted)
        check_administrator(errand.by)
        tell = self._timed(progress, NO_CHANGE if errand.dry_run else GOES_ON_WHOLE)
        return await shielded(Deferred.fromCoroutine(self._unprovision(errand, tell)))

    async def _unprovision(self, errand: Errand, tell: Progress) -> Mapping[str, Any]:
        name, dry_run, force = errand.name, errand.dry_run, errand.force

        async def work(host: Reached) -> Report:
            return await host.work("unprovision", errand.wanted, dry_run=dry_run, force=force, progress=tell)

        with self._alone(name):
            if await self._agents.known(name) is None and not errand.fields:
                raise NotFound(
                    f"There is no agent {name}.",
                    hint="agent list shows all. For a host without one say host=, key= and user=, as agent provision.",
                )
            known, agent = await self._meant(errand)
            await self._check_not_shared(agent)
            if known is not None:
                await self._agents.check_free_to_go(name, force=force)
            async with self._provisioner().reach(agent, errand.by) as host:
                if known is not None and not dry_run:
                    return await self._withdraw(errand, lambda: work(host))
                row = {"host": agent.host} if known is None else {"name": name}
                return _answer(await work(host), row, dry_run=dry_run, nothing=NOTHING_THERE)

    async def _withdraw(
        self, errand: Errand, work: Callable[[], Coroutine[Any, Any, Report]]
    ) -> Mapping[str, Any]:
        name = errand.name
        with _hinting(
            f"The agent {name} is still known: say agent unprovision again to go on, or agent provision "
            f"name={name} to have it whole."
        ):
            report, warnings = await self._agents.withdraw(name, work, force=errand.force, keep=errand.keep)
        is_gone = await self._agents.known(name) is None
        removed = {"removed": name} if is_gone else {"kept": name}
        return _answer(_more(report, Report((), tuple(warnings))), removed, dry_run=False, nothing=NOTHING_THERE)

    async def update(self, errand: Errand, progress: Progress) -> Mapping[str, Any]:
        name = errand.name
        tell = self._timed(progress)
        check_administrator(errand.by)
        with self._alone(name):
            agent = await self._known(name)
            check_agent(agent)
            async with self._provisioner().reach(agent, errand.by) as host:
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

    def _timed(self, progress: Progress, broken_off: str = GOES_ON) -> Progress:
        """:param broken_off: what happens if nobody waits for it any more; told once, when the work has begun."""

        begun, more = self._seconds(), {"broken_off": broken_off}

        def tell(told: Mapping[str, Any]) -> None:
            progress({**told, "ms": round((self._seconds() - begun) * 1000), **more})
            more.clear()

        return tell

    async def _meant(self, errand: Errand) -> tuple[RemoteAgent | None, RemoteAgent]:
        """The agent that is known by this name, if any, and the one that it is about."""

        known = await self._agents.known(errand.name)
        if known is None:
            agent = await self._new(errand.name, errand.fields, errand.known_hosts)
        else:
            agent = _as_given(known, errand.fields)
        check_agent(agent)
        return known, agent

    async def _known(self, name: str) -> RemoteAgent:
        agent = await self._agents.known(name)
        if agent is None:
            raise NotFound(f"There is no agent {name}.", hint="agent list shows all.")
        return agent

    async def _new(self, name: str, fields: Mapping[str, Any], known_hosts: bool) -> RemoteAgent:
        missing = [f"{field}=" for field in NEEDED if field not in fields]
        if missing:
            raise MissingArgument(
                f"There is no agent {name} yet: {' and '.join(missing)} {'are' if missing[1:] else 'is'} needed, too.",
                hint="For example: host=192.0.2.10 key=/etc/ipmiproxyd/keys/agents",
            )
        agent = checked(RemoteAgent(name=name, **fields))
        check_agent(agent)
        return await self._agents.trusted(agent, known_hosts=known_hosts)

    async def _check_not_shared(self, agent: RemoteAgent) -> None:
        """Nothing of another agent's is taken away."""

        others = await self._agents.of_account(agent, agent.user)
        if others:
            raise InUse(
                f"The account {agent.user} at {agent.host} is that of the agent {others[0]}.",
                hint=f"agent unprovision name={others[0]} takes it back; agent remove only forgets an agent.",
            )

    async def _kin(self, host: Reached, agent: RemoteAgent) -> Sequence[str]:
        """Warns of what another account there has of us, and no agent uses: nobody would think of it again."""

        return [
            f"The account {user} there was provisioned for the same key, and no agent uses it. To take that back: "
            f"agent unprovision name={agent.name}-{user} host={agent.host} key={shlex.quote(agent.key)} user={user}"
            for user in await host.kin()
            if not await self._agents.of_account(agent, user)
        ]

    async def _install(self, name: str, wanted: Sequence[str], progress: Progress) -> Report:
        """The Javas that are not there. One that cannot be installed is told, and the host is an agent all the same."""

        changes, warnings = [], []
        for java in wanted:
            try:
                done = await self._install_one(name, java, progress)
            except ProxyError as error:
                warnings.append(" ".join(filter(None, (error.message, error.hint))))
            else:
                changes += [f"The Java {done}"] if done else []
        return Report(tuple(changes), tuple(warnings))

    async def _install_one(self, name: str, java: str, progress: Progress) -> str:
        """What was installed; "" where it is there."""

        listing = await self._javas.listing(name)
        if any(_is_meant(java, row["name"]) for row in listing["installed"]):
            return ""
        there = [row["name"] for row in listing["available"] if row["there"] and _is_meant(java, row["name"])]
        progress({"stage": "java", "text": f"Installing the Java {java}"})
        done = await self._javas.install(name, *there[:1] or [java])
        return str(done["name"])


@contextmanager
def _hinting(words: str) -> Iterator[None]:
    """Adds to the hint of what goes wrong once a host may have been changed."""

    try:
        yield
    except ProxyError as error:
        if not words or isinstance(error, UNTOUCHED):
            raise
        own = error.hint or ""
        hint = f"{own}{'' if own.endswith(('.', '?', '!')) else '.'} {words}" if own else words
        raise type(error)(error.message, hint=hint, details=error.details) from error


def _way_back(agent: RemoteAgent, by: Administrator) -> str:
    usual = {field.name: field.default for field in fields_of(RemoteAgent)}
    usual |= {"notes": agent.notes, "as": Administrator().user}
    host_key = ",".join(agent.host_keys)
    of_agent = {name: value for name, value in to_document(agent).items() if name != "host_keys"}
    of_by = {"as": by.user, "as_key": by.key, "as_passphrase": by.passphrase, "sudo_password": by.sudo_password}
    line = " ".join(
        f"{name}={'-' if isinstance(value, Secret) else shlex.quote(str(value))}"
        for name, value in {**of_agent, "host_key": host_key, **of_by}.items()
        if value and value != usual.get(name)
    )
    return f"To take back what was changed there: agent unprovision {line}"


def _is_meant(wanted: str, name: str) -> bool:
    """``wanted`` is a Java's name, or its number alone: 8 for jdk_8u121."""

    return wanted == name or (wanted.isdigit() and re.search(rf"_{wanted}(?:u|\Z)", name) is not None)


def _as_given(known: RemoteAgent, fields: Mapping[str, Any]) -> RemoteAgent:
    """The known one; its browser may be another."""

    other = [name for name in differing(known, fields) if name != "browser"]
    if other:
        raise BadValue(
            f"The agent {known.name} is known with another {' and another '.join(other)}.",
            hint=f"Leave that out, or change it first: agent set name={known.name} {other[0]}=…",
        )
    return changed(known, {name: value for name, value in fields.items() if name == "browser"})


def _more(report: Report, other: Report) -> Report:
    return Report((*report.changes, *other.changes), (*report.warnings, *other.warnings))


def _answer(
    report: Report, row: Mapping[str, Any], *, dry_run: bool, nothing: str = NOTHING
) -> Mapping[str, Any]:
    warnings = [*report.warnings, *row.get("warnings", ())]
    told = {"changes": [*report.changes], "dry_run": dry_run, "warnings": warnings}
    return {**row, **(told if report.changes else {**told, "words": nothing})}
