"""The operator's end of the control protocol: one blocking socket, one request at a time.

It imports no Twisted, so that a command line tool starts at once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from ipmiproxyd.control.absent import how_to_start
from ipmiproxyd.wire.control import (
    PROTOCOL,
    Done,
    Greeting,
    Line,
    LineSplitter,
    Progress,
    ProtocolError,
    Refused,
    parse_greeting,
    parse_reply,
)

_LONGEST_REPLY: Final = 64 << 20
_GREETING_TIMEOUT: Final = 10.0
_SILENCE: Final = 900.0


class TalkError(Exception):
    """The daemon cannot be talked to. ``message`` and ``hint`` are for people."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NobodyThere(TalkError):
    """There is no control socket, or nobody listens at it."""


class RefusedAtDoor(TalkError):
    """The daemon refused the connection itself, with a code of the protocol."""

    def __init__(self, reply: Refused) -> None:
        super().__init__(reply.message, reply.hint)
        self.reply = reply


class Conversation:
    """A connection to the daemon. Closing it cancels what runs."""

    def __init__(self, path: str, *, silence: float = _SILENCE) -> None:
        """Connect, and check the greeting. Raises TalkError.

        :param silence: seconds that an answer, and each sign of progress, may take.
        """

        self._path = path
        self._lines = LineSplitter(_LONGEST_REPLY)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(_GREETING_TIMEOUT)
            self._connect()
            self.version = self._greeting().version
            self._socket.settimeout(silence)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, line: bytes, on_progress: Callable[[Mapping[str, Any]], None]) -> Done | Refused:
        """Send a request line, which ends with LF, and return its reply. Raises TalkError."""

        try:
            self._socket.sendall(line)
        except OSError as error:
            raise TalkError(f"The daemon closed the connection ({_words(error)}).") from error
        while True:
            try:
                reply = parse_reply(self._line())
            except ProtocolError as error:
                raise TalkError(f"The daemon's answer cannot be understood: {error}.") from error
            if not isinstance(reply, Progress):
                return reply
            on_progress(reply.data)

    def _connect(self) -> None:
        try:
            self._socket.connect(self._path)
        except FileNotFoundError as error:
            raise self._nobody("there is no control socket") from error
        except ConnectionRefusedError as error:
            raise self._nobody("nobody listens at the control socket") from error
        except PermissionError as error:
            raise TalkError(
                f"You may not use the control socket {self._path}.",
                "Root may, and its group (see ls -l): control.group, or SocketGroup= of ipmiproxyd.socket, names it.",
            ) from error
        except OSError as error:
            raise TalkError(f"The control socket {self._path} cannot be used: {_words(error)}.") from error

    def _nobody(self, sign: str) -> NobodyThere:
        words = f"No ipmiproxyd runs here: {sign} {self._path}."
        return NobodyThere(words, f"{how_to_start(self._path)}.")

    def _greeting(self) -> Greeting:
        try:
            greeting = parse_greeting(self._line())
        except ProtocolError as error:
            raise TalkError(f"What listens at {self._path} is not ipmiproxyd.") from error
        if isinstance(greeting, Refused):
            raise RefusedAtDoor(greeting)
        if greeting.protocol != PROTOCOL:
            raise TalkError(
                f"The daemon speaks protocol {greeting.protocol}, this program protocol {PROTOCOL}.",
                f"Use the ipmiproxyctl of version {greeting.version}.",
            )
        return greeting

    def _line(self) -> bytes:
        while True:
            event = self._lines.next_event()
            if isinstance(event, Line):
                return event.data
            if event is not None:
                raise TalkError("The daemon's answer is too long.")
            try:
                data = self._socket.recv(65_536)
            except TimeoutError as error:
                raise TalkError(f"The daemon has said nothing for {self._socket.gettimeout():g} seconds.") from error
            except OSError as error:
                raise TalkError(f"The connection to the daemon broke ({_words(error)}).") from error
            if not data:
                raise TalkError("The daemon closed the connection before it answered.")
            self._lines.feed(data)


def _words(error: OSError) -> str:
    return error.strerror or str(error)
