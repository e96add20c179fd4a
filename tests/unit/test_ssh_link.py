"""Who waits for an agent's connection."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents.ssh_channel import Connection
from ipmiproxyd.agents.ssh_link import Link, SshPlace
from ipmiproxyd.errors import AgentUnreachable


class WaitingTests(SynchronousTestCase):
    def test_one_that_cancels_another(self) -> None:
        async def greet(_: Connection) -> None: ...

        link = Link("far", SshPlace(host="192.0.2.1", user="u", key="/nothing"), MemoryReactorClock(), greet)
        link.start()
        first, second = link.connection(patient=True), link.connection(patient=True)
        first.addErrback(lambda _: second.cancel())
        self.assertNoResult(first)
        ending = Deferred.fromCoroutine(link.close())
        self.failureResultOf(second, CancelledError)
        self.successResultOf(first)
        self.successResultOf(ending)
        self.failureResultOf(link.connection(), AgentUnreachable)
