"""``console screenshot``: what a console shows, as a picture."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.threads import deferToThread

from ipmiproxyd.control.arguments import Argument, Text, UnfitError
from ipmiproxyd.control.commands.console import CONSOLE
from ipmiproxyd.control.declare import Call, Command
from ipmiproxyd.errors import BadValue
from ipmiproxyd.interfaces import Consoles

_SIZE: Final = struct.Struct(">II")
_SIZE_AT: Final = 16  # behind the signature, and the length and name of the first chunk


class AbsolutePath(Text):
    """The path of a file; only absolute ones mean the same to a client and to the daemon."""

    def parse(self, text: str) -> str:
        if not text.startswith("/"):
            raise UnfitError("is not an absolute path", hint="The daemon writes the file: give a path from / on.")
        return super().parse(text)


FILE: Final = Argument(
    "file",
    AbsolutePath(4096, "path"),
    "a new file on the daemon's machine that the daemon writes it to; without it the answer has the picture, in base64",
)


def commands(consoles: Consoles) -> list[Command]:
    async def screenshot(call: Call) -> Mapping[str, Any]:
        console_id, path = call.values[CONSOLE], call.values.get(FILE)
        png = await consoles.screenshot(console_id)
        width, height = _SIZE.unpack_from(png, _SIZE_AT)
        facts = {"console": console_id, "width": width, "height": height, "bytes": len(png)}
        if path is None:
            return {**facts, "png": base64.b64encode(png).decode("ascii")}
        await deferToThread(write_new, path, png)
        return {**facts, "file": path}

    return [
        Command(
            noun="console",
            verb="screenshot",
            summary="Take a picture (PNG) of what a console shows.",
            arguments=(CONSOLE, FILE),
            handler=screenshot,
        )
    ]


def write_new(path: str, data: bytes) -> None:
    """Write a file that is not there yet; none is left that is not whole. Blocks. Raises BadValue."""

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except OSError:
            os.unlink(path)
            raise
    except OSError as error:
        raise BadValue(
            f"file: it cannot be written: {error.strerror or error}.",
            hint="The daemon writes it, a new file, with its own rights and where its service may; "
            "without file= the answer has the picture.",
        ) from None
