"""The simulated vendors' Java console: a real program made from the sources in ``kvm/``, and the port that it connects
to. See ``kvm/simulated/Viewer.java`` for what they say to each other."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from tests.simulator.personality import Record

SOURCES: Final = Path(__file__).with_name("kvm")
BUILT: Final = Path(__file__).resolve().parents[2] / "build" / "kvm"

MAIN_CLASSES: Final = {
    "tw.com.aten.ikvm.KVMMain": "aten",
    "com.ami.kvm.jviewer.JViewer": "ami",
    "com.avocent.idrac.kvm.Main": "named",
    "com.avocent.ibmc.kvm.Main": "named",
    "com.avocent.nuova.kvm.Main": "named",
    "com.fujitsu.avr.Main": "named",
    "com.sun.rkvm.rconsole.JavaRConsole": "sun",
    "com.example.acme.Viewer": "plain",
}
"""How each vendor's main class takes its arguments: the methods of ``kvm/simulated/Target.java``."""

ONE_JAR: Final = frozenset({"com.sun.rkvm.rconsole.JavaRConsole"})
"""Those that need no library of another jar; nor do the applets."""

ILO_APPLET: Final = "com.hp.ilo2.intgapp.intgapp"
HUAWEI_APPLET: Final = "com.kvm.KVMApplet"
PACKER: Final = os.environ.get("PACK200_JARS", "")
"""A class path with Apache's commons-compress 1.21 or later and what it needs. Debian's lacks pack200, and the JDK has
none since Java 14: without it there is no packed variant."""

_NAMES: Final = ("viewer.jar", "native.jar", "libsimulatedkvm.so", "viewer.jar.pack.gz")

_NATIVE: Final = re.compile(r"linux|win|mac|avct(KVMIO|VM)", re.IGNORECASE)
_MAIN: Final = """\
package {package};

public final class {name} {{
    private {name}() {{}}

    public static void main(String[] args) throws Exception {{
        simulated.Viewer.main(simulated.Target.{how}(args), "{package}", {library});
    }}
}}
"""
_MANIFEST: Final = "Main-Class: {main}\nPermissions: all-permissions\nApplication-Name: simulated console\n"


@dataclass(frozen=True, slots=True)
class Jars:
    """The program, signed; the jar of its native library, and what is in that; the program packed by pack200, unsigned,
    in gzip: empty without a packer."""

    viewer: bytes = field(repr=False)
    native: bytes = field(repr=False)
    native_library: bytes = field(repr=False)
    packed: bytes = field(repr=False)


@functools.cache
def jars() -> Jars:
    """All main classes are in the one jar, whose manifest names AMI's. Built once; needs a JDK and cc."""

    folder = BUILT / _hash()
    if not folder.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="work-", dir=BUILT))
        try:
            _build(work)
            (work / "done").rename(folder)
        except OSError:
            if not folder.exists():  # somebody else was quicker
                raise
        finally:
            shutil.rmtree(work)
    return Jars(*((folder / name).read_bytes() for name in _NAMES))


class VendorJars(Mapping[str, bytes]):
    """The jars by file name, whatever name a panel has for them."""

    def __getitem__(self, name: str) -> bytes:
        if name.endswith(".pack.gz"):
            if not jars().packed:
                raise KeyError(name)
            return jars().packed
        return jars().native if _NATIVE.search(name) else jars().viewer

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _hash() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(SOURCES)}\0".encode() + path.read_bytes())
    return hashlib.sha256(digest.digest() + PACKER.encode()).hexdigest()[:16]


def _build(work: Path) -> None:
    def run(*argv: str) -> None:
        done = subprocess.run(argv, cwd=work, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise AssertionError(f"{argv[0]} failed: {done.stdout}{done.stderr}")

    for name in ("classes", "main", "done", "native"):
        (work / name).mkdir()
    for main, how in MAIN_CLASSES.items():
        package, _, name = main.rpartition(".")
        file = work / "main" / f"{main}.d" / f"{name}.java"
        file.parent.mkdir()
        library = "false" if main in ONE_JAR else "true"
        file.write_text(_MAIN.format(package=package, name=name, how=how, library=library))
    sources = [str(path) for folder in (SOURCES / "simulated", SOURCES / "com", work / "main")
               for path in folder.rglob("*.java")]  # fmt: skip
    run("javac", "--release", "8", "-nowarn", "-Xlint:none", "-d", "classes", *sources)
    (work / "manifest").write_text(_MANIFEST.format(main="com.ami.kvm.jviewer.JViewer"))
    run("jar", "cfm", "done/viewer.jar", "manifest", "-C", "classes", ".")
    _pack(work, run)
    library = "native/libsimulatedkvm.so"
    run("cc", "-shared", "-nostdlib", "-fPIC", "-o", library, str(SOURCES / "native" / "simulatedkvm.c"))
    run("jar", "cf", "done/native.jar", "-C", "native", ".")
    shutil.copy(work / library, work / "done")
    key = ("-keystore", "keys", "-storepass", "simulated", "-keypass", "simulated")
    name = "CN=Simulated vendor"
    run("keytool", "-genkeypair", "-alias", "v", "-keyalg", "RSA", "-keysize", "2048", "-dname", name, *key)
    for jar in ("done/viewer.jar", "done/native.jar"):
        run("jarsigner", *key, jar, "v")


def _pack(work: Path, run: Callable[..., None]) -> None:
    """Before it is signed: packing changes class files."""

    if not PACKER:
        (work / "done" / "viewer.jar.pack.gz").touch()
        return
    run("java", "-cp", PACKER, str(SOURCES / "tools" / "Pack.java"), "done/viewer.jar", "done/viewer.jar.pack.gz")


# --- the port ---------------------------------------------------------------------------------------------------------


class _Viewer(LineOnlyReceiver):
    """One viewer's connection."""

    delimiter = b"\n"
    factory: KvmPort
    token = ""

    @property
    def connection(self) -> Any:
        return self.transport

    def lineReceived(self, line: bytes) -> None:
        word, _, rest = line.decode("utf-8", "replace").rstrip("\r").partition(" ")
        if not self.token:
            if word != "TOKEN" or not self.factory.accepts(rest):
                self.factory.record("kvm-refused", {})
                self.connection.loseConnection()
                return
            self.token = rest
            self.connection.setTcpNoDelay(True)
            self.sendLine(b"OK " + self.factory.name.encode())
            self.factory.joined(self)
        elif word == "KEY":
            name, _, code = rest.partition(" ")
            self.factory.record("kvm-key", {"name": name, "char": chr(int(code)) if int(code) else ""})
        elif word == "CLICK":
            button, x, y = map(int, rest.split())
            self.factory.record("kvm-click", {"button": button, "x": x, "y": y})

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.token:
            self.factory.left(self, clean=bool(reason.check(ConnectionDone)))


class KvmPort(Factory):
    """The viewers' server of one simulated BMC.

    :param name: the server's, for the screen.
    :param accepts: whether a viewer's token is good.
    :param record: is told ``kvm-connected``, ``kvm-key`` (name, char), ``kvm-click`` (button, x, y), ``kvm-gone``,
        ``kvm-refused``. Never a token.
    """

    protocol: Any = _Viewer
    noisy = False

    def __init__(self, name: str, accepts: Callable[[str], bool], record: Record) -> None:
        self.name = name
        self.accepts = accepts
        self.record = record
        self.viewers: list[_Viewer] = []
        self._port: Any = None

    def listen(self, port: int = 0, address: str = "127.0.0.1") -> int:
        """Returns the port's number."""

        self._port = cast(Any, reactor).listenTCP(port, self, interface=address)
        return int(self._port.getHost().port)

    async def stop(self) -> None:
        for viewer in [*self.viewers]:
            viewer.connection.abortConnection()
        if self._port is not None:
            stopped: Deferred[None] = maybeDeferred(self._port.stopListening)
            await stopped

    def drop(self, token: str) -> None:
        """The web session is over: the viewers that live by it die."""

        for viewer in [viewer for viewer in self.viewers if viewer.token == token]:
            viewer.connection.loseConnection()

    def drop_bad(self) -> None:
        """Drop the viewers whose token is not good any more."""

        for viewer in [viewer for viewer in self.viewers if not self.accepts(viewer.token)]:
            viewer.connection.loseConnection()

    def write(self, line: str) -> None:
        """A line on every viewer's screen."""

        for viewer in self.viewers:
            viewer.sendLine(b"TEXT " + line.encode())

    def joined(self, viewer: _Viewer) -> None:
        self.viewers.append(viewer)
        self.record("kvm-connected", {"viewers": len(self.viewers)})

    def left(self, viewer: _Viewer, *, clean: bool) -> None:
        self.viewers.remove(viewer)
        self.record("kvm-gone", {"viewers": len(self.viewers), "clean": clean})
