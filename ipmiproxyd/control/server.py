"""The control protocol's server: one coroutine per connection reads a line, answers it, and reads the next.

What holds whom back:

- reading stops while as much as a whole longest line waits to be answered;
- the next line is not looked at before the transport has passed on the last reply, so that a connection holds at most
  one reply; progress lines are left out while the transport is full;
- after a few lines in one go the other connections get their turn.
"""

from __future__ import annotations

import enum
import select
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ipmiproxyd.control.declare import Call, Command, CommandTable
from ipmiproxyd.errors import BadRequest, Cancelled, InternalError, LimitReached, ProxyError
from ipmiproxyd.wire.control import (
    MAX_LINE,
    CutOff,
    Help,
    Line,
    LineEvent,
    LineSplitter,
    Quit,
    Request,
    TooLong,
    format_done,
    format_greeting,
    format_progress,
    format_refused,
    parse_request,
)

log = Logger()

_TURN: Final = 16  # lines that are answered before others get their turn
_LOOK: Final = 0.5  # seconds between looks at whether a client that is not read from is still there


def hung_up(transport: object) -> bool:
    """Has the peer closed both of its directions? Also true where the descriptor is no longer watched for reading."""

    fileno = getattr(transport, "fileno", None)
    if fileno is None:
        return False
    poll = select.poll()
    try:
        poll.register(fileno(), 0)  # POLLHUP and POLLERR are always told
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True


class IControlTransport(ITCPTransport, IConsumer, IPushProducer):
    """What a connection needs of its transport: TCP, UNIX and TLS have it."""


class _Phase(enum.Enum):
    """Where a connection is in its life."""

    OPEN = "open"  # more requests may come
    ENDED = "ended"  # the client sends no more; what it has sent is answered
    STOPPING = "stopping"  # the daemon stops; what waits is answered "cancelled"
    GONE = "gone"  # nobody is there to be answered


@implementer(IHalfCloseableProtocol, IPushProducer)
class ControlConnection(Protocol):
    """One client. Made by :class:`ControlServer`."""

    transport: IControlTransport

    def __init__(self, server: ControlServer, number: int) -> None:
        self._server = server
        self._number = number
        self._phase = _Phase.OPEN
        self._lines = LineSplitter()
        self._reading = True
        self._answered = 0
        self._arrived: Deferred[None] | None = None  # awaited by the loop: a line, or the end
        self._drained: Deferred[None] | None = None  # set while the transport is full
        self._running: Deferred[Mapping[str, Any]] | None = None
        self._closing: IDelayedCall | None = None
        self._lost: list[Deferred[None]] = []

    # --- what the transport tells ---

    def connectionMade(self) -> None:
        self._server.joined(self)
        self.transport.registerProducer(self, True)
        Deferred.fromCoroutine(self._serve()).addErrback(self._broken)

    def dataReceived(self, data: bytes) -> None:
        if self._phase is _Phase.OPEN:
            self._lines.feed(data)
            self._regulate()
            self._wake()

    def readConnectionLost(self) -> None:
        if self._server.hung_up(self.transport):
            self.transport.abortConnection()
        elif self._phase is _Phase.OPEN:
            self._phase = _Phase.ENDED
            self._reading = False
            self._lines.end()
            self._wake()

    def writeConnectionLost(self) -> None:
        """Only told after we ourselves have closed that direction, which we never do alone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        log.debug("control connection {number} lost: {reason}", number=self._number, reason=reason.getErrorMessage())
        self._phase = _Phase.GONE
        self._server.left(self)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._cancel()
        self._wake()
        self.resumeProducing()
        waiting, self._lost = self._lost, []
        for deferred in waiting:
            deferred.callback(None)

    def pauseProducing(self) -> None:
        """The transport is full."""

        if self._drained is None:
            self._drained = Deferred()

    def resumeProducing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    def stopProducing(self) -> None:
        """connectionLost follows."""

    # --- what the server tells ---

    def stop(self) -> Deferred[None]:
        """Cancel what runs, answer what waits, and close; fires when the connection is lost."""

        gone: Deferred[None] = Deferred()
        if self._phase is _Phase.GONE:
            gone.callback(None)
            return gone
        self._lost.append(gone)
        self._phase = _Phase.STOPPING
        self._regulate()
        self._cancel()
        self._wake()
        return gone

    def abort(self) -> None:
        """Close without waiting for the client."""

        self.transport.abortConnection()

    # --- the loop ---

    async def _serve(self) -> None:
        self.transport.write(format_greeting(self._server.version))
        while True:
            event = await self._next_event()
            if event is None:
                break
            self._answered += 1
            more = await self._answer(event)
            if not more:
                break
            if self._answered % _TURN == 0:
                await deferLater(self._server.clock, 0)
        self._finish()

    def _finish(self) -> None:
        """Close once the client has taken the last reply. It has its time for that, too."""

        if self._phase is _Phase.GONE:
            return
        if self._phase is _Phase.OPEN:
            self._phase = _Phase.ENDED
        # With a paused producer the transport would wait for it instead of closing.
        self.transport.unregisterProducer()
        self._closing = self._server.clock.callLater(self._server.patience, self.transport.abortConnection)
        self.transport.loseConnection()

    async def _next_event(self) -> LineEvent | None:
        """The next line; None if there will be no more."""

        while self._phase is not _Phase.GONE:
            event = self._lines.next_event()
            self._regulate()
            if event is not None:
                return event
            if self._phase is not _Phase.OPEN:
                return None
            self._arrived = Deferred()
            await self._arrived
        return None

    async def _answer(self, event: LineEvent) -> bool:
        """Answer one line; False if the connection is to be closed."""

        try:
            request = _read(event)
            if request is None:
                return True
            if self._phase is _Phase.STOPPING:
                raise Cancelled("The daemon is stopping.")
            if isinstance(request, Quit):
                await self._send(format_done({}))
                return False
            reply = format_done(await self._carry_out(request))
        except ProxyError as error:
            reply = format_refused(error.code, error.message, error.hint, error.details)
        except CancelledError:
            reply = format_refused(Cancelled.code, "The request was cancelled.")
        except Exception:
            log.failure("control request {request} failed", request=self._label)
            hint = f"The daemon's log says more under control request {self._label}."
            reply = format_refused(InternalError.code, "Something went wrong inside ipmiproxyd.", hint)
        await self._send(reply)
        return True

    async def _carry_out(self, request: Request | Help) -> Mapping[str, Any]:
        if isinstance(request, Help):
            return self._server.table.help(request)
        command, values = self._server.table.bind(request)
        over = False

        def progress(data: Mapping[str, Any]) -> None:
            line = format_progress(data)
            if not over and self._drained is None and self._phase is not _Phase.GONE:
                self.transport.write(line)

        try:
            return await self._run(command, Call(values, progress))
        finally:
            over = True

    async def _run(self, command: Command, call: Call) -> Mapping[str, Any]:
        """Run a handler, so that it can be cancelled, and watch for the client meanwhile."""

        began = self._server.clock.seconds()
        running = self._running = Deferred.fromCoroutine(command.handler(call))
        watch = LoopingCall(self._look)
        watch.clock = self._server.clock
        if not running.called:
            watch.start(_LOOK, now=False).addErrback(self._broken)
            if self._phase in (_Phase.STOPPING, _Phase.GONE):
                self._cancel()  # it stopped us before it came to its first wait
        try:
            return await running
        finally:
            self._running = None
            if watch.running:
                watch.stop()
            log.debug(
                "control request {request}: {noun} {verb} took {seconds:.3f} s",
                request=self._label,
                noun=command.noun,
                verb=command.verb,
                seconds=self._server.clock.seconds() - began,
            )

    def _cancel(self) -> None:
        """Cancel what runs, once: a second cancellation would cut its cleaning up short."""

        running, self._running = self._running, None
        if running is not None:
            running.cancel()

    def _look(self) -> None:
        """While we read, the reactor tells of a lost client; while we do not, nobody does."""

        if not self._reading and self._server.hung_up(self.transport):
            self.transport.abortConnection()

    async def _send(self, data: bytes) -> None:
        """Write, and wait until the transport takes more. A client that takes nothing for long is given up."""

        if self._phase is _Phase.GONE:
            return
        self.transport.write(data)
        if self._drained is not None:
            given_up = self._server.clock.callLater(self._server.patience, self.transport.abortConnection)
            try:
                await self._drained
            finally:
                if given_up.active():
                    given_up.cancel()

    def _regulate(self) -> None:
        """Read as long as there is room."""

        wanted = self._phase is _Phase.OPEN and not self._lines.full
        if wanted and not self._reading:
            self._reading = True
            self.transport.resumeProducing()
        elif not wanted and self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived.callback(None)

    def _broken(self, failure: Failure) -> None:
        log.failure("control connection {connection} broke", failure, connection=self._number)
        self.transport.abortConnection()

    @property
    def _label(self) -> str:
        return f"{self._number}-{self._answered}"


def _read(event: LineEvent) -> Request | Help | Quit | None:
    match event:
        case Line(data):
            return parse_request(data)
        case TooLong():
            raise BadRequest(f"The line is longer than {MAX_LINE} bytes.")
        case CutOff():
            raise BadRequest("The last line is cut off.", hint="Every request ends with a line feed.")


class _TooMany(Protocol):
    """Tells a client that there is no room, and closes."""

    transport: IControlTransport

    def connectionMade(self) -> None:
        error = LimitReached("Too many control connections are open.", hint="Close some, or try again later.")
        self.transport.write(format_refused(error.code, error.message, error.hint))
        self.transport.loseConnection()


class ControlServer(Factory):
    """Listens on any stream endpoint.

    :param table: the commands.
    :param version: told in the greeting.
    :param clock: for everything that waits.
    :param limit: connections at a time.
    :param patience: seconds that a client may take nothing while it is sent a reply.
    :param grace: seconds that :meth:`close` waits for requests to end and replies to be taken.
    :param hung_up: tells whether a transport's peer has gone, see :func:`hung_up`.
    """

    noisy = False

    def __init__(
        self,
        table: CommandTable,
        version: str,
        clock: IReactorTime,
        *,
        limit: int = 200,
        patience: float = 600.0,
        grace: float = 10.0,
        hung_up: Callable[[object], bool] = hung_up,
    ) -> None:
        self.table = table
        self.version = version
        self.clock = clock
        self.patience = patience
        self.hung_up = hung_up
        self._limit = limit
        self._grace = grace
        self._closing = False
        self._count = 0
        self._connections: set[ControlConnection] = set()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:  # noqa: ARG002
        if self._closing:
            return None
        if len(self._connections) >= self._limit:
            log.warn("control connection refused: {limit} are open", limit=self._limit)
            return _TooMany()
        self._count += 1
        return ControlConnection(self, self._count)

    def joined(self, connection: ControlConnection) -> None:
        self._connections.add(connection)

    def left(self, connection: ControlConnection) -> None:
        self._connections.discard(connection)

    @property
    def connections(self) -> int:
        """How many are open."""

        return len(self._connections)

    async def close(self) -> None:
        """Take no more connections, cancel what runs, answer it, and return when all connections are gone."""

        self._closing = True
        connections = list(self._connections)
        if not connections:
            return

        def abort() -> None:
            for connection in list(self._connections):
                connection.abort()

        late = self.clock.callLater(self._grace, abort)
        for gone in [connection.stop() for connection in connections]:
            await gone
        if late.active():
            late.cancel()
