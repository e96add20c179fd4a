"""``python -m benchmarks ssh``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from twisted.internet import task
from twisted.internet.defer import Deferred

from benchmarks.relay import report
from benchmarks.relay.cases import Case
from benchmarks.relay.main import names
from benchmarks.relay.measure import Bench
from benchmarks.ssh.cases import CASES, GOALS, SCHEMES
from benchmarks.ssh.peers import DEFAULT, NAMES, OURS, PEERS, SAME, Host

SHEET: Final = report.Sheet(
    "ssh", NAMES, OURS, (DEFAULT, SAME), CASES, GOALS, "", "<!-- benchmarks/ssh writes this -->"
)


class SshBench(Bench):
    """With a host to go to."""

    def __init__(self, cases: Sequence[Case], scheme: str, **settings: Any) -> None:
        self._host = Host()
        kinds = []
        for peer in PEERS[scheme]:
            kind: Any = partial(peer, self._host)
            kind.name = peer.name
            kinds.append(kind)
        super().__init__(print, cases, kinds, **settings)

    async def begin(self) -> None:
        await self._host.start(self.folder)

    async def end(self) -> None:
        await self._host.stop()


def main(arguments: Sequence[str] = ()) -> None:
    settings = _parser().parse_args(arguments)
    only = names(settings.only, [case.key for case in CASES])
    cases = [case for case in CASES if not only or case.key in only]
    schemes = settings.schemes or SCHEMES

    async def run() -> None:
        results = None
        for scheme in schemes:
            bench = SshBench(cases, scheme, rounds=3 if settings.quick else 5, quick=settings.quick, results=results)
            await bench.run(scheme)
            results = bench.results
        assert results is not None
        report.show(SHEET, results, schemes)
        if settings.write or not (settings.quick or only or settings.schemes):
            report.write(SHEET, results, schemes)

    task.react(lambda _: Deferred.fromCoroutine(run()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks ssh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="medians of three short rounds; nothing is written down")
    parser.add_argument("--only", default="", metavar="CASE,…", help=", ".join(case.key for case in CASES))
    for scheme in SCHEMES:
        parser.add_argument(f"--{scheme}", dest="schemes", action="append_const", const=scheme, help="only this")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md even after a part of the run")
    return parser
