"""Runs the cases: for each, one relay after the other, again and again, so that a slow minute hits all of them."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from benchmarks.relay.cases import TLS, Case
from benchmarks.relay.process import cpu_of_others
from benchmarks.relay.relays import LOAD_CORE, NONE, Certificate, Missing, Relay, backend, on_core
from benchmarks.relay.session import Target

Say = Callable[[str], None]
LIMIT = 180.0
"""Seconds for one measurement."""


@dataclass
class Results:
    """``values``: scheme, case, relay → each number's values, one per round. ``missing``: what could not be had.
    ``bystanders``: for each measurement, the part of a core that others used meanwhile."""

    values: dict[tuple[str, str, str], dict[str, list[float]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    bystanders: list[float] = field(default_factory=list)

    def add(self, scheme: str, case: str, relay: str, numbers: dict[str, float]) -> None:
        found = self.values.setdefault((scheme, case, relay), {})
        for metric, value in numbers.items():
            found.setdefault(metric, []).append(value)

    def median(self, scheme: str, case: str, relay: str, metric: str) -> float | None:
        values = self.values.get((scheme, case, relay), {}).get(metric)
        return statistics.median(values) if values else None

    def metrics(self, scheme: str, case: str) -> list[str]:
        """The numbers of a case, in their order."""

        found: dict[str, None] = {}
        for (of_scheme, of_case, _), numbers in self.values.items():
            if (of_scheme, of_case) == (scheme, case):
                found.update(dict.fromkeys(numbers))
        return list(found)


class Bystanders:
    """How much of the machine others used meanwhile: more than a little, and the numbers are not worth much."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._before = cpu_of_others()

    def share(self) -> float:
        """Part of a core."""

        return max(0.0, cpu_of_others() - self._before) / (time.perf_counter() - self._begun)


class Failed(Exception):
    """A measurement gave no numbers; why."""


def load(case: Case, target: Target, *, quick: bool) -> dict[str, float]:
    """One measurement in a process of its own, on its own core."""

    arguments = {**case.arguments, **(case.quick if quick else {})}
    job = json.dumps({"scenario": case.scenario, "target": asdict(target), **arguments})
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "benchmarks.relay.load"]
    with on_core(LOAD_CORE):
        try:
            done = subprocess.run(command, input=job, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"took longer than {LIMIT:g} s") from None
    if done.returncode:
        raise Failed(done.stderr.strip().splitlines()[-1][:300] if done.stderr else f"status {done.returncode}")
    numbers: dict[str, float] = json.loads(done.stdout)
    return numbers


class Bench:
    """:param kinds: what is compared; each is made of a folder, the server's port and the certificate.
    :param results: what was found before, to be added to.
    :ivar folder: where all of it is; the server's UNIX socket is ``socket`` in it.
    """

    def __init__(
        self,
        say: Say,
        cases: Sequence[Case],
        kinds: Sequence[Any],
        *,
        rounds: int,
        quick: bool,
        results: Results | None = None,
    ) -> None:
        self.results = results or Results()
        self._say = say
        self._rounds = rounds
        self._quick = quick
        self._cases = cases
        self._relays = kinds
        self._running: dict[str, tuple[Relay, Target]] = {}
        self.folder = Path()
        self._starts = 0
        self._backend = 0
        self._certificate: Certificate | None = None
        self._scheme = ""

    async def run(self, scheme: str) -> None:
        """Everything, with TLS or without."""

        self._scheme = scheme
        self.folder = Path(tempfile.mkdtemp(prefix="ipx-bench-", dir="/tmp"))
        self.folder.chmod(0o711)
        self._certificate = Certificate(self.folder) if scheme == TLS else None
        server, self._backend = backend(self.folder / "socket")
        try:
            await self.begin()
            for kind in self._relays:
                await self._start(kind.name)
            for number in range(self._rounds):
                for case in self._cases:
                    if scheme in case.schemes and not case.fresh:
                        await self._case(case, number)
            await self._stop_all()
            for case in self._cases:
                for number in range(min(case.rounds, self._rounds)):
                    if scheme in case.schemes and case.fresh:
                        await self._case(case, number)
        finally:
            await self._stop_all()
            await self.end()
            assert server.stdin is not None
            server.stdin.close()
            server.wait(10)
            shutil.rmtree(self.folder)

    async def begin(self) -> None:
        """Before the relays are started."""

    async def end(self) -> None:
        """After they were stopped."""

    async def _start(self, name: str) -> None:
        (kind,) = (kind for kind in self._relays if kind.name == name)
        self._starts += 1
        relay: Relay = kind(self.folder / f"{self._starts}", self._backend, self._certificate)
        try:
            target = await relay.start()
        except Missing as error:
            self._note(f"{name}: {error}")
        else:
            self._running[name] = (relay, target)

    async def _stop(self, name: str) -> None:
        relay, _ = self._running.pop(name)
        await relay.stop()

    async def _stop_all(self) -> None:
        for name in tuple(self._running):
            await self._stop(name)

    async def _case(self, case: Case, number: int) -> None:
        names = [kind.name for kind in self._relays if kind.name in case.relays and not (number and kind.name == NONE)]
        turned = number % len(names) if names else 0
        for name in names[turned:] + names[:turned]:  # nobody is always the first
            if case.fresh:
                await self._start(name)
            if name not in self._running:
                continue
            _, target = self._running[name]
            others = Bystanders()
            try:
                numbers = await deferToThread(load, case, target, quick=self._quick)
            except Failed as error:
                self._note(f"{case.key}, {name}: {error}")
            else:
                self.results.add(self._scheme, case.key, name, numbers)
                share = others.share()
                self.results.bystanders.append(share)
                words = ", ".join(f"{metric} {value:.4g}" for metric, value in numbers.items())
                words += f" (others {share:.0%})"
                self._say(f"{self._scheme} {number + 1} {case.key:<16}{name:<12}{words}")
            if case.fresh:
                await self._stop(name)

    def _note(self, text: str) -> None:
        text = f"{self._scheme}: {text}"
        if text not in self.results.missing:
            self.results.missing.append(text)
        self._say(text)
