"""Runs the whole suite, or the named parts of it: lint, types, unit, integration.

Standard library only. The checks of the whole project (ruff, mypy) count as one test each. The last line of the
output is ``tests: N passed, M failed``; the exit status is 0 if none failed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 480  # seconds
"""Seconds that the whole suite may take, beyond installation."""

PART_LIMIT = 900.0
"""Seconds after which a part is ended, as it hangs."""

PYTHON = sys.executable
TRIAL = (PYTHON, "-m", "twisted.trial", "--temp-directory")
PARTS: dict[str, Sequence[str]] = {
    "lint": (PYTHON, "-m", "ruff", "check", "."),
    "types": (PYTHON, "-m", "mypy"),
    "unit": (*TRIAL, "_trial_temp.unit", "-j2", "--reporter=text", "tests.unit"),
    "integration": (*TRIAL, "_trial_temp.integration", "-j3", "--reporter=text", "tests.integration"),
}
ALONGSIDE = "types"
"""The part that runs while the next ones do."""

_RESULT = re.compile(r"^(PASSED|FAILED)(?: \((.*)\))?$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """How a part ended."""

    name: str
    passed: int
    failed: int
    seconds: float
    note: str = ""


def trial_result(output: str, status: int) -> tuple[int, int, str]:
    """Passed, failed and a remark, from what trial printed at its end. A test that was skipped counts as failed."""

    found = _RESULT.findall(output)
    if not found:
        return 0, 1, f"trial ended without a result, exit status {status}"
    counts = {word: int(number) for word, number in re.findall(r"(\w+)=(\d+)", found[-1][1])}
    passed = counts.pop("successes", 0)
    failed = sum(counts.values())
    if not passed + failed:
        return 0, 1, "no tests were found"
    if status and not failed:
        return passed, 1, f"trial's exit status is {status}"
    return passed, failed, ", ".join(f"{number} {word}" for word, number in counts.items())


class Part:
    """A part of the suite while it runs; with ``quiet`` its output is shown at its end."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self.name = name
        self._begun = time.monotonic()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish()
        self._quiet = quiet
        self._process = subprocess.Popen(
            PARTS[name],
            cwd=ROOT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self) -> Result:
        """Wait for its end, or end it once its time is over."""

        shown = 0
        running = True
        while running:
            try:
                self._process.wait(0.1)
                running = False
            except subprocess.TimeoutExpired:
                if time.monotonic() > self._begun + PART_LIMIT:
                    self.end()
            output = self._read()
            if self._quiet and running:
                continue
            sys.stdout.buffer.write(output[shown:])
            sys.stdout.flush()
            shown = len(output)
        self._output.close()
        return self._result(output.decode(errors="replace"), self._process.returncode)

    def _read(self) -> bytes:
        length = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), length, 0)

    def _result(self, output: str, status: int) -> Result:
        seconds = time.monotonic() - self._begun
        if "twisted.trial" in PARTS[self.name]:
            passed, failed, note = trial_result(output, status)
            return Result(self.name, passed, failed, seconds, note)
        return Result(self.name, int(not status), int(bool(status)), seconds)

    def end(self) -> None:
        """Kill it with all that it started."""

        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def run(names: Sequence[str]) -> list[Result]:
    results = []
    running: list[Part] = []
    try:
        for name in names:
            part = Part(name, quiet=name == ALONGSIDE and name != names[-1])
            running.append(part)
            if name != ALONGSIDE:
                print(f"--- {name}", flush=True)
                results.append(part.finish())
                running.remove(part)
        for part in running:
            print(f"--- {part.name}", flush=True)
            results.append(part.finish())
    except BaseException:
        for part in running:
            part.end()
        raise
    return results


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    begun = time.monotonic()
    results = run(names or ("types", "lint", "unit", "integration"))
    print()
    for result in results:
        counts = f"{result.passed:>5} passed {result.failed:>4} failed"
        print(f"{result.name:<12} {counts} {result.seconds:>7.1f} s  {result.note}".rstrip())
    spent = time.monotonic() - begun
    if not names:
        verdict = "within" if spent <= BUDGET else "OVER"
        print(f"time beyond installation: {spent:.0f} s, {verdict} the budget of {BUDGET:.0f} s")
    failed = sum(result.failed for result in results)
    print(f"tests: {sum(result.passed for result in results)} passed, {failed} failed", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
