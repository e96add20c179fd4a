"""A JNLP file, as panels write them, to values: which Java program a console is.

Lenient where real files are broken (stray control bytes, tags that nobody closes, no main class, a codebase
``https://(null)/``, HTML around it), strict where it matters: no DOCTYPE and no entities, bounds on everything, files
only from the panel's own host (or one that is allowed by name), never with a path that climbs. Arguments, parameters
and properties may be secret, and no error shows anything of them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from ipmiproxyd.errors import BadJnlp
from ipmiproxyd.model import Secret
from ipmiproxyd.wire.markup import Tag, pieces, plain, to_text

DOCUMENT_LIMIT: Final = 1 << 18
JARS_LIMIT, ARGUMENTS_LIMIT = 64, 256
TEXT_LIMIT: Final = 1 << 15
"""Characters of one argument or parameter: a certificate may be one."""
NAME_LIMIT: Final = 2048
"""Characters of a file's URL."""
UNQUOTED: Final = 4
"""How many times a URL may be quoted."""

_DECLARATION: Final = re.compile(r"<!\s*(doctype|entity|element|attlist|notation)\b", re.IGNORECASE)
_PAGE: Final = re.compile(r"<!doctype\s+html\b[^<>\[\]]{0,200}>", re.IGNORECASE)
_ROOT: Final = re.compile(r"<(?:\w+:)?jnlp(?=[\s>/])", re.IGNORECASE)
_END: Final = re.compile(r"</(?:\w+:)?jnlp\s*>", re.IGNORECASE)
_CLASS: Final = re.compile(r"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*", re.ASCII)
_HEAP: Final = re.compile(r"(\d{1,12})([kKmMgG]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_UNFINISHED: Final = ("Unable to find JNLP String", "Access Error")
"""What some panels write in the place of the arguments."""

_NOT_ONE = "What the panel sent is not the description of a Java console."
_NOT_ONE_HINT = "Its console may be set to HTML5, or its session may be over: try again, or use type=panel."


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    """A file of the program.

    :ivar url: absolute, as it is named; :func:`~ipmiproxyd.wire.jars.jar_urls` tells where it may really be.
    :ivar versioned: the panel keeps it under a name that has its version.
    :ivar packed: the panel may keep it packed by pack200.
    :ivar native: it holds libraries for ``os`` and ``arch``, and no classes.
    """

    url: str = field(repr=False)  # its query may be a secret
    version: str = ""
    versioned: bool = False
    packed: bool = False
    native: bool = False
    os: tuple[str, ...] = ()
    arch: tuple[str, ...] = ()
    main: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Applet:
    """How a program that is an applet wants to be started. One of a few pixels has windows of its own."""

    width: int = 1024
    height: int = 768
    name: str = ""
    document: str = field(default="", repr=False)
    parameters: Mapping[str, Secret] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jnlp:
    """The program.

    :ivar codebase: absolute, with a slash at its end.
    :ivar origin: of the panel that the file is from: ``https://host[:port]``.
    :ivar main_class: empty: the main jar's manifest names it.
    :ivar java: the versions of Java that it asks for, as written.
    :ivar heap: bytes that it asks for; 0 if it does not.
    """

    codebase: str
    origin: str
    main_class: str = ""
    title: str = field(default="", repr=False)
    jars: tuple[Jar, ...] = ()
    arguments: tuple[Secret, ...] = field(default=(), repr=False)
    applet: Applet | None = None
    java: tuple[str, ...] = ()
    heap: int = 0
    properties: Mapping[str, Secret] = field(default_factory=dict, repr=False)


def parse(document: bytes, *, base: str, allowed: Collection[str] = ()) -> Jnlp:
    """Read a JNLP file.

    :param base: the URL that it was fetched from.
    :param allowed: other hosts than that of ``base`` that its files may be on: host, or host:port.
    """

    root = _root(document)
    reading = _Reading(base, allowed)
    for piece in pieces(root):
        if isinstance(piece, Tag):
            reading.tag(piece)
        else:
            reading.text(piece)
    return reading.finish()


def _root(document: bytes) -> str:
    """The text from the root element to its end."""

    if len(document) > DOCUMENT_LIMIT:
        raise BadJnlp("The description of the Java console is too long.")
    text = to_text(document)
    if not _ROOT.search(text) and "&lt;jnlp" in text:
        text = plain(text)
    root = _ROOT.search(text)
    for declaration in _DECLARATION.finditer(text):
        if not (page := _PAGE.match(text, declaration.start())) or (root and page.end() > root.start()):
            raise BadJnlp("The description of the Java console declares a document type or entities.")
    if root is None:
        raise BadJnlp(_NOT_ONE, hint=_NOT_ONE_HINT)
    end = _END.search(text, root.end())
    return text[root.start() : end.end() if end else len(text)]


class Places:
    """Which URLs a panel's files may have."""

    def __init__(self, base: str, allowed: Collection[str]) -> None:
        parts = urlsplit(base)
        self.base, self.origin = base, f"{parts.scheme}://{parts.netloc}"
        self._host, self._secure = _host(parts.hostname or ""), parts.scheme == "https"
        self._ports = {80, 443, parts.port or 443}
        self._allowed = {entry.lower() for entry in allowed}

    def codebase(self, named: str) -> str:
        """The folder of the program's files."""

        folder = urljoin(self.base, ".")
        named = named.strip()
        if "(null)" in named:  # it does not know its own address
            named = f"{self.origin}/{named.partition('://')[2].partition('/')[2]}"
        elif not named or "://:" in named or "<%" in named:
            return folder
        return self.place(folder, named.rstrip("/") + "/", "folder")

    def place(self, folder: str, named: str, what: str) -> str:
        """Absolute; raises BadJnlp where it leaves the panel."""

        _check_path(named, what)
        try:
            parts = urlsplit(urljoin(folder, named))
            host, port = _host(parts.hostname or ""), parts.port
        except ValueError:
            raise BadJnlp(f"The description of the Java console names a {what} by a URL that is none.") from None
        if parts.scheme not in ("http", "https") or "@" in parts.netloc or not host:
            raise BadJnlp(f"The description of the Java console names a {what} by a URL of a kind that is not allowed.")
        at = port or (443 if parts.scheme == "https" else 80)
        if host == self._host and at in self._ports:
            if self._secure and parts.scheme == "http":
                # Never less safe than the way that the description came by.
                return urlunsplit((*urlsplit(self.origin)[:2], parts.path, parts.query, ""))
        elif parts.netloc.lower() not in self._allowed and host not in self._allowed:
            where = f"{host}:{at}" if host == self._host else host[:100]
            raise BadJnlp(
                f"The description of the Java console asks for a {what} from another place than the panel: {where}.",
                hint="If that is the BMC as well, allow it for this device.",
            )
        elif self._secure and parts.scheme == "http":
            secure = parts.netloc.removesuffix(":80") if at == 80 else parts.netloc
            return urlunsplit(("https", secure, parts.path, parts.query, ""))
        return urlunsplit((*parts[:4], ""))


def _host(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")


def _check_path(named: str, what: str) -> None:
    """No climbing, whichever way it is written."""

    path = named.split("?", 1)[0]
    # Not to its end: that of "%252525…" takes the square of its length.
    for _ in range(UNQUOTED if len(named) <= NAME_LIMIT else 0):
        path = unquote(path)
    plain_path = path if path == unquote(path) else "|"
    if len(named) > NAME_LIMIT or any(letter <= " " or letter in '\\"<>|' for letter in plain_path):
        raise BadJnlp(f"The description of the Java console names a {what} in a way that is not allowed.")
    if any(part in ("..", ".") for part in plain_path.split("/")):
        raise BadJnlp(f"The description of the Java console names a {what} outside of its folder.")


class _Reading:
    """Collects what the tags say. Order is as in real files: whatever is inside ``resources`` belongs to its system."""

    def __init__(self, base: str, allowed: Collection[str]) -> None:
        self.places = Places(base, allowed)
        self.codebase = self.places.codebase("")
        self.found: dict[str, Jar] = {}
        self.os: tuple[str, ...] = ()
        self.arch: tuple[str, ...] = ()
        self.arguments: list[str] = []
        self.parameters: dict[str, Secret] = {}
        self.properties: dict[str, Secret] = {}
        self.java: list[str] = []
        self.main_class, self.title, self.heap = "", "", 0
        self.applet: Mapping[str, str] | None = None
        self.within = ""

    def tag(self, tag: Tag) -> None:
        # Some files do not close what they open: whatever comes next has ended it.
        self.within = tag.name if not tag.closes and not tag.empty else ""
        handler = getattr(self, f"on_{tag.name.replace('-', '_')}", None)
        if handler is None:
            return
        if not tag.closes:
            handler(tag.attributes)
        elif tag.name == "resources":
            self.os = self.arch = ()

    def text(self, text: str) -> None:
        if any(words in text for words in _UNFINISHED):
            raise BadJnlp("The panel's description of the Java console has no arguments.", hint=_NOT_ONE_HINT)
        if self.within == "argument":
            self.arguments[-1] += text
            if len(self.arguments[-1]) > TEXT_LIMIT:
                raise BadJnlp("An argument in the description of the Java console is too long.")
        elif self.within == "title" and not self.title:
            self.title = " ".join(text.split())[:200]

    def on_jnlp(self, attributes: Mapping[str, str]) -> None:
        self.codebase = self.places.codebase(attributes.get("codebase", ""))

    def on_resources(self, attributes: Mapping[str, str]) -> None:
        self.os, self.arch = _words(attributes.get("os", "")), _words(attributes.get("arch", ""))

    def on_jar(self, attributes: Mapping[str, str], *, native: bool = False) -> None:
        named = attributes.get("href", "").strip()
        if not named:
            return
        url = self.places.place(self.codebase, named, "file")
        packed = url.endswith(".pack.gz")
        url = url.removesuffix(".pack.gz")
        version = attributes.get("version", "").strip()
        if version and not re.fullmatch(r"[\w.+*-]{1,64}", version, re.ASCII):
            raise BadJnlp("The description of the Java console names a version that is none.")
        main = attributes.get("main", "").lower() == "true"
        jar = Jar(url=url, version=version, packed=packed, native=native, os=self.os, arch=self.arch, main=main)
        self.found.setdefault(f"{url} {self.os} {self.arch} {native}", jar)
        if len(self.found) > JARS_LIMIT:
            raise BadJnlp("The description of the Java console names too many files.")

    def on_nativelib(self, attributes: Mapping[str, str]) -> None:
        self.on_jar(attributes, native=True)

    def on_j2se(self, attributes: Mapping[str, str]) -> None:
        self.java += _words(attributes.get("version", ""))[: 16 - len(self.java)]
        if match := _HEAP.fullmatch(attributes.get("max-heap-size", "").strip()):
            self.heap = max(self.heap, int(match[1]) * _UNITS[match[2].lower()])

    on_java = on_j2se

    def on_property(self, attributes: Mapping[str, str]) -> None:
        self.remember(self.properties, attributes)

    def on_param(self, attributes: Mapping[str, str]) -> None:
        self.remember(self.parameters, attributes)

    def remember(self, values: dict[str, Secret], attributes: Mapping[str, str]) -> None:
        name, value = attributes.get("name", ""), attributes.get("value", "")
        if name:
            values[name] = Secret(value)
        if len(values) > ARGUMENTS_LIMIT or len(name) > 256 or len(value) > TEXT_LIMIT:
            raise BadJnlp("The description of the Java console has too many parameters, or too long ones.")

    def on_argument(self, _: Mapping[str, str]) -> None:
        self.arguments.append("")
        if len(self.arguments) > ARGUMENTS_LIMIT:
            raise BadJnlp("The description of the Java console has too many arguments.")

    def on_application_desc(self, attributes: Mapping[str, str]) -> None:
        self.start_with(attributes.get("main-class", ""))

    def on_applet_desc(self, attributes: Mapping[str, str]) -> None:
        self.start_with(attributes.get("main-class", "").removesuffix(".class"))
        self.applet = attributes

    def start_with(self, main_class: str) -> None:
        main_class = main_class.strip().replace("/", ".")
        if main_class and (len(main_class) > 256 or not _CLASS.fullmatch(main_class)):
            raise BadJnlp("The main class in the description of the Java console is none.")
        self.main_class = self.main_class or main_class

    def finish(self) -> Jnlp:
        def flag(name: str) -> bool:
            value = self.properties.get(name)
            return value is not None and value.reveal().strip().lower() == "true"

        versioned, packed = flag("jnlp.versionEnabled"), flag("jnlp.packEnabled")
        jars = tuple(
            replace(jar, versioned=versioned and bool(jar.version), packed=packed or jar.packed)
            for jar in self.found.values()
        )
        if all(jar.native for jar in jars):
            raise BadJnlp("The description of the Java console names no program.", hint=_NOT_ONE_HINT)
        return Jnlp(
            codebase=self.codebase,
            origin=self.places.origin,
            main_class=self.main_class,
            title=self.title,
            jars=jars,
            arguments=tuple(Secret(argument.strip("\r\n\t ")) for argument in self.arguments),
            applet=self._applet(),
            java=tuple(self.java),
            heap=self.heap,
            properties=self.properties,
        )

    def _applet(self) -> Applet | None:
        if self.applet is None:
            return None
        document = self.applet.get("documentbase", "").strip()
        return Applet(
            width=_pixels(self.applet.get("width", ""), 1024),
            height=_pixels(self.applet.get("height", ""), 768),
            name=self.applet.get("name", "")[:200],
            document=self.places.place(self.codebase, document, "page") if document else self.codebase,
            parameters=self.parameters,
        )


def _words(text: str) -> tuple[str, ...]:
    """Words between spaces; one with a backslash before a space goes on after it."""

    return tuple(word.replace("\0", " ") for word in text.replace("\\ ", "\0").split())[:16]


def _pixels(text: str, otherwise: int) -> int:
    return min(int(text), 8192) if re.fullmatch(r"[0-9]{1,5}", text.strip()) else otherwise
