"""``python -m benchmarks relay``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from twisted.internet import task
from twisted.internet.defer import Deferred

from benchmarks.relay import report
from benchmarks.relay.cases import ALL, CASES, GOALS, PLAIN, TLS
from benchmarks.relay.measure import Bench
from benchmarks.relay.plot import draw
from benchmarks.relay.relays import OURS, RELAYS, WEBSOCKIFY

SHEET: Final = report.Sheet(
    "relay", ALL, OURS, (WEBSOCKIFY,), CASES, GOALS, report.PLOT.name, "<!-- benchmarks/relay writes this -->"
)


def main(arguments: Sequence[str] = ()) -> None:
    settings = _parser().parse_args(arguments)
    only = names(settings.only, [case.key for case in CASES])
    relays = names(settings.relays, [kind.name for kind in RELAYS])
    cases = [case for case in CASES if not only or case.key in only]
    kinds = [kind for kind in RELAYS if not relays or kind.name in relays]
    bench = Bench(print, cases, kinds, rounds=3 if settings.quick else 5, quick=settings.quick)
    schemes = settings.schemes or [PLAIN, TLS]

    async def run() -> None:
        for scheme in schemes:
            await bench.run(scheme)
        report.show(SHEET, bench.results, schemes)
        if settings.write or not (settings.quick or only or relays or settings.schemes):
            report.write(SHEET, bench.results, schemes)
            report.PLOT.write_text(draw(bench.results, schemes))

    task.react(lambda _: Deferred.fromCoroutine(run()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks relay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="medians of three short rounds; nothing is written down")
    parser.add_argument("--only", default="", metavar="CASE,…", help=", ".join(case.key for case in CASES))
    parser.add_argument("--relays", default="", metavar="NAME,…", help=", ".join(kind.name for kind in RELAYS))
    parser.add_argument("--plain", dest="schemes", action="append_const", const=PLAIN, help="without TLS only")
    parser.add_argument("--tls", dest="schemes", action="append_const", const=TLS, help="with TLS only")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md even after a part of the run")
    return parser


def names(text: str, known: Sequence[str]) -> list[str]:
    """What a list on the command line names."""

    given = [name.strip() for name in text.split(",") if name.strip()]
    for name in given:
        if name not in known:
            raise SystemExit(f"there is no {name!r}, only {', '.join(known)}")
    return given
