"""What every kind of agent must do. Mixed into a test case that makes one on this machine."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ipmiproxyd.errors import Cancelled, JobFailed, NoFreeDisplay, ProxyError, TimedOut, ToolMissing
from ipmiproxyd.interfaces import Agent
from ipmiproxyd.model import Command, Job, JobFile, JobSpec, JobStage, Program, Reach, Ready, StreamAddress
from ipmiproxyd.tools.xvnc import Display
from tests.support import leftovers
from tests.support.displays import claim_display

CLOCK = cast(IReactorTime, reactor)
MESSAGE = Program(
    name="xmessage", argv=("xmessage", "-geometry", "300x200", "-buttons", "Fine:0", "a program"), ready=Ready.WINDOW
)


def reach_of(*urls: str) -> tuple[Reach, ...]:
    """The servers of some URLs, which have IP addresses."""

    parts = [urlsplit(url) for url in urls]
    return tuple(Reach(address=str(part.hostname), ports=((part.port or 443,) * 2,)) for part in parts)


def shell(script: str, *, name: str = "shell", ready: Ready = Ready.STARTED) -> Program:
    return Program(name=name, argv=("sh", "-c", script), ready=ready)


class Greeting(Protocol):
    """Takes the first bytes that a server says."""

    def __init__(self) -> None:
        self.said: Deferred[bytes] = Deferred()
        self.gone: Deferred[Any] = Deferred()  # fires with the reason

    def dataReceived(self, data: bytes) -> None:
        if not self.said.called:
            self.said.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(reason.value)


class Endings:
    """Listener of an agent's watch."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self._waiting: list[Deferred[None]] = []

    def __call__(self, job: Job) -> None:
        self.jobs.append(job)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    async def of(self, job_id: str) -> Job:
        while not (found := [job for job in self.jobs if job.id == job_id]):
            more: Deferred[None] = Deferred()
            self._waiting.append(more)
            await more.addTimeout(20.0, CLOCK)
        return found[0]


class AgentHelpers:
    """``jobs_dir`` is the folder of the agent's runner; ``agent`` is watched, ``endings`` listens."""

    agent: Agent
    endings: Endings
    jobs_dir: Path

    @property
    def _test(self) -> TestCase:
        return cast(TestCase, self)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def spec(self, *programs: Program, display: int = 0, files: Sequence[JobFile] = (), **more: Any) -> JobSpec:
        """A job with a display and some programs; it is stopped at the end of the test."""

        display = display or claim_display(self._test)
        screen, _ = Display(geometry="640x480", vnc=more.get("vnc", "unix")).programs(display)
        spec = JobSpec(
            id=f"t{random.randrange(10**9)}",
            display=display,
            programs=(screen[0], *programs),
            files=tuple(files),
            **{"start_timeout": 20.0, **more},
        )
        self._test.addCleanup(lambda: Deferred.fromCoroutine(self.agent.stop(spec.id)))
        return spec

    async def launch(self, *programs: Program, **more: Any) -> tuple[JobSpec, Job]:
        spec = self.spec(*programs, **more)
        return spec, await self.agent.launch(spec, lambda _: None)

    async def refused(self, spec: JobSpec, kind: type[ProxyError]) -> str:
        """Launch what must not start; the words of the refusal."""

        try:
            await self.agent.launch(spec, lambda _: None)
        except kind as error:
            return error.message
        raise AssertionError(f"{kind.__name__} was expected")

    def inside(self, spec: JobSpec) -> dict[int, str]:
        """What runs in a job's sandbox: pid → command line."""

        return leftovers.sandboxed(self.jobs_dir / spec.id)

    def first_of(self, spec: JobSpec) -> int:
        """Process 1 of a job's sandbox."""

        for pid in self.inside(spec):
            if leftovers.status(pid).get("NSpid", "").split()[1:] == ["1"]:
                return pid
        raise AssertionError(f"the job has no process 1: {self.inside(spec)}")

    def pid_of(self, spec: JobSpec, program: str) -> int:
        found = [pid for pid, command in self.inside(spec).items() if command.split(" ", 1)[0].endswith(program)]
        self._test.assertEqual(len(found), 1, self.inside(spec))
        return found[0]

    def state(self, spec: JobSpec) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.jobs_dir / spec.id / "state.json").read_text())
        return state

    async def swept(self, agent: Agent | None = None) -> list[str]:
        """What a sweep tells of jobs. Displays that it empties may be other tests'."""

        return [words for words in await (agent or self.agent).sweep() if words.startswith("job ")]

    async def nothing_left(self) -> None:
        await leftovers.until_none(lambda: leftovers.processes_of(self.jobs_dir / ""))
        await leftovers.until_none(lambda: leftovers.files_of(self.jobs_dir))

    async def greeting(self, address: StreamAddress) -> bytes:
        protocol = await self.agent.dial(address).connect(Factory.forProtocol(Greeting))
        assert isinstance(protocol, Greeting)
        said: bytes = await protocol.said.addTimeout(5.0, CLOCK)
        assert protocol.transport is not None
        protocol.transport.loseConnection()
        return said


class RunSuite(AgentHelpers):
    """Short programs."""

    async def test_run_gives_all_of_the_outcome(self) -> None:
        script = 'cat; echo "$LANG $HOME" >&2; exit 3'
        outcome = await self.agent.run(Command(argv=("sh", "-c", script), stdin=b"a secret\0"))
        self._test.assertEqual((outcome.status, outcome.signal, outcome.stdout), (3, None, b"a secret\0"))
        self._test.assertTrue(outcome.stderr.startswith(b"C.UTF-8 /"), outcome.stderr)
        self._test.assertFalse(outcome.ok or outcome.timed_out)

    async def test_run_tells_of_a_signal(self) -> None:
        outcome = await self.agent.run(Command(argv=("sh", "-c", "kill -SEGV $$")))
        self._test.assertEqual((outcome.status, outcome.signal), (None, signal.SIGSEGV))

    async def test_run_without_the_program(self) -> None:
        await self._test.assertFailure(
            Deferred.fromCoroutine(self.agent.run(Command(argv=("no-such-program", "x")))), ToolMissing
        )

    async def test_run_that_ends_with_127_is_not_a_missing_program(self) -> None:
        self._test.assertEqual((await self.agent.run(Command(argv=("sh", "-c", "exit 127")))).status, 127)

    async def test_run_that_takes_too_long_ends_with_all_it_started(self) -> None:
        mark = f"{random.randrange(10**9)}"
        script = f"(sleep 300.{mark} & wait) & trap '' TERM; echo begun; while :; do sleep 300.{mark}; done"
        begun = time.monotonic()
        outcome = await self.agent.run(Command(argv=("sh", "-c", script), timeout=0.5))
        self._test.assertTrue(outcome.timed_out)
        self._test.assertEqual((outcome.stdout, outcome.signal), (b"begun\n", signal.SIGKILL))
        self._test.assertLess(time.monotonic() - begun, 8)
        await leftovers.until_none(lambda: leftovers.seen_in_processes(mark.encode()))

    async def test_cancelled_run_ends_with_all_it_started(self) -> None:
        mark = f"{random.randrange(10**9)}"
        running = Deferred.fromCoroutine(
            self.agent.run(Command(argv=("sh", "-c", f"sleep 300.{mark} & exec sleep 300.{mark}"), timeout=60))
        )
        while len(leftovers.seen_in_processes(mark.encode())) < 2:
            await leftovers.pause(0.02)
        running.cancel()
        await self._test.assertFailure(running, CancelledError)
        await leftovers.until_none(lambda: leftovers.seen_in_processes(mark.encode()))

    async def test_output_beyond_the_limit_ends_it(self) -> None:
        begun = time.monotonic()
        outcome = await self.agent.run(Command(argv=("yes",), output_limit=1000, timeout=60))
        self._test.assertEqual((len(outcome.stdout), outcome.ok, outcome.timed_out), (1000, False, False))
        self._test.assertLess(time.monotonic() - begun, 10)

    async def test_run_is_complete_although_something_holds_its_output_open(self) -> None:
        mark = f"{random.randrange(10**9)}"
        begun = time.monotonic()
        outcome = await self.agent.run(Command(argv=("sh", "-c", f"setsid sleep 20.{mark} & echo done"), timeout=60))
        self._test.assertEqual((outcome.status, outcome.stdout), (0, b"done\n"))
        self._test.assertLess(time.monotonic() - begun, 10)
        for place in leftovers.seen_in_processes(mark.encode()):
            os.kill(int(place.split("/")[2]), signal.SIGKILL)


class JobSuite(AgentHelpers):
    """Jobs, from their start to their end."""

    async def test_job_from_start_to_stop(self) -> None:
        stages: list[JobStage] = []
        spec = self.spec(MESSAGE)
        job = await self.agent.launch(spec, stages.append)
        self._test.assertEqual([stage.name for stage in stages], ["Xvnc", "xmessage"])
        self._test.assertLess(stages[0].ms, stages[1].ms)
        self._test.assertLess(stages[1].ms, 5000)
        self._test.assertEqual((job.id, job.display, job.running), (spec.id, spec.display, True))
        self._test.assertEqual(await self.agent.jobs(), [job])
        self._test.assertEqual(await self.greeting(job.vnc), b"RFB 003.008\n")
        await self.agent.stop(spec.id)
        self._test.assertEqual(self.inside(spec), {})
        self._test.assertEqual(await self.agent.jobs(), [])
        await self.nothing_left()
        self._test.assertEqual(self.endings.jobs, [])

    async def test_display_on_a_tcp_port(self) -> None:
        spec, job = await self.launch(vnc="tcp")
        self._test.assertEqual(await self.greeting(job.vnc), b"RFB 003.008\n")
        self._test.assertEqual(leftovers.listening(5900 + spec.display, 5900 + spec.display), {5900 + spec.display})
        again = self.spec(display=spec.display, vnc="tcp")
        await self.refused(again, NoFreeDisplay)
        await self.agent.stop(spec.id)
        self._test.assertEqual(leftovers.listening(5900 + spec.display, 5900 + spec.display), set())

    async def test_display_in_use(self) -> None:
        """The same job may come again with another display."""

        first, _ = await self.launch()
        second = self.spec(display=first.display)
        self._test.assertIn(f"Display {first.display} ", await self.refused(second, NoFreeDisplay))
        free = claim_display(self._test)
        screen, _ = Display().programs(free)
        other = JobSpec(id=second.id, display=free, programs=screen[:1])
        self._test.assertEqual((await self.agent.launch(other, lambda _: None)).display, other.display)

    async def test_same_job_twice_is_one_job(self) -> None:
        spec = self.spec(MESSAGE)
        stages: list[JobStage] = []
        both: list[Job] = await gatherResults(
            [Deferred.fromCoroutine(self.agent.launch(spec, stages.append)) for _ in range(2)]
        )
        self._test.assertEqual(both[0], both[1])
        self._test.assertEqual(sorted(stage.name for stage in stages), ["Xvnc"] * 2 + ["xmessage"] * 2)
        self._test.assertEqual(await self.agent.launch(spec, stages.append), both[0])
        self.pid_of(spec, "Xvnc")

    async def test_programs_of_a_job_may_not_be_there(self) -> None:
        words = await self.refused(self.spec(Program(name="Gone", argv=("no-such-program",))), ToolMissing)
        self._test.assertIn("Gone", words)
        self._test.assertIn("no-such-program", words)

    async def test_program_that_ends_before_its_window(self) -> None:
        spec = self.spec(shell("echo first; echo 'no screen like that' >&2; exit 7", ready=Ready.WINDOW))
        words = await self.refused(spec, JobFailed)
        self._test.assertIn("shell ended by itself (exit status 7): no screen like that", words)
        self._test.assertEqual(self.inside(spec), {})
        self._test.assertEqual([job.running for job in await self.agent.jobs()], [False])
        await self.agent.stop(spec.id)
        await self.nothing_left()

    async def test_window_that_does_not_come(self) -> None:
        spec = self.spec(shell("exec sleep 60", ready=Ready.WINDOW), start_timeout=3.0)
        self._test.assertIn("shell was not ready within 3 s", await self.refused(spec, TimedOut))
        self._test.assertEqual(self.inside(spec), {})

    async def test_end_of_a_program_is_the_end_of_the_job(self) -> None:
        for program, number, words in (("xmessage", signal.SIGTERM, "SIGTERM"), ("Xvnc", signal.SIGKILL, "SIGKILL")):
            spec, _ = await self.launch(MESSAGE, shell("setsid sh -c 'trap \"\" TERM HUP; sleep 90 & wait'"))
            os.kill(self.pid_of(spec, program), number)
            ended = await self.endings.of(spec.id)
            self._test.assertIn(f"{program} was killed by signal {int(number)} ({words})", ended.reason)
            self._test.assertFalse(ended.running)
            self._test.assertEqual(self.inside(spec), {})
            self._test.assertEqual(os.listdir(self.jobs_dir / spec.id), ["state.json"])
            await self.agent.stop(spec.id)
        await self.nothing_left()

    async def test_stop_of_a_job_that_is_still_to_come(self) -> None:
        spec = self.spec()
        await self.agent.stop(spec.id)
        await self.refused(spec, Cancelled)
        await self.nothing_left()

    async def test_stop_while_it_starts(self) -> None:
        spec = self.spec(shell("exec sleep 60", ready=Ready.WINDOW))
        shown: Deferred[None] = Deferred()
        starting = Deferred.fromCoroutine(self.agent.launch(spec, lambda _: shown.callback(None)))
        await shown
        await self.agent.stop(spec.id)
        await self._test.assertFailure(starting, Cancelled)
        await self.nothing_left()

    async def test_cancelled_start_leaves_a_job_that_can_be_stopped(self) -> None:
        for moments in (0.0, 0.03, 0.1):
            spec = self.spec(shell("exec sleep 60", ready=Ready.WINDOW))
            starting = Deferred.fromCoroutine(self.agent.launch(spec, lambda _: None))
            await leftovers.pause(moments)
            starting.cancel()
            await self._test.assertFailure(starting, CancelledError)
            await self.agent.stop(spec.id)
            await self.nothing_left()

    async def test_sweep_removes_what_ended_and_leaves_what_runs(self) -> None:
        _, job = await self.launch(MESSAGE)
        ended = self.spec(shell("exit 1", ready=Ready.WINDOW))
        await self.refused(ended, JobFailed)
        removed = await self.swept()
        self._test.assertEqual(len(removed), 1, removed)
        self._test.assertIn(ended.id, removed[0])
        self._test.assertIn("exit status 1", removed[0])
        self._test.assertEqual(await self.agent.jobs(), [job])
        self._test.assertEqual(await self.swept(), [])

    async def test_killed_keeper(self) -> None:
        """What it kept dies with it; the watch tells, and a stop or a sweep finds what is left."""

        for cleaner in ("stop", "sweep"):
            spec, _ = await self.launch(MESSAGE, shell("setsid sh -c 'trap \"\" TERM HUP; sleep 90 & wait'"))
            os.kill(int(self.state(spec)["keeper"].split(":")[1]), signal.SIGKILL)
            self._test.assertIn("keeper", (await self.endings.of(spec.id)).reason)
            await leftovers.until_none(lambda spec=spec: self.inside(spec))
            if cleaner == "stop":
                await self.agent.stop(spec.id)
                self._test.assertEqual(self.inside(spec), {})
            else:
                removed = await self.agent.sweep()
                self._test.assertTrue(any(spec.id in words for words in removed), removed)
            await self.nothing_left()
            again, _ = await self.launch(display=spec.display)
            await self.agent.stop(again.id)

    async def test_job_outlives_who_asked_for_it(self) -> None:
        """The daemon may die in the middle of a start: the job comes to be all the same."""

        spec = self.spec(MESSAGE)
        starting = Deferred.fromCoroutine(self.agent.launch(spec, lambda _: starting.cancel()))
        await self._test.assertFailure(starting, CancelledError)
        while not any(job.id == spec.id and job.running for job in await self.agent.jobs()):
            await leftovers.pause(0.02)
        while "xmessage" not in " ".join(self.inside(spec).values()):
            await leftovers.pause(0.02)
