"""Runs on an agent: looks for Javas, installs and removes them, and fills the cache of files for jobs. One file,
standard library only: it is handed to ``python3 -c`` by standard input, so that it need not be there.

``main`` gets one JSON object, with ``verb`` and what the verb wants; it prints one JSON object, either the answer or
``{"failed": code, "message": words, "hint": words}``. It never runs as root but where the daemon does.
"""

from __future__ import annotations

import binascii
import contextlib
import gzip
import hashlib
import json
import os
import pwd
import re
import resource
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
import zipfile
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    Object = dict[str, Any]

ARCHIVE_FILES, ARCHIVE_SIZE = 20_000, 1 << 30  # of an unpacked Java
MACHINES = {"amd64": "x86_64", "x64": "x86_64", "x86": "i386", "i586": "i386", "i686": "i386", "arm64": "aarch64"}
FETCH_AGAIN = "Fetch it again; its name has to be the one that it has at Oracle's."
JAVA_LIMIT, UNPACK_LIMIT = 20, 120  # seconds
UNPACKED_LIMIT = 192 << 20  # bytes
HALF_DONE = 3600  # seconds after which nobody works on a file any more
JAR_MEMORY = 256 << 20  # bytes in which a jar's listing has to fit: one of millions of entries does not
LISTED = 300  # entries of a jar of native libraries: more are too many anyway


class RefusedError(Exception):
    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


def me() -> str:
    """The Unix user that this runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"the user {os.geteuid()}"


# --- Javas -----------------------------------------------------------------------------------------------------------


def list_javas(folders: list[str], homes: list[str]) -> Object:
    """Every Java right below one of the folders, and in one of the homes, that runs. What is another user's is not
    tried, as no console may run it: several daemons may have Javas in the same folder."""
    candidates = list(homes)
    for folder in folders:
        with contextlib.suppress(OSError):
            candidates += sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    real = dict.fromkeys(os.path.realpath(path) for path in candidates if not os.path.basename(path).startswith("."))
    return {"javas": [java for home in real if is_ours(home) and (java := look_at(home))]}


def is_ours(home: str) -> bool:
    """Whether a folder, and all above it, are root's or this user's."""
    try:
        return all(os.stat(folder).st_uid in (0, os.geteuid()) for folder in above(home))
    except OSError:
        return False


def above(folder: str) -> list[str]:
    """A folder, and those above it, but for the root."""
    found = []
    while folder != "/":
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


def names_in(folder: str) -> Object:
    """What lies in a folder, as far as this user sees."""
    try:
        return {"names": sorted(os.listdir(folder))}
    except OSError:
        return {"names": []}


def look(home: str) -> Object:
    """The Java in one folder, which may be a link."""
    real = os.path.realpath(home)
    hint = f"It has to be the folder with bin/java in it, which {me()} can run."
    none = RefusedError("not-found", f"No Java runs in {home} on this agent", hint)
    if not os.access(f"{real}/bin/java", os.X_OK):
        raise none
    for folder in above(real):
        status = os.stat(folder)
        # As the runner will see it, too.
        if status.st_uid not in (0, os.geteuid()) or (status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX):
            hint = f"Let it belong to root or {me()}, and nobody else write to it."
            raise RefusedError("forbidden", f"{folder} can be changed by others: no console may run it", hint)
    # Not before: it runs what is there.
    if (java := look_at(real)) is None:
        raise none
    return java


def look_at(home: str) -> Object | None:
    """What a Java says of itself; None if it is none, or does not run."""
    program = f"{home}/bin/java"
    if not os.access(program, os.X_OK):
        return None
    argv = [program, "-XX:-UsePerfData", "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(
            argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=JAVA_LIMIT, cwd="/", check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = dict(re.findall(r"^ +([a-z.]+) = (.*)$", done.stderr.decode("utf-8", "replace"), re.MULTILINE))
    version, machine = said.get("java.version", "").strip(), said.get("os.arch", "").strip()
    if not version:
        return None
    unpackers = (f"{home}/bin/unpack200", f"{home}/jre/bin/unpack200")
    unpack200 = next((path for path in unpackers if os.access(path, os.X_OK)), "")
    found = {"home": home, "version": version, "machine": MACHINES.get(machine, machine), "unpack200": unpack200}
    return found | {"graphics": has_graphics(home)}


def has_graphics(home: str) -> bool:
    """Whether it has what draws windows on X: a "headless" Java lacks just that."""
    for top in (f"{home}/lib", f"{home}/jre/lib"):
        for _, _, names in os.walk(top):
            if "libawt_xawt.so" in names or "libmawt.so" in names:
                return True
    return False


def install(archive: str, folder: str, sha1: str, into: str) -> Object:
    """Unpack one of Oracle's archives, which holds one folder of a known name, into the folder of Javas."""
    home = f"{into}/{folder}"
    name = os.path.basename(archive)
    if os.path.lexists(home):
        if look_at(home):
            raise RefusedError("exists", f"It is installed already, in {home}")
        raise RefusedError("exists", f"{home} is there already, but no Java in it runs", "Remove that folder first.")
    with open_archive(archive) as file:
        work = work_in(into)
        try:
            try:
                if sha1 and digest_of(file, hashlib.sha1(usedforsecurity=False)) != sha1:
                    raise RefusedError("bad-value", f"{name} is not what its maker has published", FETCH_AGAIN)
                file.seek(0)
                unpack(file, folder, work)
            except (tarfile.TarError, EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
                raise RefusedError("bad-value", f"{name} cannot be unpacked: {error}", FETCH_AGAIN) from error
            if not os.access(f"{work}/{folder}/bin/java", os.X_OK):
                raise RefusedError("bad-value", f"{name} holds no {folder}/bin/java", FETCH_AGAIN)
            java = look_at(f"{work}/{folder}")
            if java is None:
                hint = "It may be made for another kind of processor, or lack libraries: run its bin/java by hand."
                raise RefusedError("bad-value", f"The Java in {name} does not run on this machine", hint)
            os.rename(f"{work}/{folder}", home)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    java["unpack200"] = java["unpack200"].replace(f"{work}/{folder}", home)
    return java | {"home": home}


def open_archive(path: str) -> IO[bytes]:
    name = os.path.basename(path)
    command = f"as root on the agent: install -D -m 644 {name} {path}"
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        hint = f"Get {name} from Oracle's archive of Java releases; then, {command}"
        raise RefusedError("not-found", f"There is no {path} on this agent", hint) from error
    except OSError as error:
        hint = f"Put it there again, {command}"
        raise RefusedError("forbidden", f"{me()} may not read {path}: {error.strerror}", hint) from error


def work_in(folder: str) -> str:
    """A folder to work in, in the folder of Javas."""
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        return tempfile.mkdtemp(prefix=".work-", dir=folder)
    except OSError as error:
        hint = "Let [java] dir be another folder."
        if not os.path.isdir(folder) or is_ours(folder):
            made = f"As root on the agent: install -d -o {me()} -m 755 {folder} (agent provision makes it, too)"
            hint = f"{made}; or l{hint[1:]}"
        raise RefusedError("forbidden", f"{me()} may not write to {folder}: {error.strerror}", hint) from error


def unpack(file: IO[bytes], folder: str, work: str) -> None:
    """Plain files, folders, and links that stay in there; nothing else, and not without end."""
    count, size, links = 0, 0, []
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for member in archive:
            count, size = count + 1, size + max(member.size, 0)
            parts = member.name.removeprefix("./").rstrip("/").split("/")
            if parts in ([""], ["."]):
                continue
            if count > ARCHIVE_FILES or size > ARCHIVE_SIZE:
                raise RefusedError("bad-value", "The archive is larger than any Java")
            if parts[0] != folder or any(part in ("", ".", "..") for part in parts):
                raise RefusedError("bad-value", f"The archive holds more than the folder {folder}")
            make_folders(work, parts if member.isdir() else parts[:-1])
            if member.isdir():
                continue
            place = "/".join([work, *parts])
            if os.path.lexists(place):
                raise RefusedError("bad-value", "The archive holds a file twice")
            if member.isreg() and (source := archive.extractfile(member)):
                mode = 0o755 if member.mode & 0o100 else 0o644
                with source, open(place, "xb") as target:
                    shutil.copyfileobj(source, target)
                os.chmod(place, mode)
            elif member.issym():
                os.symlink(member.linkname, place)
                links.append(place)
            else:
                raise RefusedError("bad-value", "The archive holds what may not be unpacked")
    top = os.path.realpath(f"{work}/{folder}")
    if not all(f"{os.path.realpath(link)}/".startswith(f"{top}/") for link in links):
        raise RefusedError("bad-value", "The archive holds a link that leads out of it")


def make_folders(work: str, parts: list[str]) -> None:
    """One after the other, never through a link."""
    place = work
    for part in parts:
        place = f"{place}/{part}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, 0o755)
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            raise RefusedError("bad-value", "The archive writes through a link of its own")


def remove(home: str, java_dir: str) -> Object:
    """Only what is right below the folder of Javas."""
    if os.path.dirname(home) != java_dir.rstrip("/") or os.path.basename(home).startswith("."):
        hint = "Whoever has installed it can remove it."
        raise RefusedError("forbidden", f"{home} was not installed by ipmiproxyd", hint)
    if not os.path.isdir(home) or os.path.islink(home):
        raise RefusedError("not-found", f"There is no Java in {home}")
    # Away in one step: nobody starts half of it.
    gone = work_in(java_dir)
    try:
        os.rename(home, f"{gone}/java")
    except OSError as error:
        os.rmdir(gone)
        words = f"{me()} may not remove {home}: {error.strerror}"
        raise RefusedError("forbidden", words, "Remove it as root.") from error
    shutil.rmtree(gone)
    return {}


# --- the cache -------------------------------------------------------------------------------------------------------


def digest_of(file: IO[bytes], digest: Any) -> str:
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return str(digest.hexdigest())


def keep(cache: str, path: str) -> str:
    """Move a file into the cache; returns its name there, its SHA-256."""
    with open(path, "rb") as file:
        name = digest_of(file, hashlib.sha256())
        os.fsync(file.fileno())  # else a file of that name may be another one after the machine has stopped
    os.chmod(path, 0o444)  # the displays' users read it, where they can pass the cache
    os.replace(path, f"{cache}/{name}")
    return name


def take(cache: str, path: str, native: bool, command: list[str]) -> Object:
    """Move a downloaded jar into the cache, unpacked by ``command`` (two paths are appended) if there is one. For a
    jar of native libraries the answer has the listing of what is in it."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise RefusedError("bad-value", "What was fetched is no plain file")
    if command:
        unpack200(command, path)
    with open_jar(path) as jar:
        listing = [[info.filename, info.file_size, info.compress_size, info.external_attr >> 16]
                   for info in jar.infolist()[:LISTED]]  # fmt: skip
    return {"sha256": keep(cache, path), "listing": listing if native else []}


def unpack200(command: list[str], path: str) -> None:
    unpacked = f"{path}.unpacked"
    try:
        done = subprocess.run(
            [*command, path, unpacked],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=UNPACK_LIMIT,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (UNPACKED_LIMIT, UNPACKED_LIMIT)),
        )
        if done.returncode or not os.path.isfile(unpacked):
            raise RefusedError("bad-jnlp", "A packed file of the Java console could not be unpacked")
        os.replace(unpacked, path)
    except (OSError, subprocess.SubprocessError) as error:
        raise RefusedError("tool-missing", f"{command[0]} could not be run: {type(error).__name__}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unpacked)


def open_jar(path: str) -> zipfile.ZipFile:
    try:
        # This process has nothing else to do.
        resource.setrlimit(resource.RLIMIT_DATA, (JAR_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, MemoryError) as error:
        raise RefusedError("bad-jnlp", "A file of the Java console is no jar") from error


def put(cache: str, base64: str) -> Object:
    """A small file of the daemon's own."""
    fd, path = tempfile.mkstemp(prefix=".new-", dir=cache)
    with open(fd, "wb") as file:
        file.write(binascii.a2b_base64(base64))
    return {"sha256": keep(cache, path)}


def extract(cache: str, sha256: str, names: dict[str, str]) -> Object:
    """Files of a cached jar as files of the cache: their SHA-256 by what they are to be called."""
    found = {}
    with open_jar(f"{cache}/{sha256}") as jar:
        for member, name in names.items():
            info = jar.getinfo(member)
            fd, path = tempfile.mkstemp(prefix=".new-", dir=cache)
            try:
                with open(fd, "wb") as target, jar.open(info) as source:
                    # Never more than was listed, whatever is in there.
                    left = info.file_size
                    while block := source.read(min(left, 1 << 20)):
                        target.write(block)
                        left -= len(block)
                found[name] = keep(cache, path)
            except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
                os.unlink(path)
                raise RefusedError("bad-jnlp", "A file of the Java console cannot be unpacked") from error
    return {"files": found}


def drop(cache: str, name: str) -> Object:
    """Remove a file of the cache, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{cache}/{os.path.basename(name)}")
    return {}


def have(cache: str, wanted: list[str], limit: int) -> Object:
    """Which files of the cache are there; they are marked as used. What was not used for longest goes, so that all of
    the cache is below a limit; and so does what was left half done."""
    found = []
    for name in wanted:
        with contextlib.suppress(OSError):
            os.utime(f"{cache}/{name}")
            found.append(name)
    entries = sorted((entry for entry in os.scandir(cache) if entry.is_file(follow_symlinks=False)),
                     key=lambda entry: entry.stat().st_mtime, reverse=True)  # fmt: skip
    size = 0
    for entry in entries:
        size += entry.stat().st_size
        forgotten = entry.name.startswith(".") and time.time() - entry.stat().st_mtime > HALF_DONE
        if forgotten or (size > limit and entry.name not in found):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)
    return {"found": found}


VERBS = {"list": list_javas, "names": names_in, "look": look, "install": install, "remove": remove}
VERBS |= {"take": take, "put": put, "extract": extract, "have": have, "drop": drop}


def main(document: Object) -> None:
    os.umask(0o022)
    verb = VERBS[document.pop("verb")]
    try:
        answer = verb(**document)  # type: ignore[operator]
    except RefusedError as error:
        answer = {"failed": error.code, "message": error.message, "hint": error.hint}
    except OSError as error:
        answer = {"failed": "internal", "message": f"{error.strerror or error} on the agent"}
    print(json.dumps(answer))
