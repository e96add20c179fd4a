"""The ``ipmiproxyd`` command: twistd in the foreground with our one service, whatever other plugins there are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from twisted.application.service import ServiceMaker
from twisted.python import usage
from twisted.scripts import twistd

from ipmiproxyd.options import Options

NAME = "ipmiproxyd"


class _ForegroundOptions(twistd.ServerOptions):  # type: ignore[name-defined,misc]
    """twistd's options with one subcommand. The plugin folders are not searched (nor their cache written), and
    nothing of the service is loaded before its options are parsed."""

    def getSynopsis(self) -> str:
        return "Usage:"

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Callable[[], Options], str]]:
        maker = ServiceMaker(NAME, "ipmiproxyd.service", "", NAME)
        self.loadedPlugins = {NAME: maker}
        yield NAME, None, Options, ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until it is stopped; returns the exit status."""

    options = _ForegroundOptions()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options.parseOptions(["--nodaemon", "--pidfile=", NAME, *given])
    except usage.UsageError as error:
        print(f"{NAME}: {error}. See {NAME} --help.", file=sys.stderr)
        return 2
    twistd.runApp(options)
    return 0
