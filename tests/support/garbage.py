"""Bytes that no decent client sends, from a seed that a failing test can print."""

from __future__ import annotations

import random
from collections.abc import Iterator

_WORDS = (
    b"console", b"open", b"list", b"device", b"power", b"status", b"help", b"quit", b"add", b"name=", b"device=node1",
    b"'", b'"', b"\\", b"\n", b"\r\n", b"#", b"=", b" ", b"\x00", b"\xff\xfe", b"\t", b"{}", b"a" * 300,
)  # fmt: skip


def lines(seed: int, count: int) -> Iterator[bytes]:
    """Chunks that look like requests now and then. None of them is one that changes something."""

    chance = random.Random(seed)
    for _ in range(count):
        kind = chance.random()
        if kind < 0.3:
            yield chance.randbytes(chance.randrange(1, 2000))
        elif kind < 0.35:
            yield b"x" * 70_000 + b"\n"
        else:
            yield b" ".join(chance.choices(_WORDS, k=chance.randrange(1, 12))) + b"\n"


def frames(seed: int, count: int) -> Iterator[bytes]:
    """Chunks for a WebSocket: random bytes, and well-made frames with random contents."""

    chance = random.Random(seed)
    for _ in range(count):
        payload = chance.randbytes(chance.randrange(0, 125))
        if chance.random() < 0.5:
            yield payload
        else:
            head = bytes((chance.choice((0x82, 0x81, 0x88, 0x89, 0x8A, 0x02, 0xF2)), 0x80 | len(payload)))
            yield head + bytes(4) + payload
