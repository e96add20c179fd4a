"""A stream in pieces, for parsers that must not mind."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

PLACES = st.lists(st.integers(0, 5000), max_size=12)
"""Where to cut."""


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[start:end] for start, end in pairwise(edges)]
