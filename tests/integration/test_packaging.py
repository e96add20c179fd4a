"""Each way to install gives a command and a plugin that work: ``pip install .``, ``pip install -e .``, a wheel.

The builds are made without the network: with the setuptools that is here, and beside the dependencies that are here.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from ipmiproxyd import __version__
from tests.support.scratch import scratch

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("ipmiproxyd", "twisted", "setup.cfg", "pyproject.toml", "README.md")
NOT_SOURCES = shutil.ignore_patterns("__pycache__", "node_modules", "dropin.cache", "novnc", "novnc.??????")
TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"

# What is not Python and has to be in the wheel; a stand-in for noVNC, which is fetched and not part of the sources.
NOVNC = {
    "core/rfb.js": "// core",
    "core/util/browser.js": "// util",
    "vendor/pako/lib/zlib/inflate.js": "// pako",
    "LICENSE.txt": "MPL",
}


class PackagingTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.folder = scratch(self)
        self.sources = self.folder / "sources"
        self.sources.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.sources / name, ignore=NOT_SOURCES)
            else:
                shutil.copy(ROOT / name, self.sources / name)
        for name, text in NOVNC.items():
            path = self.sources / "ipmiproxyd" / "web" / "novnc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    async def run_python(self, python: Path | str, *arguments: str, status: int = 0) -> str:
        """What a Python said that must exit with this status; it finds nothing in the folder where it runs."""

        environment: Mapping[str, str] = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        out, err, ended = await getProcessOutputAndValue(str(python), arguments, environment, str(self.folder))
        said = str((out + err).decode())
        self.assertEqual(ended, status, f"{arguments}\n{said}")
        return said

    async def pip(self, python: Path | str, *arguments: str) -> None:
        await self.run_python(
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "--python",
            str(python),
            *arguments,
            "--no-deps",
            "--no-build-isolation",
        )

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
        wheels = self.folder / "wheels"
        await self.pip(sys.executable, "wheel", "--wheel-dir", str(wheels), str(self.sources))
        [wheel] = wheels.iterdir()
        from_wheel, from_folder, editable = (self.environment(name) for name in ("wheel", "folder", "editable"))
        await self.pip(from_wheel, "install", str(wheel))
        await self.pip(from_folder, "install", str(self.sources))
        await self.pip(editable, "install", "--editable", str(self.sources))
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
