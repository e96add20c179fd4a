"""Putting the machine in order: account, configuration, files, folders, key, links, units."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from ipmiproxyd.setup.changes import Changes
from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.place import Installation
from ipmiproxyd.setup.record import Record, digest
from ipmiproxyd.setup.shipped import CONFIG, SUDOERS, PutFile, PutFolder, Shipped
from ipmiproxyd.setup.trouble import SetupError

OURS: Final = "/etc/ipmiproxyd"
KEYS: Final = f"{OURS}/keys"
KEY: Final = f"{KEYS}/agents"
LINKS: Final = "/usr/local/bin"
PROGRAMS: Final = ("ipmiproxyctl", "ipmiproxyd")
UNITS: Final = ("ipmiproxyd.socket", "ipmiproxyd.service")
NEW: Final = ".new"
OLD: Final = ".old"
"""Behind the name of a file that was not ours, or not any more, and had to make room."""
ROOT: Final = "root"
NO_LOGIN: Final = ("nologin", "false")
NOBODY: Final = (-1, -1)


@dataclass(frozen=True)
class Putting:
    """Each step looks first, and changes only what is not as it must be. All raise SetupError.

    :param state_dir: ``daemon.state_dir``.
    :param make_key: a new SSH key: with this comment, its private half and its public one.
    """

    machine: Machine
    record: Record
    changes: Changes
    installation: Installation
    shipped: Shipped
    state_dir: str
    make_key: Callable[[str], tuple[bytes, bytes]]

    def put(self, *, start: bool) -> None:
        """Everything.

        :param start: the daemon, where systemd has never started it.
        """

        self._check_account()
        self._file(self.shipped.sysusers)
        self._account()
        self._config()
        self._file(self.shipped.tmpfiles)
        for unit in self.shipped.units:
            self._file(unit)
        self._sudoers()
        for folder in self._folders():
            self._folder(folder)
        self._key()
        self._links()
        self._systemd(start=start)

    # --- account ------------------------------------------------------------------------------------------------------

    def _check_account(self) -> None:
        wanted = self.shipped.account
        shell = self.machine.shell(wanted.name)
        if shell and PurePosixPath(shell).name not in NO_LOGIN:
            words = f"There is a user {wanted.name} with the shell {shell}: who signs in as that one could read the"
            hint = (
                "Where this machine is an agent, too, its account there needs another name: user= of agent provision."
            )
            raise SetupError(f"{words} daemon's passwords.", hint)

    def _account(self) -> None:
        wanted = self.shipped.account
        if self.machine.account(wanted.name) is None:
            self.record.account = True
            self.changes.make(f"user {wanted.name}", "made", self._make_account)

    def _make_account(self) -> None:
        machine, wanted = self.machine, self.shipped.account
        if machine.program("systemd-sysusers"):
            machine.run("systemd-sysusers", f"--root={machine.root}", str(machine.path(self.shipped.sysusers.path)))
        else:
            groups = [line.split(":")[0] for line in (machine.text("/etc/group") or "").splitlines()]
            argv = ["useradd", "--system", "--no-create-home", "--home-dir", wanted.home, "--shell", wanted.shell]
            argv += ["--comment", wanted.words]
            argv += ["--gid", wanted.name] if wanted.name in groups else ["--user-group"]
            argv += [] if machine.is_live else ["--prefix", str(machine.root)]
            machine.run(*argv, wanted.name)
        if machine.account(wanted.name) is None:
            raise SetupError(f"The user {wanted.name} was made, and is not there.")

    def _owner(self, name: str) -> tuple[int, int]:
        if name == ROOT:
            return 0, 0
        account = self.machine.account(name)
        if account is None and not self.changes.dry_run:
            raise SetupError(f"There is no user {name}.")
        return account or NOBODY

    # --- files --------------------------------------------------------------------------------------------------------

    def _config(self) -> None:
        """What an administrator may have changed is never touched: a newer one is put beside it."""

        present, shipped, beside = self.machine.text(CONFIG), self.shipped.config, f"{CONFIG}{NEW}"
        if present is None:
            self._write(PutFile(CONFIG, shipped))
        elif present == shipped:
            self.record.files.setdefault(CONFIG, digest(shipped))
            if self.record.files.pop(beside, None):
                self.changes.make(beside, "removed", self.machine.path(beside).unlink, missing_ok=True)
        elif self.record.shipped != digest(shipped):
            self._write(PutFile(beside, shipped))
        self.record.shipped = digest(shipped)

    def _file(self, wanted: PutFile) -> None:
        present = self.machine.text(wanted.path)
        if present is None:
            self._write(wanted)
        elif present != wanted.text:
            if self.record.files.get(wanted.path) != digest(present):
                old = self._free(f"{wanted.path}{OLD}")
                moved = f"moved to {old}, as it was not what we had put there"
                self.changes.make(wanted.path, moved, self.machine.path(wanted.path).rename, self.machine.path(old))
            self._write(wanted)
        else:
            self.record.files.setdefault(wanted.path, digest(wanted.text))
            self._own(wanted.path, wanted.mode, ROOT)

    def _free(self, path: str) -> str:
        number, found = 1, path
        while os.path.lexists(self.machine.path(found)):
            number += 1
            found = f"{path}{number}"
        return found

    def _write(self, wanted: PutFile) -> None:
        self._folder_above(wanted.path)
        self.record.files[wanted.path] = digest(wanted.text)
        self.changes.make(wanted.path, "written", self.machine.write, wanted.path, wanted.text, wanted.mode)

    def _own(self, path: str, mode: int, owner: str) -> None:
        if not self.machine.is_owned(path, mode, self._owner(owner)):
            given = f"given mode {mode:o} and owner {owner}"
            self.changes.make(path, given, self.machine.own, path, mode, self._owner(owner))

    def _sudoers(self) -> None:
        """It counts from the moment when it is there, so that it is checked before."""

        if self.machine.program("visudo") is None:
            words = "not written, as sudo is not installed: run this again once it is"
            if not self.changes.dry_run:
                self.changes.note(f"{SUDOERS}: {words}")
            return
        with tempfile.NamedTemporaryFile("w", prefix="ipmiproxyd-", encoding="utf-8") as file:
            file.write(self.shipped.sudoers.text)
            file.flush()
            os.fchmod(file.fileno(), self.shipped.sudoers.mode)
            self.machine.run("visudo", "-c", "-f", file.name)
        self._file(self.shipped.sudoers)

    # --- folders and key ----------------------------------------------------------------------------------------------

    def _folders(self) -> list[PutFolder]:
        account = self.shipped.account.name
        ours = [
            PutFolder(OURS, 0o755, ROOT),
            PutFolder(KEYS, 0o700, account),
            PutFolder(self.state_dir, 0o700, account),
        ]
        # What is below /run is made at each start of a machine.
        return ours + [one for one in self.shipped.folders if self.machine.is_live or not one.path.startswith("/run/")]

    def _folder(self, wanted: PutFolder) -> None:
        if os.path.lexists(self.machine.path(wanted.path)):
            self._own(wanted.path, wanted.mode, wanted.owner)
            return
        self._folder_above(wanted.path)
        if wanted.path not in self.record.folders:
            self.record.folders.append(wanted.path)
        self.changes.make(wanted.path, "made", self._make_folder, wanted)

    def _folder_above(self, path: str) -> None:
        above = str(PurePosixPath(path).parent)
        told = self.changes.dry_run and above in self.record.folders
        if not told and not self.machine.path(above).is_dir():
            self._folder(PutFolder(above, 0o755, ROOT))

    def _make_folder(self, wanted: PutFolder) -> None:
        self.machine.path(wanted.path).mkdir(mode=0o700)
        self.machine.own(wanted.path, wanted.mode, self._owner(wanted.owner))

    def _key(self) -> None:
        """Made once; of one that is there, only mode and owner are looked at."""

        if os.path.lexists(self.machine.path(KEY)):
            self._own(KEY, 0o600, self.shipped.account.name)
        else:
            self.record.key = True
            self.changes.make(KEY, "made, an SSH key for agents", self._make_key)

    def _make_key(self) -> None:
        private, public = self.make_key(f"ipmiproxyd@{socket.gethostname()}")
        owner = self._owner(self.shipped.account.name)
        self.machine.path(f"{KEY}.pub").unlink(missing_ok=True)
        self.machine.write_for(f"{KEY}.pub", public, 0o644, owner)
        self.machine.write_for(KEY, private, 0o600, owner)

    # --- links --------------------------------------------------------------------------------------------------------

    def _links(self) -> None:
        if str(self.installation.programs) not in (LINKS, "/usr/bin"):
            for name in PROGRAMS:
                self._link(f"{LINKS}/{name}", str(self.installation.programs / name))

    def _link(self, path: str, target: str) -> None:
        place = self.machine.path(path)
        present = os.readlink(place) if place.is_symlink() else None
        if present == target:
            self.record.links.setdefault(path, target)
        elif os.path.lexists(place) and (present is None or self.record.links.get(path) != present):
            self.changes.note(f"{path}: left as it is, as it is somebody else's; ours is {target}")
        else:
            self._folder_above(path)
            self.record.links[path] = target
            self.changes.make(path, f"linked to {target}", _put_link, place, target)

    # --- systemd ------------------------------------------------------------------------------------------------------

    def _systemd(self, *, start: bool) -> None:
        """Once; a daemon that runs is left alone: its restart closes consoles."""

        machine = self.machine
        if not machine.runs_systemd:
            return
        shown = machine.run("systemctl", "show", "--property=NeedDaemonReload", "--value", *UNITS).split()
        if "yes" in shown:
            self.changes.make("systemd", "told to read its units again", machine.run, "systemctl", "daemon-reload")
        if self.record.enabled:
            return
        self.record.enabled = True
        enabled = "enabled: it starts with the machine"
        self.changes.make("ipmiproxyd", enabled, machine.run, "systemctl", "enable", *UNITS)
        if start:
            self.changes.make("ipmiproxyd", "started", self._start)

    def _start(self) -> None:
        try:
            self.machine.run("systemctl", "start", *UNITS)
        except SetupError as error:
            raise SetupError(f"It could not be started. {error.message}", "See: journalctl -u ipmiproxyd") from None


def _put_link(path: Path, target: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(path)
