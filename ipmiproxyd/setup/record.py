"""What setting up has changed on a machine, so that it can be taken back."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from ipmiproxyd.setup.machine import Machine
from ipmiproxyd.setup.trouble import SetupError

FOLDER: Final = "/var/lib/ipmiproxyd-setup"
FILE: Final = f"{FOLDER}/record.json"
VERSION: Final = 1


def digest(text: str) -> str:
    """By which a text is known again."""

    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


class Record:
    """What it says is kept by :meth:`save`.

    :ivar files: path → digest of what was written there.
    :ivar links: symbolic links: path → where they lead.
    :ivar folders: those that were not there before, in the order in which they were made.
    :ivar account: the user was made by us.
    :ivar key: so was the SSH key.
    :ivar packages: the Debian packages that were missing and were installed.
    :ivar shipped: digest of the configuration file that was shipped last.
    :ivar enabled: systemd was told to start the units.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._kept = machine.text(FILE)
        kept = self._read()
        self.files: dict[str, str] = kept.get("files", {})
        self.links: dict[str, str] = kept.get("links", {})
        self.folders: list[str] = kept.get("folders", [])
        self.account: bool = kept.get("account", False)
        self.key: bool = kept.get("key", False)
        self.packages: list[str] = kept.get("packages", [])
        self.shipped: str = kept.get("shipped", "")
        self.enabled: bool = kept.get("enabled", False)

    def _read(self) -> dict[str, Any]:
        if self._kept is None:
            return {}
        try:
            kept = json.loads(self._kept)
            version = kept["version"]
        except (ValueError, TypeError, KeyError):
            raise SetupError(f"{FILE}, in which setup keeps what it has changed, cannot be understood.") from None
        if version != VERSION:
            raise SetupError(f"{FILE} is of another version of ipmiproxyctl setup ({version}).")
        return dict(kept)

    def save(self) -> None:
        """Keep it on the machine."""

        names = ("files", "links", "folders", "account", "key", "packages", "shipped", "enabled")
        text = json.dumps({"version": VERSION, **{name: getattr(self, name) for name in names}}, indent=1) + "\n"
        if text == self._kept:
            return
        if not self._machine.path(FOLDER).exists():
            self._machine.path(FOLDER).mkdir(parents=True)
            self._machine.own(FOLDER, 0o700, (0, 0))
        self._machine.write(FILE, text, 0o600)
        self._kept = text

    @property
    def is_empty(self) -> bool:
        """Nothing is left that could be taken back."""

        return not (self.files or self.links or self.folders or self.account or self.key)

    def forget(self) -> None:
        """Nothing of it remains on the machine."""

        self._machine.path(FILE).unlink(missing_ok=True)
        if self._machine.path(FOLDER).is_dir():
            self._machine.path(FOLDER).rmdir()
        self._kept = None
