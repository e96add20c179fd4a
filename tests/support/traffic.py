"""Looks for a text in all that passed between a browser's page and its servers."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from ipmiproxyd.wire.typing import keystrokes
from tests.support.page_case import KEYS, client_messages
from tests.support.viewer import Page

_ZLIB_BEGINS: Final = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_ESCAPED: Final = re.compile(rb"\\u([0-9a-fA-F]{4})")
_MOST_INFLATED: Final = 1 << 16
_QEMU_KEY: Final = 255
_MODIFIERS: Final = range(0xFFE1, 0xFFEF)


class Traffic:
    """What a page that was opened with ``tap`` has sent and received."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = entries
        self.frames = {way: sum(self._is_frame(entry, way) for entry in entries) for way in ("sent", "received")}

    @classmethod
    async def of(cls, page: Page) -> Traffic:
        return cls(await page.traffic())

    def unread(self) -> list[str]:
        """What the browser could not hand out."""

        return [f"{entry['kind']} of {entry['url']}: {entry['error']}" for entry in self._entries if "error" in entry]

    def where(self, text: str) -> list[str]:
        """Where a text stands: in any encoding that comes to mind, packed, or as keys that were pressed."""

        forms = _forms(text)
        found = [
            f"{entry['way']} {entry['kind']} {entry['url']}: {form}"
            for entry in self._entries
            for piece in _readings(base64.b64decode(entry["data"] or ""))
            for form, wanted in forms.items()
            if wanted in piece
        ]
        return found + [f"sent keys {url}" for url, keys in self._keys() if text in keys]

    def _keys(self) -> Iterator[tuple[str, str]]:
        """For each WebSocket the signs whose keys went down on it, in a row."""

        sockets: dict[str, list[str]] = {}
        for entry in self._entries:
            if self._is_frame(entry, "sent"):
                sockets.setdefault(entry["url"], []).append(entry["data"])
        for url, frames in sockets.items():
            messages = client_messages(frames)
            plain = [int.from_bytes(message[4:8]) for message in messages if message[0] == KEYS and message[1]]
            qemu = [int.from_bytes(message[4:8]) for message in messages if message[0] == _QEMU_KEY and message[3]]
            for symbols in (plain, qemu):
                yield url, "".join(chr(symbol & 0xFFFF) for symbol in symbols if symbol not in _MODIFIERS)

    def _is_frame(self, entry: dict[str, Any], way: str) -> bool:
        return bool(entry["kind"] == "frame" and entry["way"] == way)


def _forms(text: str) -> dict[str, bytes]:
    """``text`` as bytes in many ways. UTF-32 is also how keysyms stand in a row."""

    plain = text.encode()
    forms = {name: text.encode(name) for name in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")}
    # Without the ends, which depend on what is around it.
    packed = {f"base64 at {shift}": base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)}
    return {
        **forms,
        **{name: form for name, form in packed.items() if len(form) > 8},  # a shorter one stands anywhere by chance
        "hexadecimal": plain.hex().encode(),
        "quoted": quote(text, safe="").encode(),
        "backwards": plain[::-1],
        "keys": b"".join(keystrokes(text)),
    }


def _readings(data: bytes) -> Iterator[bytes]:
    """The bytes themselves, and whatever in them can be unpacked."""

    yield data
    if b"\\u" in data:  # as JSON writes all that is not ASCII
        yield _ESCAPED.sub(lambda found: chr(int(found[1], 16)).encode("latin-1", "replace"), data)
    for begin in _ZLIB_BEGINS.finditer(data):
        try:
            yield zlib.decompressobj().decompress(data[begin.start() :], _MOST_INFLATED)
        except zlib.error:
            continue
