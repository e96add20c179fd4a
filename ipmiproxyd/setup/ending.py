"""Before anything is taken back: nobody may use it any more. What cannot be asked counts as running."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ipmiproxyd.agents import runner
from ipmiproxyd.config import Settings
from ipmiproxyd.setup import running, using
from ipmiproxyd.setup.changes import Changes
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.putting import UNITS
from ipmiproxyd.setup.record import Record
from ipmiproxyd.setup.running import NoAnswer, Running
from ipmiproxyd.setup.shipped import ACCOUNT
from ipmiproxyd.setup.trouble import SetupError

FORCE: Final = "--force ends what is ours of it, and all consoles."
LAST_BREATH: Final = 5.0
"""Seconds for what a daemon has started to end after it."""


@dataclass(frozen=True)
class Ending:
    """:param settings: those of the daemon; the defaults where they cannot be read."""

    machine: Machine
    record: Record
    changes: Changes
    settings: Settings

    def all(self, *, force: bool) -> None:
        """Raises SetupError where something is in use, and is not to be ended, or is not ours."""

        try:
            found = running.find_running(self.machine, self.settings.control.socket)
        except NoAnswer as error:
            if not force:
                raise SetupError(error.message, FORCE) from None
            found = None
        if not force:
            self._refuse(found)
        if found is not None:
            self.changes.make(f"the daemon (process {found.pid})", "stopped", self._stop, found, force)
        if force:
            self._force(found)
        if not self.changes.dry_run:
            self._check()

    # --- what there is ------------------------------------------------------------------------------------------------

    def _daemons(self) -> dict[str, list[int]]:
        folders = [str(self.settings.daemon.state_dir), "/var/lib/ipmiproxyd", *self.record.folders]
        return using.held(self.machine, folders)

    def _account(self) -> tuple[int, int] | None:
        return self.machine.account(ACCOUNT) if self.machine.is_live else None

    def _jobs(self) -> list[using.Job]:
        """Also those of which only the name says that they are ours."""

        if not self.machine.is_live:
            return []
        name, account = self.settings.agent.jobs_name, self._account()
        mine = account[0] if account else None
        folders = using.jobs_folders().items()
        return [job for jobs, uid in folders if jobs == name or uid == mine for job in using.running_jobs(jobs, uid)]

    def _others(self, found: Running | None = None) -> list[int]:
        """Processes of the daemon's user, beside the daemon that was found."""

        account = self._account()
        if account is None:
            return []
        processes = using.processes_of(account[0])
        return sorted(set(processes) - (using.below(found.pid, processes) if found else set()))

    # --- what is in the way -------------------------------------------------------------------------------------------

    def _refuse(self, found: Running | None) -> None:
        for folder, pids in self._daemons().items():
            if found is None or pids != [found.pid]:
                words = f" (process {', '.join(map(str, pids))})" if pids else ""
                raise SetupError(f"A daemon{words} has {folder} open, and does not answer.", FORCE)
        count = max(found.consoles if found else 0, len(self._jobs()))
        if count:
            words = "1 console is" if count == 1 else f"{count} consoles are"
            raise SetupError(f"{words} open.", "--force closes them; ipmiproxyctl console list tells whose they are.")
        if others := self._others(found):
            raise SetupError(f"The user {ACCOUNT} still runs something: {_list(others)}.", FORCE)

    def _check(self) -> None:
        """Nothing is left now. Raises SetupError."""

        limit = time.monotonic() + LAST_BREATH
        while (left := self._left()) and time.monotonic() < limit:
            time.sleep(0.05)
        if left:
            raise SetupError(left, "Nothing was removed. End it, and run this again.")

    def _left(self) -> str:
        if daemons := self._daemons():
            return f"Somebody has {', '.join(daemons)} open."
        if jobs := self._jobs():
            return f"Consoles are still open: {', '.join(f'{runner.JOBS}/{job.jobs}/{job.id}' for job in jobs)}."
        if others := self._others():
            return f"The user {ACCOUNT} still runs something: {_list(others)}."
        try:
            found = running.find_running(self.machine, self.settings.control.socket)
        except NoAnswer as error:
            return error.message
        return f"A daemon runs: process {found.pid}." if found else ""

    # --- ending it ----------------------------------------------------------------------------------------------------

    def _stop(self, found: Running, force: bool) -> None:
        try:
            running.stop(self.machine, found)
        except SetupError as error:
            if not force:
                raise
            self.changes.note(error.message)

    def _force(self, found: Running | None) -> None:
        """Daemons first: they would open new ones. Each of them is known by the folder that it has open."""

        if self.machine.runs_systemd:
            self.changes.make("the units", "stopped", self.machine.run, "systemctl", "stop", *UNITS)
        for folder, pids in self._daemons().items():
            for pid in pids:
                if not (self.changes.dry_run and found and pid == found.pid):
                    self.changes.make(f"process {pid}, which had {folder}", "ended", _end, pid)
        account = self._account()
        if account is None or (self.changes.dry_run and found):
            return
        jobs = [job for job in self._jobs() if job.owner == account[0]]
        for job in jobs:
            self.changes.make(f"console {job.id}", "ended", using.ask_runner, "stop", job.jobs, account, id=job.id)
        for name in sorted({job.jobs for job in jobs}):
            if not self.changes.dry_run:
                using.ask_runner("sweep", name, account)
        if self.record.account and (others := self._others()):
            self.changes.make(f"what the user {ACCOUNT} ran ({_list(others)})", "ended", self._end_others)

    def _end_others(self) -> None:
        for pid in self._others():
            _end(pid)


def _end(pid: int) -> None:
    """Gently, unless it stands still."""

    name = runner.identity(pid)
    if name and (_stands(pid) or not runner.end_process(name, signal.SIGTERM)):
        runner.end_process(name, signal.SIGKILL)


def _stands(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:
        return False


def _list(pids: Sequence[int]) -> str:
    return f"{'process' if len(pids) == 1 else 'processes'} {', '.join(map(str, pids))}"
