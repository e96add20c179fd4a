"""The bulk part of a viewer's session: bytes between two Twisted transports, with the brakes connected crosswise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IPushProducer, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IPushProducer)
class Valve:
    """The reading side of a transport, as the producer that the other transport may hold back.

    Registering the transport itself would let the end of one side cut the other before its last words are out.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.is_shut = False

    def pauseProducing(self) -> None:
        self.is_shut = True
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.is_shut = False
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """The consumer is gone; who owns both sides hears of it and decides."""


class DisplaySide(Protocol):
    """The connection to the display. What it says goes to ``send``; ``lost`` is called once, at its end."""

    def __init__(self, send: Callable[[bytes], None], lost: Callable[[DisplaySide], None]) -> None:
        self._send = send
        self._lost = lost

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self._send(data)

    def connectionLost(self, _reason: Failure = connectionDone) -> None:
        self._lost(self)


class DisplayFactory(Factory):
    """Builds the one :class:`DisplaySide` of a session."""

    noisy = False

    def __init__(self, send: Callable[[bytes], None], lost: Callable[[DisplaySide], None]) -> None:
        self._send = send
        self._lost = lost

    def buildProtocol(self, _addr: IAddress | None) -> DisplaySide:
        return DisplaySide(self._send, self._lost)


class Pump:
    """Joins a browser's transport and a display's: whoever cannot take more stops the other from saying more.

    Until it is made, the browser's :class:`Valve` is to be shut; making it opens it.
    """

    def __init__(self, browser: Any, browser_valve: Valve, display: Any) -> None:
        self._browser = browser
        self._display = display
        self.display_valve = Valve(display)
        display.registerProducer(browser_valve, True)
        browser.registerProducer(self.display_valve, True)
        browser_valve.resumeProducing()

    def disconnect(self) -> None:
        """Separate the two again; both may be closed afterwards, each in its own time."""

        self._display.unregisterProducer()
        self._browser.unregisterProducer()
