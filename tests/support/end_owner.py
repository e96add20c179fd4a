"""Owners of ends: they watch how they are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ipmiproxyd.relay.ends import BUFFER, VIEW, End
from ipmiproxyd.wire.websocket import HEAD
from tests.support.end_peer import DOWN, UP, Bell

_NOTHING: Final = bytes(len(BUFFER))


class Owner:
    """What its end receives, it checks and drops."""

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.got = 0
        self.drains = 0
        self.gone: list[End] = []
        self._depth = 0

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around each call to an end."""

        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def received(self, end: End, start: int, stop: int) -> None:
        assert end not in self.gone, "received after lost"
        assert HEAD <= start < stop <= len(BUFFER)
        UP.check(self.got, VIEW[start:stop])
        self.got += stop - start
        BUFFER[start - HEAD : stop] = _NOTHING[: stop - start + HEAD]
        self.bell.ring()

    def drained(self, end: End) -> None:
        assert not self._depth, "drained from within a call to an end"
        assert end not in self.gone, "drained after lost"
        assert not end.is_clogged
        self.drains += 1
        self.bell.ring()

    def lost(self, end: End) -> None:
        assert not self._depth, "lost from within a call to an end"
        assert end not in self.gone, "lost twice"
        self.gone.append(end)
        self.bell.ring()


class Splice(Owner):
    """What one end receives, the other sends. As in relay/viewer.py, without the rest."""

    def __init__(self, bell: Bell) -> None:
        super().__init__(bell)
        self._ends: list[End] = []

    def join(self, one: End, other: End) -> None:
        self._ends = [one, other]
        for end in self._ends:
            with self.calling():
                end.start()

    def _beyond(self, end: End) -> End:
        one, other = self._ends
        return other if end is one else one

    def received(self, end: End, start: int, stop: int) -> None:
        with self.calling():
            if not self._beyond(end).send(VIEW[start:stop]):
                end.pause()
        BUFFER[start - HEAD : stop] = _NOTHING[: stop - start + HEAD]  # it is gone on return

    def drained(self, end: End) -> None:
        super().drained(end)
        with self.calling():
            self._beyond(end).resume()

    def lost(self, end: End) -> None:
        super().lost(end)
        with self.calling():
            self._beyond(end).finish()


class Pauser(Owner):
    def received(self, end: End, start: int, stop: int) -> None:
        super().received(end, start, stop)
        with self.calling():
            end.pause()


class Aborter(Owner):
    def received(self, end: End, start: int, stop: int) -> None:
        super().received(end, start, stop)
        with self.calling():
            end.send(DOWN.at(0, 10))
            end.abort()
