"""Taking back what :mod:`ipmiproxyd.setup.putting` has put in place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipmiproxyd.agents import runner
from ipmiproxyd.setup.changes import Changes
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.putting import KEY, NEW, OLD, UNITS
from ipmiproxyd.setup.record import Record, digest
from ipmiproxyd.setup.shipped import ACCOUNT, CONFIG
from ipmiproxyd.setup.trouble import SetupError

AGENT_OF_OTHERS: Final = ("/etc/sudoers.d/ipmiproxyd-agent", "/var/lib/ipmiproxyd-agent", runner.LOCKS)


@dataclass(frozen=True)
class Removal:
    """What others have changed since then is left, and told. All raise SetupError.

    :param jobs_name: ``agent.jobs_name``.
    :param purge: the configuration, the state and the keys go, too.
    """

    machine: Machine
    record: Record
    changes: Changes
    jobs_name: str
    purge: bool

    def all(self) -> None:
        """The daemon has ended."""

        self._systemd()
        for path in reversed(list(self.record.files)):
            if self.purge or path != CONFIG:
                self._file(path)
        for path, target in list(self.record.links.items()):
            self._link(path, target)
        if self.machine.runs_systemd and not self.changes.dry_run:
            self.machine.run("systemctl", "daemon-reload")
        if self.machine.is_live:
            self._consoles()
        if self.purge and self.record.key:
            self._taken(f"{KEY} and {KEY}.pub", "removed", self._remove_key)
        for path in reversed(list(self.record.folders)):
            self._folder(path)
        if self.purge:
            self._accounts()
        elif self.record.account:
            self.changes.note(f"user {ACCOUNT}: left; --purge removes it with configuration, state and keys")

    def _taken(self, subject: str, done: str, act: Callable[[], object]) -> None:
        """It stands in the record until it is done."""

        def acted() -> None:
            act()
            self.record.save()

        self.changes.make(subject, done, acted)

    def _systemd(self) -> None:
        if self.machine.runs_systemd and self.record.enabled:
            self._taken("ipmiproxyd", "stopped and disabled", self._disable)

    def _disable(self) -> None:
        self.machine.run("systemctl", "disable", "--now", *UNITS)
        self.record.enabled = False

    # --- files and links ----------------------------------------------------------------------------------------------

    def _file(self, path: str) -> None:
        present = self.machine.text(path)
        if present is not None and path != CONFIG and digest(present) != self.record.files[path]:
            self.changes.note(f"{path}: left, as somebody has changed it")
            if self.purge and not self.changes.dry_run:
                del self.record.files[path]
            return
        old = f"{path}{OLD}"
        back = path not in (CONFIG, f"{CONFIG}{NEW}") and os.path.lexists(self.machine.path(old))
        done = f"replaced by {old}, which was there before" if back else "removed"
        self._taken(path, done, lambda: self._remove_file(path, old if back else ""))

    def _remove_file(self, path: str, old: str) -> None:
        if old:
            self.machine.path(old).rename(self.machine.path(path))
        else:
            self.machine.path(path).unlink(missing_ok=True)
        del self.record.files[path]

    def _link(self, path: str, target: str) -> None:
        place = self.machine.path(path)
        if os.path.lexists(place) and not (place.is_symlink() and os.readlink(place) == target):
            self.changes.note(f"{path}: left, as it is somebody else's")
        else:
            self._taken(path, "removed", lambda: self._remove_link(path))

    def _remove_link(self, path: str) -> None:
        self.machine.path(path).unlink(missing_ok=True)
        del self.record.links[path]

    def _remove_key(self) -> None:
        for path in (KEY, f"{KEY}.pub"):
            self.machine.path(path).unlink(missing_ok=True)
        self.record.key = False

    # --- folders ------------------------------------------------------------------------------------------------------

    def _consoles(self) -> None:
        """What the runner keeps for this daemon, as root."""

        for above in (runner.JOBS, runner.CACHE):
            mine = self.machine.path(f"{above}/{self.jobs_name}")
            if mine.is_dir():
                self.changes.make(str(mine), "removed", shutil.rmtree, mine)
            if Path(above).is_dir() and not self.changes.dry_run and not os.listdir(above):
                os.rmdir(above)
        if Path(runner.LOCKS).is_dir() and not Path(runner.JOBS).exists():
            self.changes.make(runner.LOCKS, "removed", shutil.rmtree, runner.LOCKS)

    def _folder(self, path: str) -> None:
        place = self.machine.path(path)
        if not place.is_dir() or not os.listdir(place):
            self._taken(path, "removed", lambda: self._remove_folder(path, place))
        elif path.startswith("/run/") or (self.purge and self._is_daemons(place)):
            self._taken(path, "removed with all that was in it", lambda: self._remove_folder(path, place))
        elif not self.changes.dry_run:
            self.changes.note(f"{path}: left, with what is in it")
            if self.purge:
                self.record.folders.remove(path)

    def _is_daemons(self, place: Path) -> bool:
        account = self.machine.account(ACCOUNT)
        return account is not None and place.stat().st_uid == account[0]

    def _remove_folder(self, path: str, place: Path) -> None:
        if place.is_dir():
            shutil.rmtree(place)
        self.record.folders.remove(path)

    # --- accounts -----------------------------------------------------------------------------------------------------

    def _accounts(self) -> None:
        others = [path for path in AGENT_OF_OTHERS if os.path.lexists(path)]
        if self.machine.is_live and not others:
            for name in runner.our_users():
                self._account(name)
        if self.record.account and self._account(ACCOUNT) and not self.changes.dry_run:
            self.record.account = False

    def _account(self, name: str) -> bool:
        if self.machine.account(name) is not None:
            try:
                self.changes.make(f"user {name}", "removed", self._remove_account, name)
            except SetupError as error:
                self.changes.note(f"user {name}: left. {error.message}")
                return False
        return True

    def _remove_account(self, name: str) -> None:
        where = [] if self.machine.is_live else ["--prefix", str(self.machine.root)]
        self.machine.run("userdel", *where, name)
        groups = [line.split(":")[0] for line in (self.machine.text("/etc/group") or "").splitlines()]
        if name in groups:
            self.machine.run("groupdel", *where, name)
