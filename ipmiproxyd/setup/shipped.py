"""The files that come with ipmiproxyd and go to other places of the machine, fitted to where it is installed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipmiproxyd.setup.place import Installation
from ipmiproxyd.setup.trouble import SetupError

ACCOUNT: Final = "ipmiproxyd"
CONFIG: Final = "/etc/ipmiproxyd.toml"
SERVICE: Final = "/etc/systemd/system/ipmiproxyd.service"
SOCKET: Final = "/etc/systemd/system/ipmiproxyd.socket"
SYSUSERS: Final = "/etc/sysusers.d/ipmiproxyd.conf"
TMPFILES: Final = "/etc/tmpfiles.d/ipmiproxyd.conf"
SUDOERS: Final = "/etc/sudoers.d/ipmiproxyd"

_EXEC: Final = re.compile(r"^ExecStart=\S+", re.MULTILINE)
_RULE: Final = re.compile(r"(?<=NOPASSWD: )\S+ -I -S \S+")


@dataclass(frozen=True)
class PutFile:
    """A file of ours for the machine."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True)
class PutFolder:
    """A folder and whose it is: "root" or our account."""

    path: str
    mode: int
    owner: str


@dataclass(frozen=True)
class PutAccount:
    """The daemon's Unix user, and its group of the same name."""

    name: str
    words: str
    home: str
    shell: str


class Shipped:
    """:param python: what runs the runner (``agent.python``).
    :ivar config: the configuration file, as it comes.
    """

    def __init__(self, installation: Installation, python: str) -> None:
        self._folder = installation.shipped
        self.config = self._read("etc/ipmiproxyd.toml")
        self.sysusers = PutFile(SYSUSERS, self._read("systemd/sysusers.d/ipmiproxyd.conf"))
        self.tmpfiles = PutFile(TMPFILES, self._read("systemd/tmpfiles.d/ipmiproxyd.conf"))
        service = self._read("systemd/ipmiproxyd.service")
        self.units: Sequence[PutFile] = (
            PutFile(SERVICE, _fitted(_EXEC, f"ExecStart={installation.programs}/ipmiproxyd", service)),
            PutFile(SOCKET, self._read("systemd/ipmiproxyd.socket")),
        )
        rule = f"{python} -I -S {installation.runner}"
        self.sudoers = PutFile(SUDOERS, _fitted(_RULE, rule, self._read("etc/sudoers.d/ipmiproxyd")), 0o440)

    def _read(self, name: str) -> str:
        path = self._folder / name
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise SetupError(f"{path}: {error.strerror}.", "Install ipmiproxyd again.") from None

    @property
    def account(self) -> PutAccount:
        """As sysusers.d tells it."""

        [line] = _lines(self.sysusers.text)
        _, name, _, words, home, shell = shlex.split(line)
        return PutAccount(name, words, home, shell)

    @property
    def folders(self) -> Sequence[PutFolder]:
        """Those of tmpfiles.d."""

        rows = [shlex.split(line) for line in _lines(self.tmpfiles.text)]
        return [PutFolder(path, int(mode, 8), user) for kind, path, mode, user, *_ in rows if kind == "d"]


def find_python(program: str, search: str) -> str:
    """The absolute path of what runs the runner, for sudo's rule. Raises SetupError."""

    for folder in ("/", *search.split(":")):
        path = Path(folder, program)
        if path.is_file():
            return str(path)
    raise SetupError(f"agent.python: {program} is not on this machine.", f"Correct it in {CONFIG}.")


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _fitted(pattern: re.Pattern[str], words: str, text: str) -> str:
    fitted, count = pattern.subn(words.replace("\\", r"\\"), text)
    if count != 1:
        raise SetupError(f"A file that came with ipmiproxyd has no place, or several, for {words!r}.")
    return fitted
