"""The benchmark of SSH: that what is compared works at all. What it measures is no test's business."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from benchmarks.relay import load
from benchmarks.relay.relays import Relay, backend
from benchmarks.ssh.cases import CASES, GOALS
from benchmarks.ssh.peers import NAMES, Forward, Host, SameSsh
from tests.support.scratch import scratch


class SshBenchTests(TestCase):
    timeout: ClassVar[float] = 60

    def stop(self, peer: Relay) -> Deferred[None]:
        return Deferred.fromCoroutine(peer.stop())

    async def test_forwards(self) -> None:
        folder = scratch(self)
        folder.chmod(0o711)
        server, port = backend(folder / "socket")
        self.addCleanup(server.communicate)
        host = Host()
        self.addCleanup(lambda: Deferred.fromCoroutine(host.stop()))
        await host.start(folder)
        peers: tuple[Relay, ...] = (Forward(host, folder / "f", port, None), SameSsh(host, folder / "s", port, None))
        for peer in peers:
            self.addCleanup(self.stop, peer)
            target = await peer.start()
            numbers = await deferToThread(load.bulk, target, 2, 4_000_000)
            self.assertGreater(min(numbers.values()), 0)
            numbers = await deferToThread(load.fairness, target, 0.1, 1)
            self.assertGreater(numbers["p50 ms"], 0)

    def test_every_goal_is_measured(self) -> None:
        for scheme, goals in GOALS.items():
            for goal in goals:
                (case,) = (case for case in CASES if case.key == goal.case)
                self.assertIn(scheme, case.schemes)
                self.assertEqual(case.relays, NAMES)
