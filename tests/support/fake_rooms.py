"""An agent and a relay without programs and ports, for tests of the console's life on a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from ipmiproxyd.errors import BadValue, NoFreeDisplay, NoFreePort
from ipmiproxyd.interfaces import RelayedConsole, RelayPort
from ipmiproxyd.model import CertificateFiles, Command, Job, JobSpec, JobStage, Outcome, StreamAddress, UnixStream


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True)
class FakeEndpoint:
    """Remembers where it would lead."""

    address: StreamAddress

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        raise AssertionError("nobody is there")


class FakeAgent:
    """Keeps jobs in a dictionary. ``gate`` holds every launch back until it fires, ``stop_gate`` every stop;
    ``stop_errors`` are raised by the next stops; displays in ``foreign`` belong to somebody else."""

    def __init__(self, name: str = "local") -> None:
        self.name = name
        self.cache = "/nowhere"
        self.is_direct = False
        self.python = "python3"
        self.browser = "chromium"
        self.running: dict[str, Job] = {}
        self.launched: list[JobSpec] = []
        self.stopped: list[str] = []
        self.cancelled: list[str] = []
        self.gate: Deferred[None] | None = None
        self.stop_gate: Deferred[None] | None = None
        self.launch_error: Exception | None = None
        self.stop_errors: list[Exception] = []
        self.foreign: set[int] = set()

    async def run(self, command: Command) -> Outcome:
        return Outcome(status=0)

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        self.launched.append(spec)
        if spec.display in self.foreign:
            raise NoFreeDisplay("somebody else has it")
        vnc = UnixStream(f"/vnc/{spec.id}")
        job = Job(id=spec.id, display=spec.display, running=True, vnc=vnc, user="nobody", log=f"/jobs/{spec.id}/log")
        self.running[spec.id] = job
        if self.gate is not None:
            held: Deferred[None] = Deferred(lambda _: self.cancelled.append(spec.id))
            self.gate.addBoth(_let_go, held)
            await held
        if self.launch_error is not None:
            raise self.launch_error
        for program in spec.programs:
            on_stage(JobStage(program.name, 1))
        return job

    async def jobs(self) -> list[Job]:
        return list(self.running.values())

    async def stop(self, job_id: str) -> None:
        if self.stop_errors:
            raise self.stop_errors.pop(0)
        if self.stop_gate is not None:
            await self.stop_gate
        self.stopped.append(job_id)
        self.running.pop(job_id, None)

    async def sweep(self) -> list[str]:
        return []

    def dial(self, address: StreamAddress) -> IStreamClientEndpoint:
        return FakeEndpoint(address)

    def watch(self, ended: Callable[[Job], None]) -> None:
        self.ended = ended


def _let_go(result: None, held: Deferred[None]) -> None:
    if not held.called:
        held.callback(None)
    return result


class FakeRelayPort:
    """``cut_off`` are the grants whose viewers it was told to cut."""

    def __init__(self, number: int | None, console: RelayedConsole, relay: FakeRelay) -> None:
        self.number = number
        self.console = console
        self.closed_with: tuple[str, str] | None = None
        self.cut_off: list[str] = []
        self._relay = relay

    def cut(self, grant_id: str) -> None:
        self.cut_off.append(grant_id)

    def close(self, code: str, message: str) -> Deferred[None]:
        if self.closed_with is None:
            self.closed_with = (code, message)
            if self.number is not None:
                self._relay.free.append(self.number)
        return succeed(None)


class FakeRelay:
    """``gateway``: consoles have no ports of their own. ``hindrances`` are its warnings."""

    def __init__(self, ports: range = range(6081, 6201)) -> None:
        self.free = list(ports)
        self.opened: list[FakeRelayPort] = []
        self.gateway = False
        self.hindrances: list[str] = []
        self.judged: list[tuple[CertificateFiles | None, set[CertificateFiles]]] = []
        self.certificates: list[CertificateFiles | None] = []
        self.encrypted: list[bool] = []

    async def judge(self, certificate: CertificateFiles | None, others: Collection[CertificateFiles]) -> None:
        self.judged.append((certificate, set(others)))
        if certificate is not None and certificate.certificate == "/bad.pem":
            raise BadValue("certificate: /bad.pem cannot be read.")

    async def prepare(self, certificate: CertificateFiles | None) -> None:
        await self.judge(certificate, ())

    def open(
        self, console: RelayedConsole, certificate: CertificateFiles | None = None, *, encrypt: bool = False
    ) -> RelayPort:
        if not self.free and not self.gateway:
            raise NoFreePort("All relay ports are in use.")
        port = FakeRelayPort(None if self.gateway else self.free.pop(0), console, self)
        self.opened.append(port)
        self.certificates.append(certificate)
        self.encrypted.append(encrypt)
        return port

    def url(self, port: RelayPort, token: str) -> str:
        return f"http://relay.example:{port.number or 6080}/#t={token}"

    def warnings(self, port: RelayPort | None = None) -> Sequence[str]:
        return self.hindrances
