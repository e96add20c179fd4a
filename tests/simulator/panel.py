"""The simulated panel as a program of its own: ``python -m tests.simulator.panel --folder FOLDER``.

It reads ``panel.json`` in the folder (:class:`Settings`; it holds the passwords, so its mode is 0600), makes a key and
a self-signed certificate, prints one JSON line once it listens, and appends everything that happens to
``record.jsonl``: one JSON object a line, with ``at`` (seconds since the epoch) and ``kind``:

    request   method, path, status, tls     sign-in   user, password_length, ok
    key       field, key; of a password field only the length of what was there
    text      field, value; of a password field only its length
    click     field                         select    field: some of its text was selected
    drag      points [[x, y], …] on the canvas, button
    power     action, ok                    sign-out  user
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import ipaddress
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.interfaces import IListeningPort, IReactorSSL, IReactorTCP
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.simulator import pages
from tests.simulator.chassis import Chassis
from tests.simulator.kvm import KvmPort, VendorJars
from tests.simulator.personality import Handler, Personality, Reply, Visit
from tests.simulator.vendors import PERSONALITIES
from tests.simulator.vendors.hostile import HostilePanel
from tests.simulator.vendors.vendor import VendorPanel

RECORD: Final = "record.jsonl"
SETTINGS: Final = "panel.json"
_REPORT_LIMIT: Final = 1 << 18
_REPORTED: Final = ("key", "text", "click", "select", "drag")
"""The kinds of events that a page may report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``panel.json``. ``users``: passwords by user name. ``chassis``: the box's folder. ``attributes``: of the
    personality, such as ``mood``. ``tls``: "legacy" is TLS 1.0 and nothing else, "weak" TLS 1.2 with
    signatures by SHA-1, both with a weak key: the one of ``panel.key`` and ``panel.crt`` in the folder, if it is there.
    "none" is plain HTTP."""

    name: str = "node1"
    address: str = "127.0.0.1"
    port: int = 0
    personality: str = "generic"
    users: Mapping[str, str] = field(default_factory=dict)
    chassis: str
    hint: str = ""
    elsewhere: str = "https://127.0.0.2/"
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tls: Literal["modern", "weak", "legacy", "none"] = "modern"


class Recorder:
    """The append-only file of what happened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def __call__(self, kind: str, more: Mapping[str, Any]) -> None:
        line = json.dumps({"at": round(time.time(), 6), "kind": kind, **more})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Panel(Resource):
    """Hands every request to the personality's routes."""

    isLeaf = True

    def __init__(self, settings: Settings, record: Recorder) -> None:
        super().__init__()
        self._record = record
        kind = {**PERSONALITIES, HostilePanel.key: HostilePanel}[settings.personality]
        self.personality = kind(
            settings.name,
            settings.users,
            Chassis(Path(settings.chassis)),
            record,
            hint=settings.hint,
            elsewhere=settings.elsewhere,
        )
        for name, value in settings.attributes.items():
            if not hasattr(self.personality, name):
                raise ValueError(f"a {settings.personality} has no {name}")
            setattr(self.personality, name, value)
        self._routes: dict[tuple[str, str], Handler] = self.personality.routes()
        self._kvm = _viewers_server(self.personality, record, settings.address)

    async def stop(self) -> None:
        """Close what it listens on beside its own port."""

        if self._kvm is not None:
            await self._kvm.stop()

    def render(self, request: HttpRequest) -> bytes | int:
        visit = self._visit(cast(Request, request))
        if (visit.method, visit.path) == ("POST", "/record"):
            reply = self._report(cast(Request, request))
        else:
            handler = self._routes.get(("GET" if visit.method == "HEAD" else visit.method, visit.path))
            missing = Reply(pages.plain(self.personality.name, "There is no such page."), status=404)
            reply = handler(visit) if handler else self.personality.answer(visit) or missing
            told = {"method": visit.method, "path": visit.path, "status": reply.status, "tls": _tls_of(request)}
            self._record("request", told)
            if self._kvm is not None:
                self._kvm.drop_bad()
        request.setResponseCode(reply.status)
        request.setHeader("Content-Type", reply.type)
        request.setHeader("Cache-Control", "no-store")
        for name, value in reply.headers.items():
            request.setHeader(name, value)
        for cookie in reply.cookies:
            request.responseHeaders.addRawHeader(b"Set-Cookie", cookie.encode())
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        if reply.gzip:
            request.setHeader("Content-Encoding", "gzip")
            body = gzip.compress(body)
        if reply.times > 1:
            request.registerProducer(_Repeated(request, body, reply.times), False)
            return NOT_DONE_YET
        if reply.length is not None:
            request.setHeader("Content-Length", str(reply.length))
            request.write(body)
            request.loseConnection()
            return NOT_DONE_YET
        return body

    def _visit(self, request: Request) -> Visit:
        session = (request.getCookie(self.personality.cookie.encode()) or b"").decode("ascii", "replace")
        fields = {name.decode(): values[-1].decode("utf-8", "replace") for name, values in request.args.items()}
        method = request.method.decode()
        content = request.content
        body = b""
        if content:
            content.seek(0)
            body = content.read(_REPORT_LIMIT)
            content.seek(0)
        cookies = (request.getHeader("cookie") or "").split(";")
        return Visit(
            method=method,
            path=request.path.decode("utf-8", "replace"),
            query=fields if method != "POST" else {},
            form=fields if method == "POST" else {},
            session=session,
            user=self.personality.sessions.get(session, ""),
            uri=request.uri.decode("ascii", "replace"),
            headers={
                name.decode().lower(): values[-1].decode("utf-8", "replace")
                for name, values in request.requestHeaders.getAllRawHeaders()
            },
            cookies={name.strip(): value.strip() for name, _, value in (one.partition("=") for one in cookies)},
            body=body,
        )

    def _report(self, request: Request) -> Reply:
        """What a page's script tells: a JSON list of events."""

        try:
            content = request.content
            events = json.loads(content.read(_REPORT_LIMIT) if content else b"")
            reports = [(event.pop("kind"), event) for event in events]
        except (ValueError, TypeError, AttributeError, KeyError):
            return Reply("not a list of events", status=400, type="text/plain")
        for kind, event in reports:
            if kind in _REPORTED:
                self._record(kind, event)
        return Reply(status=204)


class _Repeated:
    """A body that comes again and again, as quickly as it is taken."""

    def __init__(self, request: HttpRequest, body: bytes, times: int) -> None:
        self._request = request
        self._body = body
        self._left = times

    def resumeProducing(self) -> None:
        self._left -= 1
        self._request.write(self._body)
        if not self._left:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        self._left = 0


def _tls_of(request: HttpRequest) -> str:
    """The version of TLS that a visitor speaks; empty for plain HTTP."""

    transport = getattr(request.channel, "transport", None)  # the visitor may have left
    handle: Any = getattr(transport, "getHandle", lambda: None)()
    return str(handle.get_protocol_version_name()) if hasattr(handle, "get_protocol_version_name") else ""


def _viewers_server(personality: Personality, record: Recorder, address: str) -> KvmPort | None:
    """What the Java consoles of a vendor's panel connect to, on a port of its own."""

    if not isinstance(personality, VendorPanel):
        return None
    server = KvmPort(personality.name, lambda token: token in personality.tokens, record)
    personality.kvm_port = server.listen(address=address)
    personality.jars = VendorJars()
    return server


def make_certificate(address: str) -> tuple[ssl.PrivateCertificate, bytes]:
    """A new key with its self-signed certificate for an address; also the certificate as PEM."""

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, pages.TITLE)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([_subject(address)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ssl.PrivateCertificate.loadPEM(private + public), public


def _subject(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


class _Old(ssl.ContextFactory):
    """One version of TLS and nothing else, with a certificate as it was made in those days: 1024 bits, SHA-1."""

    def __init__(self, address: str, folder: Path, version: int) -> None:
        key, certificate = folder / "panel.key", folder / "panel.crt"
        if not key.exists():
            made = ["-newkey", "rsa:1024", "-nodes", "-sha1", "-days", "30", "-subj", f"/CN={address}"]
            files = ["-keyout", str(key), "-out", str(certificate)]
            subprocess.run(["openssl", "req", "-x509", *made, *files], check=True, capture_output=True)
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.set_min_proto_version(version)
        self._context.set_max_proto_version(version)
        self._context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        if version == SSL.TLS1_2_VERSION:
            # For want of a public way. Today's programs take no such signature, unless they are told to.
            told = cast(Any, SSL)._lib.SSL_CTX_set1_sigalgs_list(cast(Any, self._context)._context, b"RSA+SHA1")
            if told != 1:
                raise RuntimeError("OpenSSL knows no signatures with SHA-1")
        self._context.use_certificate_file(str(certificate))
        self._context.use_privatekey_file(str(key))

    def getContext(self) -> SSL.Context:
        return self._context


def context_factory(settings: Settings, folder: Path) -> ssl.ContextFactory | ssl.CertificateOptions:
    """How the panel speaks TLS. Its certificate goes to ``panel.crt`` in the folder."""

    if settings.tls != "modern":
        return _Old(settings.address, folder, SSL.TLS1_VERSION if settings.tls == "legacy" else SSL.TLS1_2_VERSION)
    certificate, public = make_certificate(settings.address)
    (folder / "panel.crt").write_bytes(public)
    options: ssl.CertificateOptions = certificate.options()
    return options


def serve(settings: Settings, folder: Path, reactor: IReactorSSL) -> IListeningPort:
    """Listen. The certificate goes to ``panel.crt`` in the folder."""

    site = Site(Panel(settings, Recorder(folder / RECORD)))
    if settings.tls == "none":
        return cast(IReactorTCP, reactor).listenTCP(settings.port, cast(Any, site), 50, settings.address)
    return reactor.listenSSL(settings.port, site, context_factory(settings, folder), 50, settings.address)


def main() -> None:
    parser = argparse.ArgumentParser(prog="panel", description="The simulated management panel.")
    parser.add_argument("--folder", type=Path, required=True, help=f"where {SETTINGS} is and {RECORD} goes")
    parser.add_argument("--port", type=int, help="instead of the port in the settings; 0: a free one")
    options = parser.parse_args()

    from twisted.internet import reactor

    values = json.loads((options.folder / SETTINGS).read_text())
    if options.port is not None:
        values["port"] = options.port
    settings = Settings(**values)
    listening = serve(settings, options.folder, cast(IReactorSSL, reactor))
    port = cast(Any, listening.getHost()).port
    host = f"[{settings.address}]" if ":" in settings.address else settings.address
    scheme = "http" if settings.tls == "none" else "https"
    print(json.dumps({"port": port, "url": f"{scheme}://{host}:{port}"}), flush=True)
    cast(Any, reactor).run()


if __name__ == "__main__":
    main()
