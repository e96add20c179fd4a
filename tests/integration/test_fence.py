"""What a job's programs reach, and the limits that they have: on the local agent and over SSH, with users of their own
and as one ordinary user."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from ipmiproxyd.agents import runner, sandbox
from ipmiproxyd.errors import AgentFull, JobFailed
from ipmiproxyd.model import Program, Ready
from tests.integration.test_local_agent import AM_ROOT, LocalCase
from tests.support.agent_suite import MESSAGE, shell
from tests.support.fence_suite import FenceSuite, files_of_user
from tests.support.ssh_case import SshCase

OLD_CALL: Final = f"""
import ctypes, mmap, os, time
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("53 b867010000 bb28000000 b901000000 31d2 cd80 5b c3"))  # socket(AF_VSOCK, SOCK_STREAM, 0)
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
if not (child := os.fork()):
    os._exit(0 if call() >= 0 else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("vsock by int 0x80:", f"signal {{-status}}" if status < 0 else status, flush=True)
open({sandbox.READY!r}, "w").write("\\n")
time.sleep(60)
"""
"""A program of x86-64."""


class OrdinaryFenceTests(FenceSuite, LocalCase):
    ordinary = True

    async def test_memory_that_must_be_left(self) -> None:
        words = await self.refused(self.spec(least_free=1 << 43), AgentFull)
        self.assertRegex(words, r"only \d+ MiB of memory left")
        await self.nothing_left()


    async def test_calls_of_32_bits(self) -> None:
        """There is no filter for them, so there are none, but for a Java of 32 bits."""

        java = str(Path(shutil.which("java") or "").resolve().parent.parent)
        for given in ("", java):
            spec, _ = await self.launch(
                Program(name="old", argv=("python3", "-I", "-c", OLD_CALL), ready=Ready.TOLD), java=given
            )
            self.assertIn("vsock by int 0x80: signal 31\n", (self.jobs_dir / spec.id / "log").read_text())


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
