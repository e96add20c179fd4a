"""Programs in a job, and callers of the runner, that mean ill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import Factory, Protocol

from ipmiproxyd.agents import runner, sandbox
from ipmiproxyd.agents.socketfile import SocketFileEndpoint
from ipmiproxyd.errors import Cancelled, NoFreeDisplay
from ipmiproxyd.model import Command, Ready
from tests.integration.test_local_agent import AM_ROOT, PYTHON, LocalCase
from tests.support.account import ordinary_account
from tests.support.agent_suite import Greeting, shell
from tests.support.fence_suite import Server
from tests.support.scratch import remove_root_jobs


class HostileCase(LocalCase):
    async def told(self, script: str, **more: Any) -> tuple[str, dict[str, str]]:
        """Run a script in a job; the job's id, and the lines ``name=value`` that it printed."""

        spec, _ = await self.launch(
            shell(f"{script}\necho > {sandbox.READY}; exec sleep 60", ready=Ready.TOLD), start_timeout=30.0, **more
        )
        log = (self.jobs_dir / spec.id / "log").read_text()
        return spec.id, dict(line.split("=", 1) for line in log.splitlines() if "=" in line)

    async def test_late_start_of_a_job_that_was_refused_before(self) -> None:
        first, _ = await self.launch()
        second = self.spec(display=first.display)
        if AM_ROOT and not self.ordinary:
            await self.refused(second, NoFreeDisplay)
        await self.agent.stop(second.id)
        await self.refused(second, Cancelled)


class OrdinaryHostileTests(HostileCase):
    """Where all runs as one user, a program can write the folder of its display's socket."""

    ordinary: ClassVar[bool] = True

    async def test_link_in_the_place_of_the_socket(self) -> None:
        job, _ = await self.told(f"rm {sandbox.VNC_SOCKET}; ln -s /run/elsewhere {sandbox.VNC_SOCKET}")
        path = self.jobs_dir / job / "vnc" / "socket"
        self.assertTrue(path.is_symlink())
        connecting = self.agent.dial((await self.agent.jobs())[0].vnc).connect(Factory.forProtocol(Protocol))
        await self.assertFailure(connecting, ConnectError)

    async def test_link_behind_a_tcp_port(self) -> None:
        """The box leads to the display's socket, and not to whatever a program puts in its place."""

        private = Server(self, str(self.folder / "private"))
        script = f"rm {sandbox.VNC_SOCKET}; ln -s {self.folder}/private {sandbox.VNC_SOCKET}"
        await self.told(script, vnc="tcp")
        connecting: Any = self.agent.dial((await self.agent.jobs())[0].vnc).connect(Factory.forProtocol(Greeting))
        await self.assertFailure(connecting.addCallback(lambda protocol: protocol.gone), ConnectError, ConnectionLost)
        self.assertEqual(private.visits, 0)

    async def test_folders_without_end(self) -> None:
        job, _ = await self.told(f"cd {sandbox.VNC}; for i in $(seq 1500); do mkdir d && cd d; done")
        await self.agent.stop(job)
        await self.nothing_left()


class SocketFileTests(HostileCase):
    async def test_only_a_socket_itself(self) -> None:
        link, plain = self.folder / "link", self.folder / "plain"
        link.symlink_to("/run/elsewhere")
        plain.write_text("")
        before = len(os.listdir("/proc/self/fd"))
        for path in (link, plain, self.folder / "nothing"):
            endpoint = SocketFileEndpoint(self.agent._reactor, str(path), 1.0)
            await self.assertFailure(endpoint.connect(Factory.forProtocol(Protocol)), ConnectError)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


if AM_ROOT:

    class RootHostileTests(HostileCase):
        """The runner is root here."""

        async def test_what_a_program_may_fill_and_change(self) -> None:
            script = f"""
                echo replaced=$(rm {sandbox.VNC_SOCKET} 2>&1 | grep -c denied)
                echo wrote=$(touch {sandbox.VNC}/x /dev/x 2>&1 | wc -l)
                for at in /run /var /dev/shm /tmp $HOME; do
                    echo $at=$(($(df --output=size $at | tail -1) / 1024)); done
            """
            _, told = await self.told(script)
            self.assertEqual((told.pop("replaced"), told.pop("wrote")), ("1", "2"))
            self.assertEqual(set(told), {"/run", "/var", "/dev/shm", "/tmp", sandbox.HOME})
            for place, megabytes in told.items():
                self.assertLessEqual(int(megabytes), 512, place)

        async def told_to_runner(self, jobs: str, verb: str = "sweep", **members: Any) -> dict[str, Any]:
            """What the runner answers to a document of somebody's."""

            document = {"verb": verb, **self.agent.members(jobs, 0), **members}
            argv = (PYTHON, "-I", "-S", str(runner.__file__))
            outcome = await self.agent.run(Command(argv=argv, stdin=json.dumps(document).encode() + b"\n"))
            answer: dict[str, Any] = json.loads(outcome.stdout)
            return answer

        async def test_no_path_is_taken(self) -> None:
            """Else ``stop`` and ``sweep`` would remove whatever a caller names."""

            full = self.folder / "full"
            (full / "precious").mkdir(parents=True)
            for jobs in (str(full), f"../..{full}", "..", ".", "", "a/b", "/", "a\n"):
                for verb, members in (("sweep", {}), ("stop", {"id": "precious"})):
                    self.assertEqual((await self.told_to_runner(jobs, verb, **members))["code"], "bad-request", jobs)
            self.assertEqual(os.listdir(full), ["precious"])

        async def test_places_of_somebody_else(self) -> None:
            full = self.folder / "full"
            (full / "precious").mkdir(parents=True)
            for place in (runner.JOBS, runner.CACHE):
                path = Path(place, f"{self.jobs_dir.name}-3")
                self.addCleanup(remove_root_jobs, Path(runner.JOBS, path.name))
                path.symlink_to(full)
                answer = await self.told_to_runner(path.name)
                self.assertEqual((answer["code"], str(path) in answer["message"]), ("agent-unreachable", True))
                path.unlink()
                path.mkdir()
                os.chown(path, ordinary_account().pw_uid, -1)
                self.assertEqual((await self.told_to_runner(path.name))["code"], "agent-unreachable")
                path.rmdir()
            self.assertEqual(os.listdir(full), ["precious"])
