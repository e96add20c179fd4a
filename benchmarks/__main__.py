"""``make bench``: every benchmark, or the one that is named, with its options."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence

from benchmarks import console_open
from benchmarks.relay import main as relay
from benchmarks.ssh import main as ssh

BENCHMARKS: dict[str, Callable[[Sequence[str]], None]] = {
    "console-open": console_open.main,
    "relay": relay.main,
    "ssh": ssh.main,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=tuple(BENCHMARKS))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="see NAME --help")
    settings = parser.parse_args()
    if settings.name:
        BENCHMARKS[settings.name](settings.options)
        return
    for name in BENCHMARKS:  # a reactor runs but once in a process
        subprocess.run([sys.executable, "-m", "benchmarks", name], check=True)


if __name__ == "__main__":
    main()
