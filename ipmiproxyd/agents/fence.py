"""What keeps a job's programs from the network: a network namespace of their own, and a forwarder outside of it. One
file, standard library only: it travels with box.py, and runs as the console's own Unix user.

In the namespace there is a loopback interface and nothing else. The addresses that the programs may reach stand on it,
and on their ports listen sockets that were made inside and are served outside: the forwarder connects each connection
to that very address and port, as the agent sees it. So everything else is out of reach: other addresses and ports, the
agent's own services, UDP, and UNIX sockets without a file. Many ports at once have one socket: a rule of nftables,
inside, leads connections to it, and tells where they wanted to go. Network namespaces do not cover all families of
sockets (vsock leads to the host of a virtual machine): a filter of system calls refuses the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import select
import signal
import socket
import stat
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Address = tuple[str, int]
    Dial = Callable[[socket.socket], socket.socket]  # of a client: the server's side, on its way; or OSError

BUFFER = 1 << 16  # bytes that are on their way, in each direction of a connection
CONNECTIONS = 256
DIAL_LIMIT = 10.0  # seconds
HALF_LIMIT = 60.0  # seconds without a byte, once one side has ended
SINGLE = 64  # more ports than that in one range share a socket
LISTENERS = 250  # that fit into one message between processes
OWN_PORTS = (61000, 65535)  # of servers inside, such as the bridge of an old panel
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 4, 38, 47, 2
CAP_NET_ADMIN, CAPABILITY_VERSION = 12, 0x20080522
RTM_NEWLINK, RTM_NEWADDR, REQUEST, IFA_LOCAL, IFA_ADDRESS, IFF_UP = 16, 20, 0x405, 2, 1, 1  # create, and answer
SO_ORIGINAL_DST = 80
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # what seccomp calls it, and its call socket()
IO_URING_SETUP, FIRST_X32_CALL = 425, 0x40000000
KEYCTL, JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # of a seccomp filter's program
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000  # its results; with REFUSE an error's number


class FenceError(Exception):
    """There is no fence, and so no job. ``code`` is a stable word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def system_call(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


# --- inside ----------------------------------------------------------------------------------------------------------


class Fence:
    """What may be reached. ``reach``: objects with ``address`` and ``ports``, pairs of a range's first and last."""

    def __init__(self, reach: list[dict[str, Any]]) -> None:
        self.single: list[Address] = []
        self.wide: list[tuple[str, int, int]] = []
        for entry in reach:
            address = plain(entry["address"])
            for first, last in entry["ports"]:
                if last - first < SINGLE:
                    self.single += [(address, port) for port in range(first, last + 1)]
                else:
                    self.wide.append((address, first, last))
        self.single = list(dict.fromkeys(self.single))
        self.families = sorted({family_of(address) for address, _, _ in self.wide})
        if len(self.single) > LISTENERS - 2:
            raise FenceError("job-failed", f"A console may reach at most {LISTENERS - 2} single ports")

    @property
    def dials(self) -> list[Dial]:
        """Of the sockets that :meth:`enter` makes, one after the other: where their connections lead."""
        return [*(dial_to(address) for address in self.single), *(self.dial_as_wanted for _ in self.families)]

    def dial_as_wanted(self, client: socket.socket) -> socket.socket:
        """To where a connection wanted to go that a rule has led here."""
        if client.family == socket.AF_INET:
            port, number = struct.unpack("!2xH4s8x", client.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
        else:
            port, number = struct.unpack("!2xH4x16s4x", client.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28))
        address = socket.inet_ntop(client.family, number)
        if any(address == allowed and first <= port <= last for allowed, first, last in self.wide):
            return dial(client.family, (address, port))
        raise PermissionError(f"{address}:{port} is not to be reached")

    def enter(self) -> list[socket.socket]:
        """Enter new namespaces, for good; the listening sockets, for whoever serves them outside."""
        try:
            make_namespaces()
            netlink(RTM_NEWLINK, struct.pack("=BxHiII", 0, 0, 1, IFF_UP, IFF_UP))
            for address in {*(address for address, _ in self.single), *(address for address, _, _ in self.wide)}:
                add_address(address)
            if self.wide:
                with open("/proc/sys/net/ipv4/ip_local_port_range", "w", encoding="ascii") as file:
                    file.write("{} {}".format(*OWN_PORTS))
            listeners = [listen(address, port) for address, port in self.single]
            doors = [listen("127.0.0.1" if family == socket.AF_INET else "::1", 0) for family in self.families]
        except OSError as error:
            raise FenceError("job-failed", f"The network fence cannot be made: {error}{reason(error)}") from error
        if doors:
            redirect(self.rules(dict(zip(self.families, doors))))
        return [*listeners, *doors]

    def rules(self, doors: dict[int, socket.socket]) -> str:
        lines = []
        for address, first, last in self.wide:
            family = family_of(address)
            word = "ip" if family == socket.AF_INET else "ip6"
            # On the loopback interface's own addresses the programs' servers listen as well.
            own = "tcp dport != {}-{} ".format(*OWN_PORTS) if is_loopback(address) else ""
            door = doors[family].getsockname()[1]
            lines.append(f"{word} daddr {address} tcp dport {first}-{last} {own}redirect to :{door}")
        return "\n".join(["table inet fence {", "chain led {", "type nat hook output priority -100;", *lines, "}", "}"])


def family_of(address: str) -> int:
    return int(socket.AF_INET6 if ":" in address else socket.AF_INET)


def packed(address: str) -> bytes:
    try:
        return socket.inet_pton(family_of(address), address)
    except OSError as error:
        raise FenceError("job-failed", f"{address} is no IP address") from error


def plain(address: str) -> str:
    """The one way to write an address."""
    return socket.inet_ntop(family_of(address), packed(address))


def is_loopback(address: str) -> bool:
    return address == "::1" or packed(address)[0] == 127


def make_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    system_call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def reason(error: OSError) -> str:
    """What about the agent keeps a fence from being made, where that is known."""
    if error.errno == errno.EROFS:
        return " (the agent has it read-only, as a container may)"
    if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EINVAL):
        return ""
    for name, bad in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
    ):
        with contextlib.suppress(OSError), open(f"/proc/sys/{name}", encoding="ascii") as file:
            if file.read().strip() == bad:
                return f" ({name.replace('/', '.')} is {bad} on the agent)"
    return ""


def netlink(kind: int, body: bytes) -> None:
    """Ask the kernel to change a network device, and wait for its answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST, 1, 0) + body)
        if (number := -struct.unpack_from("=i", kernel.recv(4096), 16)[0]) not in (0, errno.EEXIST):
            raise OSError(number, os.strerror(number))


def add_address(address: str) -> None:
    """An address, and no more than that one, on the loopback interface."""
    if is_loopback(address):
        return
    number = packed(address)
    body = struct.pack("=BBBBI", family_of(address), 8 * len(number), 0, 0, 1)
    for kind in (IFA_LOCAL, IFA_ADDRESS):
        body += struct.pack("=HH", 4 + len(number), kind) + number
    netlink(RTM_NEWADDR, body)


def listen(address: str, port: int) -> socket.socket:
    listener = socket.socket(family_of(address), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(128)
    return listener


def socket_filter(*, other_calls: bool) -> bytes:
    """A filter for seccomp that leaves programs no sockets but those of FAMILIES; empty on machines that it does not
    know. ``other_calls``: whether 32-bit programs may run, for whose calls there is no filter."""
    if os.uname().machine not in MACHINES:
        return b""
    machine, call = MACHINES[os.uname().machine]
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, machine), (RETURN, 0, 0, ALLOW if other_calls else KILL)]
    program += [(LOAD, 0, 0, 0), (AT_LEAST, 0, 1, FIRST_X32_CALL), (RETURN, 0, 0, KILL)]
    program += [(EQUAL, 0, 1, IO_URING_SETUP), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    program += [(EQUAL, 1, 0, call), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, 16)]
    for family in FAMILIES:
        program += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    program.append((RETURN, 0, 0, REFUSE | errno.EAFNOSUPPORT))
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def redirect(rules: str) -> None:
    """Give rules to nft, which may change this namespace's network as we may."""
    fd = os.memfd_create("rules")
    os.write(fd, rules.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    if not (child := os.fork()):
        try:
            os.dup2(fd, 0)
            mask = 1 << CAP_NET_ADMIN
            header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
            system_call("capset", header, struct.pack("=6I", mask, mask, mask, 0, 0, 0))
            system_call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0)
            os.execvp("nft", ["nft", "-f", "-"])  # noqa: S606
        except FileNotFoundError:
            os._exit(127)
        except PermissionError:
            os._exit(126)
        finally:
            os._exit(125)
    os.close(fd)
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        if status == 127:
            raise FenceError("tool-missing", "nftables (nft) is not installed on the agent")
        if status == 126:
            raise FenceError("tool-missing", "nftables (nft) is on the agent, but cannot be executed")
        raise FenceError("job-failed", f"nft could not make the network fence (exit status {status})")


# --- outside ---------------------------------------------------------------------------------------------------------


def harden() -> None:
    """Nobody looks into this process, and what it starts gains no rights, nor shares the keys of whoever asked."""
    if call := KEYCTL.get(os.uname().machine):
        try:
            system_call("syscall", call, JOIN_SESSION_KEYRING, None)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # there are no keys: of the kernel, or of a container
                raise
    system_call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    system_call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with(parent: int) -> None:
    """In a child that may look at itself again: end as soon as its parent does."""
    system_call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    system_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Loop:
    """Waits for descriptors and moments, and calls who waits for them."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self.moments: dict[object, tuple[float, Callable[[], None]]] = {}
        self.doomed: list[socket.socket] = []
        self.over = False

    def watch(self, fd: int, mask: int, call: Callable[[int], None]) -> None:
        """Call with the events of a descriptor; with an empty mask no more."""
        before = self.watched.get(fd, (0, call))[0]
        if mask and before:
            self.epoll.modify(fd, mask)
        elif mask:
            self.epoll.register(fd, mask)
        elif before:
            self.epoll.unregister(fd)
        self.watched.pop(fd, None)
        if mask:
            self.watched[fd] = (mask, call)

    def close(self, sock: socket.socket) -> None:
        """Once this round is over: until then nothing else has its number."""
        self.watch(sock.fileno(), 0, lambda _: None)
        self.doomed.append(sock)

    def run(self) -> None:
        while not self.over:
            soonest = min((moment for moment, _ in self.moments.values()), default=None)
            left = None if soonest is None else max(0.0, soonest - time.monotonic() + 0.001)
            for fd, events in self.epoll.poll(left):
                if fd in self.watched:
                    self.watched[fd][1](events)
            for key, (moment, call) in list(self.moments.items()):
                if moment <= time.monotonic():
                    del self.moments[key]
                    call()
            while self.doomed:
                self.doomed.pop().close()


class Side:
    """One side of a connection, and what is still to be written to it."""

    def __init__(self, sock: socket.socket, *, dialling: bool) -> None:
        self.sock, self.out, self.dialling = sock, bytearray(), dialling
        self.ended = self.shut = False  # nothing more comes from it; nothing more goes to it
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class Connection:
    """Between a client and the server that it means."""

    def __init__(self, loop: Loop, client: socket.socket, server: socket.socket, closed: Callable[[], None]) -> None:
        self.loop, self.closed, self.broken = loop, closed, False
        self.sides = (Side(client, dialling=False), Side(server, dialling=True))
        loop.moments[self] = (time.monotonic() + DIAL_LIMIT, lambda: self.close(broken=True))
        self.watch()

    def ready(self, side: Side, peer: Side, events: int) -> None:
        try:
            if side.dialling:
                if number := side.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, os.strerror(number))
                if is_here(side.sock):
                    raise PermissionError("that is the agent itself")
                side.dialling = False
                self.loop.moments.pop(self, None)
            if events & ~select.EPOLLOUT and self.may_read(side, peer):
                data = side.sock.recv(BUFFER - len(peer.out))
                peer.out += data
                side.ended = not data
            for one in (side, peer):
                if one.out and not one.dialling:
                    with contextlib.suppress(BlockingIOError):
                        del one.out[: one.sock.send(one.out)]
        except BlockingIOError:
            pass
        except OSError:
            # What came before still goes out to the other side, which then learns of the break.
            if self.broken or side.dialling:
                return self.close(broken=True)
            self.broken = side.ended = side.shut = peer.ended = True
            side.out.clear()
        return self.watch()

    def may_read(self, side: Side, peer: Side) -> bool:
        return not (side.ended or side.dialling or peer.shut) and len(peer.out) < BUFFER

    def watch(self) -> None:
        """Pass ends on, and wait for what can happen next."""
        for side, peer in (self.sides, self.sides[::-1]):
            if side.ended and not (peer.out or peer.shut or peer.dialling):
                peer.shut = True
                if not self.broken:
                    with contextlib.suppress(OSError):
                        peer.sock.shutdown(socket.SHUT_WR)
        if all(side.shut for side in self.sides):
            return self.close(broken=self.broken)
        if any(side.ended for side in self.sides) and not any(side.dialling for side in self.sides):
            # Some servers never end what their client has ended.
            self.loop.moments[self] = (time.monotonic() + HALF_LIMIT, lambda: self.close(broken=True))
        for side, peer in (self.sides, self.sides[::-1]):
            mask = select.EPOLLIN if self.may_read(side, peer) else 0
            mask |= select.EPOLLOUT if side.out or side.dialling else 0
            self.loop.watch(side.sock.fileno(), mask, functools.partial(self.ready, side, peer))
        return None

    def close(self, *, broken: bool) -> None:
        self.loop.moments.pop(self, None)
        for side in self.sides:
            if broken:
                reset(side.sock)
            self.loop.close(side.sock)
        self.closed()


class Forwarder:
    """Connects clients of listening sockets to where these lead."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.count = loop, 0

    def serve(self, listener: socket.socket, dial: Dial) -> None:
        listener.setblocking(False)
        self.loop.watch(listener.fileno(), select.EPOLLIN, lambda _: self.accept(listener, dial))

    def accept(self, listener: socket.socket, dial: Dial) -> None:
        try:
            client = listener.accept()[0]
        except OSError:
            return
        try:
            if self.count >= CONNECTIONS:
                raise ConnectionRefusedError
            server = dial(client)
        except OSError:
            reset(client)
            client.close()
            return
        self.count += 1
        Connection(self.loop, client, server, self.gone)

    def gone(self) -> None:
        self.count -= 1


def is_here(sock: socket.socket) -> bool:
    """Whether a connection leads to this machine by an address of its own: a name that leads to one is no BMC's."""
    if sock.family == socket.AF_UNIX:
        return False
    address = sock.getpeername()[0]
    return bool(address == sock.getsockname()[0] and not is_loopback(address))


def reset(sock: socket.socket) -> None:
    """As it is closed, its peer hears of a break and not of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def dial(family: int, address: str | Address) -> socket.socket:
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setblocking(False)
    if (number := server.connect_ex(address)) not in (0, errno.EINPROGRESS):
        server.close()
        raise OSError(number, os.strerror(number))
    return server


def dial_to(address: Address) -> Dial:
    return lambda _: dial(family_of(address[0]), address)


def dial_socket(path: str) -> Dial:
    """To the UNIX socket of this path, never by a link: whoever shares the folder could put one there."""

    def by_descriptor(_: socket.socket) -> socket.socket:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise ConnectionRefusedError
            return dial(socket.AF_UNIX, f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    return by_descriptor
