"""The numbers, with their ratios and goals: on the terminal, and in docs/performance.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.relay.cases import ALL, CASES, GOALS, Case, better, holds
from benchmarks.relay.measure import Results
from benchmarks.relay.plot import draw
from benchmarks.relay.relays import NONE, OURS, WEBSOCKIFY, versions

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = DOCS / "performance.md"
PLOT: Final = DOCS / "relay.svg"
BEGIN: Final = "<!-- benchmarks/relay writes this -->"
END: Final = "<!-- until here -->"

_COLUMNS = ("", *ALL, f"against {WEBSOCKIFY}", "must [goal]", "holds")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    title: str
    cells: tuple[str, ...]
    ratio: str
    goal: str
    holds: str


def rows(results: Results, scheme: str) -> Iterator[Row]:
    for case in CASES:
        for metric in results.metrics(scheme, case.key):
            yield _row(results, scheme, case, metric)


def _row(results: Results, scheme: str, case: Case, metric: str) -> Row:
    medians = [results.median(scheme, case.key, name, metric) for name in ALL]
    ours, theirs = medians[ALL.index(OURS)], medians[ALL.index(WEBSOCKIFY)]
    times = None if ours is None or theirs is None else better(metric, ours, theirs)
    wanted, verdict = "", ""
    for goal in GOALS[scheme]:
        if (goal.case, goal.metric) == (case.key, metric):
            sign = "× " if goal.ratio else ""
            wanted = f"{sign}{goal.must:g}" + (f" [{sign}{goal.wish:g}]" if goal.wish is not None else "")
            if ours is not None:
                must = holds(goal, goal.must, ours, theirs)
                wish = goal.wish is not None and holds(goal, goal.wish, ours, theirs)
                verdict = {None: "?", True: "goal" if wish else "yes", False: "NO"}[must]
    return Row(
        f"{case.title}: {metric}",
        tuple(
            "–" if value is None or _idle(name, metric) else _short(value)
            for name, value in zip(ALL, medians, strict=True)
        ),
        "" if times is None else f"× {times:.2g}" if times < 10 else f"× {times:.0f}",
        wanted,
        verdict,
    )


def _idle(name: str, metric: str) -> bool:
    """Without a relay nothing has a relay's costs."""

    return name == NONE and metric.startswith("CPU")


def _short(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.3f}"


def show(results: Results, schemes: Sequence[str]) -> None:
    console = Console(width=None if os.environ.get("COLUMNS") else 170)
    for scheme in schemes:
        table = Table(title=f"relay, {scheme}")
        for number, column in enumerate(_COLUMNS):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in rows(results, scheme):
            table.add_row(row.title, *row.cells, row.ratio, row.goal, row.holds)
        console.print(table)
    console.print(_bystanders(results))
    for text in results.missing:
        console.print(f"not measured: {text}", markup=False)


# --- docs/performance.md ----------------------------------------------------------------------------------------------


def write(results: Results, schemes: Sequence[str]) -> None:
    """Replace what stands between the markers, and the plot."""

    page = PAGE.read_text()
    if BEGIN not in page or END not in page:
        raise ValueError(f"{PAGE} has lost its markers")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{_text(results, schemes)}\n{END}{after}")
    PLOT.write_text(draw(results, schemes))


def _text(results: Results, schemes: Sequence[str]) -> str:
    programs = ", ".join(f"{name} {version}" for name, version in versions(ALL).items())
    parts = [
        "",
        f"{datetime.date.today()}; {_machine()}; Python {platform.python_version()}; {programs}.",
        _bystanders(results),
        "",
        "![Costs of the relays](relay.svg)",
    ]
    for scheme in schemes:
        parts += ["", f"### {scheme}", "", _markdown(_COLUMNS), _markdown(["---", *["---:"] * (len(_COLUMNS) - 1)])]
        parts += [_markdown((row.title, *row.cells, row.ratio, row.goal, row.holds)) for row in rows(results, scheme)]
    if results.missing:
        parts += ["", "Not measured:", "", *(f"- {' '.join(text.split())}" for text in results.missing)]
    return "\n".join([*parts, ""])


def _bystanders(results: Results) -> str:
    shares = results.bystanders or [0.0]
    return (
        f"Meanwhile other programs used {statistics.median(shares):.0%} of a core (median; {max(shares):.0%} at most)."
    )


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} × {found[1] if found else platform.machine()}, Linux {platform.release()}"
