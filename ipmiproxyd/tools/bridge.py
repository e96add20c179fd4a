"""Lets a browser of today show a panel whose TLS it does not speak any more. One file, standard library only: a job
gets it as a file, for it has to run beside the browser, inside the sandbox.

    python3 -I -S bridge.py COMMAND ARGUMENT …  < document

It is the browser's proxy, at a loopback port of its own that it adds to the command's arguments: what the browser
encrypts ends here, and is encrypted anew, in old ways, for the panel, which has to show the key that is known. Nobody
but the processes of this sandbox is served, and nothing but the panel is reached. Standard input holds one JSON object:

    host, ports         the panel's: the only ones to be connected to; the first and last port of each range
    pin                 base64 of the SHA-256 of its key
    least               the oldest TLS to be spoken to it, as ssl.TLSVersion calls it
    certificate         ours, with its key, in PEM
    then                what the command gets as its standard input

It ends as the command does; with status 127 if there is no such command, and 126 if it cannot be executed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import ssl
import sys
import threading
import time
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Object = dict[str, Any]

HEAD_LIMIT, AT_ONCE = 1 << 14, 64
PATIENCE = 15.0  # seconds for whatever a connection has to get done at first
LEGACY_SERVER_CONNECT = 0x4  # OpenSSL's; Python has a name for it since 3.12
PIECE = 1 << 16
HERE = "127.86.0.1"  # a fence has the panel's address for its own: that may be 127.0.0.1


class RefusedError(Exception):
    """A connection is not what it should be. ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# --- certificates ----------------------------------------------------------------------------------------------------


def element(data: bytes, at: int) -> tuple[int, int]:
    """Where an element of DER has its content, and where it ends."""
    length, body = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, body = int.from_bytes(data[body : body + size], "big"), body + size
    return body, body + length


def key_of(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate (RFC 5280, section 4.1), as it stands there."""
    at = element(certificate, element(certificate, 0)[0])[0]
    if certificate[at] == 0xA0:  # the version, which may be missing
        at = element(certificate, at)[1]
    for _ in ("serial number", "signature", "issuer", "validity", "subject"):
        at = element(certificate, at)[1]
    return certificate[at : element(certificate, at)[1]]


def pin_of(certificate: bytes) -> str:
    return base64.b64encode(hashlib.sha256(key_of(certificate)).digest()).decode()


def towards_browser(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with open(fd, "wb") as file:
        file.write(certificate.encode())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    return context


def towards_panel(least: str) -> ssl.SSLContext:
    """As old as it has to be. Which panel it is, its key says and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion[least]
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.options |= LEGACY_SERVER_CONNECT
    return context


# --- who is there ----------------------------------------------------------------------------------------------------


def is_ours(peer: tuple[str, int], here: tuple[str, int]) -> bool:
    """Whether the other end of a connection belongs to a process of this sandbox: only those are in this /proc."""
    wanted = (as_in_proc(*peer), as_in_proc(*here))
    with open("/proc/net/tcp", encoding="ascii") as file:
        inodes = [fields[9] for line in file if (fields := line.split()) and tuple(fields[1:3]) == wanted]
    return any(f"socket:[{inode}]" in sockets() for inode in inodes)


def as_in_proc(host: str, port: int) -> str:
    number = int.from_bytes(socket.inet_aton(host), sys.byteorder)
    return f"{number:08X}:{port:04X}"


def sockets() -> set[str]:
    """What the processes in this /proc have open."""
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for fd in os.scandir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    found.add(os.readlink(fd.path))
    return found


# --- connections -----------------------------------------------------------------------------------------------------


class Bridge:
    def __init__(self, told: Object) -> None:
        self.host, self.ports, self.pin = told["host"], told["ports"], told["pin"]
        self.browser, self.panel = towards_browser(told["certificate"]), towards_panel(told["least"])
        self.places = threading.BoundedSemaphore(AT_ONCE)
        self.door = socket.create_server((HERE, 0))

    def serve(self) -> None:
        while True:
            self.places.acquire()
            visitor, peer = self.door.accept()
            threading.Thread(target=self.visit, args=(visitor, peer), daemon=True).start()

    def visit(self, visitor: socket.socket, peer: tuple[str, int]) -> None:
        try:
            with visitor, contextlib.suppress(OSError, ValueError):
                visitor.settimeout(PATIENCE)
                if is_ours(peer, self.door.getsockname()):
                    self.talk(visitor)
        finally:
            self.places.release()

    def talk(self, visitor: socket.socket) -> None:
        try:
            panel = self.connect(target(visitor))
        except RefusedError as problem:
            visitor.sendall(f"HTTP/1.1 {problem.status} {problem}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        with panel:
            visitor.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with self.browser.wrap_socket(visitor, server_side=True) as browser:
                carry(browser, panel)

    def connect(self, where: tuple[str, int]) -> ssl.SSLSocket:
        """A connection to the panel itself. Raises RefusedError."""
        host, port = where
        if host != self.host or not any(first <= port <= last for first, last in self.ports):
            raise RefusedError(403, "Not the panel")
        try:
            plain = socket.create_connection((host, port), PATIENCE)
            panel = self.panel.wrap_socket(plain, server_hostname=host)
        except OSError as error:
            raise RefusedError(502, "The panel cannot be reached") from error
        if pin_of(panel.getpeercert(binary_form=True) or b"") != self.pin:
            panel.close()
            raise RefusedError(502, "This is another panel")
        return panel


def target(visitor: socket.socket) -> tuple[str, int]:
    """Whom a browser wants to speak to: ``CONNECT host:port HTTP/1.1``. Raises RefusedError."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = visitor.recv(PIECE)
        head += more
        if not more or len(head) > HEAD_LIMIT:
            raise RefusedError(400, "No request")
    words = head.split(b"\r\n")[0].decode("latin-1").split(" ")
    host, _, port = words[1].rpartition(":") if len(words) == 3 else ("", "", "")
    if words[0] != "CONNECT" or not port.isdecimal():
        raise RefusedError(403, "Not the panel")
    return host.strip("[]").lower(), int(port)


def carry(one: ssl.SSLSocket, other: ssl.SSLSocket) -> None:
    """Until either is closed. What was read is written before more is read."""
    for end in (one, other):
        end.setblocking(False)
    left = {one: b"", other: b""}  # to be written to each
    source = {one: other, other: one}
    over = False
    while not over:
        moved = False
        for end in (one, other):
            if not left[end]:
                data = read(source[end])
                over = over or data == b""
                left[end] = data or b""
            sent = write(end, left[end])
            left[end] = left[end][sent:]
            moved = moved or bool(sent)
        if not moved and not over:
            wait(left, source)
    for end in (one, other):
        end.settimeout(1.0)
        with contextlib.suppress(OSError, ValueError):
            if left[end]:
                end.sendall(left[end])
            end.unwrap()


def read(end: ssl.SSLSocket) -> bytes | None:
    """None if there is nothing yet; nothing at its end, however that comes."""
    try:
        return end.recv(PIECE)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
    except OSError:
        return b""


def write(end: ssl.SSLSocket, data: bytes) -> int:
    try:
        return end.send(data) if data else 0
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0


def wait(left: dict[ssl.SSLSocket, bytes], source: dict[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    reading = [source[end] for end in left if not left[end]]
    select.select(reading, [end for end in left if left[end]], [])


# --- the command -----------------------------------------------------------------------------------------------------


def start(argv: list[str], said: str) -> int:
    given, give = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, given, 0)]
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE])
    os.close(given)
    with open(give, "wb") as file, contextlib.suppress(BrokenPipeError):
        file.write(said.encode())
    return pid


def follow(pid: int) -> NoReturn:
    """End as a process has ended."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
        time.sleep(PATIENCE)
    os._exit(abs(status))


def main() -> None:
    told = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    then = told.pop("then")
    bridge = Bridge(told)
    threading.Thread(target=bridge.serve, daemon=True).start()
    proxy = f"--proxy-server={HERE}:{bridge.door.getsockname()[1]}"
    try:
        pid = start([*sys.argv[1:], proxy, "--proxy-bypass-list=<-loopback>"], then)
    except FileNotFoundError:
        sys.exit(127)
    except PermissionError:
        sys.exit(126)
    follow(pid)


if __name__ == "__main__":
    main()
