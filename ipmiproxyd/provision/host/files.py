"""What a path has, as a value that a record can keep, and how it is made so again.

A path is followed through folders that root alone can change: where a symbolic link stands in a folder of somebody
else's, it is refused.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import shutil
import stat

from ipmiproxyd.provision.host.talk import FailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    State = dict[str, Any]

LARGEST = 4 << 20  # bytes of a file that is kept
LINKS = 40
FULL = (errno.ENOSPC, errno.EDQUOT)
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
MISSING: State = {"type": "missing"}


def new_file(content: bytes, mode: int, uid: int = 0, gid: int = 0) -> State:
    """What :func:`put` makes a file of."""
    return {"type": "file", "mode": mode, "uid": uid, "gid": gid, "content": base64.b64encode(content).decode()}


def new_link(target: str) -> State:
    return {"type": "link", "target": target}


def new_folder(mode: int, uid: int = 0, gid: int = 0) -> State:
    return {"type": "folder", "mode": mode, "uid": uid, "gid": gid}


def content_of(state: State) -> bytes:
    """Of a file; nothing for all else."""
    return base64.b64decode(state.get("content", ""))


def digest(state: State) -> str:
    """What a path has, apart from its owner and mode: equal if that is."""
    if state["type"] == "file":
        return hashlib.sha256(content_of(state)).hexdigest()
    return f"link {state['target']}" if state["type"] == "link" else str(state["type"])


def same(one: State, other: State) -> bool:
    """Whether nothing that counts differs; when a file was changed does not."""
    return {**one, "mtime": 0} == {**other, "mtime": 0}


@contextlib.contextmanager
def above(root: str, path: str) -> Iterator[tuple[int, str]]:
    """The folder of a path, opened, and the path's last name. Raises FileNotFoundError, or FailedError."""
    folder, _, name = path.strip("/").rpartition("/")
    fd = _open_folder(root, folder)
    try:
        yield fd, name
    finally:
        os.close(fd)


def _open_folder(root: str, path: str) -> int:
    parts, links = [part for part in path.split("/") if part][::-1], 0
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while parts:
            name = parts.pop()
            try:
                new = os.open(name, FOLDER, dir_fd=fd)
            except NotADirectoryError:
                target, links = _link(fd, name, path), links + 1
                parts += [part for part in target.split("/") if part not in ("", ".")][::-1]
                if links > LINKS:
                    raise FailedError("forbidden", f"/{path} has too many symbolic links") from None
                if not target.startswith("/"):
                    continue
                new = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.close(fd)
            fd = new
    except BaseException:
        os.close(fd)
        raise
    return fd


def _link(fd: int, name: str, path: str) -> str:
    """Where a symbolic link leads to that nobody but root, or we, can have put there."""
    if not stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
        raise FailedError("forbidden", f"In /{path}, {name} is no folder")
    if (status := os.fstat(fd)).st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise FailedError("forbidden", f"In /{path}, {name} is a symbolic link that others than root can change")
    return os.readlink(name, dir_fd=fd)


def look(root: str, path: str) -> State:
    """What is there now. Raises FailedError for what is larger than any file of ours, or no file, folder or link."""
    try:
        with above(root, path) as (folder, name):
            return _look(folder, name, path)
    except FileNotFoundError:
        return dict(MISSING)


def _look(folder: int, name: str, path: str) -> State:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return new_link(os.readlink(name, dir_fd=folder))
    if stat.S_ISDIR(status.st_mode):
        return new_folder(stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid)
    refused = FailedError("forbidden", f"{path} is no file that can be replaced")
    if not stat.S_ISREG(status.st_mode):
        raise refused
    # Whoever owns the folder may have put something else there meanwhile, which is not waited for.
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise refused if error.errno in (errno.ELOOP, errno.ENXIO) else error from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            raise refused
        made = new_file(file.read(LARGEST), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    return {**made, "mtime": status.st_mtime_ns}


def put(root: str, path: str, state: State) -> None:
    """Make a path have this, in one step: whoever looks sees the one or the other. It is on the disk then."""
    try:
        forget_new(root, path)
        with above(root, path) as (folder, name):
            if state["type"] == "folder":
                _put_folder(folder, name, state)
            elif state["type"] == "missing":
                _remove(folder, name)
            else:
                (_put_link if state["type"] == "link" else _put_file)(folder, _new(name), state)
                os.rename(_new(name), name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
    except FileNotFoundError:
        if state["type"] != "missing":
            raise


def _new(name: str) -> str:
    return f".{name}.ipmiproxyd-new"


def forget_new(root: str, path: str) -> None:
    """Remove what a run that was killed left of :func:`put`, or whatever else stands in its place."""
    with contextlib.suppress(FileNotFoundError), above(root, path) as (folder, name):
        _remove_all(folder, _new(name))


def remove(root: str, path: str) -> None:
    """Whatever is there, with all that is in it."""
    with contextlib.suppress(FileNotFoundError), above(root, path) as (folder, name):
        _remove_all(folder, name)


def _remove_all(folder: int, name: str) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(f"/proc/self/fd/{folder}/{name}")
    else:
        os.unlink(name, dir_fd=folder)


def _put_file(folder: int, name: str, state: State) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(content_of(state))
        file.flush()
        os.fchown(file.fileno(), state["uid"], state["gid"])
        os.fchmod(file.fileno(), state["mode"])
        if "mtime" in state:
            os.utime(file.fileno(), ns=(state["mtime"], state["mtime"]))
        os.fsync(file.fileno())


def _put_link(folder: int, name: str, state: State) -> None:
    os.symlink(state["target"], name, dir_fd=folder)


def _put_folder(folder: int, name: str, state: State) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
    fd = os.open(name, FOLDER, dir_fd=folder)
    try:
        os.fchown(fd, state["uid"], state["gid"])
        os.fchmod(fd, state["mode"])
    finally:
        os.close(fd)


def _remove(folder: int, name: str) -> None:
    """A file, a link, or a folder that is empty. Raises OSError for one that is not."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.rmdir(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)
