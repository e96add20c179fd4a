"""What is said at the end: what is missing, and what comes next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipmiproxyd
from ipmiproxyd.config import ConfigError, Settings
from ipmiproxyd.control.absent import start_command
from ipmiproxyd.errors import ProxyError
from ipmiproxyd.relay.novnc import find_novnc
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.packages import line_for
from ipmiproxyd.setup.place import Installation
from ipmiproxyd.setup.putting import KEY, NEW
from ipmiproxyd.setup.running import Running
from ipmiproxyd.setup.shipped import CONFIG

RESTART = "systemctl restart ipmiproxyd"


@dataclass(frozen=True)
class Advice:
    """:param problems: mistakes in the configuration file.
    :param lacking: names of Debian packages.
    :param running: the daemon, where one runs.
    """

    machine: Machine
    installation: Installation
    settings: Settings
    problems: Sequence[str]
    lacking: Sequence[str]
    running: Running | None

    def missing(self) -> Iterator[str]:
        """What keeps parts of it from working."""

        for problem in self.problems:
            yield f"{CONFIG}: {problem}"
        if self.lacking:
            yield f"These Debian packages are not there: {' '.join(self.lacking)}"
            yield f"    {line_for(self.lacking)}"
            yield "    (ipmiproxyctl setup --packages does it)"
        try:
            find_novnc(str(self.settings.relay.novnc or ""))
        except ProxyError as error:
            yield f"Consoles have no page: {error.message} A wheel of make wheel has noVNC in it."
        if not Path(ipmiproxyd.__file__).with_name("java").joinpath("launcher.jar").is_file():
            yield "Java consoles cannot be started: launcher.jar is not installed. A wheel of make wheel has it in it."

    def next(self) -> Iterator[str]:
        """What to do now."""

        machine = self.machine
        if os.path.lexists(machine.path(f"{CONFIG}{NEW}")):
            yield f"Compare {CONFIG} with {CONFIG}{NEW}, which came with this version; then remove the latter."
        yield f"Set what you need in {CONFIG} (certificate, public-host, …), and check it: ipmiproxyd --check-config"
        if not machine.is_live:
            yield f"In {machine.root}: systemctl --root={machine.root} enable ipmiproxyd.socket ipmiproxyd.service"
            return
        yield from self._start()
        yield "ipmiproxyctl daemon status"
        yield "ipmiproxyctl device add name=node17 address=192.0.2.17 username=ADMIN password=-"
        yield f"For BMCs that only another host reaches, once {KEY}.pub is in root's authorized_keys there:"
        yield f"    ipmiproxyctl agent provision name=east host=192.0.2.10 key={KEY}"

    def _start(self) -> Iterator[str]:
        running, systemd = self.running, self.machine.runs_systemd
        if running is None:
            if not systemd:
                yield "systemd does not run here: see to it that this is run, as root, when the machine starts:"
            yield f"{'    ' * (not systemd)}{start_command()}"
        elif max(self.installation.installed_at, _written(Path(CONFIG))) > running.since:
            open_now = f"closes the {running.consoles} open consoles" if running.consoles else "no console is open"
            how = RESTART if systemd else "stop it (ipmiproxyctl daemon stop) and start it again"
            yield f"The daemon that runs is older than its files or {CONFIG}. To restart it ({open_now}): {how}"


def read_settings(machine: Machine) -> tuple[Settings, list[str]]:
    """Those of the configuration file, and its mistakes; the defaults where it has any, or is not there yet."""

    from ipmiproxyd.config import load

    path = machine.path(CONFIG)
    if not path.exists():
        return Settings(), []
    try:
        return load(path), []
    except ConfigError as error:
        return Settings(), [str(problem) for problem in error.problems]


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
