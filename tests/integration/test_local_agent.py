"""The local agent and the runner, with real displays: where they may use Unix users, and as an ordinary user."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents import inside, looking, runner, sandbox, watcher, with_runner
from ipmiproxyd.agents.local import LocalAgent
from ipmiproxyd.errors import AgentOutdated, AgentUnreachable, Cancelled, InternalError, JobFailed, NoFreeDisplay
from ipmiproxyd.model import JOB_LOG, Command, Job, JobFile, JobSpec, Ready, UnixStream
from tests.support import leftovers
from tests.support.account import ordinary_account, python_as
from tests.support.agent_suite import MESSAGE, AgentHelpers, Endings, JobSuite, RunSuite, shell
from tests.support.displays import claim_display
from tests.support.scratch import remove_root_jobs, root_jobs, scratch

AM_ROOT = os.geteuid() == 0
PYTHON = "/usr/bin/python3"
LOCKS = Path("/run/ipmiproxyd-displays")
POLICIES = sandbox.POLICIES["chromium-policy"]


class LocalCase(AgentHelpers, TestCase):
    """Makes the agent.

    :cvar ordinary: as an ordinary user, whoever runs the tests.
    """

    timeout: ClassVar[float] = 60
    ordinary: ClassVar[bool] = not AM_ROOT
    lease: ClassVar[float] = 60.0
    agent: LocalAgent

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = scratch(self)
        self.endings = Endings()
        self.jobs_dir = self.folder / "run" / "jobs"
        self.jobs_dir.parent.mkdir()
        if not self.ordinary:
            self.jobs_dir = root_jobs(self.folder)
            self.addCleanup(remove_root_jobs, self.jobs_dir)
        self.agent = await self.make()
        self.agent.watch(self.endings)

    async def make(self, **settings: Any) -> LocalAgent:
        python = PYTHON
        if self.ordinary and AM_ROOT:
            account = ordinary_account()
            self.folder.chmod(0o711)
            os.chown(self.jobs_dir.parent, account.pw_uid, account.pw_gid)
            python = python_as(account, self.folder)
            # The account may have no way to where the tests are.
            for part in (runner, watcher):
                settings[f"{part.__name__.rpartition('.')[2]}_file"] = shutil.copy(str(part.__file__), self.folder)
        given: dict[str, Any] = {
            "jobs_dir": self.jobs_dir,
            "jobs_name": self.jobs_dir.name,
            "tool_home": self.folder / "tools",
            "home_files": {".config/small/file": "text"},
            "python": python,
            "users": "never" if self.ordinary and not AM_ROOT else "auto",
            "user_prefix": "easydcim_vnc_",
            "group": "",
            "lease": self.lease,
            "reactor": reactor,
            **settings,
        }
        agent = LocalAgent("local", **given)
        # A runner that runs as another user has to be told so.
        agent._as_root = not self.ordinary
        self.addCleanup(lambda: Deferred.fromCoroutine(agent.close()))
        await agent.start()
        return agent


class OrdinaryUserTests(JobSuite, LocalCase):
    """Everything runs as the one user."""

    ordinary = True

    async def test_everything_runs_as_the_user(self) -> None:
        spec, job = await self.launch(MESSAGE)
        user = ordinary_account() if AM_ROOT else pwd.getpwuid(os.geteuid())
        self.assertEqual(self.agent.describe(), {"displays_run_as": user.pw_name, "isolation": "none"})
        self.assertEqual(job.user, user.pw_name)
        owners = {os.stat(f"/proc/{pid}").st_uid for pid in self.inside(spec)}
        self.assertEqual(owners, {user.pw_uid})
        self.assertEqual(stat.S_IMODE((self.jobs_dir / spec.id).stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE((self.jobs_dir / spec.id / "vnc").stat().st_mode), 0o700)

    async def test_users_of_their_own_need_root(self) -> None:
        async def no_sudo(_: LocalAgent) -> bool:
            return False

        self.patch(LocalAgent, "_sudo_works", no_sudo)
        error = await self.assertFailure(Deferred.fromCoroutine(self.make(users="always")), AgentUnreachable)
        self.assertIn("root", str(error))



class RunTests(RunSuite, LocalCase):
    async def test_home_of_the_tools(self) -> None:
        outcome = await self.agent.run(Command(argv=("sh", "-c", "cat ~/.config/small/file")))
        self.assertEqual(outcome.stdout, b"text")


class SandboxTests(LocalCase):
    """What a job sees of the machine, and what it may do there."""

    async def told(self, script: str, **more: Any) -> dict[str, str]:
        """The lines ``name=value`` that a program in a job prints."""

        spec, _ = await self.launch(
            shell(f"{script}\necho > {sandbox.READY}; exec sleep 60", ready=Ready.TOLD), **more
        )
        log = (self.jobs_dir / spec.id / "log").read_text()
        return dict(line.split("=", 1) for line in log.splitlines() if "=" in line)

    async def test_what_a_job_sees(self) -> None:
        (self.folder / "secret").write_text("of the host")
        other, _ = await self.launch()
        script = f"""
            echo uid=$(id -u); echo core=$(ulimit -c); echo name=$(hostname); echo home=$(ls -A ~); echo at=$(pwd)
            echo homes=$(ls -A /home); echo run=$(ls -A /run); echo tmp=$(ls -A /tmp | tr '\\n' ' ')
            echo processes=$(ls /proc | grep -c '^[0-9]'); echo caps=$(grep CapEff /proc/self/status)
            echo other=$(ls -d {self.jobs_dir}/{other.id} {self.folder}/secret 2>&1 | grep -c 'No such')
            echo wrote=$(touch /usr/x /etc/x {POLICIES}/x 2>&1 | grep -c 'Read-only')
            echo dir=$DISPLAY $XAUTHORITY $HOME $LANG; echo oom=$(cat /proc/self/oom_score_adj)
        """
        told = await self.told(script, files=[JobFile(place="home", name="small.txt", text="hello")])
        self.assertNotEqual(told["uid"], "0")
        expected = {
            "core": "0",
            "name": "console",
            "home": "small.txt",
            "at": sandbox.HOME,
            "homes": "console",
            "run": "console",
            "tmp": ".X11-unix",
            "other": "2",
            "wrote": "3",
            "oom": "500",
        }
        self.assertEqual({name: told[name].strip() for name in expected}, expected)
        self.assertEqual(told["caps"], "CapEff: 0000000000000000")
        self.assertRegex(told["dir"], f":[0-9]+ {sandbox.XAUTHORITY} {sandbox.HOME} C.UTF-8")
        self.assertLess(int(told["processes"]), 12)

    async def test_files_of_a_job(self) -> None:
        text = "two lines\nand ünïcode"
        policy = JobFile(place="chromium-policy", name="p.json", text=text)
        script = f"""
            echo policies=$(ls {POLICIES}); echo chromium=$(ls /etc/chromium)
            echo sum=$(md5sum < {POLICIES}/p.json); echo x >{POLICIES}/p.json; echo wrote=$?
        """
        told = await self.told(script, files=[policy])
        digest = hashlib.md5(text.encode()).hexdigest()
        self.assertEqual(told, {"policies": "p.json", "chromium": "policies", "sum": f"{digest} -", "wrote": "2"})

    async def test_policies_of_another_browser(self) -> None:
        """They are where its build reads them, alone, and nobody changes them."""

        folder = sandbox.POLICIES["chrome-policy"]
        script = f"""
            echo policies=$(ls {folder}); echo opt=$(ls /etc/opt); echo chromium=$(ls -A {POLICIES})
            echo x >{folder}/p.json; echo wrote=$?; cat {folder}/p.json
        """
        told = await self.told(script, files=[JobFile(place="chrome-policy", name="p.json", text="own=1\n")])
        self.assertEqual(told, {"policies": "p.json", "opt": "chrome", "chromium": "", "wrote": "2", "own": "1"})

    async def test_display_needs_its_secret(self) -> None:
        told = await self.told(
            "exec 2>&1; xprop -root > /dev/null; echo with=$?; XAUTHORITY=/ xprop -root > /dev/null; echo without=$?"
        )
        self.assertEqual(told, {"with": "0", "without": "1"})

    async def test_display_that_is_not_the_job_s(self) -> None:
        spec = self.spec(MESSAGE)
        wrong = dataclasses.replace(spec, programs=self.spec(MESSAGE, display=40).programs)
        error = await self.assertFailure(self.starting(wrong), JobFailed)
        self.assertIn(f"no display {spec.display}", str(error))

    async def test_log(self) -> None:
        """All that was said while there is room for it; then the last half at least."""

        said = "".join(f"{number:08}\n" for number in range(1, 60_001))
        for limit in (JOB_LOG, 1 << 20):
            spec, _ = await self.launch(shell("seq -f %08.0f 60000; exec sleep 60"), log=limit)
            log = self.jobs_dir / spec.id / "log"
            while not (kept := log.read_text()).endswith(said[-9:]):
                await leftovers.pause(0.02)
            self.assertTrue(kept.endswith(said if len(said) < limit else said[-limit // 2 :]), len(kept))
            self.assertLessEqual(len(kept), limit)

    async def test_runner_refuses_what_it_does_not_know(self) -> None:
        await self.assertFailure(self.starting(self.spec(display=1000)), InternalError)
        await self.assertFailure(self.starting(dataclasses.replace(self.spec(), id="../up")), InternalError)
        await self.nothing_left()

    async def test_folder_of_somebody_else(self) -> None:
        jobs = self.jobs_dir.with_name(f"{self.jobs_dir.name}-2")
        self.addCleanup(shutil.rmtree, jobs)
        jobs.mkdir()
        jobs.chmod(0o777)
        making = self.make(jobs_dir=jobs, jobs_name=jobs.name)
        error: Any = await self.assertFailure(Deferred.fromCoroutine(making), AgentUnreachable)
        self.assertEqual(
            error.message, f"Others than its owner may write in {jobs} on the agent (mode 777)."
        )
        self.assertEqual(error.hint, f"As root there: chmod go-w {jobs}")

    async def test_python_that_does_not_run(self) -> None:
        error = await self.assertFailure(Deferred.fromCoroutine(self.make(python="/bin/false")), AgentUnreachable)
        self.assertIn("said nothing", str(error))

    async def test_runner_of_another_version(self) -> None:
        old = self.folder / "old-runner.py"
        old.write_text("print('{\"event\":\"failed\",\"code\":\"bad-request\",\"message\":\"x\"}')")
        outdated: Any = await self.assertFailure(Deferred.fromCoroutine(self.make(runner_file=old)), AgentOutdated)
        self.assertIn("agent update", outdated.hint)
        self.patch(runner, "VERSION", runner.VERSION + 1)
        error = await self.assertFailure(Deferred.fromCoroutine(self.make()), AgentOutdated)
        self.assertIn(f"version {runner.VERSION - 1}", str(error))

    async def test_stop_while_the_state_is_replaced(self) -> None:
        text = Path(str(runner.__file__)).read_text()
        replaced = '        os.replace(new, f"{self.folder}/state.json")\n'
        self.assertIn(replaced, text)
        stopped = self.folder / "stopped-runner.py"
        while_it_starts = 'self.state["stages"] and self.state["state"] == "starting"'
        first = f"        {while_it_starts} and os.kill(self.pid, signal.SIGTERM)\n"
        stopped.write_text(text.replace(replaced, first + replaced))
        self.agent = await self.make(runner_file=stopped)
        await self.refused(self.spec(MESSAGE), Cancelled)
        await self.nothing_left()

    async def test_stops_all_the_time(self) -> None:
        """Nothing of the job is left, although nobody clears up behind its keeper."""

        text = Path(str(runner.__file__)).read_text()
        first = '            self.state["keeper"] = identity(self.pid)\n'
        self.assertIn(first, text)
        storm = """            if not os.fork():
                os.closerange(3, 1 << 10)
                with contextlib.suppress(ProcessLookupError):
                    while os.getppid() == self.pid:
                        os.kill(self.pid, signal.SIGTERM)
                os._exit(0)
"""
        stopped = self.folder / "stopped-runner.py"
        stopped.write_text(text.replace(first, storm + first))
        self.agent = await self.make(runner_file=stopped)
        begun = time.monotonic()
        await self.assertFailure(self.starting(self.spec(MESSAGE)), Cancelled, JobFailed)
        await self.nothing_left()
        self.assertLess(time.monotonic() - begun, runner.PATIENCE)

    async def test_sweep_leaves_a_launch_to_read_its_end(self) -> None:
        first, _ = await self.launch()
        real, verbs, sweeps = self.agent._call, list[str](), list[Deferred[list[str]]]()

        async def call(verb: str, *arguments: Any, **more: Any) -> Any:
            if verb == "wait":
                while self.state(second)["state"] != "ended":
                    await leftovers.pause(0.01)
                sweeps.append(Deferred.fromCoroutine(self.agent.sweep()))
            verbs.append(verb)
            return await real(verb, *arguments, **more)

        second = self.spec(display=first.display)
        self.patch(self.agent, "_call", call)
        await self.refused(second, NoFreeDisplay)
        (removed,) = await sweeps[0]
        self.assertIn(second.id, removed)
        self.assertEqual(verbs[:3], ["start", "wait", "sweep"])

    async def test_sweep_does_not_wait_for_ever(self) -> None:
        self.patch(with_runner, "SWEEP_PATIENCE", 0.1)
        shown: Deferred[None] = Deferred()
        spec = self.spec(shell("exec sleep 60", ready=Ready.WINDOW))
        starting = Deferred.fromCoroutine(self.agent.launch(spec, lambda _: shown.callback(None)))
        await shown
        self.assertEqual(await self.agent.sweep(), [])
        self.assertFalse(starting.called)
        await self.agent.stop(spec.id)
        await self.assertFailure(starting, Cancelled)

    async def test_watch_that_was_killed_comes_back(self) -> None:
        spec, _ = await self.launch(MESSAGE)
        watchers = [
            pid for pid in leftovers.children_of(os.getpid()) if b"watcher.py" in leftovers.read(f"/proc/{pid}/cmdline")
        ]
        self.assertEqual(len(watchers), 1)
        os.kill(watchers[0], signal.SIGKILL)
        os.kill(self.pid_of(spec, "xmessage"), signal.SIGKILL)
        self.assertIn("xmessage", (await self.endings.of(spec.id)).reason)

    def starting(self, spec: JobSpec) -> Deferred[Job]:
        return Deferred.fromCoroutine(self.agent.launch(spec, lambda _: None))


class LastWordsTests(LocalCase):
    """Who is to blame for the end, where a display may take very long to end or to answer."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        texts, limit = dict(self.agent._texts), "\nDISPLAY_LIMIT = 1.0 "
        self.assertIn(limit, texts[inside.__name__])
        texts[inside.__name__] = texts[inside.__name__].replace(limit, "\nDISPLAY_LIMIT = 600.0 ")
        self.patch(self.agent, "_texts", texts)

    async def test_client_that_is_quicker_than_its_display(self) -> None:
        spec, _ = await self.launch(MESSAGE)
        display, client = (self.pid_of(spec, program) for program in ("Xvnc", "xmessage"))
        os.kill(display, signal.SIGSTOP)
        os.kill(client, signal.SIGTERM)
        await leftovers.pause(0.3)
        os.kill(display, signal.SIGKILL)
        self.assertIn("Xvnc was killed by signal 9", (await self.endings.of(spec.id)).reason)

    async def test_display_that_lives(self) -> None:
        """Nobody waits for its end."""

        spec, _ = await self.launch(MESSAGE)
        os.kill(self.pid_of(spec, "xmessage"), signal.SIGTERM)
        self.assertIn("xmessage was killed by signal 15", (await self.endings.of(spec.id)).reason)


class LeaseTests(LocalCase):
    lease = 2.0

    async def test_job_lives_as_long_as_somebody_watches(self) -> None:
        spec, job = await self.launch(MESSAGE, lease=2.0)
        await leftovers.pause(3.0)
        self.assertEqual(await self.agent.jobs(), [job])
        await self.agent.close()
        await leftovers.until_none(lambda: self.inside(spec))
        while (ended := (await self.agent.jobs())[0]).running:
            await leftovers.pause(0.02)
        self.assertEqual((ended.running, "no sign of life" in ended.reason), (False, True))

    async def test_folder_of_a_job_is_gone(self) -> None:
        spec, _ = await self.launch(lease=0.5)
        shutil.rmtree(self.jobs_dir / spec.id)
        await leftovers.until_none(lambda: leftovers.processes_of(self.jobs_dir / ""))
        await self.agent.sweep()
        await self.nothing_left()


if AM_ROOT:

    class OwnUsersTests(JobSuite, LocalCase):
        """Each display runs as a Unix user of its own."""

        def user(self, spec: JobSpec) -> pwd.struct_passwd:
            return pwd.getpwnam(f"easydcim_vnc_{spec.display}")

        async def test_display_has_its_user(self) -> None:
            spec, job = await self.launch(MESSAGE)
            user = self.user(spec)
            self.assertEqual(self.agent.describe()["displays_run_as"], "easydcim_vnc_<display>")
            self.assertEqual((job.user, user.pw_shell), (user.pw_name, "/usr/sbin/nologin"))
            self.assertEqual({os.stat(f"/proc/{pid}").st_uid for pid in self.inside(spec)}, {user.pw_uid})
            assert isinstance(job.vnc, UnixStream)
            socket, folder = os.stat(job.vnc.path), os.stat(os.path.dirname(job.vnc.path))
            self.assertEqual((stat.S_IMODE(folder.st_mode), folder.st_uid), (0o711, 0))
            self.assertEqual((stat.S_IMODE(socket.st_mode), socket.st_gid), (0o660, os.getegid()))
            await self.agent.stop(spec.id)
            self.assertEqual(self.inside(spec), {})
            await leftovers.until_none(lambda: leftovers.display_users_processes([spec.display]))
            runner.hold(str(LOCKS / f"{spec.display}.lock"), wait=False).close()

        async def test_group_reaches_the_socket(self) -> None:
            account = ordinary_account()
            agent = await self.make(group=str(account.pw_gid))
            self.folder.chmod(0o711)
            spec = self.spec()
            job = await agent.launch(spec, lambda _: None)
            assert isinstance(job.vnc, UnixStream)
            script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({job.vnc.path!r}); print(s.recv(3))"
            for options, said in (
                ((f"--regid={account.pw_gid}",), b"b'RFB'\n"),
                (("--regid=65534",), b""),
            ):
                argv = ("setpriv", f"--reuid={account.pw_uid}", *options, "--clear-groups", PYTHON, "-c", script)
                self.assertEqual((await agent.run(Command(argv=argv))).stdout, said)

        async def test_nothing_else_runs_as_the_user(self) -> None:
            """Neither while the job starts, nor when it has ended."""

            spec, _ = await self.launch()
            user = self.user(spec)
            await self.agent.stop(spec.id)
            stranger = await self.stranger(user)
            await self.agent.launch(again := self.spec(display=spec.display), lambda _: None)
            await stranger
            stranger = await self.stranger(user)
            await self.agent.stop(again.id)
            await stranger
            # Those of jobs whose keeper was killed wait for the machine's own process 1 to collect them.
            await leftovers.until_none(lambda: leftovers.display_users_processes([spec.display]))

        def new_user(self, name: str, *, ours: bool = True) -> int:
            self.addCleanup(subprocess.run, ["userdel", name], check=True)
            if ours:
                runner.add_user(name)
            else:
                subprocess.run(["useradd", "--system", "--no-create-home", name], check=True)
            return pwd.getpwnam(name).pw_uid

        def sleeper(self, uid: int, *apart: str) -> subprocess.Popen[bytes]:
            argv = [*apart, "setpriv", f"--reuid={uid}", "--clear-groups", "sleep", "60"]
            process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            return process

        async def test_numbers_of_users_in_a_container(self) -> None:
            """Its users are others, whatever their numbers: neither a sweep nor a console ends what they run."""

            display = claim_display(self)
            agent = await self.make(user_prefix="ipxboxed")
            name = f"ipxboxed{display}"
            uid = self.new_user(name)
            inside = self.sleeper(uid, "unshare", "--pid", "--fork")
            while not (runs := leftovers.display_users_processes([display], "ipxboxed")):
                await leftovers.pause(0.02)
            for pid in runs:
                self.addCleanup(leftovers.kill, pid)
            given = {"prefix": "ipxboxed", "locks": str(LOCKS)}
            self.assertEqual(looking.processes(given), {})
            self.assertEqual(await self.swept(agent), [])
            left = self.sleeper(uid)
            spec = self.spec(display=display)
            self.addCleanup(lambda: Deferred.fromCoroutine(agent.stop(spec.id)))
            await agent.launch(spec, lambda _: None)
            self.assertEqual(left.wait(), -signal.SIGKILL)
            await agent.stop(spec.id)
            self.assertEqual(leftovers.display_users_processes([display], "ipxboxed").keys(), runs.keys())
            for pid in runs:
                leftovers.kill(pid)
            inside.wait()
            await leftovers.until_none(lambda: leftovers.display_users_processes([display], "ipxboxed"))
            self.sleeper(uid)
            while looking.processes(given) != {name: 1}:
                await leftovers.pause(0.02)

        async def test_sweep_of_what_nobody_keeps(self) -> None:
            """Of what users of ours have without a job, and of half a state; and nothing of anybody else."""

            left, kept, foreign = claim_display(self), self.spec(), claim_display(self)
            place = root_jobs(self.folder / "other")
            self.addCleanup(remove_root_jobs, place)
            agent = await self.make(user_prefix="ipxsweep")
            other = await self.make(user_prefix="ipxsweep", jobs_name=place.name)
            self.new_user(f"ipxsweep{kept.display}")
            self.addCleanup(lambda: Deferred.fromCoroutine(other.stop(kept.id)))
            await other.launch(kept, lambda _: None)
            stays = [
                self.sleeper(self.new_user(f"ipxsweep{foreign}", ours=False)),
                self.sleeper(self.new_user(f"ipxother{left}")),
            ]
            ended = self.sleeper(self.new_user(f"ipxsweep{left}"))
            runner.ControlGroup(left).make(1 << 28)
            (self.jobs_dir / ".half").write_text("{")
            with runner.hold(str(LOCKS / f"{left}.lock")):  # somebody starts it just now
                self.assertEqual(await agent.sweep(), ["job half: it never started, or is gone"])
                self.assertIsNone(ended.poll())
            words = f"display {left}: what ipxsweep{left} still had, without a job"
            self.assertEqual(await agent.sweep(), [words])
            self.assertEqual(ended.wait(), -signal.SIGKILL)
            self.assertFalse(any(map(os.path.exists, runner.ControlGroup(left).folders)))
            self.assertEqual([one.poll() for one in stays], [None, None])
            self.assertIn("Xvnc", " ".join(leftovers.sandboxed(place / kept.id).values()))
            await self.nothing_left()
            self.assertEqual(await agent.sweep(), [])

        async def stranger(self, user: pwd.struct_passwd) -> Deferred[int]:
            """A process of the user; fires with the signal that ended it."""

            ended: Deferred[int] = Deferred()

            class Stranger(ProcessProtocol):
                def outReceived(self, _data: bytes) -> None:
                    begun.callback(None)

                def processEnded(self, reason: Any) -> None:
                    ended.callback(reason.value.signal)

            begun: Deferred[None] = Deferred()
            argv = ["setpriv", f"--reuid={user.pw_uid}", "--clear-groups", "sh", "-c", "echo; exec sleep 60"]
            cast(IReactorProcess, reactor).spawnProcess(Stranger(), "setpriv", argv, env=dict(os.environ))
            await begun
            ended.addCallback(lambda number: (self.assertEqual(number, signal.SIGKILL), number)[1])
            return ended

        async def test_user_that_is_not_ours(self) -> None:
            name = f"ipxforeign{(spec := self.spec()).display}"
            subprocess.run(["useradd", "--system", "--no-create-home", name], check=True)
            self.addCleanup(subprocess.run, ["userdel", name], check=True)
            agent = await self.make(user_prefix="ipxforeign")
            error = await self.assertFailure(
                Deferred.fromCoroutine(agent.launch(spec, lambda _: None)), NoFreeDisplay
            )
            self.assertIn(name, str(error))

        async def test_two_daemons_never_share_a_user(self) -> None:
            place = root_jobs(self.folder / "other")
            self.addCleanup(remove_root_jobs, place)
            other = await self.make(jobs_name=place.name)
            spec, _ = await self.launch()
            second = self.spec(display=spec.display)
            await self.assertFailure(Deferred.fromCoroutine(other.launch(second, lambda _: None)), NoFreeDisplay)
            self.assertEqual(len(await self.swept(other)), 1)
            self.assertIn("Xvnc", " ".join(self.inside(spec).values()))

        async def test_root_runs_no_console(self) -> None:
            error = await self.assertFailure(Deferred.fromCoroutine(self.make(users="never")), AgentUnreachable)
            self.assertIn("[agent] users of the configuration file is never", str(error))
