"""Looks around on an agent, for ``agent check``. One file, standard library only: it is handed to ``python3 -c`` by
standard input.

Reads one JSON object and prints one, with what each of LOOKS has found: ``{"found": …}``, or ``{"failed": words}``.
Each looks in a process of its own and has ``limit`` seconds, so that none keeps the others from what they find. Nothing
is changed.

    programs   names or paths
    packages   names, of which the versions are told
    folders    {what for: path}, of which the free room is told; those that are not there yet, of what is above
    jobs       the runner's folder, or empty
    locks      where the displays' locks are, or empty
    prefix     what the names of displays' Unix users begin with
    displays   numbers
    account    true: whether the keys that let us in are restricted is of interest
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import json
import os
import platform
import pwd
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
WHERE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SEEN = ("/usr/", "/opt/", "/bin/", "/sbin/", "/lib")  # in a sandbox
NET = "/proc/sys/net"
SETTINGS = (
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "user/max_user_namespaces",
    "user/max_net_namespaces",
)
TMP = "/tmp"  # noqa: S108
FONTS = ("/usr/share/fonts", "/usr/local/share/fonts")
SCALABLE = (".ttf", ".otf", ".ttc", ".pfb")
GECOS, SHELL = "ipmiproxyd console display", "/usr/sbin/nologin"  # as in runner.py
RULES, TABLE = "/etc/ipmiproxyd-agent.nft", ("inet", "ipmiproxyd_agent")
VNC_PORT, LISTENING = 5900, "0A"  # + display number
MANY = 20  # of anything that is told
REAP = 1.0  # seconds for children that were killed


def system(_: Object) -> Object:
    told = {}
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8", errors="replace") as file:
        told = dict(line.rstrip().split("=", 1) for line in file if "=" in line and not line.startswith("#"))
    told = {name: value.strip("\"'") for name, value in told.items()}
    names = {"id": "ID", "version": "VERSION_ID", "name": "PRETTY_NAME"}
    about: Object = {name: told.get(key, "") for name, key in names.items()}
    about |= {"kernel": platform.release(), "machine": platform.machine(), "processors": os.cpu_count() or 0}
    return about | {"python": list(sys.version_info[:3])}


def find(program: str, mode: int = os.X_OK) -> str:
    return shutil.which(program, mode, f"{os.environ.get('PATH', os.defpath)}:{WHERE}") or ""


def programs(given: Object) -> Object:
    """Those that are missing, of these what is there but cannot be executed, and those that a sandbox would not see."""
    places = {program: find(program) for program in given["programs"]}
    outside = {name: real for name, path in places.items() if not (real := os.path.realpath(path)).startswith(SEEN)}
    missing = [program for program, path in places.items() if not path]
    closed = {program: path for program in missing if (path := find(program, os.F_OK))}
    outside = {name: real for name, real in outside.items() if name not in missing}
    return {"missing": missing, "closed": closed, "outside": outside}


def packages(given: Object) -> Object:
    argv = ["dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\\n", *given["packages"]]
    try:
        said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except OSError:
        return {}
    rows = [line.split() for line in said.splitlines() if line.endswith(" ok installed")]
    return {name: version for name, version, *_ in rows}


def namespaces(_: Object) -> Object:
    """Why no user and network namespace can be made and used; empty if they can. And the settings about that."""
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        number = 0 if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 else ctypes.get_errno()
        try:
            if not number:  # some kernels give a namespace in which nothing may be done
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        except OSError as error:
            number = error.errno or 255
        os._exit(min(number, 255))
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    settings = {}
    for name in SETTINGS:
        with contextlib.suppress(OSError), open(f"/proc/sys/{name}", encoding="ascii") as file:
            settings[name.replace("/", ".")] = file.read().strip()
    told = {"problem": os.strerror(number) if number > 0 else "", "settings": settings}
    return told | {"proc": "" if number else proc_refused(), "fixed": bool(os.statvfs(NET).f_flag & os.ST_RDONLY)}


def proc_refused() -> str:
    """Why a sandbox can have no /proc of its own; empty if it can."""
    pid = os.fork()
    if pid == 0:
        libc, number = ctypes.CDLL(None, use_errno=True), 0
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID) == 0:
            inner = os.fork()  # of the new process namespace, to which the new /proc belongs
            if inner == 0:
                failed = libc.mount(b"proc", b"/proc", b"proc", 0, None)
                os._exit(min(ctypes.get_errno(), 255) if failed else 0)
            number = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
        os._exit(max(0, number))
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return os.strerror(number) if number > 0 else ""


def memory(_: Object) -> Object:
    """Bytes: all, and free for programs."""
    with open("/proc/meminfo", encoding="ascii") as file:
        told = dict(line.split(":", 1) for line in file)
    return {"all": int(told["MemTotal"].split()[0]) << 10, "free": int(told["MemAvailable"].split()[0]) << 10}


def disks(given: Object) -> list[Object]:
    """The file systems that folders are on."""
    found: dict[int, Object] = {}
    for what, path in given["folders"].items():
        while not os.path.isdir(path) and path != "/":
            path = os.path.dirname(path) or "/"
        room = os.statvfs(path)
        one = found.setdefault(os.stat(path).st_dev, {"path": path, "what": []})
        one["what"].append(what)
        one |= {"free": room.f_bavail * room.f_frsize, "read_only": bool(room.f_flag & os.ST_RDONLY)}
        one["files"] = room.f_favail if room.f_files else -1  # some file systems do not count them
    return list(found.values())


def clock(_: Object) -> float:
    return time.time()


def fonts(_: Object) -> int:
    """How many that can have any size; it is enough to know of some."""
    count = 0
    for top in FONTS:
        for _folder, _folders, names in os.walk(top, followlinks=True):
            count += sum(name.lower().endswith(SCALABLE) for name in names)
            if count > MANY:
                return count
    return count


def x_locks(_: Object) -> list[Object]:
    """Locks of X servers that have ended. Everybody may write there: only files that are called as locks count."""
    stale = []
    for name in sorted(name for name in os.listdir(TMP) if re.fullmatch(r"\.X[0-9]{1,5}-lock", name, re.ASCII)):
        path = f"{TMP}/{name}"
        with contextlib.suppress(OSError, ValueError):
            pid = int(beginning(path))
            if pid > 0 and not os.path.exists(f"/proc/{pid}"):
                stale.append({"path": path, "pid": pid})
    return stale[:MANY]


def beginning(path: str) -> bytes:
    """The first bytes of a file. Raises ValueError for a link, and for what is no file."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(path)
        return file.read(32)


def identity(pid: int) -> str:
    """As in runner.py."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file, open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            fields = file.read().rpartition(b")")[2].split()
            return "" if fields[0] in (b"Z", b"X") else f"{boot.read().strip()}:{pid}:{int(fields[19])}"
    except (FileNotFoundError, ProcessLookupError):
        return ""


def jobs(given: Object) -> list[str]:
    """Those that nobody keeps any more."""
    lost = []
    for path in sorted(glob.glob(f"{glob.escape(given['jobs'])}/*/state.json")) if given["jobs"] else []:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if is_lost(path) and is_lost(path):  # a keeper that is gone may have had its last word after the first look
                lost.append(os.path.basename(os.path.dirname(path)))
    return lost[:MANY]


def is_lost(path: str) -> bool:
    """Whether a job's state says that it goes on, and its keeper is gone."""
    with open(path, encoding="utf-8") as file:
        state = json.load(file)
    return bool(state["state"] != "ended" and identity(int(state["keeper"].split(":")[1])) != state["keeper"])


def our_users(prefix: str) -> dict[str, pwd.struct_passwd]:
    named = {one.pw_name: one for one in pwd.getpwall() if re.fullmatch(f"{re.escape(prefix)}[0-9]+", one.pw_name)}
    return {name: one for name, one in named.items() if (one.pw_gecos.rstrip(","), one.pw_shell) == (GECOS, SHELL)}


def users(given: Object) -> Object:
    """The displays' Unix users that there are, and those of such names that somebody else has made."""
    ours, foreign = our_users(given["prefix"]), []
    names = {one.pw_name for one in pwd.getpwall()}
    for display in given["displays"]:
        name = f"{given['prefix']}{display}"
        if name in names and name not in ours:
            foreign.append(name)
    return {"ours": len(ours), "foreign": foreign[:MANY]}


def held() -> set[int]:
    """The inodes of files that somebody has locked."""
    with open("/proc/locks", encoding="ascii") as file:
        return {int(match[1]) for line in file if (match := re.search(r" FLOCK .* [0-9a-f]+:[0-9a-f]+:(\d+) ", line))}


def in_container(folder: str, status: str) -> bool:
    """Whether a process is in a container, which has other users by our numbers; as far as anybody may see."""
    numbers = re.search(r"^NSpid:(.*)", status, re.MULTILINE)
    with open(f"{folder}/uid_map", encoding="ascii") as there, open("/proc/self/uid_map", encoding="ascii") as here:
        return numbers is not None and len(numbers[1].split()) > 1 and there.read() == here.read()


def processes(given: Object) -> Object:
    """Of displays' Unix users, whose display nobody has: user → how many."""
    uids = {one.pw_uid: name for name, one in our_users(given["prefix"]).items()} if given["locks"] else {}
    locked = held() if uids else set()  # of two looks, as one may miss a lock while others are given back
    seen = []
    for folder in glob.glob("/proc/[0-9]*") if uids else []:
        with contextlib.suppress(OSError), open(f"{folder}/status", encoding="utf-8", errors="replace") as file:
            match = re.search(r"^Uid:\s+(\d+)", status := file.read(), re.MULTILINE)
            if not match or int(match[1]) not in uids or in_container(folder, status):
                continue
            if known := identity(int(folder[len("/proc/") :])):
                seen.append((uids[int(match[1])], known))
    locked |= held() if seen else set()
    found: Object = {}
    for name, known in seen:
        with contextlib.suppress(OSError):
            if os.stat(f"{given['locks']}/{name[len(given['prefix']) :]}.lock").st_ino in locked:
                continue
        if identity(int(known.split(":")[1])) == known:  # else its console has just ended
            found[name] = found.get(name, 0) + 1
    return found


def firewall(given: Object) -> Object:
    """Whether our rules are there and in force ("" if only root could tell), and at which of the displays' ports
    somebody listens for others."""
    force = ""
    if nft := find("nft"):
        done = subprocess.run([nft, "list", "table", *TABLE], capture_output=True, check=False)
        force = "yes" if not done.returncode else "no" if b"No such file" in done.stderr else ""
    ports = {VNC_PORT + display for display in given["displays"]}
    open_to = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as file:
            for line in file.readlines()[1:]:
                address, port = line.split()[1].split(":")
                loopback = address.endswith("7F") if len(address) == 8 else address == f"{'0' * 24}01000000"
                if line.split()[3] == LISTENING and int(port, 16) in ports and not loopback:
                    open_to.add(int(port, 16))
    return {"file": os.path.exists(RULES), "force": force, "open": sorted(open_to)[:MANY]}


def key_options(line: str) -> str:
    """What stands in front of a key."""
    match = re.search(r"(?:^|[ \t])(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+[ \t]+[A-Za-z0-9+/=]{20}", line)
    return line[: match.start()].strip().lower() if match else ""


def account(given: Object) -> Object:
    """The keys that let us in and are not restricted: their comments or last letters."""
    me = pwd.getpwuid(os.geteuid())
    path = f"{me.pw_dir}/.ssh/authorized_keys"
    lines: list[str] = []
    if given["account"]:
        with contextlib.suppress(FileNotFoundError, PermissionError), open(path, "rb") as file:
            lines = [line.decode("utf-8", "replace").strip() for line in file.readlines()[:1000]]
    keys = [line for line in lines if line and not line.startswith("#")]
    wide = [line for line in keys if "restrict" not in re.split(r'[ ,]|"[^"]*"', key_options(line))]
    names = [line.split()[-1][-24:] for line in wide]
    return {"user": me.pw_name, "path": path, "keys": len(keys), "wide": names[:MANY]}


LOOKS = (
    system, programs, packages, namespaces, memory, disks, clock, fonts, x_locks, jobs, users, processes, firewall,
    account,
)  # fmt: skip


def begin(look: Any, given: Object) -> tuple[int, int]:
    """A process that looks, and where it tells what it has found."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)  # with all that it starts
            os.close(told)
            try:
                found = {"found": look(given)}
            except Exception as error:
                words = getattr(error, "strerror", None) or str(error) or type(error).__name__
                found = {"failed": f"{getattr(error, 'filename', None) or type(error).__name__}: {words}"}
            with open(tell, "w", encoding="utf-8") as file:
                json.dump(found, file)
        finally:
            os._exit(0)
    os.close(tell)
    return pid, told


def collect(told: int, end: float) -> Object:
    """What a process has found, if it tells so in time."""
    data = b""
    while select.select([told], [], [], max(0.0, end - time.monotonic()))[0]:
        more = os.read(told, 65536)
        if not more:
            break
        data += more
    else:
        return {"failed": "it took too long"}
    try:
        found: Object = json.loads(data)
        return found
    except ValueError:
        return {"failed": "it broke off"}


def reap(children: set[int], end: float) -> None:
    """Wait for them; for one that not even SIGKILL ends, not for ever."""
    while children and time.monotonic() < end:
        children -= {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]}
        time.sleep(0.005 if children else 0)


def main(given: Object) -> None:
    begun = {look.__name__: begin(look, given) for look in LOOKS}
    end = time.monotonic() + given["limit"]
    found = {name: collect(told, end) for name, (_, told) in begun.items()}
    for pid, _ in begun.values():
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    print(json.dumps(found))
    reap({pid for pid, _ in begun.values()}, time.monotonic() + REAP)
