"""The command line of ``ipmiproxyctl setup``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from ipmiproxyd.config import Settings
from ipmiproxyd.setup import packages, running
from ipmiproxyd.setup.advice import Advice, read_settings
from ipmiproxyd.setup.changes import Changes
from ipmiproxyd.setup.machine import PATH, Machine
from ipmiproxyd.setup.place import Installation, check_root_only, find_installation
from ipmiproxyd.setup.putting import Putting
from ipmiproxyd.setup.record import Record
from ipmiproxyd.setup.removal import Removal
from ipmiproxyd.setup.shipped import Shipped, find_python
from ipmiproxyd.setup.trouble import SetupError

DONE: Final = 0
REFUSED: Final = 1

_EPILOG: Final = """\
It can be run again at any time, as after each update: it changes only what is not as it should be, and says what.
A daemon that runs is left alone.

exit status:
  0   done; also if there was nothing to do, or Debian packages are missing
  1   refused, or failed: what was done until then is told, and the next run goes on from there
  2   usage
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ipmiproxyctl setup",
        description="Make this machine run ipmiproxyd: its user, configuration, units, folders, rule for sudo and key.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing, only tell what would be changed")
    parser.add_argument("--packages", action="store_true", help="install the Debian packages that are missing")
    parser.add_argument("--remove", action="store_true", help="take back what setup has made")
    parser.add_argument("--purge", action="store_true", help="with --remove: configuration, state, keys and users, too")
    parser.add_argument("--force", action="store_true", help="with --remove: even if consoles are open")
    parser.add_argument("--root", metavar="DIR", type=Path, default=Path("/"), help="a tree of files instead of /")
    return parser


class Setup:
    """One run.

    :param machine: what is set up.
    :param say: takes a line for people.
    """

    def __init__(self, machine: Machine, say: Callable[[str], None], *, dry_run: bool = False) -> None:
        self._machine = machine
        self._say = say
        self._record = Record(machine)
        self._changes = Changes(self._record, say, dry_run=dry_run)

    def put(self, installation: Installation, *, with_packages: bool = False) -> None:
        """Raises SetupError."""

        machine, changes = self._machine, self._changes
        settings, problems = read_settings(machine)
        if with_packages:
            self._packages()
        Putting(
            machine=machine,
            record=self._record,
            changes=changes,
            installation=installation,
            shipped=Shipped(installation, self._python(settings)),
            state_dir=str(settings.daemon.state_dir),
            make_key=make_key,
        ).put(start=not problems)
        changes.settle()
        self._end()
        lacking = packages.missing(machine)
        found = running.find_running(machine, settings.control.socket)
        if not changes.dry_run:
            advice = Advice(machine, installation, settings, problems, lacking, found)
            self._list("Missing:", advice.missing())
            self._list("What next:", advice.next())

    def _packages(self) -> None:
        lacking = packages.missing(self._machine)
        if lacking:
            self._record.packages += lacking
            words = f"Debian packages {' '.join(lacking)}"
            self._changes.make(words, "installed", packages.install, self._machine, lacking)

    def _python(self, settings: Settings) -> str:
        """What sudo starts as root."""

        if not self._machine.is_live:
            return settings.agent.python
        python = find_python(settings.agent.python, PATH)
        check_root_only(Path(python))
        return python

    def remove(self, *, purge: bool, force: bool) -> None:
        """Raises SetupError."""

        machine, changes = self._machine, self._changes
        settings, _ = read_settings(machine)
        found = running.find_running(machine, settings.control.socket)
        if found is not None:
            if found.consoles and not force:
                words = "1 console is" if found.consoles == 1 else f"{found.consoles} consoles are"
                raise SetupError(
                    f"{words} open.", "--force closes them; ipmiproxyctl console list tells whose they are."
                )
            changes.make(f"the daemon (process {found.pid})", "stopped", running.stop, machine, found)
        installed = self._record.packages
        Removal(machine, self._record, changes, settings.agent.jobs_name, purge).all()
        changes.settle()
        self._end()
        if installed and not changes.dry_run:
            self._list("These Debian packages were installed for it, and stay:", [" ".join(installed)])

    def _end(self) -> None:
        if not self._changes.count:
            self._say("Nothing would be changed." if self._changes.dry_run else "Nothing was changed.")

    def _list(self, head: str, lines: Iterable[str]) -> None:
        rows = list(lines)
        if rows:
            self._say("")
            self._say(head)
            for row in rows:
                self._say(f"  {row}")


def make_key(comment: str) -> tuple[bytes, bytes]:
    """A new Ed25519 key in OpenSSH's format: its private half and its public one."""

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + b" " + comment.encode() + b"\n"


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status; ``--help`` says what it means."""

    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.purge or options.force) and not options.remove:
        parser.error("--purge and --force are for --remove")
    if options.packages and options.remove:
        parser.error("--packages is not for --remove")
    os.umask(0o022)
    try:
        _run(options)
    except SetupError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return REFUSED
    return DONE


def _run(options: argparse.Namespace) -> None:
    if os.geteuid():
        raise SetupError("Only root can set up a machine.", f"sudo {sys.argv[0]} setup")
    if not options.root.is_dir():
        raise SetupError(f"{options.root} is not a folder.")
    setup = Setup(Machine(options.root), _say, dry_run=options.dry_run)
    if options.remove:
        setup.remove(purge=options.purge, force=options.force)
        return
    installation = find_installation()
    installation.check()
    setup.put(installation, with_packages=options.packages)


def _say(line: str) -> None:
    """Also if nobody reads any more: what was begun is finished."""

    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
