"""One SSH connection to one agent: dialled, signed in, kept alive, and dialled again when it is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from twisted.conch.error import ConchError
from twisted.conch.ssh.transport import DISCONNECT_BY_APPLICATION
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ipmiproxyd.agents.children import shielded
from ipmiproxyd.agents.known_hosts import known_host
from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_keys import Identity, identities
from ipmiproxyd.agents.ssh_transport import HOST_KEYS, Transport, host_key_problem
from ipmiproxyd.agents.with_runner import tcp_endpoint
from ipmiproxyd.errors import AgentUnreachable, HostKeyChanged, HostKeyUnknown, KeyRefused, ProxyError
from ipmiproxyd.model import RemoteAgent, Secret

SIGN_IN_LIMIT: Final = 15.0
"""Seconds from the TCP connection until we are signed in."""
BACK_OFF: Final = (0.5, 30.0)
"""Seconds until it is dialled again: the first time, and at most."""
FRESH: Final = 2.0
"""Seconds for which an attempt that failed answers whoever asks; afterwards it is dialled at once for them."""
STANDING: Final = (KeyRefused, HostKeyChanged, HostKeyUnknown)
"""Problems that answer until it is dialled again: they do not go away by themselves, and hosts shut out whoever signs
in with a wrong key too often."""
BEAT: Final = 4.0
"""Seconds between two questions whether the agent is still there."""
MISSED: Final = 3
"""So many of them without a byte in answer, and the connection is given up."""
GOODBYE: Final = 2.0

log = Logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SshPlace:
    """Where an agent is, and how to sign in there.

    :ivar key: the file of the private key, or SSH_AGENT; ``passphrase`` where it is encrypted.
    :ivar host_keys: fingerprints ("SHA256:…") of the host's keys that are trusted.
    :ivar known_hosts: files of known hosts: the keys that they call revoked are not.
    """

    host: str
    port: int = 22
    user: str
    key: Path | str
    passphrase: Secret = field(default_factory=lambda: Secret(""))
    host_keys: tuple[str, ...] = ()
    known_hosts: tuple[Path, ...] = ()

    @classmethod
    def of(cls, agent: RemoteAgent, known_hosts: tuple[Path, ...]) -> SshPlace:
        return cls(
            host=agent.host,
            port=agent.port,
            user=agent.user,
            key=agent.key,
            passphrase=agent.passphrase,
            host_keys=agent.host_keys,
            known_hosts=known_hosts,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 22 else f"{host}:{self.port}"


class Link:
    """Keeps the connection.

    :param greet: what is to be done on each new connection before others use it; a ProxyError of it closes the
        connection again.
    :ivar problem: why there is no connection just now.
    :ivar since: when the connection came to be, or was lost, or was first tried: seconds since the epoch.
    """

    def __init__(
        self, name: str, place: SshPlace, reactor: Any, greet: Callable[[Connection], Coroutine[Any, Any, None]]
    ) -> None:
        self.problem: ProxyError | None = None
        self.since = reactor.seconds()
        self._name = name
        self._place = place
        self._reactor = reactor
        self._greet = greet
        self._connection: Connection | None = None
        self._transport: Transport | None = None
        self._keeping: Deferred[None] | None = None
        self._pausing: Deferred[None] | None = None
        self._dialling: Deferred[Deferred[ProxyError]] | None = None
        self._failed_at = -FRESH
        self._moved = False  # whatever is being dialled, or was, is not the place any more
        self._kind = ""  # of the host key that is trusted, once it is known
        self._waiting: list[tuple[Deferred[Connection], bool]] = []

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    def start(self) -> None:
        self._keeping = Deferred()  # the coroutine looks at it
        self._keeping = Deferred.fromCoroutine(self._keep())
        self._keeping.addErrback(lambda failure: log.failure("agent {agent}", failure, agent=self._name))

    async def close(self) -> None:
        """End the connection, for good."""

        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            done: Deferred[None] = Deferred()
            keeping.addBoth(lambda _: done.callback(None))
            keeping.cancel()
            await done
        self._answer(AgentUnreachable(f"The agent {self._name} is not used any more."), patient=True)

    def connection(self, *, patient: bool = False) -> Deferred[Connection]:
        """The connection, once it is up. Fails with what stands in its way, unless ``patient``: then it waits as long
        as it takes. May be cancelled."""

        waiting: Deferred[Connection] = Deferred(self._waits_no_more)
        if self._connection is not None:
            waiting.callback(self._connection)
        elif self._keeping is None:
            waiting.errback(AgentUnreachable(f"The agent {self._name} is not used any more."))
        elif patient or self._pausing is None:
            self._waiting.append((waiting, patient))
        elif self.problem is not None and self._still_holds(self.problem):
            waiting.errback(self.problem.again())
        else:
            self._waiting.append((waiting, patient))
            self._dial_now()
        return waiting

    def _waits_no_more(self, waiting: Deferred[Connection]) -> None:
        self._waiting = [entry for entry in self._waiting if entry[0] is not waiting]

    def _still_holds(self, problem: ProxyError) -> bool:
        return isinstance(problem, STANDING) or self._reactor.seconds() < self._failed_at + FRESH

    def move(self, place: SshPlace) -> None:
        """Connect to this place from now on. What stood in the way at the other one is forgotten."""

        self._place, self._kind = place, ""
        self._moved = self._keeping is not None and self._pausing is None
        self._connection = self.problem = None
        if self._transport is not None:
            self._transport.abort(AgentUnreachable(f"The agent {self._name} was changed, and is connected anew."))
        elif self._dialling is not None:
            self._dialling.cancel()
        self._dial_now()

    def redial(self) -> None:
        """What stood in the way may be gone: try again at once, and let those who ask wait for it."""

        self._failed_at = -FRESH
        self._dial_now()

    async def dialled_now(self) -> Connection:
        """The connection; where there is none, what comes of dialling from now on: what an attempt met with that had
        begun before does not count."""

        is_late = not self.is_up and self._pausing is None
        self.redial()
        try:
            return await self.connection()
        except ProxyError:
            if not is_late:
                raise
        self.redial()
        return await self.connection()

    @property
    def transport(self) -> Transport | None:
        """Of the connection, while there is one."""

        return self._transport

    def _dial_now(self) -> None:
        pausing, self._pausing = self._pausing, None
        if pausing is not None:
            pausing.callback(None)

    # --- keeping it ---------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause = BACK_OFF[0]
        try:
            while True:
                try:
                    self._dialling = Deferred.fromCoroutine(self._dial())
                    lost = await self._dialling
                    self._check_closed()
                    pause = BACK_OFF[0]
                    problem = await shielded(lost)
                    self._failed_at = -FRESH
                except ProxyError as error:
                    problem, self._failed_at = error, self._reactor.seconds()
                except CancelledError:
                    if not self._moved:
                        raise
                except Exception:
                    log.failure("agent {agent}: the connection was not made", agent=self._name)
                    problem = AgentUnreachable(f"The agent {self._name} cannot be used: see the log.")
                    self._failed_at = self._reactor.seconds()
                if self._moved:
                    self._moved, self._connection, self._transport = False, None, None
                    pause = BACK_OFF[0]
                    self._check_closed()
                    continue
                pausing = self._down(problem)
                self._check_closed()
                await self._pause(pausing, pause)
                pause = min(2 * pause, BACK_OFF[1])
        except CancelledError:
            if self._transport is not None:
                await self._goodbye(self._transport)

    def _check_closed(self) -> None:
        """Whoever was told something may have closed this while it ran, which cannot be cancelled then."""

        if self._keeping is None:
            raise CancelledError

    async def _goodbye(self, transport: Transport) -> None:
        self._connection, self._transport = None, None
        timer = self._reactor.callLater(GOODBYE, transport.abort, AgentUnreachable("It did not hang up."))
        transport.sendDisconnect(DISCONNECT_BY_APPLICATION, b"")
        await shielded(transport.lost)
        if timer.active():
            timer.cancel()

    def _down(self, problem: ProxyError) -> Deferred[None]:
        """There is no connection. Fires when it is time to dial again."""

        if self.problem is None or self.problem.message != problem.message:
            words = " ".join(filter(None, (problem.message, problem.hint)))
            log.warn("agent {agent}: {words}", agent=self._name, words=words)
        if self.problem is None:
            self.since = self._reactor.seconds()
        self._connection, self._transport = None, None
        self.problem = problem
        pausing = self._pausing = Deferred()  # who is told may ask again at once
        self._answer(problem, patient=False)
        return pausing

    async def _pause(self, pausing: Deferred[None], seconds: float) -> None:
        timer: IDelayedCall = self._reactor.callLater(seconds, self._dial_now)
        try:
            await pausing
        finally:
            self._pausing = None
            if timer.active():
                timer.cancel()

    async def _dial(self) -> Deferred[ProxyError]:
        """Connect, sign in and greet; fires when the connection is lost. Raises ProxyError."""

        place = self._place
        transport = await sign_in(self._reactor, self._name, place, prefer=self._kind)
        self._kind = transport.kind
        try:
            await _first(Deferred.fromCoroutine(self._greet(transport.connection)), transport.lost)
        except BaseException:
            await hang_up(transport)
            raise
        if self._moved:
            transport.abort(AgentUnreachable(f"The agent {self._name} was changed meanwhile."))
            raise await shielded(transport.lost)
        self.since = self._reactor.seconds()
        self._transport, self._connection, self.problem = transport, transport.connection, None
        log.info("agent {agent}: connected to {place}", agent=self._name, place=str(place))
        beat = Beat(self._reactor, transport, self._name)
        beat.start()
        transport.lost.addBoth(beat.stop)
        self._answer(None, patient=True)
        return transport.lost

    def _answer(self, problem: ProxyError | None, *, patient: bool) -> None:
        """Tell those who wait: that it is up, or else what the problem is (only to the patient if ``patient``)."""

        waiting, self._waiting = self._waiting, []
        for one, is_patient in waiting:
            if one.called:
                continue  # one that was told before has cancelled it
            if problem is None and self._connection is not None:
                one.callback(self._connection)
            elif problem is not None and (patient or not is_patient):
                one.errback(problem.again())
            else:
                self._waiting.append((one, is_patient))


async def sign_in(reactor: Any, name: str, place: SshPlace, *, prefer: str = "") -> Transport:
    """A new connection that is signed in. Whoever gets it closes it. Raises ProxyError.

    A host has several kinds of host keys, and shows one: where that is not trusted, the others are asked for, too.

    :param prefer: the kind of host key to ask for first.
    """

    revoked = (await deferToThread(known_host, place.known_hosts, place.host, place.port)).revoked
    trusted = [key for key in place.host_keys if key not in revoked]
    async with identities(reactor, str(place.key), place.passphrase) as keys:
        shown: dict[str, str] = {}
        kinds: Sequence[str] = sorted(HOST_KEYS, key=lambda kind: kind != prefer)
        while True:
            transport = Transport(str(place), place.user, keys, trusted, kinds)
            try:
                await _connect(reactor, name, place, transport)
            except (HostKeyChanged, HostKeyUnknown) as error:
                check_revoked(str(place), [transport.shown], revoked)
                shown[transport.kind] = transport.shown
                kinds = [kind for kind in transport.other_kinds() if kind not in shown]
                if not kinds:
                    raise host_key_problem(str(place), shown, place.host_keys) from error
            else:
                return transport


def check_revoked(place: str, keys: Collection[str], revoked: Collection[str]) -> None:
    """Raises HostKeyChanged if one of these keys (fingerprints) of a host was revoked."""

    if found := [key for key in keys if key in revoked]:
        raise HostKeyChanged(
            f"{place} has a host key that the file of known hosts calls revoked: {', '.join(found)}.",
            hint="Give the host a new key, or find out whether it is the right host.",
        )


async def shown_host_keys(reactor: Any, name: str, place: SshPlace) -> Mapping[str, str]:
    """The host's keys, of each kind that it has: kind → fingerprint. Nobody signs in. Raises ProxyError."""

    shown: dict[str, str] = {}
    kinds: Sequence[str] = tuple(HOST_KEYS)
    keys: Sequence[Identity] = ()
    while kinds:
        transport = Transport(str(place), place.user, keys, (), kinds)
        try:
            await _connect(reactor, name, place, transport)
        except HostKeyUnknown:
            shown[transport.kind] = transport.shown
        kinds = [kind for kind in transport.other_kinds() if kind not in shown]
    return shown


async def _connect(reactor: Any, name: str, place: SshPlace, transport: Transport) -> None:
    """Connect and sign in; a transport that has not come so far is closed. Raises ProxyError."""

    try:
        await tcp_endpoint(reactor, place.host, place.port).connect(_Once(transport))
    except ConnectingCancelledError:
        raise CancelledError from None
    except (ConnectError, DNSLookupError, OSError) as error:
        raise AgentUnreachable(
            f"The agent {name} ({place.host}, port {place.port}) cannot be reached: {_reason(error)}.",
            hint="Check its address and port, the network between, and that its sshd runs.",
        ) from None
    slow = AgentUnreachable(
        f"The agent {name} ({place}) did not let us in within {SIGN_IN_LIMIT:g} s.",
        hint=f"See that an sshd listens at port {place.port} there, and that it is not overloaded (its UseDNS, PAM).",
    )
    timer = reactor.callLater(SIGN_IN_LIMIT, transport.abort, slow)
    try:
        await _first(transport.connection.started, transport.lost)
    except BaseException:
        await hang_up(transport)
        raise
    finally:
        if timer.active():
            timer.cancel()


async def hang_up(transport: Transport) -> None:
    """End a connection at once, and wait for that."""

    if not transport.lost.called:
        transport.abort(AgentUnreachable("The connection was closed."))
        await shielded(transport.lost)


class Beat:
    """Asks now and then whether the agent is still there."""

    def __init__(self, reactor: Any, transport: Transport, name: str) -> None:
        self._reactor = reactor
        self._transport = transport
        self._name = name
        self._heard = transport.heard
        self._missed = 0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        self._timer = self._reactor.callLater(BEAT, self._beat)

    def stop(self, result: Any) -> Any:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        return result

    def _beat(self) -> None:
        self.start()
        heard = self._transport.heard
        self._missed = 0 if heard != self._heard else self._missed + 1
        self._heard = heard
        if self._missed >= MISSED:
            words = f"The agent {self._name} has not answered for {BEAT * MISSED:g} s."
            self._transport.abort(AgentUnreachable(words))
            return
        connection: Any = self._transport.connection
        asked = connection.sendGlobalRequest(b"keepalive@openssh.com", b"", wantReply=1)
        asked.addErrback(lambda failure: failure.trap(ConchError))  # to fail it is its way to answer


class _Once(Factory):
    noisy = False

    def __init__(self, transport: Transport) -> None:
        self._only = transport

    def buildProtocol(self, _addr: Any) -> Transport:
        return self._only


async def _first(wanted: Deferred[Any], lost: Deferred[ProxyError]) -> None:
    """Wait for ``wanted``; raises what ``lost`` fires with, if that comes first. Cancelling cancels ``wanted``."""

    either: Deferred[None] = Deferred(lambda _: wanted.cancel())

    def got(result: Any) -> None:
        if not either.called:
            either.callback(result)

    def gone(problem: ProxyError) -> ProxyError:
        if not either.called:
            either.errback(problem)
            wanted.cancel()
        return problem

    lost.addCallback(gone)
    wanted.addBoth(got)
    await either


def _reason(error: Exception) -> str:
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return str(getattr(error, "strerror", None) or error).rstrip(".")
