"""``make bench``: every benchmark, or those that are named."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import console_open

BENCHMARKS: dict[str, Callable[[], None]] = {"console-open": console_open.main}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}, only {', '.join(BENCHMARKS)}")
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
