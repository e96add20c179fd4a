"""Certificates that openssl makes, right and wrong ones, and relays that are reached by TLS or by the gateway."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from twisted.internet.ssl import Certificate, optionsForClientTLS

from ipmiproxyd.relay.host import WebRelayPort
from tests.support.fake_console import FakeConsole
from tests.support.ports import free_ports
from tests.support.relay_case import RelayCase, reactor
from tests.support.ws_client import WsClient, ask, open_socket

HOST: Final = "relay.example"
_CA: Final = """
[ca]
default_ca = here
[here]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
[ext]
{extension}
"""


class Made:
    """A self-signed certificate and its key.

    :param names: such as "DNS:relay.example" and "IP:127.0.0.1".
    :param begins: days from now; ``ends`` too.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "good",
        *,
        names: tuple[str, ...] = (f"DNS:{HOST}", "IP:127.0.0.1"),
        begins: float = -1,
        ends: float = 90,
        key: str = "ec -pkeyopt ec_paramgen_curve:prime256v1",
        passphrase: str = "",
    ) -> None:
        self.certificate = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"
        self._folder = folder
        secret = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
        request = folder / f"{name}.csr"
        self._openssl(
            "req", "-new", "-newkey", *key.split(), *secret, "-keyout", self.key, "-out", request, "-subj", "/CN=x"
        )
        config = folder / f"{name}.cnf"
        extension = f"subjectAltName = {','.join(names)}" if names else "basicConstraints = CA:FALSE"
        config.write_text(_CA.format(folder=folder, extension=extension))
        (folder / "index").touch()
        now = datetime.now(UTC)
        dates = [(now + timedelta(days=days)).strftime("%Y%m%d%H%M%SZ") for days in (begins, ends)]
        opening = ["-passin", f"pass:{passphrase}"] if passphrase else []
        self._openssl(
            *("ca", "-selfsign", "-batch", "-notext", "-config", config, "-extensions", "ext", "-keyfile", self.key),
            *opening,
            *("-in", request, "-out", self.certificate, "-startdate", dates[0], "-enddate", dates[1]),
        )  # fmt: skip

    def both(self) -> Path:
        """One file with the certificate and the key."""

        path = self.certificate.with_suffix(".both")
        path.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        return path

    def trust(self) -> Any:
        """For Twisted's clients: this certificate and no other."""

        root = Certificate.loadPEM(self.certificate.read_bytes())
        return optionsForClientTLS(HOST, trustRoot=root)

    def _openssl(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=self._folder)


class TlsCase(RelayCase):
    """As RelayCase, by https and wss. ``self.made`` is the relay's certificate."""

    tls: Any = None

    def make_host(self, ports: list[int], **settings: Any) -> Any:
        self.made = Made(self.folder)
        self.tls = self.made.trust()
        files = {"certificate": self.made.certificate, "key": self.made.key}
        return super().make_host(ports, **{**files, **settings})

    def place(self, console: str) -> tuple[int, str]:
        """The port on which a console is reached, and the path in front of its own paths."""

        assert self.port.number is not None
        return self.port.number, ""

    async def ask(
        self, method: str, path: str, body: Any = None, console: str = "c1", **headers: str
    ) -> tuple[int, Any]:
        port, prefix = self.place(console)
        sent = b"" if body is None else json.dumps(body).encode()
        status, _, answer = await ask(reactor, port, method, prefix + path, sent, tls=self.tls, **headers)
        return status, json.loads(answer)

    async def join(self, key: str = "", console: str = "c1", **settings: Any) -> WsClient:
        port, prefix = self.place(console)
        offered = f"binary, key.{key or self.key(console)}"
        client = await open_socket(reactor, port, offered, path=f"{prefix}/vnc", tls=self.tls, **settings)
        self.clients.append(client)
        return client


class GatewayCase(TlsCase):
    """As RelayCase, by the gateway, which is the only way. ``secure`` says whether it has TLS."""

    secure = False

    def make_host(self, ports: list[int], **settings: Any) -> Any:
        (self.gateway,) = free_ports(1)
        settings = {"gateway": ("127.0.0.1", self.gateway), **settings}
        return super().make_host([], **settings) if self.secure else RelayCase.make_host(self, [], **settings)

    def place(self, console: str) -> tuple[int, str]:
        return self.gateway, f"/c/{console}"

    def serve_second(self) -> tuple[FakeConsole, WebRelayPort]:
        """One more console, "c2", on the same display."""

        second = FakeConsole("c2", self.display.endpoint)
        return second, self.host.open(second)
