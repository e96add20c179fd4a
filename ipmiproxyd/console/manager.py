"""All consoles: which one is reused, which other type is tried, and what becomes of those of an earlier run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ipmiproxyd.console.admission import Limits, admit
from ipmiproxyd.console.deadlines import Patience
from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.console.giving_back import GivingBack
from ipmiproxyd.console.ids import console_of, new_id
from ipmiproxyd.console.ledger import KIND as LEDGER_KIND
from ipmiproxyd.console.ledger import Ledger, Release
from ipmiproxyd.console.machine import Ending
from ipmiproxyd.console.requests import from_document, is_meant, kept_times, may_be_shared, names, to_document
from ipmiproxyd.console.session import ConsoleSession, label_of
from ipmiproxyd.console.sharing import Sharing
from ipmiproxyd.console.timing import limited
from ipmiproxyd.console.types import CANNOT_WORK, NAMES, Types, first_sentence, hindrance, still_worth, without_hopeless
from ipmiproxyd.errors import BadValue, Cancelled, NotFound, ProxyError, TimedOut
from ipmiproxyd.interfaces import Agent, Grants, Progress, RelayHost, Store, VncServer, agent_named, is_leaving
from ipmiproxyd.model import Console, ConsoleState, ConsoleType, Grant, Job, OpenRequest

KIND: Final = "console"
OF_THE_PAGE: Final = ("relay-port", "grants")
"""Kinds of records of what a console keeps where another type is tried."""
REMEMBERED: Final = 200
"""How many closed consoles ``console show`` still knows."""

SCREENSHOTS: Final = 4
"""How many screenshots are taken at a time; the others wait."""

SCREENSHOT_LIMIT: Final = 20.0
"""Seconds that one may take."""

BY_COMMAND: Final = "It was closed by a command."

_ID_LENGTH: Final = 10

log = Logger()

Stages = Callable[[ConsoleSession], Coroutine[Deferred[Any], Any, None]]
"""The stages of opening one type of console (see ``opening.py``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What consoles are made from and live in. ``capture`` takes a PNG of a VNC server's screen; ``releases`` give back
    what the stages of opening record in the ledger beside displays and jobs; ``types`` knows which ones are allowed;
    ``is_away`` tells of an agent, by name, whether it cannot be reached just now; ``trials`` are jobs that belong to no
    console, and are not ended for that."""

    store: Store
    agents: Mapping[str, Agent]
    displays: Mapping[str, DisplayPool]
    relay: RelayHost
    grants: Grants
    limits: Limits
    clock: IReactorTime
    capture: Callable[[VncServer], Awaitable[bytes]]
    types: Types
    releases: Mapping[str, Release] = field(default_factory=dict)
    is_away: Callable[[str], bool] = lambda _: False
    trials: Collection[str] = ()


class ConsoleManager:
    """Implements :class:`~ipmiproxyd.interfaces.Consoles`."""

    def __init__(self, around: Surroundings, stages: Mapping[str, Stages]) -> None:
        self._around = around
        self._stages = stages
        self._sessions: dict[str, ConsoleSession] = {}
        self._sharing = Sharing(around.grants, around.relay)
        self._screenshots = DeferredSemaphore(SCREENSHOTS)
        self._past: OrderedDict[str, Console] = OrderedDict()
        self._stopping = False
        gives_back = GivingBack(around.agents, around.displays, around.grants, self._sessions)
        self._releases = {**gives_back.releases(), **around.releases}

    # --- opening ------------------------------------------------------------------------------------------------------

    async def open(self, request: OpenRequest, progress: Progress) -> Mapping[str, Any]:
        request = self._checked(request)
        session, reused = await self._reuse_or_make(request)
        stop_telling = session.add_listener(progress)
        session.joined += 1
        try:
            await (session.when_ready() if request.wait else session.when_reachable())
            session.wanted = True
        except CancelledError:
            if session.joined == 1 and not session.wanted and session.state is ConsoleState.OPENING:
                session.close(Ending("cancelled", "The request to open it was given up."))
            raise
        finally:
            stop_telling()
            session.joined -= 1
        if session.ending is not None:
            await session.when_closed()
            raise _why(session.ending)
        return {
            "console": session.snapshot(),
            "url": self._sharing.owner_url(session),
            "reused": reused,
            "warnings": [
                *self._around.relay.warnings(session.has.port),
                *session.has.warnings,
                *kept_times(session, request),
            ],
        }

    def _checked(self, request: OpenRequest) -> OpenRequest:
        """Without types to fall back to in vain. Raises Forbidden, MissingArgument, BadValue and ToolMissing for a type
        that cannot be."""

        browser = agent_named(self._around.agents, request.agent).browser
        for wanted in (request.type, *request.fall_back):
            self._around.types.allow(wanted, request.agent)
            if wanted not in self._stages:
                raise BadValue(f"type: this gateway has no consoles of type {wanted}.")
        request = without_hopeless(request, browser)
        wrong = hindrance(request, browser)
        if wrong is not None and not request.fall_back:
            raise wrong
        return request

    async def _reuse_or_make(self, request: OpenRequest) -> tuple[ConsoleSession, bool]:
        alike = self._alike(request)
        same = [session for session in alike if may_be_shared(session, request)]
        if request.existing == "reuse" and same:
            return same[0], True
        while request.existing == "replace" and alike:
            await self._close_all(alike, Ending("replaced", "A new console to the same server took its place."))
            alike = self._alike(request)  # somebody else may have been quicker
        self._admit(request)
        return self._make(request), False

    def _alike(self, request: OpenRequest) -> list[ConsoleSession]:
        return [session for session in self._live() if is_meant(session, request)]

    def _admit(self, request: OpenRequest) -> None:
        if self._stopping:
            raise Cancelled("The gateway is being stopped and opens no more consoles.")
        admit(request, [session.request for session in self._sessions.values()], self._around.limits)

    def _make(self, request: OpenRequest) -> ConsoleSession:
        console_id = new_id(_ID_LENGTH)
        session = self._session(console_id, request)
        log.info(
            "console {console} opens: {type} to {device}, user {user!r}",
            console=console_id,
            type=request.type,
            device=label_of(request),
            user=request.user,
        )
        self._follow(session)
        session.begin(self._stored_and_staged(session))
        return session

    async def _stored_and_staged(self, session: ConsoleSession) -> None:
        left = list(session.request.fall_back)
        while (error := await self._tried(session, left)) is not None:
            left = still_worth(left, error)
            await self._fall_back(session, left.pop(0), error)

    async def _tried(self, session: ConsoleSession, others: Sequence[ConsoleType]) -> ProxyError | None:
        """Open it as the type that it is to be now. Returns why that cannot work, if others may."""

        await self._around.store.put(KIND, session.id, to_document(session.request, session.opened_at))
        agent = self._around.agents.get(session.request.agent)
        error = None if agent is None else hindrance(session.request, agent.browser)
        if error is None:
            try:
                await self._stages[session.request.type](session)
            except CANNOT_WORK as failed:
                error = failed
        if error is not None and not still_worth(others, error):
            raise error
        return error

    async def _fall_back(self, session: ConsoleSession, to: ConsoleType, error: ProxyError) -> None:
        """Have another type tried. The console keeps its page, and gives back what else it has got so far."""

        failed = NAMES[session.request.type]
        log.info("console {console}: the {failed}: {words}", console=session.id, failed=failed, words=error.message)
        words = f"The {failed} does not work here: {first_sentence(error.message)} The {NAMES[to]} is tried instead."
        session.stage("fall-back", words, failed=True)
        session.has.warnings.append(words)
        problems = await session.ledger.give_back(keep=OF_THE_PAGE)
        session.begin_anew(replace(session.request, type=to), signed_out=not problems)

    def _session(self, console_id: str, request: OpenRequest, opened_at: float | None = None) -> ConsoleSession:
        around = self._around
        session = ConsoleSession(
            console_id,
            request,
            Ledger(console_id, around.store, self._releases, around.clock),
            Patience(around.limits.unvisited, around.limits.abandoned, request.idle, request.max_time),
            around.clock,
            opened_at=opened_at,
        )
        session.on_closing = lambda ending: self._farewell(console_id, ending)
        session.is_agent_away = lambda: around.is_away(request.agent)
        self._sessions[console_id] = session
        return session

    def _follow(self, session: ConsoleSession) -> None:
        """Forget the session once it is gone."""

        async def bury() -> None:
            await session.when_gone()
            del self._sessions[session.id]
            self._past[session.id] = session.snapshot()
            while len(self._past) > REMEMBERED:
                self._past.popitem(last=False)
            await self._around.store.delete(KIND, session.id)

        Deferred.fromCoroutine(bury()).addErrback(
            lambda failure: log.failure("console {console}: forgetting it", failure, console=session.id)
        )

    # --- what the stages of opening ask for ---------------------------------------------------------------------------

    async def serve(self, session: ConsoleSession) -> None:
        """Give the session its page. Raises NoFreePort, and BadValue for a certificate that cannot be used."""

        request = session.request
        if request.encrypt:
            await self._around.relay.prepare(request.certificate)
        session.has.port = self._around.relay.open(session, request.certificate, encrypt=request.encrypt)

    def javas_in_use(self, agent: str) -> set[str]:
        """The homes of the Javas with which consoles run on an agent."""

        return {session.has.java for session in self._sessions.values() if session.request.agent == agent} - {""}

    # --- the other commands -------------------------------------------------------------------------------------------

    def list(self) -> Sequence[Console]:
        return [session.snapshot() for session in self._sessions.values()]

    def show(self, console_id: str) -> Console:
        session = self._sessions.get(console_id)
        if session is not None:
            return session.snapshot()
        if console_id in self._past:
            return self._past[console_id]
        raise _no_such(console_id)

    async def close(
        self, *, console_id: str = "", device: str = "", user: str = "", reason: str = "closed"
    ) -> Sequence[Console]:
        if console_id:
            if console_id in self._past:
                return [self._past[console_id]]
            if console_id not in self._sessions:
                raise _no_such(console_id)
            chosen = [self._sessions[console_id]]
        else:
            chosen = [
                session
                for session in self._sessions.values()
                if (device and device in names(session.request)) or (user and session.request.user == user)
            ]
        for session in chosen:
            session.close(self._ending_of(session, reason))
        await _all_closed(chosen)
        return [session.snapshot() for session in chosen]

    def _ending_of(self, session: ConsoleSession, reason: str) -> Ending:
        agent = session.request.agent
        if is_leaving(self._around.agents, agent):
            return Ending("agent-removed", f"The agent {agent}, on which it ran, was removed.")
        return Ending(reason, BY_COMMAND)

    def url(self, console_id: str) -> str:
        return self._sharing.owner_url(self._served(console_id))

    def share(self, console_id: str, *, user: str = "", control: bool = False, credentials: bool = False) -> Grant:
        return self._sharing.share(self._served(console_id), user=user, control=control, credentials=credentials)

    def grant_url(self, grant: Grant) -> str:
        return self._sharing.url(self._served(grant.console), grant)

    def grants(self, console_id: str) -> Sequence[Grant]:
        return self._sharing.all(self._open(console_id))

    def revoke(self, console_id: str, *, viewer: str = "", user: str = "") -> Sequence[Grant]:
        return self._sharing.revoke(self._open(console_id), viewer=viewer, user=user)

    async def screenshot(self, console_id: str) -> bytes:
        self._open(console_id).screen()  # what cannot be done is said before the turn comes
        await self._screenshots.acquire()
        try:
            screen = self._open(console_id).screen()
            late = TimedOut(f"The console's screen was not read within {SCREENSHOT_LIMIT:g} seconds.")
            return await limited(self._around.capture(screen), SCREENSHOT_LIMIT, self._around.clock, late)
        finally:
            self._screenshots.release()

    def extend(self, console_id: str, by: float) -> Console:
        session = self._open(console_id)
        session.extend(by)
        return session.snapshot()

    def _open(self, console_id: str) -> ConsoleSession:
        session = self._sessions.get(console_id)
        if session is None or session.ending is not None:
            self.show(console_id)
            raise NotFound(f"The console {console_id} is closed.", hint="Open a new one.")
        return session

    def _served(self, console_id: str) -> ConsoleSession:
        session = self._open(console_id)
        if session.has.port is None:
            raise NotFound(f"The console {console_id} has no page yet.", hint="Try again in a moment.")
        return session

    def _live(self) -> Sequence[ConsoleSession]:
        return [session for session in self._sessions.values() if session.ending is None]

    # --- the daemon's start and end -----------------------------------------------------------------------------------

    def job_ended(self, job: Job) -> None:
        """The agent tells that a console's programs are gone. Before they are up, that is the opening's affair."""

        session = self._sessions.get(console_of(job.id))
        if session is None:
            return
        reason = session.has.ended[job.id] = job.reason or "The console's programs ended."
        if session.has.job == job.id:
            session.close(Ending("job-failed", reason))

    async def recover(self) -> int:
        """Begin to close whatever an earlier run of the daemon left behind; on an agent that is done, as far as it can
        be, when :meth:`reconcile` is. Returns how many consoles that are."""

        stored = await self._around.store.list(KIND)
        ledgers = {name.partition("/")[0] for name in await self._around.store.list(LEDGER_KIND)}
        for console_id in sorted(ledgers | stored.keys()):
            session = self._session(console_id, *from_document(stored.get(console_id, {})))
            self._follow(session)
            session.close(Ending("restart", "The gateway was restarted."))
        return len(self._sessions)

    async def reconcile(self, agent: Agent) -> None:
        """An agent is there (again): give back what could not be given back there, and end what runs on it and belongs
        to no console."""

        ending = [one for one in self._sessions.values() if one.request.agent == agent.name and one.ending is not None]
        for one in ending:
            one.try_again()
        await gatherResults([one.when_closed() for one in ending], consumeErrors=True)
        try:
            await self.tidy(agent)
        except ProxyError as error:
            log.warn("agent {agent}: {error}", agent=agent.name, error=error.message)

    async def tidy(self, agent: Agent) -> Sequence[str]:
        ended = []
        for job in await agent.jobs():
            if job.id in self._around.trials:
                continue
            session = self._sessions.get(console_of(job.id))
            # One of another agent that there is stays: that may be the same host by another name.
            if session is None or session.request.agent not in self._around.agents:
                await agent.stop(job.id)
                ended.append(f"job {job.id}: {job.reason or 'it belonged to no console'}")
            elif session.has.job == job.id and not job.running:
                self.job_ended(job)  # the watch may not have seen it yet, and never will once it is swept
        removed = [*ended, *await agent.sweep()]
        for words in removed:
            log.info("agent {agent}: cleared away {words}", agent=agent.name, words=words)
        return removed

    async def close_all(self, ending: Ending) -> None:
        """The daemon ends: close every console and wait until all is given back (or put off)."""

        self._stopping = True
        await self._close_all(list(self._sessions.values()), ending)

    async def leave(self) -> None:
        """The daemon ends, the consoles' programs go on: only what is half open is closed."""

        self._stopping = True
        half = [session for session in self._sessions.values() if session.state is not ConsoleState.READY]
        if len(half) < len(self._sessions):
            log.warn(
                "{count} consoles' programs go on; the next start closes them (daemon stop would have)",
                count=len(self._sessions) - len(half),
            )
        await self._close_all(half, Ending("shutdown", "The gateway was stopped."))
        for session in self._sessions.values():
            session.let_go()
        await gatherResults(
            [
                session.has.port.close("restart", "The gateway is being restarted.")
                for session in self._sessions.values()
                if session.has.port is not None
            ],
            consumeErrors=True,
        )

    async def _close_all(self, sessions: Sequence[ConsoleSession], ending: Ending) -> None:
        for session in sessions:
            session.close(ending)
        await _all_closed(sessions)

    def _farewell(self, console_id: str, ending: Ending) -> None:
        """The viewers are told at once; the rest may take a moment."""

        port = self._sessions[console_id].has.port
        if port is not None:
            port.close(ending.reason, ending.message)


async def _all_closed(sessions: Sequence[ConsoleSession]) -> None:
    await gatherResults([session.when_closed() for session in sessions], consumeErrors=True)


def _why(ending: Ending) -> ProxyError:
    if ending.error is None:
        return Cancelled(f"The console was closed while it was being opened: {ending.message}")
    return ending.error.again()


def _no_such(console_id: str) -> NotFound:
    return NotFound(f"There is no console {console_id}.", hint="console list shows those that are open.")
