"""``python -m benchmarks relay``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from twisted.internet import task
from twisted.internet.defer import Deferred

from benchmarks.relay import report
from benchmarks.relay.cases import CASES, PLAIN, TLS
from benchmarks.relay.measure import Bench
from benchmarks.relay.relays import RELAYS


def main(arguments: Sequence[str] = ()) -> None:
    settings = _parser().parse_args(arguments)
    only = _names(settings.only, [case.key for case in CASES])
    relays = _names(settings.relays, [kind.name for kind in RELAYS])
    bench = Bench(print, rounds=3 if settings.quick else 5, quick=settings.quick, only=only, relays=relays)
    schemes = settings.schemes or [PLAIN, TLS]

    async def run() -> None:
        for scheme in schemes:
            await bench.run(scheme)
        report.show(bench.results, schemes)
        if settings.write or not (settings.quick or only or relays or settings.schemes):
            report.write(bench.results, schemes)

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


def _names(text: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise SystemExit(f"there is no {name!r}, only {', '.join(known)}")
    return names
