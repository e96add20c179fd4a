"""The simulated server's box: its power, and the append-only log of everything that was done to it.

The BMC (by a shell script that ``ipmi_sim`` calls) and the web panel act on the same box. Its log is what tests look
at: what really arrived, whoever says what.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# $1 is the box's folder; then "get NAME…", "set NAME VALUE…" or "check …", as ipmi_sim asks.
SCRIPT: Final = """\
#!/bin/sh
box=$1
verb=$2
shift 2
power() { echo "$1" > "$box/power.new" && mv "$box/power.new" "$box/power"; }
case $verb in
get)
    for name; do
        case $name in
        power) echo "power:$(cat "$box/power")" ;;
        boot) echo "boot:default" ;;
        *) echo "Invalid parameter: $name"; exit 1 ;;
        esac
    done ;;
set)
    while [ $# -ge 2 ]; do
        case $1 in
        power) power "$2" ;;
        shutdown) [ -e "$box/ignores-soft" ] || power 0 ;;
        reset | boot | identify) ;;
        *) echo "Invalid parameter: $1"; exit 1 ;;
        esac
        echo "$(date +%s.%N) bmc $1 $2" >> "$box/log"
        shift 2
    done ;;
check) ;;
*) exit 1 ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done to the box: when (seconds since the epoch), by whom ("bmc", "panel"), and what:
    "power 0", "power 1", "reset 1", "shutdown 1"."""

    at: float
    by: str
    what: str


class Chassis:
    """The box in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._power = folder / "power"
        self._log = folder / "log"

    def make(self) -> None:
        """A new box, switched off."""

        self.folder.mkdir(parents=True, exist_ok=True)
        self._power.write_text("0\n")
        self._log.touch()

    @property
    def power(self) -> str:
        return "on" if self._power.read_text().strip() == "1" else "off"

    def switch(self, what: str, value: str, by: str = "panel") -> None:
        """Do something to the box without the BMC."""

        if what == "power":
            changed = self.folder / "power.panel"
            changed.write_text(f"{value}\n")
            changed.replace(self._power)
        with self._log.open("a") as log:
            log.write(f"{time.time():.9f} {by} {what} {value}\n")

    def ignore_soft(self, ignore: bool = True) -> None:
        """An operating system that does not react to its power button."""

        marker = self.folder / "ignores-soft"
        if ignore:
            marker.touch()
        else:
            marker.unlink(missing_ok=True)

    def events(self) -> list[Event]:
        """The log."""

        lines = (line.split(" ", 2) for line in self._log.read_text().splitlines())
        return [Event(float(at), by, what) for at, by, what in lines]

    def done(self) -> list[str]:
        """What was done, without when and by whom."""

        return [event.what for event in self.events()]
