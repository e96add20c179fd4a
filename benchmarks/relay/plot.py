"""The plot: for each cost a group of bars, one for each relay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from benchmarks.relay.cases import PLAIN, RELAYS
from benchmarks.relay.measure import Results

_COSTS: Final = (
    ("bulk1", "CPU s/GB", "bulk, 1 connection: CPU seconds per GB"),
    ("bulk20", "CPU s/GB", "bulk, 20 connections: CPU seconds per GB"),
    ("rtt50", "CPU µs", "small round trip, 50 connections: CPU µs"),
    ("mixed", "CPU %", "120 mixed sessions: CPU, % of a core"),
    ("setups", "CPU ms", "set-up: CPU ms"),
    ("memory", "KB at 100", "memory, KB a session at 100 (logarithmic)"),
)
_COLOURS: Final = ("#1f6f8b", "#c8553d", "#8a8d91")
_LABEL: Final = 330
_BAR: Final = 300
_STEP: Final = 15
_GAP: Final = 12


def draw(results: Results, schemes: Sequence[str]) -> str:
    """An SVG document."""

    lines: list[str] = []
    y = 46
    for scheme in schemes:
        for case, metric, title in _COSTS:
            values = [results.median(scheme, case, name, metric) for name in RELAYS]
            if any(value is not None for value in values):
                words = title if scheme == PLAIN else f"{scheme.upper()}, {title}"
                lines += _group(words, values, y, logarithmic="logarithmic" in title)
                y += _STEP * len(RELAYS) + _GAP
    width = _LABEL + _BAR + 70
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{y}" fill="#ffffff"/>',
            *_legend(),
            *lines,
            "</svg>",
            "",
        ]
    )


def _legend() -> Iterator[str]:
    for number, (name, colour) in enumerate(zip(RELAYS, _COLOURS, strict=True)):
        x = _LABEL + number * 105
        yield f'<rect x="{x}" y="14" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 17}" y="24" fill="#222222">{escape(name)}</text>'
    yield '<text x="12" y="24" fill="#222222">what it costs; shorter is better</text>'


def _group(title: str, values: Sequence[float | None], y: int, *, logarithmic: bool) -> Iterator[str]:
    yield f'<text x="12" y="{y + 27}" fill="#222222">{escape(title)}</text>'
    lengths = [0.0 if value is None else _length(value, logarithmic=logarithmic) for value in values]
    most = max(lengths) or 1.0
    for number, (value, length) in enumerate(zip(values, lengths, strict=True)):
        top = y + number * _STEP
        if value is None:
            continue
        size = max(2.0, length / most * _BAR)
        yield f'<rect x="{_LABEL}" y="{top}" width="{size:.1f}" height="{_STEP - 3}" fill="{_COLOURS[number]}"/>'
        yield f'<text x="{_LABEL + size + 6:.1f}" y="{top + 10}" fill="#444444">{value:.3g}</text>'


def _length(value: float, *, logarithmic: bool) -> float:
    value = max(0.0, value)
    return math.log10(value + 1) if logarithmic else value
