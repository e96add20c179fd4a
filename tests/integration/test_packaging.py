"""Each way to install gives a command and a plugin that work: ``pip install .``, ``pip install -e .``, a wheel.

The builds are made without the network: with the setuptools that is here, and beside the dependencies that are here.
"""

from __future__ import annotations

import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import TestCase

from ipmiproxyd import __version__
from tests.support.scratch import scratch
from tests.support.wheel import NOVNC, ROOT, build_wheel, copy_sources, pip, run_python

TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


class PackagingTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.folder = scratch(self)
        self.sources = self.folder / "sources"
        copy_sources(self.sources)

    async def run_python(self, python: Path | str, *arguments: str, status: int = 0) -> str:
        """What a Python said that must exit with this status."""

        ended, said = await run_python(self.folder, python, *arguments)
        self.assertEqual(ended, status, f"{arguments}\n{said}")
        return said

    def environment(self, name: str) -> Path:
        """A virtual environment that sees the packages of this one, but not an editable install of ours."""

        place = self.folder / name
        venv.create(place, with_pip=False, symlinks=True)
        paths = sysconfig.get_paths(vars={"base": str(place), "platbase": str(place)})
        here = sysconfig.get_paths()
        lines = dict.fromkeys([here["purelib"], here["platlib"]])
        Path(paths["purelib"], "here.pth").write_text("".join(f"{line}\n" for line in lines))
        return place / "bin" / "python"

    async def check(self, python: Path) -> None:
        """The plugin, the commands and the parts that are not Python are there, and are this installation's."""

        text = await self.run_python(python, "-c", TWISTD, "ipmiproxyd", "--help")
        self.assertIn("--check-config", text)
        self.assertEqual(
            await self.run_python(python.with_name("ipmiproxyd"), "--version"), f"ipmiproxyd {__version__}\n"
        )
        await self.run_python(python.with_name("ipmiproxyctl"), "--help")
        wrong = ("ipmiproxyd", "--config", "/nonexistent.toml")
        said = await self.run_python(python, "-c", TWISTD, "--nodaemon", "--pidfile=", *wrong, status=1)
        self.assertEqual(said, "/nonexistent.toml: cannot be read: No such file or directory\n")
        where = "import ipmiproxyd.web as w, pathlib; print(pathlib.Path(w.__file__).parent)"
        web = Path((await self.run_python(python, "-c", where)).strip())
        self.assertTrue(web.is_relative_to(self.folder), f"another installation was found: {web}")
        for name in ("index.html", "app.js", "app.css", *(f"novnc/{name}" for name in NOVNC)):
            self.assertTrue((web / name).is_file(), name)

    async def test_each_way_to_install(self) -> None:
        wheel = await build_wheel(self.folder, self.sources)
        from_wheel, from_folder, editable = (self.environment(name) for name in ("wheel", "folder", "editable"))
        await pip(self.folder, from_wheel, "install", str(wheel))
        await pip(self.folder, from_folder, "install", str(self.sources))
        await pip(self.folder, editable, "install", "--editable", str(self.sources))
        checks = [self.check(python) for python in (from_wheel, from_folder, editable)]
        outcomes: Any = await DeferredList([Deferred.fromCoroutine(check) for check in checks], consumeErrors=True)
        for done, result in outcomes:
            if not done:
                result.raiseException()
        self.check_contents(wheel)

    def check_contents(self, wheel: Path) -> None:
        """Everything that the sources have is in the wheel, and nothing makes ``twisted`` a package of ours."""

        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        self.assertIn("twisted/plugins/ipmiproxyd_plugin.py", names)
        self.assertFalse({"twisted/__init__.py", "twisted/plugins/__init__.py"} & names)
        modules = {
            str(path.relative_to(ROOT))
            for path in (ROOT / "ipmiproxyd").rglob("*.py")
            if "node_modules" not in path.parts
        }
        self.assertEqual(modules - names, set())
        self.assertEqual([name for name in names if name.startswith(("tests/", "etc/"))], [])
        self.assertIn("ipmiproxyd/setup/packages.txt", names)
        shipped = {name.partition("/data/share/ipmiproxyd/")[2] for name in names} - {""}
        sources = [path for folder in ("etc", "systemd") for path in (ROOT / folder).rglob("*") if path.is_file()]
        self.assertEqual(shipped, {str(path.relative_to(ROOT)) for path in sources})
