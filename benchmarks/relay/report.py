"""The numbers, with their ratios and goals: on the terminal, and in docs/performance.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.relay.cases import Case, Goal, better, holds
from benchmarks.relay.measure import Results
from benchmarks.relay.relays import NONE, versions

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = DOCS / "performance.md"
PLOT: Final = DOCS / "relay.svg"
END: Final = "<!-- until here -->"


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a report is about.

    :ivar names: what is compared; ``ours`` is one of them, and it is set against each of ``peers``, of which the last
        is whom the goals are about.
    :ivar goals: scheme → goals.
    :ivar plot: the file of a plot, in docs.
    :ivar begin: the line behind which it stands on the page.
    """

    title: str
    names: Sequence[str]
    ours: str
    peers: Sequence[str]
    cases: Sequence[Case]
    goals: Mapping[str, Sequence[Goal]]
    plot: str
    begin: str

    @property
    def columns(self) -> Sequence[str]:
        return ("", *self.names, *(f"against {peer}" for peer in self.peers), "must [goal]", "holds")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    title: str
    cells: tuple[str, ...]
    ratios: tuple[str, ...]
    goal: str
    holds: str

    @property
    def all(self) -> Sequence[str]:
        return (self.title, *self.cells, *self.ratios, self.goal, self.holds)


def rows(sheet: Sheet, results: Results, scheme: str) -> Iterator[Row]:
    for case in sheet.cases:
        for metric in results.metrics(scheme, case.key):
            yield _row(sheet, results, scheme, case, metric)


def _row(sheet: Sheet, results: Results, scheme: str, case: Case, metric: str) -> Row:
    medians = {name: results.median(scheme, case.key, name, metric) for name in sheet.names}
    ours, theirs = medians[sheet.ours], medians[sheet.peers[-1]]
    wanted, verdict = "", ""
    for goal in sheet.goals[scheme]:
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
            for name, value in medians.items()
        ),
        tuple(_ratio(metric, ours, medians[peer]) for peer in sheet.peers),
        wanted,
        verdict,
    )


def _ratio(metric: str, ours: float | None, theirs: float | None) -> str:
    times = None if ours is None or theirs is None else better(metric, ours, theirs)
    return "" if times is None else f"× {times:.2g}" if times < 10 else f"× {times:.0f}"


def _idle(name: str, metric: str) -> bool:
    """Without a relay nothing has a relay's costs."""

    return name == NONE and metric.startswith("CPU")


def _short(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.3f}"


def show(sheet: Sheet, results: Results, schemes: Sequence[str]) -> None:
    console = Console(width=None if os.environ.get("COLUMNS") else 170)
    for scheme in schemes:
        table = Table(title=f"{sheet.title}, {scheme}")
        for number, column in enumerate(sheet.columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in rows(sheet, results, scheme):
            table.add_row(*row.all)
        console.print(table)
    console.print(_bystanders(results))
    for text in results.missing:
        console.print(f"not measured: {text}", markup=False)


# --- docs/performance.md ----------------------------------------------------------------------------------------------


def write(sheet: Sheet, results: Results, schemes: Sequence[str]) -> None:
    """Replace what stands between the markers."""

    page = PAGE.read_text()
    before, begin, rest = page.partition(sheet.begin)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has lost its markers")
    PAGE.write_text(f"{before}{begin}\n{_text(sheet, results, schemes)}\n{end}{after}")


def _text(sheet: Sheet, results: Results, schemes: Sequence[str]) -> str:
    programs = ", ".join(f"{name} {version}" for name, version in versions(sheet.names).items())
    parts = [
        "",
        f"{datetime.date.today()}; {_machine()}; Python {platform.python_version()}; {programs}.",
        _bystanders(results),
        *(("", f"![Costs]({sheet.plot})") if sheet.plot else ()),
    ]
    columns = sheet.columns
    for scheme in schemes:
        parts += ["", f"### {scheme}", "", _markdown(columns), _markdown(["---", *["---:"] * (len(columns) - 1)])]
        parts += [_markdown(row.all) for row in rows(sheet, results, scheme)]
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
