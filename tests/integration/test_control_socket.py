"""The control server on a real UNIX socket: pipelines, slow readers, hang-ups, noise."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IReactorCore, IReactorProcess, IReactorTime, IReactorUNIX
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from ipmiproxyd.control.server import ControlServer, hung_up
from ipmiproxyd.errors import BadRequest
from ipmiproxyd.wire.control import (
    MAX_LINE,
    Line,
    LineSplitter,
    Quit,
    Refused,
    TooLong,
    parse_greeting,
    parse_reply,
    parse_request,
    split_words,
)
from ipmiproxyd.wire.control import Progress as ProgressReply
from tests.support.control_fakes import Fakes
from tests.support.scratch import scratch
from tests.support.wire_client import WireClient


class _Reactor(IReactorCore, IReactorProcess, IReactorTime, IReactorUNIX):
    """What these tests need of it."""


reactor: _Reactor = global_reactor  # type: ignore[assignment]


def exchange(path: Path, sent: bytes, *, half_close: bool = True) -> bytes:
    """Everything that the server says to these bytes. Blocks: for threads."""

    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        if sent:
            client.sendall(sent)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while piece := client.recv(65_536):
            received += piece
        return received


class SocketTestCase(TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.fakes = Fakes()
        self.path = scratch(self) / "control.sock"
        self.when_half_closed: Deferred[None] = Deferred()
        self.server = ControlServer(self.fakes.table(), "1.2", reactor, limit=50, hung_up=self.look)
        port = await UNIXServerEndpoint(reactor, str(self.path)).listen(self.server)
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.close()))

    def look(self, transport: object) -> bool:
        """The server looks for the first time when it is told that the client's side has ended."""

        gone = hung_up(transport)
        if not gone and not self.when_half_closed.called:
            self.when_half_closed.callback(None)
        return gone

    async def connect(self) -> WireClient:
        client = await WireClient.connect(str(self.path))
        self.addCleanup(client.close)
        return client

    async def until_quiet(self) -> None:
        """Until the server has no connection any more."""

        while self.server.connections:
            await deferLater(reactor, 0.005)


class WireTests(SocketTestCase):
    async def test_exact_bytes(self) -> None:
        received = await deferToThread(
            exchange,
            self.path,
            b"# a script\r\n\n"
            b"device add name=n1 address=10.0.0.17 username=ADMIN password='pass word' location=\"Z\xc3\xbcrich\"\n"
            b"device show name=n2\n"
            b"power cycle device=n1 wait=30s\n"
            b"\xff\n"
            b"quit\n"
            b"device list\n",
        )
        self.assertEqual(
            received,
            b"ipmiproxyd 1.2 protocol 1\n"
            b'OK {"name": "n1", "address": "10.0.0.17", "port": 623, "username": "ADMIN", "password": "set", '
            b'"interface": "lanplus", "cipher": "auto", "privilege": "administrator", "kg": "", "web": "", '
            b'"web_username": "", "web_password": "", "web_trust": "pin", "java": "", "vnc": "", "vnc_password": "", '
            b'"vnc_fingerprint": "", "location": "Z\\u00fcrich", "vendor": "auto", "notes": "", "warnings": []}\n'
            b'ERR not-found {"message": "There is no device n2.", "hint": "See: device list"}\n'
            b'.. {"stage": "send", "text": "Sending cycle", "ms": 1}\n'
            b'OK {"device": "n1", "action": "cycle", "power": "on"}\n'
            b'ERR bad-request {"message": "The line is not UTF-8 text."}\n'
            b"OK {}\n",
        )
        self.assertEqual(self.fakes.devices.stored["n1"].password.reveal(), "pass word")

    async def test_a_line_in_single_bytes(self) -> None:
        def slowly() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(str(self.path))
                for byte in b"daemon status\nquit\n":
                    client.send(bytes([byte]))
                return b"".join(iter(lambda: client.recv(65_536), b""))

        received = await deferToThread(slowly)
        self.assertEqual(received, b'ipmiproxyd 1.2 protocol 1\nOK {"version": "9.9", "consoles": 2}\nOK {}\n')

    async def test_longest_line_and_one_more(self) -> None:
        head = b"device show name="
        longest = head + b"x" * (MAX_LINE - len(head))
        received = await deferToThread(exchange, self.path, longest + b"\n" + longest + b"x\r\ndaemon status\n")
        codes = [line.split()[:2] for line in received.splitlines()[1:]]
        self.assertEqual(codes[:2], [[b"ERR", b"bad-value"], [b"ERR", b"bad-request"]])
        self.assertEqual(codes[2][0], b"OK")

    async def test_half_close_while_something_runs(self) -> None:
        self.fakes.consoles.slow = True
        answered = deferToThread(exchange, self.path, b"console open address=bmc\nconsole list\n")
        await self.fakes.consoles.when_asked
        await self.when_half_closed
        self.fakes.consoles.finish()
        received = (await answered).splitlines()
        self.assertEqual([line.split()[0] for line in received[1:]], [b"..", b"OK", b"OK"])

    async def test_words_are_split_as_a_shell_does(self) -> None:
        dice = random.Random(1)
        lines = [" ".join(_word(dice) for _ in range(dice.randint(1, 4))) for _ in range(400)]
        script = "".join(f"printf '%s\\0' {line}\nprintf '\\n\\0'\n" for line in lines)
        out, err, status = await getProcessOutputAndValue("/bin/sh", env={}, stdinBytes=script.encode())
        self.assertEqual((err, status), (b"", 0))
        expected = [group.split("\0")[:-1] for group in out.decode().split("\n\0")[:-1]]
        self.assertEqual([split_words(line) for line in lines], expected)


def _word(dice: random.Random) -> str:
    def any_of(marks: str) -> str:
        return "".join(dice.choice(marks) for _ in range(dice.randint(0, 5)))

    pieces = [
        "a=" + any_of("bé=."),
        "'" + any_of('ab "\\$`#;|') + "'",
        '"' + any_of("ab '#;|") + dice.choice(("", '\\"', "\\\\", "\\$", "\\`", "\\x")) + '"',
        "\\" + dice.choice("ab\"'\\$` #;|"),
    ]
    return "".join(dice.choice(pieces) for _ in range(dice.randint(1, 4)))


class PipelineTests(SocketTestCase):
    async def test_a_thousand_requests_at_once(self) -> None:
        client = await self.connect()
        answers = [client.ask(f"device add name=n{n:03} address=10.0.0.{n % 250}") for n in range(1000)]
        listed = client.must("device list")
        names = [reply.body["name"] for reply in await gatherResults(answers)]
        self.assertEqual(names, [f"n{n:03}" for n in range(1000)])
        self.assertEqual([row["name"] for row in (await listed)["devices"]], names)

    async def test_requests_that_are_never_read_are_not_taken_without_bound(self) -> None:
        self.fakes.consoles.slow = True
        flood, other = socket.socket(socket.AF_UNIX), await self.connect()
        self.addCleanup(flood.close)
        flood.connect(str(self.path))
        flood.setblocking(False)
        flood.send(b"console open address=bmc\n")
        await self.fakes.consoles.when_asked
        block, taken, idle_rounds = b"device list\n" * 5000, 0, 0
        while idle_rounds < 3:
            before = taken
            try:
                while True:
                    taken += flood.send(block)
                    self.assertLess(taken, 4 << 20)
            except BlockingIOError:
                await other.must("device list")
            idle_rounds = idle_rounds + 1 if taken == before else 0
        self.assertGreater(taken, MAX_LINE)

    async def test_a_slow_reader_is_held_back(self) -> None:
        large = {"text": "x" * 500_000}
        begun: list[int] = []
        received: list[int] = []

        async def status() -> Mapping[str, Any]:
            begun.append(1)
            self.assertLessEqual(len(begun) - len(received), 3)
            return large

        self.fakes.daemon.status = status  # type: ignore[method-assign]
        slow, other = await self.connect(), await self.connect()
        slow.transport.pauseProducing()  # type: ignore[union-attr]
        answers = [slow.ask("daemon status") for _ in range(60)]
        for answer in answers:
            answer.addCallback(lambda reply: received.append(len(reply.body["text"])))
        for _ in range(20):
            await other.must("device list")
        self.assertEqual(len(begun), 1)
        slow.transport.resumeProducing()  # type: ignore[union-attr]
        await gatherResults(answers)
        self.assertEqual(received, [500_000] * 60)

    async def test_limit_of_connections(self) -> None:
        clients = [await self.connect() for _ in range(50)]
        refused = await deferToThread(exchange, self.path, b"", half_close=False)
        self.assertTrue(refused.startswith(b'ERR limit {"message": '), refused)
        self.assertEqual(refused.count(b"\n"), 1)
        await clients[0].must("quit")
        await clients[0].lost
        await (await self.connect()).must("device list")


class HangUpTests(SocketTestCase):
    async def opening(self) -> socket.socket:
        self.fakes.consoles.slow = True
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.connect(str(self.path))
        client.send(b"console open address=bmc\nconsole open address=bmc\n")
        await self.fakes.consoles.when_asked
        return client

    async def check_cancelled(self) -> None:
        await self.fakes.consoles.when_cancelled
        await self.until_quiet()
        self.assertEqual((self.fakes.consoles.cancelled, len(self.fakes.consoles.asked)), (1, 1))

    async def test_hang_up(self) -> None:
        (await self.opening()).close()
        await self.check_cancelled()

    async def test_hang_up_after_a_half_close(self) -> None:
        client = await self.opening()
        client.shutdown(socket.SHUT_WR)
        await self.when_half_closed
        self.assertEqual(self.server.connections, 1)
        client.close()
        await self.check_cancelled()

    async def test_hang_up_while_the_server_does_not_read(self) -> None:
        client = await self.opening()
        client.setblocking(False)
        try:
            while True:
                client.send(b"# noise\n" * 4096)
                await deferLater(reactor, 0)
        except BlockingIOError:
            client.close()
        await self.check_cancelled()

    async def test_progress_is_told_while_one_waits(self) -> None:
        def first_lines(client: socket.socket) -> bytes:
            client.settimeout(20)
            received = b""
            while received.count(b"\n") < 2:
                received += client.recv(65_536)
            return received

        client = await self.opening()
        received = await deferToThread(first_lines, client)
        self.assertEqual(received.splitlines()[1], b'.. {"stage": "display", "text": "Starting the display", "ms": 3}')
        self.assertEqual(self.fakes.consoles.known, {})

    async def test_the_daemon_stops(self) -> None:
        self.fakes.consoles.slow = True
        client = await self.connect()
        running, waiting = client.ask("console open address=bmc"), client.ask("device list")
        await self.fakes.consoles.when_asked
        await self.server.close()
        self.assertEqual([(await running).code, (await waiting).code], ["cancelled", "cancelled"])
        await client.lost


REQUESTS = [
    b"",
    b"# comment",
    b"help",
    b"help console open",
    b"device list",
    b"device add name=x address=y password='z'",
    b"device remove name=x",
    b"console open address=a",
    b"console close user=''",
    b"power status address=a username=wrong",
    b"daemon status",
    b"device add name=\xc3",
    b'device add notes="',
]


class NoiseTests(SocketTestCase):
    async def test_noise_gets_answers_and_does_no_harm(self) -> None:
        lines = st.sampled_from(REQUESTS) | st.binary(max_size=60) | st.just(b"x" * (MAX_LINE + 1))

        @settings(deadline=None, max_examples=150, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(lines, max_size=12), st.booleans())
        def talk(lines: list[bytes], ended: bool) -> None:
            sent = b"\n".join(lines) + (b"\n" if ended else b"")
            check_answers(sent, exchange(self.path, sent))

        await deferToThread(talk)
        await self.until_quiet()
        self.assertEqual(await (await self.connect()).must("daemon status"), {"version": "9.9", "consoles": 2})

    async def test_hang_ups_at_any_moment_leave_nothing(self) -> None:
        def talk() -> None:
            dice = random.Random(7)
            script = b"\n".join(REQUESTS) + b"\n"
            for _ in range(150):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(self.path))
                    client.send(script[: dice.randrange(len(script))])
                    if dice.random() < 0.5:
                        client.settimeout(20)
                        client.recv(dice.randrange(1, 200))

        await deferToThread(talk)
        await self.until_quiet()
        self.assertEqual(self.fakes.consoles.waiting, [])


def check_answers(sent: bytes, received: bytes) -> None:
    """There is one answer for each line that asks for one, and nothing else."""

    greeting, *lines = received.removesuffix(b"\n").split(b"\n")
    parse_greeting(greeting)
    replies = [parse_reply(line) for line in lines]
    answers = [reply for reply in replies if not isinstance(reply, ProgressReply)]
    for answer in answers:
        if isinstance(answer, Refused) and answer.code == "internal":
            raise AssertionError(json.dumps(answer.data))
    splitter, expected = LineSplitter(), 0
    splitter.feed(sent)
    splitter.end()
    while (event := splitter.next_event()) is not None:
        try:
            request = parse_request(event.data) if isinstance(event, Line) else TooLong()
        except BadRequest:
            request = TooLong()
        expected += request is not None
        if isinstance(request, Quit):
            break
    if len(answers) != expected:
        raise AssertionError(f"{len(answers)} answers instead of {expected} to {sent!r}: {received!r}")
