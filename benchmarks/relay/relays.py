"""The relays that are measured: ours, websockify, HAProxy as a plain TCP proxy, and none at all."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from twisted.internet.threads import deferToThread

from benchmarks.relay.session import Target
from tests.support.daemon import DaemonProcess
from tests.support.ports import free_ports

RELAY_CORE: Final = 0
LOAD_CORE: Final = 1

OURS: Final = "ipmiproxyd"
WEBSOCKIFY: Final = "websockify"
HAPROXY: Final = "haproxy"
SSH: Final = "ssh -L"
NONE: Final = "no relay"


class Missing(Exception):
    """This relay cannot be measured here; why."""


class Relay(Protocol):
    name: str

    async def start(self) -> Target: ...

    async def stop(self) -> None: ...


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile runs on one core."""

    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Certificate:
    """RSA-2048, self-signed, for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.both = folder / "cert.pem", folder / "key.pem", folder / "both.pem"
        subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "30")
        files = ("-keyout", str(self.key), "-out", str(self.certificate))
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files]
        subprocess.run(command, check=True, capture_output=True)
        self.both.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        for file in (self.key, self.both):
            file.chmod(0o600)


# --- ours -------------------------------------------------------------------------------------------------------------


class Ours:
    """The real daemon, with one console of type vnc."""

    name = OURS
    more = ""

    def __init__(self, folder: Path, backend: int, certificate: Certificate | None) -> None:
        self._folder = folder
        self._backend = backend
        self._certificate = certificate
        self._daemon: DaemonProcess | None = None

    async def start(self) -> Target:
        settings: dict[str, dict[str, Any]] = {
            "relay": {"port_rest": "0s", "viewers": 5000},
            "consoles": {"idle": "never", "unvisited": "1h", "abandoned": "1h"},
        }
        if self._certificate is not None:
            settings["relay"]["certificate"] = str(self._certificate.certificate)
            settings["relay"]["key"] = str(self._certificate.key)
        settings |= self.more_settings()
        self._daemon = daemon = DaemonProcess(self._folder, settings)
        with on_core(RELAY_CORE):
            try:
                await daemon.start()
            except RuntimeError as error:
                self._daemon = None
                raise Missing(f"the daemon does not start: {str(error)[-300:]}") from error
        client = await daemon.connect()
        what = f"type=vnc vnc=127.0.0.1:{self._backend} existing=new idle=never {self.more}"
        reply = await client.ask(f"console open {what}")
        await client.close()
        if not reply.ok:
            await self.stop()
            raise Missing(f"console open: {reply.body}")
        key, parts = await deferToThread(_key_of, reply.body["url"])
        return Target(
            port=parts.port,
            pid=daemon.pid,
            protocols=f"binary, key.{key}",
            path=f"{parts.path}vnc",
            tls=self._certificate is not None,
        )

    def more_settings(self) -> dict[str, dict[str, Any]]:
        return {}

    async def stop(self) -> None:
        if self._daemon is not None:
            daemon, self._daemon = self._daemon, None
            await daemon.stop()


def _key_of(url: str) -> tuple[str, Any]:
    """Trade a console's one-time URL, and take control over; the key and the URL's parts."""

    parts = urlsplit(url)
    token = parts.fragment.removeprefix("t=")
    key = _post(parts, "api/session", {"token": token})["key"]
    _post(parts, "api/control", {}, Authorization=f"Bearer {key}")
    return key, parts


def _post(parts: Any, path: str, body: Any, **headers: str) -> Any:
    host = parts.hostname
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: Any = http.client.HTTPSConnection(host, parts.port, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=10)
    headers = {"Content-Type": "application/json", **headers}
    connection.request("POST", parts.path + path, json.dumps(body), headers)
    answer = json.loads(connection.getresponse().read() or b"{}")
    connection.close()
    return answer


# --- others -----------------------------------------------------------------------------------------------------------


class Other:
    """Some program that listens on a port of its own."""

    name = ""

    def __init__(self, folder: Path, backend: int, certificate: Certificate | None) -> None:
        self.folder = folder
        self.backend = backend
        self.certificate = certificate
        self._child: subprocess.Popen[bytes] | None = None

    def command(self, port: int) -> list[str]:
        raise NotImplementedError

    def target(self, port: int, pid: int) -> Target:
        raise NotImplementedError

    async def start(self) -> Target:
        port = free_ports(1)[0]
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["setpriv", "--pdeathsig", "TERM", *self.command(port)]
        log = self.folder / "log"
        with on_core(RELAY_CORE), log.open("ab") as output:
            self._child = child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        due = time.monotonic() + 10
        while not _listens(port):
            if child.poll() is not None or time.monotonic() > due:
                await self.stop()
                raise Missing(f"{self.name} does not start: {log.read_text()[-300:]}")
            time.sleep(0.05)
        return self.target(port, child.pid)

    async def stop(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _listens(port: int) -> bool:
    """Looked up, not tried: a connection would already be work."""

    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in lines)


class Websockify(Other):
    name = WEBSOCKIFY

    def command(self, port: int) -> list[str]:
        tls = []
        if self.certificate is not None:
            tls = ["--cert", str(self.certificate.certificate), "--key", str(self.certificate.key), "--ssl-only"]
        return [sys.executable, "-m", "websockify", *tls, f"127.0.0.1:{port}", f"127.0.0.1:{self.backend}"]

    def target(self, port: int, pid: int) -> Target:
        return Target(port=port, pid=pid, protocols="binary", path="/websockify", tls=self.certificate is not None)


class Haproxy(Other):
    name = HAPROXY

    def command(self, port: int) -> list[str]:
        tls = "" if self.certificate is None else f" ssl crt {self.certificate.both}"
        config = self.folder / "haproxy.cfg"
        config.write_text(
            "global\n    nbthread 1\n    maxconn 4000\n"
            "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n"
            f"listen relay\n    bind 127.0.0.1:{port}{tls}\n    server vnc 127.0.0.1:{self.backend}\n"
        )
        return ["haproxy", "-db", "-f", str(config)]

    def target(self, port: int, pid: int) -> Target:
        return Target(port=port, pid=pid, tls=self.certificate is not None)


class Nothing:
    """The load generator against the server itself: what the harness can do at most."""

    name = NONE

    def __init__(self, _folder: Path, backend: int, _certificate: Certificate | None) -> None:
        self._backend = backend

    async def start(self) -> Target:
        return Target(port=self._backend, pid=0)

    async def stop(self) -> None: ...


RELAYS: Final = (Ours, Websockify, Haproxy, Nothing)


def versions(names: Iterable[str]) -> dict[str, str]:
    """Name → version, of those that are there."""

    found = {}
    for name in names:
        if name == HAPROXY and shutil.which("haproxy"):
            text = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=False).stdout
            match = re.search(r"version (\S+?)[-+ ]", text)
            found[name] = match[1] if match else "?"
        elif name == SSH and shutil.which("ssh"):
            text = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
            found[SSH] = text.partition(",")[0].removeprefix("OpenSSH_")
        elif name in (OURS, WEBSOCKIFY):
            found[name] = importlib.metadata.version(name)
    return found


def backend(path: Path) -> tuple[subprocess.Popen[str], int]:
    """The synthetic server on the load's core, and its port; ``path`` is its UNIX socket. It ends with its stdin."""

    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "benchmarks.relay.server", str(path)]
    with on_core(LOAD_CORE):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, int(child.stdout.readline())
