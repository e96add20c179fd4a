"""What ipmiproxyctl shows: answers as tables and facts, in colour on a terminal, plain elsewhere, or as JSON.

All that is shown comes from the outside: characters that would steer the terminal are replaced.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO, TypeGuard

from ipmiproxyd.control.arguments import show_duration
from ipmiproxyd.wire.control import Refused, to_json

if TYPE_CHECKING:
    from rich.status import Status


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts under column names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and texts, one below the other."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was looked at, the worst first: level, what it is about, words, and what to do."""

    rows: tuple[tuple[str, str, str, str], ...]

    @property
    def summary(self) -> str:
        return summary([row[0] for row in self.rows])


Block = Table | Facts | Findings

_LEVELS: Final[Mapping[str, str]] = {"fault": "bold red", "warning": "yellow", "ok": "green"}
"""How grave a finding is, and its colour."""

_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "devices": ("name", "address", "port", "username", "vendor", "location", "notes"),
    "proxies": ("name", "agent", "locations", "type", "idle", "login_buttons", "encrypt", "java", "consoles"),
    "fields": ("name", "label", "type", "default"),
    "consoles": ("console", "device", "type", "user", "agent", "proxy", "state", "viewers", "idle"),
    "viewers": ("viewer", "user", "control", "credentials", "connected", "steers", "peer", "joined"),
    "revoked": ("viewer", "user", "control", "credentials", "connected", "peer"),
    "closed": ("console", "device", "type", "user", "state", "reason"),
    "commands": ("command", "summary"),
    "arguments": ("name", "type", "default", "help"),
    "stages": ("label", "begun_ms", "done_ms"),
    "vendors": ("vendor", "label", "consoles", "ports", "signs_out", "slot_seconds", "evidence"),
    "installed": ("name", "version", "used", "windows", "unpacks", "home"),
    "agents": ("name", "kind", "address", "state", "since", "displays_run_as", "consoles", "displays", "problem"),
    "available": ("name", "there", "archive"),
}
_OPTIONAL: Final = frozenset({"proxy"})
"""Columns that are left out where no row has anything in them."""
_ONE_BY_ONE: Final = {"warnings": "warning", "changes": "change"}
"""Lists of texts of which each has a line of its own, with this word in front."""
_HIDDEN: Final = frozenset({"noun", "verb", "command"})
_TOLD_BY_FINDINGS: Final = frozenset({"problems", "warnings"})


def _moment(value: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))


_FORMS: Final[Mapping[str, Callable[[Any], str]]] = {
    "opened": _moment,
    "ready": _moment,
    "last_activity": _moment,
    "joined": _moment,
    "idle": show_duration,
    "max": show_duration,
    "defaults idle": show_duration,
    "defaults max": show_duration,
    "uptime": lambda value: show_duration(round(value)),
    "slot_seconds": show_duration,
    "slot_since": _moment,
    "since": _moment,
    "slot_until": _moment,
}
_HEADS: Final = {"slot_seconds": "forgets after"}
_WORDS: Final = {
    ("signs_out", "after-viewer"): "when closed",
    ("signs_out", "after-jnlp"): "at once",
    ("signs_out", "none"): "cannot",
}
"""For some words, by name, others that people understand."""
_NOTHING: Final = {
    "idle": "never",
    "max": "never",
    "defaults idle": "never",
    "defaults max": "never",
    "power": "not waited for",
}
"""What null means, by name."""


def summary(levels: Sequence[str]) -> str:
    """How many findings there are of each level."""

    counts = {level: levels.count(level) for level in _LEVELS}
    told = [f"{count} {level}{'' if count == 1 or level == 'ok' else 's'}" for level, count in counts.items()]
    return ", ".join(told)


def clean(text: str) -> str:
    """A text without characters that steer a terminal."""

    return "".join(
        mark if mark.isprintable() else " " if mark.isspace() else "\N{REPLACEMENT CHARACTER}" for mark in text
    )


def text_of(name: str, value: object) -> str:
    """One value as people read it. ``name`` says what it is."""

    if value is None:
        return _NOTHING.get(name, "-")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == 0 and name.startswith("limits "):
        return "none"
    if isinstance(value, int | float) and name in _FORMS:
        return _FORMS[name](value)
    if name == "png":
        return f"{len(str(value))} characters in base64: --json shows them, file=… makes a file of it"
    if isinstance(value, list):
        return ", ".join(text_of("", item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{clean(key)} {text_of(key, item)}" for key, item in value.items()) or "-"
    return clean(_WORDS.get((name, str(value)), str(value)))


def shape(data: Mapping[str, Any]) -> list[Block]:
    """What an answer's object looks like: its plain values as facts, and its lists of objects as tables."""

    facts: list[tuple[str, str]] = []
    tables: list[Block] = []
    hidden = _HIDDEN if "usage" in data or "commands" in data else ()
    if "findings" in data:
        hidden = _TOLD_BY_FINDINGS
    for name, value in data.items():
        if name == "findings" and isinstance(value, list):
            tables.append(_findings(value))
        elif name in hidden:
            continue
        elif _is_rows(value) or (name in _COLUMNS and value == []):
            tables.append(_table(name, value))
        elif isinstance(value, dict):
            facts += [(f"{name} {key}", text_of(f"{name} {key}", item)) for key, item in value.items()]
        elif name in _ONE_BY_ONE and isinstance(value, list):
            facts += [(_ONE_BY_ONE[name], text_of("", item)) for item in value]
        else:
            facts.append((name, text_of(name, value)))
    rows = tuple((clean(name.replace("_", " ")), text) for name, text in facts)
    return [*([Facts(rows)] if rows else []), *tables]


def _findings(rows: Sequence[Mapping[str, Any]]) -> Findings:
    levels = list(_LEVELS)
    cells = [tuple(clean(str(row.get(name, ""))) for name in ("level", "what", "words", "advice")) for row in rows]
    cells.sort(key=lambda cell: levels.index(cell[0]) if cell[0] in levels else 0)
    return Findings(tuple((level, what, words, advice) for level, what, words, advice in cells))


def _is_rows(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = _COLUMNS.get(name) or tuple(dict.fromkeys(key for row in rows for key in row))
    columns = tuple(column for column in columns if column not in _OPTIONAL or any(row.get(column) for row in rows))
    cells = tuple(tuple(_cell(column, row) for column in columns) for row in rows)
    heads = tuple(clean(_HEADS.get(column, column).replace("_", " ")) for column in columns)
    return Table(clean(name.replace("_", " ")), heads, cells)


def _cell(column: str, row: Mapping[str, Any]) -> str:
    text = text_of(column, row.get(column, ""))
    return f"{text}, agent away" if column == "state" and row.get("agent_away") else text


def progress_text(data: Mapping[str, Any]) -> str:
    """A line for a progress object."""

    words = data.get("text") or data.get("stage") or to_json(data)
    percent, passed = data.get("percent"), data.get("ms")
    share = f"  {percent:.0f} %" if isinstance(percent, int | float) else ""
    moment = f"{passed / 1000:6.2f} s  " if isinstance(passed, int | float) else ""
    return f"{moment}{clean(str(words))}{share}"


class View(Protocol):
    """Shows the answers of requests, one after the other."""

    def progress(self, data: Mapping[str, Any]) -> None: ...

    def done(self, data: Mapping[str, Any]) -> None: ...

    def refused(self, reply: Refused) -> None: ...

    def error(self, text: str, hint: str | None) -> None:
        """Something went wrong that is no reply."""

    def end(self) -> None:
        """Nothing more is shown: a request was broken off."""


class PlainView:
    """Text without colours or frames, for pipes and files."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._tenth: tuple[Any, int] | None = None

    def progress(self, data: Mapping[str, Any]) -> None:
        tenth = (data.get("stage"), int(data["percent"]) // 10) if "percent" in data else None
        if tenth is None or tenth != self._tenth:
            print(progress_text(data), file=self._err, flush=True)
        self._tenth = tenth

    def done(self, data: Mapping[str, Any]) -> None:
        for block in shape(data):
            for line in plain_lines(block):
                print(line, file=self._out)
        self._out.flush()

    def refused(self, reply: Refused) -> None:
        self.error(f"error ({reply.code}): {reply.message}", reply.hint)

    def error(self, text: str, hint: str | None) -> None:
        print(clean(text), file=self._err)
        if hint is not None:
            print(f"hint: {clean(hint)}", file=self._err)
        self._err.flush()

    def end(self) -> None:
        """Nothing is left on the screen that would have to go."""


def nothing_in(title: str) -> str:
    """Instead of a table without rows."""

    own = {
        "closed": "none was open",
        "revoked": "there was none",
        "installed": "no Java is installed",
        "available": "no other is known",
    }
    return own.get(title, f"no {title}")


def _finding_lines(row: tuple[str, str, str, str]) -> list[str]:
    level, what, words, advice = row
    return [f"{level}: {what}: {words}", *([f"    {advice}"] if advice else [])]


def plain_lines(block: Block) -> list[str]:
    """A block in columns."""

    if isinstance(block, Facts):
        return [f"{name}: {text}".rstrip() for name, text in block.rows]
    if isinstance(block, Findings):
        return [*(line for row in block.rows for line in _finding_lines(row)), block.summary]
    if not block.rows:
        return [nothing_in(block.title)]
    rows = [tuple(head.upper() for head in block.columns), *block.rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(block.columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


class JsonView(PlainView):
    """The objects of the replies, one on a line; a refusal's object also has its ``code``. Progress is for people."""

    def progress(self, data: Mapping[str, Any]) -> None:
        if self._err.isatty():
            super().progress(data)

    def done(self, data: Mapping[str, Any]) -> None:
        print(to_json(data), file=self._out, flush=True)

    def refused(self, reply: Refused) -> None:
        print(to_json({"code": reply.code, **reply.data}), file=self._out, flush=True)
        super().refused(reply)


class RichView:
    """Tables and colours, and a line that moves while one waits."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        from rich.console import Console

        self._out = Console(file=out, highlight=False, markup=False, emoji=False)
        self._err = Console(file=err, highlight=False, markup=False, emoji=False)
        self._status: Status | None = None

    def progress(self, data: Mapping[str, Any]) -> None:
        from rich.text import Text

        text = Text(progress_text(data), style="dim")
        if self._status is not None and "percent" in data:
            self._status.update(text)
            return
        if self._status is not None:
            self._status.update("waiting …")
        self._err.print(text, soft_wrap=True)
        if self._err.is_terminal and self._status is None:
            self._status = self._err.status("waiting …")
            self._status.start()

    def done(self, data: Mapping[str, Any]) -> None:
        self.end()
        for block in shape(data):
            if isinstance(block, Facts):
                self._facts(block)
            elif isinstance(block, Findings):
                self._findings(block)
            elif block.rows:
                self._table(block)
            else:
                self._out.print(nothing_in(block.title), style="dim")

    def _facts(self, block: Facts) -> None:
        from rich.text import Text

        width = max(len(name) for name, _ in block.rows)
        for name, text in block.rows:
            # Not a table: a long URL stays in one piece, to be clicked or copied.
            line = Text.assemble((f"{name.ljust(width)}  ", "yellow" if name == "warning" else "cyan"), text)
            self._out.print(line, soft_wrap=True)

    def _findings(self, block: Findings) -> None:
        from rich.table import Table as RichTable
        from rich.text import Text

        grid = RichTable.grid(padding=(0, 2, 0, 0))
        for level, what, words, advice in block.rows:
            told = Text.assemble(words, *([("\n" + advice, "cyan")] if advice else []))
            grid.add_row(Text(level, style=_LEVELS.get(level, "")), Text(what, style="bold"), told)
        self._out.print()
        self._out.print(grid)
        self._out.print()
        self._out.print(block.summary, style="bold")

    def _table(self, block: Table) -> None:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for column in block.columns:
            table.add_column(column, overflow="fold")
        for row in block.rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)

    def refused(self, reply: Refused) -> None:
        self.error(f"error ({reply.code}): {reply.message}", reply.hint)

    def error(self, text: str, hint: str | None) -> None:
        self.end()
        self._err.print(clean(text), style="bold red", soft_wrap=True)
        if hint is not None:
            self._err.print(f"hint: {clean(hint)}", soft_wrap=True)

    def end(self) -> None:
        status, self._status = self._status, None
        if status is not None:
            status.stop()


def choose_view(*, as_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> View:
    """JSON if asked for, colours on a terminal, plain text elsewhere."""

    out, err = out or sys.stdout, err or sys.stderr
    if as_json:
        return JsonView(out, err)
    if out.isatty():
        return RichView(out, err)
    return PlainView(out, err)
