"""What a job's programs reach, and the limits that they have: on the local agent and over SSH, with users of their own
and as one ordinary user."""

from __future__ import annotations

import os
from pathlib import Path

from ipmiproxyd.agents import runner
from ipmiproxyd.errors import AgentFull, JobFailed
from ipmiproxyd.model import Ready
from tests.integration.test_local_agent import AM_ROOT, LocalCase
from tests.support.agent_suite import MESSAGE, shell
from tests.support.fence_suite import FenceSuite, files_of_user
from tests.support.ssh_case import SshCase


class OrdinaryFenceTests(FenceSuite, LocalCase):
    ordinary = True

    async def test_memory_that_must_be_left(self) -> None:
        words = await self.refused(self.spec(least_free=1 << 43), AgentFull)
        self.assertRegex(words, r"only \d+ MiB of memory left")
        await self.nothing_left()


if AM_ROOT:

    class OwnUsersFenceTests(FenceSuite, LocalCase):
        def groups(self, display: int) -> list[Path]:
            return [Path(folder) for folder in runner.ControlGroup(display).folders]

        async def test_memory_is_limited(self) -> None:
            eat = "exec python3 -c 'x = bytearray(400 << 20); print(len(x))'"
            spec = self.spec(shell(eat, name="glutton", ready=Ready.WINDOW), memory=200 << 20)
            words = await self.refused(spec, JobFailed)
            self.assertRegex(words, r"ran out of its memory \(200 MiB\): glutton was killed")
            self.assertEqual([path for path in self.groups(spec.display) if path.exists()], [])

        async def test_nothing_of_a_user_is_left(self) -> None:
            write = "touch /tmp/x /dev/shm/x ~/x; python3 -c 'import os; os.mkfifo(\"/run/x\")'"
            spec, job = await self.launch(MESSAGE, shell(f"{write}; exec sleep 60"), memory=1 << 30)
            uid = os.stat(f"/proc/{self.first_of(spec)}").st_uid
            limited = [path for path in self.groups(spec.display) if (path / "pids.max").exists()]
            self.assertEqual([(path / "pids.max").read_text() for path in limited], ["4096\n"])
            inside = {Path(f"/proc/{pid}/cgroup").read_text() for pid in self.inside(spec)}
            self.assertEqual([f"/ipmiproxyd/{spec.display}\n" in told for told in inside], [True])
            await self.agent.stop(job.id)
            self.assertEqual(files_of_user(uid), [])
            self.assertEqual([path for path in self.groups(spec.display) if path.exists()], [])

    class SshFenceTests(FenceSuite, SshCase):
        by_sudo = True
