"""Channels of an SSH connection, with flow control: Conch's own give the window back on receipt, whether anybody reads
or not, and slice what they cannot send anew with each piece of window."""

from __future__ import annotations

import struct
from collections import deque
from typing import Any, Final

from twisted.conch.error import ConchError
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST, SSHConnection
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

WINDOW: Final = 1 << 20
"""Bytes that the far side may send before they are consumed: the most that a reader who stands still costs."""

PACKET: Final = 32 << 10

_DATA: Final = bytes((MSG_CHANNEL_DATA,))
_DATA_HEAD: Final = struct.Struct(">2L")


@implementer(ILogObserver)
class _Nobody:
    """Hears nothing."""

    def __call__(self, event: LogEvent) -> None: ...


QUIET: Final = Logger(namespace="conch", observer=_Nobody())
"""Conch tells of each channel and each request."""


class ChannelRefused(Exception):
    """The far side does not open a channel. ``code`` is SSH's, None where the connection was lost."""

    def __init__(self, words: str, code: int | None) -> None:
        super().__init__(words)
        self.words = words
        self.code = code


class Channel(SSHChannel):
    """A channel.

    :ivar unwanted: whoever wanted it does not any more: it is closed as soon as it is open.
    :ivar with_connection: it was lost with the connection.
    :ivar dropped: something that was written did not go out.
    """

    _log = QUIET
    conn: Any

    def __init__(self) -> None:
        super().__init__(localWindow=WINDOW, localMaxPacket=PACKET)
        self.unwanted = False
        self.is_open = False
        self.with_connection = False
        self.dropped = False
        self._queue: deque[memoryview] = deque()
        self._ending = ""  # what follows the queue: "eof" or "close"
        self._unconsumed = 0
        self._opened: Deferred[None] = Deferred()

    # --- its life -----------------------------------------------------------------------------------------------------

    def open_on(self, connection: Connection, data: bytes = b"") -> Deferred[None]:
        """Ask the far side to open it. Fails with ChannelRefused. Cancelled, it is :attr:`unwanted`."""

        def forget(_: object) -> None:
            self.unwanted = True

        mine: Deferred[None] = Deferred(forget)

        def opened(result: Any) -> None:
            if self.unwanted:
                self.close_now()
            else:
                mine.callback(result)

        self._opened.addBoth(opened)
        connection.openChannel(self, data)  # type: ignore[no-untyped-call]
        return mine

    def channelOpen(self, specificData: bytes) -> None:  # noqa: N803, ARG002 - Conch's name
        self.is_open = True
        self._opened.callback(None)

    def openFailed(self, reason: Any) -> None:
        if isinstance(reason, ConchError):
            words = reason.value.decode("utf-8", "replace") if isinstance(reason.value, bytes) else str(reason.value)
            self._opened.errback(ChannelRefused(words, reason.data))
        else:
            self._opened.errback(ChannelRefused("the connection was lost", None))

    def closeReceived(self) -> None:
        self._drop_queue()
        self.conn.sendClose(self)

    def closed(self) -> None:
        self.is_open = False
        self._drop_queue()
        self.gone()

    def gone(self) -> None:
        """The channel is closed on both sides, or the connection is lost."""

    # --- inwards ------------------------------------------------------------------------------------------------------

    def consumed(self, size: int) -> None:
        """So many bytes were taken out of the window for good: give it back, in larger pieces."""

        self._unconsumed += size
        if self._unconsumed >= WINDOW // 4 and not self.localClosed and not self.remoteClosed:
            size, self._unconsumed = self._unconsumed, 0
            self.conn.adjustWindow(self, size)

    def take(self, data: memoryview) -> None:
        """Something came in; it is in the window until it is :meth:`consumed`."""

        self.dataReceived(bytes(data))

    def hand_out(self) -> None:
        """All that was read at once was taken; called if it is among the connection's :attr:`Connection.takers`."""

    def dataReceived(self, data: bytes) -> None:
        """The same, as bytes."""

    def extReceived(self, dataType: int, data: bytes) -> None:  # noqa: N803 - Conch's names
        """The same of the other kind of data: what a program writes to standard error."""

    # --- outwards -----------------------------------------------------------------------------------------------------

    @property
    def clogged(self) -> bool:
        """Something waits to be sent."""

        return bool(self._queue)

    def write(self, data: bytes) -> None:
        if not data or self._ending or self.localClosed:
            return
        self._queue.append(memoryview(bytes(data)))
        self.flush()

    def end_writing(self) -> None:
        """End of file, after what waits."""

        self._ending = self._ending or "eof"
        self.flush()

    def loseConnection(self) -> None:
        self._ending = "close"
        self.flush()

    def close_now(self) -> None:
        """Close, and forget what waits."""

        self._drop_queue()
        self._ending = "close"
        self.flush()

    def addWindowBytes(self, data: int) -> None:
        self.remoteWindowLeft += data
        self.flush()

    def flush(self) -> None:
        """Send what the far side's window and the connection's buffer have room for."""

        if not self.is_open or self.localClosed:
            return
        while self._queue and self.remoteWindowLeft and not self.conn.is_clogged:
            first = self._queue[0]
            piece = first[: min(self.remoteWindowLeft, self.remoteMaxPacket, PACKET)]
            self.remoteWindowLeft -= len(piece)
            self.conn.sendData(self, piece)
            if len(piece) == len(first):
                self._queue.popleft()
            else:
                self._queue[0] = first[len(piece) :]
        if not self._queue:
            self.drained()
        if self._queue or self.localClosed:
            return
        if self._ending == "eof":
            self._ending = "eof sent"
            self.conn.sendEOF(self)
        elif self._ending == "close":
            self.conn.sendClose(self)

    def drained(self) -> None:
        """Nothing waits."""

    def _drop_queue(self) -> None:
        self.dropped = self.dropped or self.clogged
        self._queue.clear()


class Connection(SSHConnection):
    """The channels of one SSH connection.

    :ivar is_clogged: it cannot send just now; its transport sets this.
    :ivar takers: channels that want to know when all that was read at once is taken.
    """

    _log = QUIET
    channels: dict[int, Channel]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_clogged = False
        self.takers: list[Channel] = []
        self.started: Deferred[None] = Deferred()

    def serviceStarted(self) -> None:
        self.started.callback(None)

    def serviceStopped(self) -> None:
        for channel in list(self.channelsToRemoteChannel):
            channel.with_connection = True
        super().serviceStopped()  # type: ignore[no-untyped-call]

    def unclogged(self) -> None:
        self.is_clogged = False
        for channel in list(self.channels.values()):
            if self.is_clogged:
                break
            channel.flush()

    # --- what comes in: the window is the channel's own affair -------------------------------------------------------

    def data(self, payload: memoryview) -> None:
        """A message with data of a channel: nearly all that comes in."""

        number, size = _DATA_HEAD.unpack_from(payload, 1)
        channel = self._counted(number, size)
        if channel is not None:
            channel.take(payload[9 : 9 + size])

    def hand_out(self) -> None:
        """All that was read at once is here."""

        takers, self.takers = self.takers, []
        for channel in takers:
            channel.hand_out()

    def ssh_CHANNEL_EXTENDED_DATA(self, packet: bytes) -> None:
        number, kind, size = struct.unpack(">3L", packet[:12])
        if (channel := self._counted(number, size)) is not None:
            channel.extReceived(kind, getNS(packet[8:])[0])

    def _counted(self, number: int, size: int) -> Channel | None:
        channel = self.channels[number]
        if size > channel.localWindowLeft or size > channel.localMaxPacket:
            self.sendClose(channel)  # type: ignore[no-untyped-call]
            return None
        channel.localWindowLeft -= size
        return channel

    # --- what goes out ------------------------------------------------------------------------------------------------

    def sendData(self, channel: Channel, data: memoryview) -> None:
        """Only while it is not clogged."""

        head = _DATA_HEAD.pack(self.channelsToRemoteChannel[channel], len(data))
        transport: Any = self.transport
        transport.send(_DATA, head, data)

    def adjustWindow(self, channel: Channel, bytesToAdd: int) -> None:  # noqa: N803 - Conch's names
        channel.localWindowLeft += bytesToAdd
        transport: Any = self.transport
        transport.sendPacket(
            MSG_CHANNEL_WINDOW_ADJUST, _DATA_HEAD.pack(self.channelsToRemoteChannel[channel], bytesToAdd)
        )

    def getChannel(self, *_: Any) -> Any:
        """An agent has no business opening channels here."""

        raise ConchError("administratively prohibited", 1)
