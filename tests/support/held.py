"""How much a parser keeps of what it was fed."""

from __future__ import annotations


def held_bytes(parser: object) -> int:
    """Bytes in the attributes of an object with ``__slots__``, and in what they contain."""

    slots: tuple[str, ...] = type(parser).__slots__  # type: ignore[attr-defined]
    return sum(_size(getattr(parser, name)) for name in slots)


def _size(value: object) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict | list | tuple):
        return sum(map(_size, value))
    return 0
