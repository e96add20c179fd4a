"""Displays whose ports are reached directly, past the agent's sshd: with a real one, which allows no TCP through it."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ipmiproxyd.agents.ssh import SshAgent
from ipmiproxyd.errors import AgentUnreachable, BadCertificate, BmcAuth, BmcUnsupported, NoFreeDisplay
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import DirectStream, JobSpec
from ipmiproxyd.relay.backend import Backend, connect
from ipmiproxyd.tools.guard import Guard
from ipmiproxyd.tools.xvnc import Display
from tests.support import leftovers
from tests.support.ssh_case import SshCase

CLOCK: Any = reactor


class DirectCase(SshCase):
    stream: DirectStream
    sshd_options: ClassVar[tuple[str, ...]] = ("AllowTcpForwarding no",)

    async def make_agent(self, **settings: Any) -> SshAgent:
        return await super().make_agent(**{"transport": "direct", **settings})

    def guarded(self, guard: Guard) -> JobSpec:
        plain = self.spec(vnc="direct")
        (xvnc, _), files = Display().programs(plain.display, guard=guard)
        return replace(plain, programs=(xvnc,), files=files)

    async def sign_in(self, **how: Any) -> Backend:
        backend: Backend = await connect(VncServer(self.agent.dial(self.stream), **how), CLOCK)
        self.addCleanup(backend.close)
        return backend

    async def is_refused(self, kind: type[Exception], **how: Any) -> str:
        error: Any = await self.assertFailure(Deferred.fromCoroutine(self.sign_in(**how)), kind)
        return str(error.message)


class DirectTests(DirectCase):
    async def test_display(self) -> None:
        guard = Guard.make()
        spec = self.guarded(guard)
        job = await self.agent.launch(spec, lambda _: None)
        port = 5900 + spec.display
        self.stream = DirectStream(port)
        self.assertEqual((job.vnc, await self.agent.jobs()), (self.stream, [job]))
        backend = await self.sign_in(password=guard.password, fingerprint=guard.fingerprint)
        self.assertTrue(backend.encrypted)
        self.assertEqual(backend.transport.getPeer().port, port)

        self.assertIn("VeNCrypt", await self.is_refused(BmcUnsupported))
        await self.is_refused(BmcUnsupported, password=guard.password)
        await self.is_refused(BadCertificate, password=guard.password, fingerprint=Guard.make().fingerprint)
        await self.is_refused(BmcAuth, password=Guard.make().password, fingerprint=guard.fingerprint)
        await self.is_refused(BmcAuth, fingerprint=guard.fingerprint)

        hidden = [file.text for file in guard.files[1:]] + [guard.password.reveal()]
        for secret in (hidden[0].splitlines()[1], *hidden[1:]):
            self.assertEqual(leftovers.seen_in_processes(secret.encode()), [])
            for path in self.folder.rglob("*"):
                if path.is_file():
                    self.assertNotIn(secret.encode(), path.read_bytes(), path)
        await self.agent.stop(spec.id)
        await self.is_refused(AgentUnreachable, fingerprint=guard.fingerprint)
        await self.nothing_left()

    async def test_port_in_use(self) -> None:
        spec = self.guarded(Guard.make())
        with socket.create_server(("127.0.0.1", 5900 + spec.display)):
            self.assertIn(f"Port {5900 + spec.display} ", await self.refused(spec, NoFreeDisplay))
        await self.agent.launch(spec, lambda _: None)

    async def test_agent_is_looked_at(self) -> None:
        found = {finding.what: finding for finding in await self.agent.check()}
        self.assertEqual((found["direct"].level, found["tcp"].level), ("ok", "warning"), found["direct"])
        other = await self.make_agent(displays=(1,), place=replace(self.sshd.place(), host="127.0.0.1"))
        with socket.create_server(("127.0.0.1", 5901)):
            (found_there,) = [finding for finding in await other.check() if finding.what == "direct"]
        self.assertEqual(found_there.level, "fault")
        self.assertIn("no port can be had at 127.0.0.1", found_there.words)
