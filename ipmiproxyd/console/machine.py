"""The states of a console, and nothing else.

    opening ──opened──▶ ready ──close──▶ closing ──given_back──▶ closed
       └───────close──────────────────────▲   └────stuck──▶ lost ──again──┐
                                          └───────────────────────────────┘

``opening`` runs the stages (``opening.py``), ``closing`` gives everything back over the ledger; ``lost`` means that
something could not be given back yet and is tried again. Bytes never pass through here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from automat import TypeMachineBuilder

from ipmiproxyd.errors import ProxyError
from ipmiproxyd.model import ConsoleState


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a console ends: a stable word, plain words, and the error behind it if it failed."""

    reason: str
    message: str
    error: ProxyError | None = None

    @classmethod
    def from_error(cls, error: ProxyError) -> Ending:
        return cls(error.code, error.message, error)


@dataclass(slots=True)
class Steps:
    """What the machine sets in motion. None of them may call the machine back before it returns."""

    entered: Callable[[], None]
    watch: Callable[[], None]
    cancel_opening: Callable[[], None]
    give_back: Callable[[], None]
    retry_later: Callable[[], None]
    ending: Ending | None = None


class ConsoleMachine(Protocol):
    def opened(self) -> None:
        """The last stage is done."""

    def close(self, ending: Ending) -> None:
        """Somebody, or a failure, ends the console. The first reason stands."""

    def given_back(self) -> None:
        """The ledger is empty."""

    def stuck(self) -> None:
        """The ledger is not empty, though everything was tried."""

    def again(self) -> None:
        """Try once more to give back the rest."""

    def state(self) -> ConsoleState:
        """Where it is."""


def _build() -> Callable[[Steps], ConsoleMachine]:
    builder = TypeMachineBuilder(ConsoleMachine, Steps)
    opening = builder.state(ConsoleState.OPENING.value)
    ready = builder.state(ConsoleState.READY.value)
    closing = builder.state(ConsoleState.CLOSING.value)
    closed = builder.state(ConsoleState.CLOSED.value)
    lost = builder.state(ConsoleState.LOST.value)

    @opening.upon(ConsoleMachine.opened).to(ready)
    def is_ready(_machine: ConsoleMachine, steps: Steps) -> None:
        steps.watch()
        steps.entered()

    @opening.upon(ConsoleMachine.close).to(closing)
    def give_up(_machine: ConsoleMachine, steps: Steps, ending: Ending) -> None:
        steps.ending = ending
        steps.cancel_opening()
        steps.give_back()
        steps.entered()

    @ready.upon(ConsoleMachine.close).to(closing)
    def end(_machine: ConsoleMachine, steps: Steps, ending: Ending) -> None:
        steps.ending = ending
        steps.give_back()
        steps.entered()

    @closing.upon(ConsoleMachine.given_back).to(closed)
    def is_closed(_machine: ConsoleMachine, steps: Steps) -> None:
        steps.entered()

    @closing.upon(ConsoleMachine.stuck).to(lost)
    def is_lost(_machine: ConsoleMachine, steps: Steps) -> None:
        steps.retry_later()
        steps.entered()

    @lost.upon(ConsoleMachine.again).to(closing)
    def retry(_machine: ConsoleMachine, steps: Steps) -> None:
        steps.give_back()
        steps.entered()

    @lost.upon(ConsoleMachine.close).to(closing)
    def retry_now(_machine: ConsoleMachine, steps: Steps, ending: Ending) -> None:  # noqa: ARG001
        steps.give_back()
        steps.entered()

    # Said on purpose: who asks to close what is closing already is content, and a retry may come too late.
    closing.upon(ConsoleMachine.close).loop().returns(None)
    closed.upon(ConsoleMachine.close).loop().returns(None)
    closing.upon(ConsoleMachine.again).loop().returns(None)
    closed.upon(ConsoleMachine.again).loop().returns(None)

    opening.upon(ConsoleMachine.state).loop().returns(ConsoleState.OPENING)
    ready.upon(ConsoleMachine.state).loop().returns(ConsoleState.READY)
    closing.upon(ConsoleMachine.state).loop().returns(ConsoleState.CLOSING)
    closed.upon(ConsoleMachine.state).loop().returns(ConsoleState.CLOSED)
    lost.upon(ConsoleMachine.state).loop().returns(ConsoleState.LOST)
    return builder.build()


make_machine = _build()
