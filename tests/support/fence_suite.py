"""What every kind of agent must keep a job's programs from, and let them do. Mixed into a test case that makes an agent
on this machine; the servers around it are the test's own."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import threading
from typing import Any, Final

from ipmiproxyd.agents import fence, sandbox
from ipmiproxyd.model import JobSpec, Program, Reach, Ready
from tests.support.agent_suite import AgentHelpers
from tests.support.scratch import scratch

BMC: Final = "127.0.0.2"
"""Poses as a BMC beside the agent's own address; "::1" does so for IPv6."""

_LOOK: Final = f"""
import ctypes, json, os, socket, sys
def talk(family, kind, address):
    with socket.socket(family, kind) as client:
        client.settimeout(3)
        client.connect(address)
        client.send(b"hello")
        return client.recv(100).decode() or "nothing"
def names(name):
    return sorted({{found[4][0] for found in socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM)}})
def attempt(kind, address):
    try:
        if kind == "name":
            return names(address)
        if kind == "file":
            return os.listdir(address) if os.path.isdir(address) else open(address).read()
        if kind == "status":
            return dict(line.split(":", 1) for line in open("/proc/self/status"))[address].strip()
        if kind == "keys":
            return ctypes.CDLL(None, use_errno=True).syscall(address, 0, -3, 0)
        if kind == "unix":
            return talk(socket.AF_UNIX, socket.SOCK_STREAM, address)
        if kind == "family":
            socket.socket(address, socket.SOCK_STREAM).close()
            return "made"
        host, port = address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return talk(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM, (host, port))
    except OSError as error:
        return type(error).__name__
print(json.dumps({{name: attempt(*target) for name, target in json.loads(sys.argv[1]).items()}}), flush=True)
open({sandbox.READY!r}, "w").write("\\n")
__import__("time").sleep(60)
"""

OUT_OF_REACH: Final = {"ConnectionRefusedError", "OSError", "gaierror", "FileNotFoundError", "PermissionError"}
"""What an attempt comes to that the kernel stops at once; nothing was on its way to anybody."""


class Server:
    """Answers to everyone, by TCP, UDP or a UNIX socket, and counts who came."""

    def __init__(self, test: Any, address: Any, *, kind: int = socket.SOCK_STREAM) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else fence.family_of(address[0])
        self.visits = 0
        self._sock = socket.socket(family, kind)
        self._sock.bind(address)
        if kind == socket.SOCK_STREAM:
            self._sock.listen()
        if isinstance(address, str) and not address.startswith("\0"):
            os.chmod(address, 0o777)
        serving = threading.Thread(target=self._serve if kind == socket.SOCK_STREAM else self._answer, daemon=True)
        serving.start()
        test.addCleanup(self._close, serving)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            self.visits += 1
            with client:
                client.settimeout(5)
                client.sendall(b"told: " + client.recv(100))

    def _answer(self) -> None:
        while data_and_peer := self._sock.recvfrom(100):
            if not data_and_peer[0]:
                return
            self.visits += 1
            self._sock.sendto(b"told", data_and_peer[1])

    def _close(self, serving: threading.Thread) -> None:
        if self._sock.type == socket.SOCK_DGRAM:
            with socket.socket(self._sock.family, socket.SOCK_DGRAM) as last:
                last.sendto(b"", self._sock.getsockname())
        else:
            self._sock.shutdown(socket.SHUT_RDWR)
        serving.join(5)
        self._sock.close()


class FenceSuite(AgentHelpers):
    async def seen(self, targets: dict[str, tuple[str, Any]], **more: Any) -> tuple[JobSpec, dict[str, Any]]:
        """What a program in a job comes to with each of the targets."""

        argv = ("python3", "-I", "-c", _LOOK, json.dumps(targets))
        spec, _ = await self.launch(Program(name="look", argv=argv, ready=Ready.TOLD), **more)
        lines = (self.jobs_dir / spec.id / "log").read_text().splitlines()
        found: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("{")))
        return spec, found

    async def test_what_a_job_reaches(self) -> None:
        """Its BMC on the allowed ports, by IPv4 and IPv6; no other port, address, protocol or socket."""

        near = scratch(self._test)
        near.chmod(0o755)
        servers = {
            "bmc": Server(self._test, (BMC, 0)),
            "bmc-6": Server(self._test, ("::1", 0)),
            "bmc-other-port": Server(self._test, (BMC, 0)),
            "bmc-6-other-port": Server(self._test, ("::1", 0)),
            "other-bmc": Server(self._test, ("127.0.0.3", 0)),
            "agent": Server(self._test, ("127.0.0.1", 0)),
        }
        allowed, allowed_6 = servers["bmc"].port, servers["bmc-6"].port
        targets: dict[str, tuple[str, Any]] = {
            name: ("tcp", server._sock.getsockname()[:2]) for name, server in servers.items()
        }
        hidden = {
            "udp": Server(self._test, (BMC, allowed), kind=socket.SOCK_DGRAM),
            "abstract": Server(self._test, f"\0ipx-{os.getpid()}-{allowed}"),
            "file": Server(self._test, str(near / "server")),
        }
        targets |= {
            "udp": ("udp", (BMC, allowed)),
            "abstract": ("unix", f"\0ipx-{os.getpid()}-{allowed}"),
            "file": ("unix", str(near / "server")),
            "vsock": ("family", int(socket.AF_VSOCK)),
            "crypto": ("family", 38),
            "any-address": ("tcp", ("198.51.100.1", 443)),
            "own-name": ("name", socket.gethostname()),
            "any-name": ("name", "example.org"),
            "bmc-name": ("name", "bmc7.example"),
            "localhost": ("name", "localhost"),
            "resolver": ("udp", ("127.0.0.53", 53)),
            "run": ("file", "/run"),
            "interfaces": ("file", "/proc/net/dev"),
            "rights": ("status", "NoNewPrivs"),
            "keys": ("keys", fence.KEYCTL[os.uname().machine]),
        }
        reach = (
            Reach(address=BMC, ports=((allowed, allowed),), names=("bmc7.example",)),
            Reach(address="::1", ports=((allowed_6, allowed_6),)),
        )
        _, found = await self.seen(targets, reach=reach)
        for name, expected in {
            "bmc": "told: hello",
            "bmc-6": "told: hello",
            "bmc-name": [BMC],
            "localhost": ["127.0.0.1", "::1"],
            "run": ["console"],
            "rights": "1",
        }.items():
            self._test.assertEqual(found.pop(name), expected, name)
        mine = ctypes.CDLL(None).syscall(fence.KEYCTL[os.uname().machine], 0, -3, 0)
        self._test.assertNotIn(found.pop("keys"), (-1, mine), "the session's keyring")
        devices = [line.split(":")[0].strip() for line in found.pop("interfaces").splitlines()[2:]]
        self._test.assertEqual(devices, ["lo"])
        self._test.assertEqual({name for name, told in found.items() if told not in OUT_OF_REACH}, set(), found)
        self._test.assertEqual([server.visits for server in servers.values()], [1, 1, 0, 0, 0, 0])
        self._test.assertEqual([server.visits for server in hidden.values()], [0, 0, 0])

    async def test_all_ports_of_a_bmc(self) -> None:
        servers = [Server(self._test, (address, 0)) for address in (BMC, BMC, "::1", "127.0.0.1")]
        targets = {str(server.port): ("tcp", server._sock.getsockname()[:2]) for server in servers}
        targets["nobody"] = ("tcp", (BMC, 1))
        targets["last"] = ("tcp", ("::1", 65535))
        reach = (Reach(address=BMC, ports=((1, 65535),)), Reach(address="::1", ports=((1, 65534),)))
        _, found = await self.seen(targets, reach=reach)
        told = [found[str(server.port)] for server in servers]
        self._test.assertEqual(told, ["told: hello"] * 3 + ["ConnectionRefusedError"])
        self._test.assertEqual(found["nobody"], "ConnectionResetError")
        self._test.assertEqual(found["last"], "ConnectionRefusedError")

    async def test_nothing_by_itself(self) -> None:
        server = Server(self._test, (BMC, 0))
        _, found = await self.seen({"bmc": ("tcp", (BMC, server.port)), "name": ("name", "bmc7.example")})
        self._test.assertEqual(found, {"bmc": "ConnectionRefusedError", "name": "gaierror"})

    async def test_neighbours_are_out_of_reach(self) -> None:
        neighbour, job = await self.launch(vnc="unix")
        x = f"/tmp/.X11-unix/X{neighbour.display}"
        vnc = self.jobs_dir / neighbour.id / "vnc"
        first = self.first_of(neighbour)
        targets: dict[str, tuple[str, Any]] = {
            "x": ("unix", x),
            "x-abstract": ("unix", f"\0{x}"),
            "vnc": ("unix", str(vnc / "socket")),
            "vnc-folder": ("file", str(vnc)),
            "job": ("file", str(self.jobs_dir / neighbour.id / "state.json")),
            "jobs": ("file", str(self.jobs_dir)),
            "environment": ("file", f"/proc/{first}/environ"),
            "processes": ("file", "/proc"),
        }
        spec, found = await self.seen(targets)
        seen = [int(name) for name in found.pop("processes") if name.isdigit()]
        self._test.assertLess(max(seen), 20)
        self._test.assertEqual({name for name, told in found.items() if told not in OUT_OF_REACH}, set(), found)
        namespaces = ("net", "pid", "ipc", "mnt", "user")
        mine, theirs = ({os.readlink(f"/proc/{pid}/ns/{name}") for name in namespaces}
                        for pid in (self.first_of(spec), first))  # fmt: skip
        self._test.assertFalse(mine & theirs)
        self._test.assertEqual(await self.greeting(job.vnc), b"RFB 003.008\n")


def files_of_user(uid: int) -> list[str]:
    """Files of a user's wherever anybody may write."""

    places = ["/tmp", "/var/tmp", "/dev/shm", "/run"]
    found = subprocess.run(["find", *places, "-uid", str(uid)], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()
