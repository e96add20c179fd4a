"""``make demo``, on a machine of its own: what it tells, and that nothing is left of it."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import TestCase

from tests.simulator.process import Child, the_reactor
from tests.support.hosts import PATH, REPOSITORY, AgentHost
from tests.support.scratch import scratch

PLACE = "/srv/repository"
"""On that machine, which has a /tmp of its own."""
LAST_LINE = "Ctrl-C ends it all."


class DemoTests(TestCase):
    timeout: ClassVar[float] = 60

    async def test_up_to_the_console_and_its_end(self) -> None:
        host = AgentHost(self, "demo", 0, scratch(self) / "keys", shown={REPOSITORY: PLACE})
        self.addCleanup(lambda: Deferred.fromCoroutine(host.stop()))
        await host.start()
        host.run("ip", "link", "set", "lo", "up")
        before = set(host.users())

        there: Deferred[None] = Deferred()
        child = Child(lambda line: there.callback(None) if line == LAST_LINE else None)
        child.when_ended().addCallback(lambda _: None if there.called else there.callback(None))
        argv = [*host.inside(), "env", "-C", PLACE, "setsid", "--wait", ".venv/bin/python", "-m", "tests.demo"]
        the_reactor().spawnProcess(child, argv[0], argv, env={"PATH": PATH, "LANG": "C.UTF-8"})
        await there.addTimeout(40.0, IReactorTime(reactor))
        told = child.output.decode()
        self.assertRegex(told, r"(?m)^Found: 0 faults, 1 warning, \d+ ok; the trial consoles took \d+\.\d s\.$")
        self.assertIn("  warning: This agent is the daemon's own machine", told)
        self.assertRegex(told, r"(?m)^Console: http://127\.0\.0\.1:\d+/\S+$")
        self.assertTrue(any("chromium" in one.command for one in host.processes()))

        (demo,) = (one for one in host.processes() if one.command.endswith("python -m tests.demo "))
        host.run("kill", "-INT", "--", f"-{demo.pid}")  # as a terminal does
        await child.when_ended()
        self.assertNotIn("Traceback", child.output.decode())
        await host.is_clean()
        self.assertEqual((host.processes(), set(host.users()) - before), ([], set()))
        self.assertEqual([path.name for path in host.path("/tmp").iterdir()], [])
