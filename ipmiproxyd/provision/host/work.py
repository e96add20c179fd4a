"""One run of the engine: what its stages and what takes them back have at hand."""

from __future__ import annotations

import os

from ipmiproxyd.provision.host import files
from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ipmiproxyd.provision.host.files import State
    from ipmiproxyd.provision.host.record import Change, Record
    from ipmiproxyd.provision.host.system import Host
    from ipmiproxyd.provision.host.talk import Teller

    Object = dict[str, Any]

TRACES = (
    *(f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")),
    "/etc/.pwd.lock",
    "/run/ipmiproxyd-jobs",
    "/run/ipmiproxyd-displays",
    "/var/cache/ipmiproxyd",
)
"""What the tools for users leave, and the runner at work. Whatever of it was not there before goes last."""
HOST = "host"
"""The key of these."""


class Work:
    """:param document: what was asked for, checked.
    :ivar stage: the name of the present one.
    :ivar changed: words for all that was changed, or would be.
    """

    def __init__(self, host: Host, record: Record, teller: Teller, document: Object) -> None:
        self.host, self.record, self.teller, self.document = host, record, teller, document
        self.account: str = document["account"]
        self.dry_run: bool = document["dry_run"]
        self.stage = "look"
        self.changed: list[str] = []
        self._would: set[tuple[str, str]] = set()
        self._absent: dict[str, list[str]] = {}

    def enter(self, stage: str, text: str) -> None:
        self.teller.go_on()
        self.stage = stage
        self.teller.stage(stage, text)

    def tell(self, words: str) -> bool:
        """Of a change that is about to be made; False if it shall not, in a dry run."""
        if not self.dry_run:
            self.teller.go_on()
        self.changed.append(words)
        self.teller.say(event="change", stage=self.stage, words=words)
        return not self.dry_run

    def begin(self, words: str, kind: str, key: str, **facts: Any) -> Change | None:
        """Write a change down and tell of it; None in a dry run."""
        if self.dry_run:
            if (kind, key) not in self._would:
                self._would.add((kind, key))
                self.tell(words)
            return None
        self.teller.go_on()
        self.prepare()
        change = self.record.begin(self.stage, kind, key, **facts)
        self.tell(words)
        return change

    def want(self, kind: str, key: str) -> None:
        """It is as it shall be. If that was our doing, it is this account's, too, from now on."""
        if not self.dry_run:
            self.record.want(kind, key)

    def prepare(self) -> None:
        """Before a change: what is not there, and will be without our doing, is written down."""
        if not self.record.changes:
            self._absent = {HOST: self._missing(TRACES), **self._absent}
        while self._absent:
            key = next(iter(self._absent))
            if paths := self._absent.pop(key):
                self.record.begin(self.stage, "traces", key, paths=paths)

    def left_behind(self, path: str) -> None:
        """What is not there now, and will be without our doing, goes in the end, if there is any change to take
        back."""
        if not self.dry_run and (absent := self._missing([path])):
            self._absent[path] = absent
            if self.record.changes:
                self.prepare()

    def _missing(self, paths: Sequence[str]) -> list[str]:
        return [path for path in paths if not self.host.exists(path)]

    # --- files --------------------------------------------------------------------------------------------------------

    def put(self, path: str, wanted: State, words: str, lines: Mapping[str, Sequence[str]] | None = None) -> bool:
        """Make a path have what is wanted; True if it had not.

        :param lines: what of it is ours, where the rest is others': for whom, to the lines.
        """
        now = files.look(self.host.root, path)
        if files.same(now, wanted):
            for above in folders(os.path.dirname(path)):
                self.want("folder", above)
            self.want("file", path)
            return False
        if now["type"] == "folder" and wanted["type"] != "folder":
            raise FailedError("forbidden", f"{path} on the host is a folder", "Remove it, and run the command again.")
        self.make_way(os.path.dirname(path))
        known = self.record.find("file", path)
        foreign = known and files.digest(now) not in [files.digest(known["before"]), *known["ours"]]
        if foreign and lines is None:
            self.teller.warning(f"{path} was changed by somebody since, and is replaced")
        change = self.begin(words, "file", path, before=now, ours=[], lines={})
        if change is not None:
            # With others' lines in it, it never is ours as a whole again.
            ours = [] if foreign and lines is not None else [files.digest(wanted)]
            # Until it is there, it may still be what we put there before.
            change["ours"] = sorted({*change["ours"], *ours}) if ours else []
            before, lines = change["lines"], lines or {}
            change["lines"] = {name: [*before.get(name, ()), *lines.get(name, ())] for name in {**before, **lines}}
            self.record.save()
            files.put(self.host.root, path, wanted)
            change["ours"], change["lines"] = ours, {name: list(some) for name, some in lines.items()}
            self.record.save()
        return True

    def make_way(self, path: str) -> None:
        """Make a folder, and those above it."""
        for folder in folders(path):
            if os.path.isdir(self.host.path(folder)):
                self.want("folder", folder)
            else:
                self.folder(folder, files.new_folder(0o755))

    def folder(self, path: str, wanted: State) -> bool:
        """Make a folder; True if it was not there, or somebody else's."""
        now = files.look(self.host.root, path)
        if now["type"] not in ("folder", "missing"):
            raise FailedError("forbidden", f"{path} on the host is no folder", "Remove it, and run the command again.")
        if files.same(now, wanted) or (now["type"] == "folder" and not self.record.find("folder", path)):
            self.want("folder", path)
            return False
        if self.begin(f"The folder {path}", "folder", path, before=now):
            files.put(self.host.root, path, wanted)
        return True


def folders(path: str) -> list[str]:
    """A folder, and those above it, from the top."""
    found = []
    while path != "/":
        found.append(path)
        path = os.path.dirname(path)
    return found[::-1]


# --- taking back ------------------------------------------------------------------------------------------------------


def undo_file(work: Work, change: Change) -> None:
    """Back to what was there before, unless somebody changed it since."""
    path, before = change["key"], change["before"]
    now = files.look(work.host.root, path)
    if not work.dry_run:
        files.forget_new(work.host.root, path)
    if files.same(now, before):
        return
    if files.digest(now) in change["ours"] or files.digest(now) == files.digest(before):
        words = f"{path} is removed" if before["type"] == "missing" else f"{path} is as it was before"
        if work.tell(words):
            files.put(work.host.root, path, before)
    elif change["lines"] and now["type"] == "file":
        _without_lines(work, change, now)
    elif now["type"] == "missing":
        work.teller.warning(f"{path} was removed by somebody since: it is not put back as it was before")
    else:
        work.teller.warning(f"{path} was changed by somebody since, and is left")


def _without_lines(work: Work, change: Change, now: State) -> None:
    path, ours = change["key"], {line for some in change["lines"].values() for line in some}
    lines = files.content_of(now).decode("utf-8", "surrogateescape").splitlines(keepends=True)
    kept = [line for line in lines if line.strip() not in ours]
    if len(kept) < len(lines) and work.tell(f"What was put into {path} is taken out of it"):
        content = "".join(kept).encode("utf-8", "surrogateescape")
        left = files.new_file(content, now["mode"], now["uid"], now["gid"])
        files.put(work.host.root, path, left if kept or change["before"]["type"] != "missing" else files.MISSING)


def undo_folder(work: Work, change: Change) -> None:
    """Remove a folder that was made, if it is empty."""
    path, before = change["key"], change["before"]
    if files.same(files.look(work.host.root, path), before):
        return
    try:
        empty = not os.listdir(work.host.path(path))
    except FileNotFoundError:
        return
    if before["type"] != "missing":
        if work.tell(f"{path} is as it was before"):
            files.put(work.host.root, path, before)
    elif work.dry_run or empty:
        if work.tell(f"{path} is removed"):
            files.put(work.host.root, path, before)
    else:
        work.teller.warning(f"{path} has files that are not ours, and is left")


def undo_traces(work: Work, change: Change) -> None:
    """Quietly: nobody asked for them."""
    for path in [] if work.dry_run else change["paths"]:
        files.remove(work.host.root, path)
