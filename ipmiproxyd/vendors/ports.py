"""TCP ports, as families of panels declare them: numbers, and ranges with their first and last number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Port = int | tuple[int, int]
Ranges = tuple[tuple[int, int], ...]

ALL: Final[Ranges] = ((1, 65535),)
AMI: Final[tuple[Port, ...]] = (5120, (5122, 5124), 5126, 5127, 7578, 7582)
"""Virtual disks and video, each in plain and with TLS: what AMI's viewer uses, under whichever name it is sold."""


def ranges(ports: Iterable[Port]) -> Ranges:
    """In their order, those that touch each other as one."""

    found: list[tuple[int, int]] = []
    for first, last in sorted((port, port) if isinstance(port, int) else port for port in ports):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def written(ports: Iterable[Port]) -> list[str]:
    """For people: "443", "5900-5901"."""

    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges(ports)]
