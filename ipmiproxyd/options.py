"""The daemon's command line, the same for ``ipmiproxyd`` and for ``twistd ipmiproxyd``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from twisted.python import usage

from ipmiproxyd import __version__
from ipmiproxyd.config import ConfigError, Settings, load

DEFAULT_CONFIG = "/etc/ipmiproxyd.toml"


class Options(usage.Options):
    """Once parsed, :attr:`settings` are those of the configuration file.

    Parsing ends the process (SystemExit) after ``--help``, ``--version`` and ``--check-config``, and with status 1
    if the file has mistakes: they are printed on standard error, one per line.
    """

    synopsis = "[options]"
    longdesc = "Power control and remote consoles for BMCs that have no public address."
    optParameters: ClassVar = [["config", "c", DEFAULT_CONFIG, "The configuration file."]]
    optFlags: ClassVar = [["check-config", None, "Only check the configuration file: exit status 0 or 1."]]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles("*.toml")})

    settings: Settings

    def opt_version(self) -> None:
        """Print the version and exit."""

        print(f"ipmiproxyd {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        path = Path(self["config"])
        try:
            self.settings = load(path)
        except ConfigError as error:
            for problem in error.problems:
                print(f"{path}: {problem}" if problem.key != str(path) else problem, file=sys.stderr)
            raise SystemExit(1) from None
        if self["check-config"]:
            print(f"configuration ok: {path}")
            raise SystemExit(0)
