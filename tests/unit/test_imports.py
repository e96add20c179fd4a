"""Who may import whom: the direction that docs/architecture.md draws, held over the real tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ipmiproxyd"

# From the ground up. A room may import from the floors below its own and from itself, never from a neighbour.
# agents.sandbox, the places inside a sandbox, is what agents and tools have in common.
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(rooms.split())
    for rooms in (
        "__init__ errors",
        "model",
        "config_kinds",
        "interfaces agents.sandbox",
        "wire vendors",
        "config_sections",
        "config",
        "tools agents store access",
        "provision",
        "console",
        "doctor",
        "relay control web",
        "setup",
        "log notify options ctl daemon",
        "service",
        "main",
        "__main__",
    )
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What stands on its own: no Twisted, nothing that does I/O by itself.
PURE = ("errors", "model", "config", "config_kinds", "config_sections", "wire", "vendors")
NO_IO = frozenset(
    ["asyncio", "http", "multiprocessing", "select", "selectors", "sqlite3", "ssl", "subprocess", "twisted"]
)

# Files that are copied or started on their own: the standard library only.
ENGINE = "provision/host/"
ALONE = (
    "agents/runner.py",
    "agents/box.py",
    "agents/fence.py",
    "agents/inside.py",
    "agents/watcher.py",
    "agents/preparing.py",
    "agents/looking.py",
    "doctor/reaching.py",
    "doctor/trial_program.py",
    "tools/on_agent.py",
    "tools/steer.py",
    "tools/bridge.py",
    *(f"provision/host/{path.name}" for path in sorted((PACKAGE / "provision/host").glob("*.py"))),
)


def modules() -> Iterator[tuple[str, str, Path]]:
    """Dotted name, room and path of every module."""

    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if "node_modules" not in parts:
            name = ".".join(("ipmiproxyd", *parts))
            yield name, room_of(name) or "", path


def imported(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of a file, those inside functions and for type checkers included."""

    package = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(name: str) -> str | None:
    """The room of ``ipmiproxyd.room.…``; None for everybody else's modules."""

    first, _, rest = name.partition(".")
    if first != "ipmiproxyd":
        return None
    names = rest.split(".")
    for room in (".".join(names[:2]), names[0]):
        if room in FLOOR:
            return room
    return "__init__"


def allowed(importer: str, room: str) -> bool:
    return importer == room or FLOOR[room] < FLOOR[importer]


class DirectionTests(SynchronousTestCase):
    def test_every_module_has_its_floor(self) -> None:
        names = [name.split(".")[1] for name, room, _ in modules() if room == "__init__"]
        self.assertEqual(names, ["__init__"])
        self.assertGreater(len(list(modules())), 40)

    def test_imports_go_down(self) -> None:
        wrong = [
            f"{path.relative_to(ROOT)}:{line} imports {target}"
            for name, room, path in modules()
            for line, target in imported(path, name)
            if (other := room_of(target)) is not None and not allowed(room, other)
        ]
        self.assertEqual(wrong, [])

    def test_what_is_pure_imports_no_io(self) -> None:
        wrong = [
            f"{path.relative_to(ROOT)}:{line} imports {target}"
            for name, room, path in modules()
            if room in PURE
            for line, target in imported(path, name)
            if target.split(".")[0] in NO_IO
        ]
        self.assertEqual(wrong, [])

    def test_what_runs_alone_needs_the_standard_library_only(self) -> None:
        for file in ALONE:
            for line, target in imported(PACKAGE / file, f"ipmiproxyd.{file}"):
                # The engine's modules travel together.
                together = file.startswith(ENGINE) and target.startswith(f"ipmiproxyd.{ENGINE}".replace("/", "."))
                self.assertTrue(together or target.split(".")[0] in sys.stdlib_module_names, f"{file}:{line}")

    def test_the_check_sees_every_way_to_import(self) -> None:
        path = Path(self.mktemp())
        path.write_text(
            "import ipmiproxyd.relay.host\nfrom ipmiproxyd import ctl\nfrom . import service\n"
            "from ..console.machine import x\nfrom .errors import y\n"
            "def f():\n    if TYPE_CHECKING:\n        import ipmiproxyd.access\n"
        )
        found = sorted((line, room_of(target)) for line, target in imported(path, "ipmiproxyd.wire.new"))
        rooms = ["relay", "ctl", "wire", "console", "wire", "access"]
        self.assertEqual([room for _, room in found], rooms)
        self.assertEqual([allowed("wire", str(room)) for room in rooms], [False, False, True, False, True, False])


BLOCKED = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"twisted", "autobahn", "zope", "automat", "cryptography", "rich"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


class WithoutTwistedTests(SynchronousTestCase):
    """Bytes, text and values are understood without Twisted."""

    def imports(self, *names: str) -> str:
        """What Python says to importing these modules with Twisted blocked."""

        command = [sys.executable, "-c", BLOCKED, *names]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return done.stderr

    def test_they_can_be_imported(self) -> None:
        pure = [name.removesuffix(".__init__") for name, room, _ in modules() if room in PURE]
        self.assertIn("ipmiproxyd.wire.control", pure)
        self.assertEqual(self.imports(*pure), "")

    def test_the_block_holds(self) -> None:
        self.assertIn("twisted is blocked", self.imports("ipmiproxyd.log"))
