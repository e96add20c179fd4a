"""Programs in a job, and callers of the runner, that mean ill."""

from __future__ import annotations

import grp
import json
import os
import pwd
import random
import select
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import runner, sandbox
from ipmiproxyd.agents.socketfile import SocketFileEndpoint
from ipmiproxyd.errors import Cancelled, NoFreeDisplay
from ipmiproxyd.model import Command, Ready
from tests.integration.test_local_agent import AM_ROOT, PYTHON, LocalCase
from tests.support import leftovers
from tests.support.account import ordinary_account
from tests.support.agent_suite import Greeting, shell
from tests.support.displays import claim_display
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
        connecting.addCallback(lambda protocol: protocol.gone).addCallback(Failure)
        await self.assertFailure(connecting, ConnectError, ConnectionLost)
        self.assertEqual(private.visits, 0)

    async def test_stop_where_no_file_can_be_made(self) -> None:
        """Such as on a full disk."""

        spec, _ = await self.launch()
        tombstones = self.jobs_dir / "tombstones"
        self.addCleanup(tombstones.chmod, 0o700)
        tombstones.chmod(0o500)
        await self.agent.stop(spec.id)
        self.assertEqual(self.inside(spec), {})

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
                echo wrote=$(touch {sandbox.VNC}/x /dev/x /x 2>&1 | wc -l)
                for at in /run /var /dev/shm /tmp $HOME; do
                    echo $at=$(($(df --output=size $at | tail -1) / 1024)); done
            """
            _, told = await self.told(script)
            self.assertEqual((told.pop("replaced"), told.pop("wrote")), ("1", "3"))
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

        def asked(self, jobs: str, verb: str, user: pwd.struct_passwd, **members: Any) -> dict[str, Any]:
            """What the runner answers to a user who came by sudo."""

            document = {"verb": verb, **self.agent.members(jobs, user.pw_gid), **members}
            argv = [PYTHON, "-I", "-S", str(runner.__file__)]
            env = {"PATH": os.environ["PATH"], "SUDO_UID": f"{user.pw_uid}", "SUDO_GID": f"{user.pw_gid}"}
            line = json.dumps(document).encode() + b"\n"
            answer: dict[str, Any] = json.loads(subprocess.run(argv, input=line, capture_output=True, env=env).stdout)
            return answer

        async def test_jobs_belong_to_who_made_them(self) -> None:
            """Also when one of the two places is gone, with a reboot or to gain disk."""

            jobs, one, other = f"{self.jobs_dir.name}-4", ordinary_account(), pwd.getpwnam("nobody")
            cache, folder = Path(runner.CACHE, jobs), Path(runner.JOBS, jobs)
            self.addCleanup(shutil.rmtree, cache, ignore_errors=True)
            self.addCleanup(remove_root_jobs, folder)
            self.assertEqual(self.asked(jobs, "hello", one)["event"], "hello")
            cache.rmdir()
            self.assertEqual(self.asked(jobs, "hello", other)["code"], "agent-unreachable")
            self.assertFalse(cache.exists())
            self.assertEqual(self.asked(jobs, "hello", one)["event"], "hello")
            (folder / "alive").unlink()
            self.assertEqual(self.asked(jobs, "hello", other)["code"], "agent-unreachable")
            self.assertEqual(self.asked(jobs, "hello", one)["event"], "hello")
            self.assertEqual((folder / "alive").stat().st_uid, one.pw_uid)

        async def test_group_of_somebody_else(self) -> None:
            shadow = grp.getgrnam("shadow").gr_gid
            answer = self.asked(f"{self.jobs_dir.name}-4", "hello", ordinary_account(), group=shadow)
            self.assertEqual(answer["code"], "bad-request")

        async def test_box_that_means_ill(self) -> None:
            """It gains no rights; and what it leaves behind when its keeper is killed, before it has told of any stage,
            is ended by the next sweep."""

            prefix, display = "ipxill", claim_display(self)
            self.addCleanup(subprocess.run, ["userdel", f"{prefix}{display}"], check=True)
            (self.folder / "precious").write_text("mine")
            box = """if True:
                import os, sys, time
                rights = [line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")]
                os.symlink("PRECIOUS", sys.argv[1] + "/link")
                print("caller", sys.argv[2], *rights, file=sys.stderr)
                if not os.fork():
                    os.setsid()
                    for fd in range(3):
                        os.close(fd)
                time.sleep(300)
            """.replace("PRECIOUS", str(self.folder))
            given = {"id": "ill", "display": display, "vnc": "unix", "door": "", "lease": 60.0}
            given |= {"memory": 1 << 28, "least_free": 0, "box": box, "given": "{}", "prefix": prefix}
            jobs = f"{self.jobs_dir.name}-5"
            folder = Path(runner.JOBS, jobs)
            self.addCleanup(shutil.rmtree, Path(runner.CACHE, jobs), ignore_errors=True)
            self.addCleanup(remove_root_jobs, folder)
            self.assertEqual((await self.told_to_runner(jobs, "start", **given))["event"], "begun")
            log = folder / "ill" / "log"
            await leftovers.until_none(lambda: not (log.exists() and log.read_text()))
            self.assertEqual(log.read_text().split(), ["caller", "0", "NoNewPrivs:", "1"])
            state = json.loads((folder / "ill" / "state.json").read_text())
            keeper = int(state["keeper"].split(":")[1])
            os.kill(keeper, signal.SIGKILL)
            await leftovers.until_none(lambda: Path(f"/proc/{keeper}").exists())
            self.assertNotEqual(leftovers.display_users_processes([display], prefix), {})
            removed = (await self.told_to_runner(jobs, prefix=prefix))["removed"]
            self.assertEqual(removed, ["job ill: The job's keeper was killed"])
            await leftovers.until_none(lambda: leftovers.display_users_processes([display], prefix))
            self.assertFalse((folder / "ill").exists())
            self.assertTrue((self.folder / "precious").exists())
            self.assertFalse(any(map(os.path.exists, runner.ControlGroup(display).folders)))

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

    class EndOfUserTests(SynchronousTestCase):
        """A user's processes that will not end."""

        def fights(self, script: str) -> None:
            """Those who fight hold a pipe open, by which they are told from those who are not seen."""

            uid = random.randrange(1 << 30, 1 << 31)
            become = f"import os, signal\nos.setresuid({{}}, {uid}, {{}})\n"
            mine, theirs = os.pipe()
            self.addCleanup(os.close, mine)
            begin = f"{become.format(uid, uid)}os.write({theirs}, b'.')\n"
            for _ in range(3):
                fighter = subprocess.Popen([PYTHON, "-I", "-c", begin + script], pass_fds=[theirs])
                self.addCleanup(fighter.wait, 30)
            os.close(theirs)
            try:
                for _ in range(3):
                    self.assertEqual(os.read(mine, 1), b".")
                end = f"import runpy, sys; runpy.run_path(sys.argv[1])['end_user']({uid})"
                subprocess.run([PYTHON, "-I", "-c", end, str(runner.__file__)], check=True, timeout=20)
                self.assertEqual(select.select([mine], [], [], 5.0)[0], [mine])
                self.assertEqual(os.read(mine, 1), b"")
            finally:
                kill = become.format(uid - 1, uid - 1) + "os.kill(-1, signal.SIGKILL)"
                subprocess.run([PYTHON, "-I", "-c", kill], check=True)

        def test_who_stops_its_killer(self) -> None:
            stop = " try: os.kill(-1, signal.SIGSTOP)\n except ProcessLookupError: pass"
            self.fights(f"signal.alarm(60)\nwhile True:\n{stop}")

        def test_who_is_never_there_for_long(self) -> None:
            self.fights("import time\nend = time.time() + 60\nwhile time.time() < end:\n if os.fork(): os._exit(0)")

        def test_who_is_none_of_ours(self) -> None:
            """Whatever a state may say."""

            uid = random.randrange(1 << 30, 1 << 31)
            other = subprocess.Popen(["sleep", "60"], user=uid)
            self.addCleanup(other.wait)
            self.addCleanup(other.kill)
            runner.Site("none", "easydcim_vnc_", 0).empty_display(999, uid)
            self.assertIsNone(other.poll())
