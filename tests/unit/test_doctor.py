"""The doctor's steps, and trials on a fake agent: whatever becomes of them, nothing of them stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.console.displays import DisplayPool
from ipmiproxyd.doctor import machine, traces
from ipmiproxyd.doctor.doctor import LIMIT, Doctor, DoctorRooms
from ipmiproxyd.doctor.trial import CAUSES, ENDING, GIVE_BACK_LIMIT, TrialRooms, Trials, failed
from ipmiproxyd.errors import AgentUnreachable, BmcUnreachable, JobFailed, ToolMissing
from ipmiproxyd.interfaces import VncServer
from ipmiproxyd.model import Command, Job, JobSpec, JobStage, Outcome
from ipmiproxyd.tools.browser import PanelBrowser
from ipmiproxyd.tools.java_profiles import Java
from ipmiproxyd.tools.xvnc import Display
from ipmiproxyd.wire.rfb_area import Area, AreaError
from tests.support.control_fakes import console
from tests.support.fake_rooms import FakeAgent


class Patient(FakeAgent):
    """Runs programs on this machine. ``check_error`` is raised by its check, ``gone`` is what becomes of jobs;
    if ``is_broken``, it has no Python;
    ``meanwhile`` happens while its jobs are asked for; ``wide_error`` is raised for jobs that have a fence with
    something to be reached."""

    kind = "local"
    python = "/usr/bin/python3"
    place = folder = host = ""

    def __init__(self) -> None:
        super().__init__()
        self.facts: Mapping[str, Any] = {"jobs": "/nowhere", "own_users": True}
        self.check_error: Exception | None = None
        self.gone = ""
        self.is_broken = False
        self.wide_error: Exception | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    async def run(self, command: Command) -> Outcome:
        if self.is_broken:
            return Outcome(status=1, stderr=b"no Python here")
        argv = [sys.executable, *command.argv[1:]]
        done = subprocess.run(argv, input=command.stdin, capture_output=True, check=False)
        return Outcome(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        job = await super().launch(spec, on_stage)
        if spec.reach and self.wide_error is not None:
            raise self.wide_error
        return job

    async def jobs(self) -> list[Job]:
        self.meanwhile()
        return [Job(**{**_members(job), "running": not self.gone, "reason": self.gone}) for job in await super().jobs()]

    async def check(self) -> Sequence[Finding]:
        if self.check_error is not None:
            raise self.check_error
        return [Finding("host", "ok", "It is here.")]

    def describe(self) -> Mapping[str, Any]:
        return {}

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def repair(self) -> Finding | None: ...


def _members(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in ("id", "display", "vnc", "user", "log")}


class TrialTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = Patient()
        self.pool = DisplayPool(1, 3, self.clock)
        self.seen: Callable[[VncServer, int], Deferred[None] | None] = lambda _server, _colour: None
        self.trials = self.make()

    def make(self, chromium: str = "chromium") -> Trials:
        rooms = TrialRooms(
            displays={"local": self.pool},
            display=Display(),
            browser=PanelBrowser(program=chromium),
            chromium=chromium,
            shows=self._shows,
            clock=self.clock,
        )
        return Trials(rooms)

    async def _shows(self, server: VncServer, colour: int, _limit: float) -> None:
        self.clock.advance(0.25)
        waiting = self.seen(server, colour)
        if waiting is not None:
            await waiting

    def begin(self) -> Deferred[Finding]:
        async def tried() -> Finding:
            (found,) = await self.trials.of_display(self.agent)
            return found

        return Deferred.fromCoroutine(tried())

    def nothing_stays(self) -> None:
        self.assertEqual((self.pool.in_use, self.trials.jobs), (0, set()))
        self.assertEqual(self.agent.running, {})

    def test_what_is_seen(self) -> None:
        found = self.successResultOf(self.begin())
        self.assertEqual((found.level, found.ms), ("ok", 250))
        self.assertIn("Xvnc after 0.00 s, openbox after 0.00 s, program after 0.00 s; seen after 0.25 s", found.words)
        found = self.successResultOf(Deferred.fromCoroutine(self.trials.of_browser(self.agent)))
        self.assertEqual(found.level, "ok")
        names = [program.name for program in self.agent.launched[-1].programs]
        self.assertEqual(names, ["Xvnc", "openbox", "page", "Chromium"])
        self.nothing_stays()

    def test_no_display(self) -> None:
        """The last one is for consoles."""

        for number in (1, 2):
            self.pool.take(f"c{number}")
        found = self.successResultOf(self.begin())
        self.assertEqual((found.level, self.agent.launched), ("warning", []))
        self.assertIn("Nothing was tried: Only one display of this agent is free", found.words)
        self.pool.take("c3")
        self.assertIn("All 3 displays of this agent are in use", self.successResultOf(self.begin()).words)

    def test_a_single_display(self) -> None:
        self.pool = DisplayPool(1, 1, self.clock)
        self.trials = self.make()
        self.assertEqual(self.successResultOf(self.begin()).level, "ok")
        self.pool.take("c1")
        self.assertIn("All 1 displays of this agent are in use", self.successResultOf(self.begin()).words)

    def test_displays_of_others(self) -> None:
        self.agent.foreign = {1}
        self.assertEqual(self.successResultOf(self.begin()).level, "ok")
        self.assertEqual([spec.display for spec in self.agent.launched], [1, 2])
        self.agent.foreign = {3}
        self.assertIn("Nothing was tried", self.successResultOf(self.begin()).words)
        self.nothing_stays()

    def test_direct(self) -> None:
        self.agent.is_direct = True
        servers: list[VncServer] = []
        self.seen = lambda server, _colour: servers.append(server)
        self.assertEqual(self.successResultOf(self.begin()).level, "ok")
        self.assertTrue(servers[0].fingerprint and servers[0].password)
        self.assertEqual(self.agent.launched[0].vnc, "direct")

    def test_failures(self) -> None:
        self.agent.launch_error = JobFailed("Xvnc ended by itself (exit status 1): no room.")
        found = self.successResultOf(self.begin())
        self.assertEqual(found.level, "fault")
        self.assertIn("no room", found.words)
        self.agent.launch_error = None

        def lost(_server: VncServer, _colour: int) -> None:
            raise BmcUnreachable("The VNC server cannot be reached.")

        self.seen = lost
        trying = self.begin()
        self.clock.pump(ENDING)
        self.assertIn("cannot be reached", self.successResultOf(trying).words)
        trying = self.begin()
        self.clock.advance(0)
        self.agent.gone = "program was killed by signal 9"  # after its screen
        self.clock.pump(ENDING)
        self.assertIn("killed by signal 9", self.successResultOf(trying).words)
        self.nothing_stays()
        self.assertEqual(len(self.agent.stopped), 3)

    def test_no_wide_fence(self) -> None:
        """Boards of known families need none."""

        said = "The network fence cannot be made: [Errno 30] Read-only file system: "
        said += "'/proc/sys/net/ipv4/ip_local_port_range' (the agent has it read-only, as a container may)."
        for words, advice in ((said, "container"), ("nftables (nft) is not installed on the agent.", "nftables")):
            self.agent.wide_error = JobFailed(words)
            wide, usual = self.successResultOf(Deferred.fromCoroutine(self.trials.of_display(self.agent)))
            self.assertEqual((wide.level, usual.level), ("fault", "ok"))
            self.assertIn("any port (vendor=generic) cannot be fenced in", wide.words)
            self.assertIn(advice, wide.advice)
            self.nothing_stays()

    def test_causes(self) -> None:
        for said, words in (
            ("Chromium ended: FATAL: No usable sandbox!", "no sandbox"),
            ("The sandbox ended: bwrap: unshare user ns: No space left on device", "fenced in"),
            ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "no /proc of their own"),
            ("/usr/bin/chromium: 9: exec: /usr/lib/chromium/chromium: Permission denied", "cannot be executed"),
            ("java: error while loading shared libraries: libXtst.so", "A library"),
            ("The console ran out of its memory (2048 MiB)", "memory was not enough"),
            ("page ended: The browser runs without its sandbox: --no-sandbox is among its options.", "switched off"),
            ("Xvnc ended by itself: Fatal server error: could not open default font 'fixed'", "no font"),
            ("java.lang.Error: Probable fatal error:No fonts found.", "no font"),
        ):
            found = failed("trial-browser", JobFailed(said))
            self.assertIn(words, found.words)
            self.assertIn(said, found.words)
            self.assertIn(found.advice, [cause.advice for cause in CAUSES])

    def test_causes_that_are_none(self) -> None:
        for said in ("Illegal instruction, no font in here", "Fontconfig error: No writable cache directories"):
            self.assertIn("It does not work: ", failed("trial-browser", JobFailed(said)).words)

    def test_a_browser_without_its_sandbox(self) -> None:
        found = self.successResultOf(Deferred.fromCoroutine(self.make("chromium --no-sandbox").of_browser(self.agent)))
        self.assertEqual((found.level, self.agent.launched), ("fault", []))

    def test_cancelled(self) -> None:
        """At any moment; whoever cancels waits until it is given back."""

        self.agent.gate = Deferred()
        starting = self.begin()
        self.agent.stop_gate = Deferred()
        starting.cancel()
        self.assertNoResult(starting)
        self.agent.stop_gate.callback(None)
        self.failureResultOf(starting, CancelledError)
        self.nothing_stays()
        self.agent.gate = self.agent.stop_gate = None
        self.seen = lambda _server, _colour: Deferred()
        looking = self.begin()
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.nothing_stays()

    def test_a_trial_that_cannot_be_ended(self) -> None:
        self.agent.stop_errors = [AgentUnreachable("It is away.")]
        self.assertEqual(self.successResultOf(self.begin()).level, "ok")
        self.assertEqual((self.pool.in_use, self.trials.jobs), (0, set()))
        self.agent.stop_gate = Deferred()
        ending = self.begin()
        self.clock.advance(GIVE_BACK_LIMIT)
        self.assertEqual(self.successResultOf(ending).level, "ok")
        self.assertEqual(self.pool.in_use, 0)


class Javas:
    """``error`` is raised; ``chosen`` by java use."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.words = self.chosen = ""
        self.gate: Deferred[None] | None = None

    async def installed(self, _agent: Any) -> list[Java]:
        if self.gate is not None:
            await self.gate
        if self.error is not None:
            raise self.error
        return [Java(name="debian_17", home="/usr/lib/jvm/x", version="17.0.1")]

    async def choice(self, _agent: Any, installed: Sequence[Java]) -> tuple[Java, str]:
        return installed[0], self.words

    async def used(self, _agent: Any) -> str:
        return self.chosen


class ExaminationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = Patient()
        self.javas = Javas()
        self.told: list[Mapping[str, Any]] = []
        self.consoles = [console(1)]
        pool = DisplayPool(1, 1, self.clock)
        rooms = TrialRooms(
            displays={"local": pool},
            display=Display(),
            browser=PanelBrowser(),
            chromium="chromium",
            shows=self._shows,
            clock=self.clock,
        )
        self.trials = Trials(rooms)
        self.doctor = Doctor(
            DoctorRooms(
                trials=self.trials,
                bmc=cast(Any, None),
                javas=cast(Any, self.javas),
                programs=lambda browser: {"work": ("sh", "no-such-program-here"), "play": ("sh", browser)},
                displays=range(1, 3),
                prefix="easydcim_vnc_",
                consoles=lambda: list(self.consoles),
                reactor=self.clock,
            )
        )

    async def _shows(self, *_: Any) -> None: ...

    def begin(self, *, trial: bool = False) -> Deferred[dict[str, Finding]]:
        async def examined() -> dict[str, Finding]:
            found = await self.doctor.examine(
                cast(Any, self.agent), device=None, trial=trial, progress=self.told.append
            )
            return {finding.what: finding for finding in found}

        self.patch(sys.modules["ipmiproxyd.doctor.doctor"], "deferToThread", lambda call: _now(call()))
        return Deferred.fromCoroutine(examined())

    def test_findings_and_progress(self) -> None:
        self.clock.advance(_real_time() + 90)
        found = self.successResultOf(self.begin(trial=True))
        self.assertIn("no-such-program-here is not installed: work will not work.", found["programs"].words)
        self.assertRegex(found["clock"].words, r"^Its clock is (8\d|90) s behind ours")
        self.assertEqual(found["clock"].level, "warning")
        self.assertEqual((found["namespaces"].level, found["java"].level), ("ok", "ok"))
        self.assertEqual((found["trial-display"].level, found["trial-browser"].level), ("ok", "ok"))
        stages = [one["stage"] for one in self.told]
        self.assertEqual(stages, ["agent", "around", "java", "trial-display", "trial-browser"])
        self.assertTrue(all(one["text"] and one["ms"] >= 0 for one in self.told))

    def test_the_browser_is_the_agent_s_own_affair(self) -> None:
        self.agent.browser = "none"
        found = self.successResultOf(self.begin(trial=True))
        self.assertEqual((found["browser"].level, found["trial-display"].level), ("ok", "ok"))
        self.assertIn("None, as is set", found["browser"].words)
        self.assertNotIn("trial-browser", found)
        self.agent.browser = "brave-browser"
        found = self.successResultOf(self.begin(trial=True))
        self.assertEqual(found["browser"].words, "Panels are shown in brave-browser, which is untested.")
        self.assertIn("brave-browser is not installed: play will not work.", found["programs"].words)
        self.assertEqual(self.agent.launched[-1].programs[-1].name, "brave-browser")

    def test_whatever_becomes_of_one_the_others_are_made(self) -> None:
        self.javas.error = RuntimeError("a mistake of ours")
        self.agent.is_broken = True
        found = self.successResultOf(self.begin(trial=True))
        self.assertEqual({what: one.level for what, one in found.items()}, {
            "host": "ok", "around": "fault", "java": "fault", "trial-display": "ok", "trial-browser": "ok",
        })  # fmt: skip
        self.assertIn("internal error", found["java"].words)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.javas.error = ToolMissing("No Java is installed.", hint="Install one.")
        found = self.successResultOf(self.begin())
        self.assertEqual((found["java"].level, found["java"].advice), ("fault", "Install one."))

    def test_time_limits(self) -> None:
        self.javas.gate = Deferred(lambda _: self.clock.advance(LIMIT))
        examining = self.begin(trial=True)
        self.clock.advance(15)
        found = self.successResultOf(examining)
        self.assertIn("It took longer than 15 s", found["java"].words)
        self.assertIn("were not enough for all", found["trial-display"].words)
        self.assertEqual(self.agent.launched, [])

    def test_what_stands_in_the_way_of_all(self) -> None:
        self.agent.check_error = AgentUnreachable("It is away.")
        self.failureResultOf(self.begin(), AgentUnreachable)

    def test_cancelled(self) -> None:
        self.javas.gate = Deferred()
        examining = self.begin()
        examining.cancel()
        self.failureResultOf(examining, CancelledError)

    def test_jobs_of_nobody(self) -> None:
        for name in ("c1", "c1-2", "trialx", "stranger"):
            self.agent.running[name] = Job(
                id=name, display=1, running=True, vnc=cast(Any, None), user="", log=""
            )
        self.trials.jobs.add("trialx")
        found = self.successResultOf(self.begin())["leftovers"]
        self.assertIn("belong to no console: stranger.", found.words)

    def test_a_console_that_closes_meanwhile(self) -> None:
        """And one that opens: their jobs are nobody's neither before nor after."""

        def meanwhile() -> None:
            self.consoles[:] = [console(2)]
            self.trials.jobs.clear()

        for name in ("c1", "c2", "trialx"):
            self.agent.running[name] = Job(
                id=name, display=1, running=True, vnc=cast(Any, None), user="", log=""
            )
        self.trials.jobs.add("trialx")
        self.agent.meanwhile = meanwhile
        found = self.successResultOf(self.begin())["leftovers"]
        self.assertEqual(found.level, "ok", found)
        self.assertEqual([one.id for one in self.consoles], ["c2"])

    def test_a_java_that_was_chosen_and_is_missing(self) -> None:
        self.javas.words = "jdk_8u121 is not installed on the agent: debian_17 is used."
        self.assertEqual(self.successResultOf(self.begin())["java"].level, "ok")
        self.javas.chosen = "jdk_8u121"
        self.assertEqual(self.successResultOf(self.begin())["java"].level, "warning")


def _now(value: Any) -> Deferred[Any]:
    done: Deferred[Any] = Deferred()
    done.callback(value)
    return done


def _real_time() -> float:
    import time

    return time.time()


class WordsTests(SynchronousTestCase):
    def level(self, findings: Sequence[Finding], level: str, *words: str) -> None:
        (found,) = findings
        self.assertEqual(found.level, level, found)
        for part in words:
            self.assertIn(part, found.sentences)

    def test_systems(self) -> None:
        about = {"kernel": "6.1", "machine": "x86_64", "processors": 2, "python": [3, 11, 2]}
        known, other = {"id": "debian", "version": "12", "name": "Debian 12"}, {"id": "arch", "version": "", "name": ""}
        self.level(machine.system({**known, **about}), "ok", "Python 3.11.2")
        yet = "known to work: Debian 11, 12, 13. Written for, and tried by nobody yet: Ubuntu 22.04, 24.04."
        self.level(machine.system({**other, **about}), "warning", yet)
        ubuntu = {"id": "ubuntu", "version": "24.04", "name": "Ubuntu 24.04.1 LTS"}
        self.level(machine.system({**ubuntu, **about}), "warning", "Agents are written for it, and nobody has tried")

    def test_programs(self) -> None:
        wanted = {"consoles": ("chromium", "Xvnc")}
        versions = {"chromium": "1:120.0.1-1~deb12u1"}
        well: dict[str, Any] = {"missing": [], "closed": {}, "outside": {}}
        self.level(machine.programs(wanted, well, versions), "ok", "chromium 120.0.1, Xvnc.")
        missing = well | {"missing": ["chromium"]}
        self.level(machine.programs(wanted, missing, {}), "fault", "is not installed: consoles", "install --no-install")
        again = "install --reinstall --no-install-recommends chromium"
        self.level(machine.programs(wanted, missing, versions), "fault", "its package chromium is installed", again)
        closed = missing | {"closed": {"chromium": "/usr/bin/chromium"}}
        self.level(machine.programs(wanted, closed, versions), "fault", "(/usr/bin/chromium), but cannot be", again)
        self.level(machine.fonts(0, {machine.FONTS: "2"}), "fault", "--reinstall")
        outside = well | {"outside": {"chromium": "/snap/bin/chromium"}}
        self.level(machine.programs(wanted, outside, {}), "fault", "/snap/bin/chromium", "no console sees it")

    def test_namespaces(self) -> None:
        for settings, words in (
            ({"kernel.unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone=1 into"),
            ({"kernel.apparmor_restrict_unprivileged_userns": "1"}, "kernel.apparmor_restrict_unprivileged_userns=0"),
            ({"user.max_user_namespaces": "0"}, "user.max_user_namespaces=10000"),
            ({"user.max_user_namespaces": "9999"}, "a security module"),
        ):
            self.level(machine.namespaces({"problem": "No", "settings": settings}), "fault", words)
        well = {"problem": "", "settings": {}, "proc": "", "fixed": False}
        self.level(machine.namespaces(well), "ok")
        self.level(machine.namespaces(well | {"proc": "No"}), "fault", "no /proc of their own", "container")
        self.level(machine.namespaces(well | {"fixed": True}), "fault", "/proc/sys/net is read-only", "container")

    def test_memory_and_disks(self) -> None:
        self.level(machine.memory({"all": 8 << 30, "free": 100 << 20}), "warning", "100 of 8192 MiB")
        disk = {"path": "/run", "what": ["jobs"], "free": 1 << 30, "read_only": False, "files": 100}
        self.level(machine.disks([disk]), "ok", "1024 MiB at /run")
        for change, level, words in (
            ({"free": 4 << 10}, "fault", "is full: 4 KiB"),
            ({"free": 4 << 20}, "warning", "almost full: 4 MiB"),
            ({"files": 3}, "fault", "no room for further files"),
            ({"read_only": True}, "fault", "can only be read"),
            ({"what": ["programs"], "free": 0}, "warning", "is full"),
        ):
            self.level(machine.disks([disk | cast(Any, change)]), level, words)

    def test_clock(self) -> None:
        self.level(machine.clock(100.0, 95.0, 96.0), "ok")
        self.level(machine.clock(100.0, 60.0, 61.0), "warning", "39 s ahead of ours")

    def test_users_and_traces(self) -> None:
        self.level(traces.users({"ours": 3, "foreign": ["x3"]}, [1, 2, 3]), "warning", "x3")
        self.level(traces.users({"ours": 0, "foreign": ["x1"]}, [1]), "fault")
        self.level(traces.users({"ours": 1, "foreign": []}, [1]), "ok", "1 Unix user for displays is there")
        self.level(traces.users({"ours": 400, "foreign": []}, [1]), "warning", "no more are made")
        found = traces.leftovers("east", ["a"], ["b"], {"x1": 2})
        self.assertEqual([one.level for one in found], 3 * ["warning"])
        self.assertTrue(all("agent check name=east fix=yes" in one.advice for one in found), found)

    def test_firewall(self) -> None:
        none: dict[str, Any] = {"file": False, "open": [], "force": ""}
        self.level(traces.firewall(none, knock="", is_direct=False), "ok", "UNIX sockets")
        self.level(traces.firewall(none, knock="", is_direct=True), "ok", "TLS")
        self.level(traces.firewall(none | {"open": [5901]}, knock="", is_direct=False), "warning", "5901")
        there = none | {"file": True}
        self.level(traces.firewall(there | {"force": "no"}, knock="", is_direct=False), "warning", "but not in force")
        self.level(traces.firewall(there | {"force": "yes"}, knock="", is_direct=False), "ok", "are loaded")
        self.level(traces.firewall(there, knock="answered", is_direct=False), "warning", "seem not to be in force")
        self.level(traces.firewall(there, knock="", is_direct=False), "ok", "only root there can tell")
        silent = "only root there can tell whether they are loaded. From the daemon's host nobody reaches"
        self.level(traces.firewall(there, knock="silent", is_direct=False), "ok", silent)


class AreaTests(SynchronousTestCase):
    INIT = (64).to_bytes(2, "big") + (48).to_bytes(2, "big") + bytes(20)

    def rectangle(self, x: int, y: int, width: int, height: int, colour: int, encoding: int = 0) -> bytes:
        place = b"".join(value.to_bytes(2, "big") for value in (x, y, width, height))
        return place + encoding.to_bytes(4, "big") + width * height * colour.to_bytes(4, "little")

    def update(self, *rectangles: bytes) -> bytes:
        return b"\0\0" + len(rectangles).to_bytes(2, "big") + b"".join(rectangles)

    def test_in_pieces(self) -> None:
        area = Area(self.INIT)
        self.assertEqual(area.greeting[-10:].hex(), "0300000c000800100010")
        halves = self.rectangle(12, 8, 16, 8, 0x123456), self.rectangle(0, 16, 64, 8, 0x123456)
        said = b""
        stream = b"\2" + b"\3\0\0\0\0\0\0\2ab" + b"\1\0\0\0\0\1" + bytes(6) + self.update(*halves)
        for at in range(len(stream)):
            self.assertIsNone(area.colour)
            said += area.feed(stream[at : at + 1])
        self.assertEqual((area.colour, said.hex()), (0x123456, "0301000c000800100010"))
        area.feed(self.update(self.rectangle(13, 9, 1, 1, 0xFFFFFF)))
        self.assertIsNone(area.colour)
        area.feed(self.update(self.rectangle(0, 0, 64, 48, 0x000001)))
        self.assertEqual(area.colour, 1)

    def test_what_it_was_not_asked_for(self) -> None:
        for said in (b"\x09", self.update(self.rectangle(0, 0, 1, 1, 0, encoding=7)), b"\3\0\0\0" + b"\xff" * 4):
            with self.assertRaises(AreaError):
                Area(self.INIT).feed(said)
