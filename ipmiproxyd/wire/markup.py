"""Tags and text of a document that means to be XML. Broken files are read as far as they make sense: a tag that is not
closed, a control byte, an ampersand that stands for itself. Nothing is ever expanded or looked up: no entity but the
five of XML, no DOCTYPE. Time and memory are linear in the document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_ENTITIES: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_ENTITY: Final = re.compile(r"&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos));")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_TAG: Final = re.compile(r"<(/?)([A-Za-z][\w:.-]*+)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*+)>")
_ATTRIBUTE: Final = re.compile(r"([A-Za-z_:][\w:.-]*+)\s*+=\s*+(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")


@dataclass(frozen=True, slots=True)
class Tag:
    """``name`` is without a prefix, and it and the attributes' names are in lower case."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict, repr=False)
    closes: bool = False
    empty: bool = False


def to_text(document: bytes) -> str:
    """As it says itself, where that is plausible; without the control characters that some panels leave in it."""

    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"<\0?\0", "utf-16-le")):
        if document.startswith(mark):
            return without_controls(document.decode(encoding, "replace"))
    try:
        return without_controls(document.decode())
    except UnicodeDecodeError:
        return without_controls(document.decode("latin-1"))


def without_controls(text: str) -> str:
    return _CONTROL.sub("", text)


def plain(text: str) -> str:
    """With character references replaced; those that mean nothing, or a control character, stay out."""

    def character(match: re.Match[str]) -> str:
        if match[3]:
            return _ENTITIES[match[3]]
        number = int(match[1]) if match[1] else int(match[2], 16)
        return without_controls(chr(number)) if number < 0x110000 else ""

    return _ENTITY.sub(character, text)


def pieces(text: str) -> Iterator[Tag | str]:
    """The tags, and the text between them. Comments and processing instructions are left out; what looks like a tag and
    is none is text."""

    start = 0
    while (at := text.find("<", start)) >= 0:
        if at > start:
            yield plain(text[start:at])
        if text.startswith("<![CDATA[", at):
            end = text.find("]]>", at)
            yield text[at + 9 : end if end >= 0 else len(text)]
            start = end + 3 if end >= 0 else len(text)
        elif skipped := _skipped(text, at):
            start = skipped
        elif match := _TAG.match(text, at):
            yield _tag(match)
            start = match.end()
        else:
            yield "<"
            start = at + 1
    if start < len(text):
        yield plain(text[start:])


def _skipped(text: str, at: int) -> int:
    """Where a comment, an instruction or a declaration that begins here ends; 0 if there is none."""

    for mark, end in (("<!--", "-->"), ("<?", "?>"), ("<!", ">")):
        if text.startswith(mark, at):
            found = text.find(end, at + len(mark))
            return found + len(end) if found >= 0 else len(text)
    return 0


def _tag(match: re.Match[str]) -> Tag:
    attributes: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(match[3]):
        attributes.setdefault(_local(name), plain(double or single or bare))
    return Tag(_local(match[2]), attributes, bool(match[1]), match[3].rstrip().endswith("/"))


def _local(name: str) -> str:
    return name.rpartition(":")[2].lower()
