"""ipmiproxyctl as a program, against a real control socket."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorCore, IReactorProcess, IReactorTime, IReactorUNIX
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ipmiproxyd import __version__
from ipmiproxyd.control.server import ControlServer
from ipmiproxyd.control.view import PlainView
from ipmiproxyd.ctl import BROKEN_OFF, Operator
from tests.support.control_fakes import Fakes, console
from tests.support.scratch import scratch

REPOSITORY = Path(__file__).resolve().parents[2]


class _Reactor(IReactorCore, IReactorProcess, IReactorTime, IReactorUNIX):
    """What these tests need of it."""


reactor: _Reactor = global_reactor  # type: ignore[assignment]


class Program(ProcessProtocol):
    """A running ipmiproxyctl; ``ended`` fires with its exit status."""

    def __init__(self, stdin: bytes | None) -> None:
        self._stdin = stdin
        self._out = b""
        self._err = b""
        self.ended: Deferred[int] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self._stdin is not None:
            self.transport.write(self._stdin)
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._out += data

    def errReceived(self, data: bytes) -> None:
        self._err += data

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.ended.callback(value.exitCode if value.exitCode is not None else -value.signal)

    @property
    def out(self) -> str:
        return self._out.decode()

    @property
    def err(self) -> str:
        return self._err.decode()


class CtlTestCase(TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = scratch(self)
        self.fakes = Fakes()
        self.server = ControlServer(self.fakes.table(), "1.2", reactor, limit=2)
        self.path = self.folder / "control.sock"
        port = await UNIXServerEndpoint(reactor, str(self.path)).listen(self.server)
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.close()))

    def start(
        self, *words: str, stdin: bytes | None = b"", socket: Path | None = None, terminal: bool = False
    ) -> Program:
        program = Program(stdin)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "LANG": "C.UTF-8", "TERM": "xterm"}
        environment["IPMIPROXYD_SOCKET"] = str(socket or self.path)
        argv = [sys.executable, "-m", "ipmiproxyd.ctl", *words]
        process = reactor.spawnProcess(program, sys.executable, argv, environment, str(self.folder), usePTY=terminal)

        def end() -> None:
            try:
                process.signalProcess("KILL")
            except ProcessExitedAlready:
                return

        self.addCleanup(end)
        return program

    async def run_ctl(self, *words: str, stdin: bytes = b"", socket: Path | None = None) -> tuple[int, str, str]:
        program = self.start(*words, stdin=stdin, socket=socket)
        status = await program.ended
        return status, program.out, program.err


class RequestTests(CtlTestCase):
    async def test_table(self) -> None:
        for number in (1, 2):
            self.fakes.consoles.known[f"c{number}"] = console(number)
        status, out, err = await self.run_ctl("console", "list")
        self.assertEqual((status, err), (0, ""))
        head, first, second = out.splitlines()
        self.assertEqual(head.split(), ["CONSOLE", "DEVICE", "TYPE", "USER", "AGENT", "STATE", "VIEWERS", "IDLE"])
        self.assertEqual(first.split()[:7], ["c1", "node17", "panel", "alice", "local", "ready", "1"])
        self.assertEqual(second.split()[0], "c2")

    async def test_facts_and_progress(self) -> None:
        status, out, err = await self.run_ctl("console", "open", "address=10.0.0.9", "user=a b")
        self.assertEqual(status, 0)
        self.assertIn("url: http://gate:6081/#t=c1\n", out)
        self.assertIn("warning: old firmware\n", out)
        self.assertEqual(err, "  0.00 s  Starting the display\n")
        self.assertEqual(self.fakes.consoles.asked[0].user, "a b")

    async def test_faults_that_are_found(self) -> None:
        """Alone and in a script; also after them."""

        for words, stdin in ((("agent", "check", "name=east"), b""), ((), b"agent check name=east\ndevice list\n")):
            status, out, _ = await self.run_ctl(*words, "--json", stdin=stdin)
            self.assertEqual((status, len(json.loads(out.splitlines()[0])["problems"])), (1, 1))

    async def test_json(self) -> None:
        status, out, err = await self.run_ctl("console", "open", "address=10.0.0.9", "--json")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(json.loads(out)["url"], "http://gate:6081/#t=c1")
        self.assertEqual(out.count("\n"), 1)

    async def test_refused(self) -> None:
        status, out, err = await self.run_ctl("device", "show", "name=n9")
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err, "error (not-found): There is no device n9.\nhint: See: device list\n")
        status, out, err = await self.run_ctl("--json", "device", "show", "name=n9")
        self.assertEqual((status, json.loads(out)["code"]), (1, "not-found"))

    async def test_usage(self) -> None:
        for words in (
            ["--nonsense"],
            ["device", "lst"],
            ["device"],
            ["device", "list", "x=1"],
            ["device", "add", "name=n1"],
            ["device", "add", "name=n1", "address=a", "port=x"],
            ["device", "list", "word"],
            ["device", "show", "name=a\nb"],
        ):
            status, out, err = await self.run_ctl(*words)
            self.assertEqual((status, out), (2, ""), words)
            self.assertTrue(err, words)
        self.assertEqual(self.fakes.devices.stored, {})

    async def test_help(self) -> None:
        status, out, _ = await self.run_ctl("help")
        self.assertEqual(status, 0)
        self.assertIn("power cycle", out)
        status, out, _ = await self.run_ctl("help", "console", "open")
        self.assertEqual(status, 0)
        self.assertIn("idle", out)
        self.assertIn("10m", out)
        status, out, _ = await self.run_ctl("--help")
        self.assertEqual(status, 0)
        self.assertIn("exit status:", out)
        status, out, _ = await self.run_ctl("--version")
        self.assertEqual((status, out), (0, f"ipmiproxyctl {__version__}\n"))

    async def test_nobody_there(self) -> None:
        status, out, err = await self.run_ctl("device", "list", socket=self.folder / "none.sock")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("No ipmiproxyd runs here: there is no control socket ", err)
        self.assertIn("hint: Start the daemon whose configuration file names it", err)
        status, _, err = await self.run_ctl("--socket", str(self.folder), "device", "list")
        self.assertEqual(status, 1)
        self.assertIn("No ipmiproxyd runs here: nobody listens at the control socket ", err)

    async def test_no_room(self) -> None:
        self.fakes.consoles.slow = True
        first = self.start("console", "open", "address=a")
        second = self.start("console", "open", "address=b")
        while len(self.fakes.consoles.waiting) < 2:
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.01, pause.callback, None)
            await pause
        status, out, err = await self.run_ctl("device", "list")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("error (limit): ", err)
        self.fakes.consoles.finish()
        self.fakes.consoles.finish()
        self.assertEqual([await first.ended, await second.ended], [0, 0])

    async def test_the_daemon_stops_meanwhile(self) -> None:
        self.fakes.consoles.slow = True
        program = self.start("console", "open", "address=a")
        await self.fakes.consoles.when_asked
        await self.server.close()
        self.assertEqual(await program.ended, 1)
        self.assertIn("error (cancelled): ", program.err)

    async def test_interrupt_cancels(self) -> None:
        self.fakes.consoles.slow = True
        program = self.start("console", "open", "address=a")
        await self.fakes.consoles.when_asked
        assert program.transport is not None
        program.transport.signalProcess("INT")
        await self.fakes.consoles.when_cancelled
        self.assertEqual((await program.ended, program.err), (130, f"{BROKEN_OFF}\n"))

    def test_interrupt_says_what_goes_on(self) -> None:
        class Broken:
            def request(self, _: bytes, heard: Callable[[Mapping[str, Any]], None]) -> None:
                for told in ({"text": "Looking", "broken_off": "The host goes on."}, {"text": "Unpacking"}):
                    heard(told)
                raise KeyboardInterrupt

        err = io.StringIO()
        talk: Any = Broken()
        operator = Operator(talk, PlainView(io.StringIO(), err), str)
        self.assertRaises(KeyboardInterrupt, operator.run, ["agent", "provision"])
        self.assertEqual(err.getvalue(), "Looking\nUnpacking\nBroken off. The host goes on.\n")

    async def test_on_a_terminal(self) -> None:
        self.fakes.consoles.known["c1"] = console(1, device="[bold]n1")
        program = self.start("console", "list", stdin=None, terminal=True)
        self.assertEqual(await program.ended, 0)
        self.assertIn("[bold]n1", program.out)
        self.assertIn("\x1b[", program.out)

    async def test_without_words_on_a_terminal(self) -> None:
        program = self.start(stdin=None, terminal=True)
        self.assertEqual(await program.ended, 2)
        self.assertIn("exit status:", program.out)

    async def test_it_starts_without_twisted(self) -> None:
        script = (
            "import sys, ipmiproxyd.ctl; sys.exit(any(m.split('.')[0] in ('twisted', 'rich') for m in sys.modules))"
        )
        program = Program(b"")
        reactor.spawnProcess(
            program, sys.executable, [sys.executable, "-c", script], {"PYTHONPATH": str(REPOSITORY)}, str(self.folder)
        )
        self.assertEqual(await program.ended, 0, program.err)


class SecretTests(CtlTestCase):
    def password(self) -> str:
        return self.fakes.devices.stored["n1"].password.reveal()

    async def add(self, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        return await self.run_ctl("device", "add", "name=n1", "address=a", *words, stdin=stdin)

    async def test_from_standard_input(self) -> None:
        status, _, err = await self.add("password=-", "web-password=-", "notes=-", stdin=b"hunter2 '\"\\\r\nother\n")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.password(), "hunter2 '\"\\")
        self.assertEqual(self.fakes.devices.stored["n1"].web_password.reveal(), "other")
        self.assertEqual(self.fakes.devices.stored["n1"].notes, "-")

    async def test_standard_input_is_empty(self) -> None:
        status, _, err = await self.add("password=-")
        self.assertEqual((status, self.fakes.devices.stored), (2, {}))
        self.assertIn("no line for password=", err)

    async def test_from_a_file(self) -> None:
        (self.folder / "secret").write_text("hunter2\n")
        status, _, _ = await self.add("password=@secret", "location=@secret")
        self.assertEqual((status, self.password()), (0, "hunter2"))
        self.assertEqual(self.fakes.devices.stored["n1"].location, "@secret")

    async def test_from_a_file_that_is_not_there(self) -> None:
        status, _, err = await self.add("password=@none")
        self.assertEqual((status, self.fakes.devices.stored), (2, {}))
        self.assertIn("the file for password= cannot be read: No such file", err)

    async def test_asked_for_on_a_terminal(self) -> None:
        program = self.start("device", "add", "name=n1", "address=a", "password=-", stdin=None, terminal=True)
        prompted: Deferred[None] = Deferred()
        receive = program.outReceived

        def received(data: bytes) -> None:
            receive(data)
            if "password: " in program.out and not prompted.called:
                prompted.callback(None)

        program.outReceived = received  # type: ignore[method-assign]
        await prompted
        assert program.transport is not None
        program.transport.write(b"hunter2\n")
        self.assertEqual(await program.ended, 0)
        self.assertEqual(self.password(), "hunter2")
        self.assertNotIn("hunter2", program.out)


class ScriptTests(CtlTestCase):
    async def script(self, text: bytes, *words: str) -> tuple[int, str, str]:
        return await self.run_ctl(*words, stdin=text)

    async def test_all_done(self) -> None:
        status, out, err = await self.script(
            b"# devices\n\ndevice add name=n1 address=a password='p w' notes=\"x\"\r\n  # more\ndevice list"
        )
        self.assertEqual((status, err), (0, ""))
        self.assertIn("password: set\n", out)
        self.assertIn("NAME", out)
        self.assertEqual(self.fakes.devices.stored["n1"].password.reveal(), "p w")

    async def test_a_refusal_is_told_at_the_end_and_does_not_stop_it(self) -> None:
        status, out, err = await self.script(
            b"device show name=n9\nnonsense\ndevice add name='\n\xff\ndevice add name=n1 address=a\n", "--json"
        )
        self.assertEqual(status, 1)
        codes = [json.loads(line).get("code") for line in out.splitlines()]
        self.assertEqual(codes, ["not-found", "unknown-command", "bad-request", "bad-request", None])
        self.assertEqual(err.count("error ("), 4)
        self.assertIn("n1", self.fakes.devices.stored)

    async def test_quit_ends_it(self) -> None:
        status, out, _ = await self.script(b"quit\ndevice add name=n1 address=a\n", "--json")
        self.assertEqual((status, out), (0, "{}\n"))
        self.assertEqual(self.fakes.devices.stored, {})

    async def test_secrets_come_from_files(self) -> None:
        (self.folder / "secret").write_text("hunter2\n")
        status, _, _ = await self.script(b"device add name=n1 address=a password=@secret\n")
        self.assertEqual((status, self.fakes.devices.stored["n1"].password.reveal()), (0, "hunter2"))
        status, _, err = await self.script(b"device add name=n2 address=a password=-\n")
        self.assertEqual(status, 2)
        self.assertIn("use password=@FILE", err)

    async def test_a_reader_that_has_gone(self) -> None:
        large: Mapping[str, Any] = {"text": "x" * 300_000}
        self.fakes.daemon.told = large
        program = self.start(stdin=b"daemon status\n" * 10)
        assert program.transport is not None
        program.transport.closeStdout()
        self.assertEqual(await program.ended, 141)
        self.assertEqual(program.err, "")
