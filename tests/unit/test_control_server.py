"""The control server over transports in memory and a clock that is turned by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.control.arguments import Argument, Text
from ipmiproxyd.control.declare import Call, Command, CommandTable
from ipmiproxyd.control.server import ControlConnection, ControlServer
from ipmiproxyd.errors import NotFound
from ipmiproxyd.interfaces import Progress
from ipmiproxyd.model import Secret
from ipmiproxyd.wire.control import MAX_LINE

TEXT = Argument("text", Text(MAX_LINE), "a text", default="")
GREETING = b"ipmiproxyd 1.2 protocol 1\n"


class Transport(StringTransport):
    """Loses its connection at once when it is asked to, as one with nothing left to send does."""

    protocol: ControlConnection

    def loseConnection(self) -> None:
        super().loseConnection()
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        if not self.disconnected:
            self.disconnected = True
            self.protocol.connectionLost(Failure(ConnectionAborted()))


class Stuck(Transport):
    """Has always something left to send."""

    def loseConnection(self) -> None:
        self.disconnecting = True


class ServerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[str] = []
        self.waiting: list[Deferred[Mapping[str, Any]]] = []
        self.progress: list[Progress] = []
        self.cancelled = 0
        self.gone: set[object] = set()
        table = CommandTable(
            [
                self.command("echo", self.echo),
                self.command("wait", self.wait),
                self.command("refuse", self.refuse),
                self.command("break", self.break_down),
                self.command("leak", self.leak),
            ]
        )
        self.server = ControlServer(
            table, "1.2", self.clock, limit=3, patience=60, grace=5, hung_up=lambda transport: transport in self.gone
        )

    def command(self, verb: str, handler: Callable[[Call], Coroutine[Any, Any, Mapping[str, Any]]]) -> Command:
        return Command(noun="test", verb=verb, summary="", handler=handler, arguments=(TEXT,))

    async def echo(self, call: Call) -> Mapping[str, Any]:
        self.begun.append(call.values[TEXT])
        return {"text": call.values[TEXT]}

    async def wait(self, call: Call) -> Mapping[str, Any]:
        self.begun.append(call.values[TEXT])
        self.progress.append(call.progress)
        self.waiting.append(Deferred())
        try:
            return await self.waiting[-1]
        except CancelledError:
            self.cancelled += 1
            raise

    async def refuse(self, call: Call) -> Mapping[str, Any]:
        raise NotFound("There is none.", hint="See: list")

    async def break_down(self, call: Call) -> Mapping[str, Any]:
        raise RuntimeError("an inner matter")

    async def leak(self, call: Call) -> Mapping[str, Any]:
        return {"password": Secret("hunter2")}

    def connect(self, kind: type[Transport] = Transport) -> Transport:
        transport = kind()
        protocol = self.server.buildProtocol(None)
        assert isinstance(protocol, ControlConnection)
        transport.protocol = protocol
        transport.protocol.makeConnection(transport)
        self.assertEqual(self.take(transport), GREETING)
        return transport

    def take(self, transport: Transport) -> bytes:
        """What was written since the last look."""

        written: bytes = transport.value()
        transport.clear()
        return written


class AnswerTests(ServerTestCase):
    def test_exact_wire_form(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test echo text='a \xc3\xa4'\r\n")
        self.assertEqual(self.take(transport), b'OK {"text": "a \\u00e4"}\n')

    def test_progress_comes_before_the_answer(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\n")
        self.progress[0]({"stage": "one", "ms": 5})
        self.assertEqual(self.take(transport), b'.. {"stage": "one", "ms": 5}\n')
        self.waiting[0].callback({"done": True})
        self.progress[0]({"stage": "too late"})
        self.assertEqual(self.take(transport), b'OK {"done": true}\n')

    def test_in_order(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait text=1\ntest echo text=2\ntest wait text=3\n")
        self.assertEqual((self.take(transport), self.begun), (b"", ["1"]))
        self.waiting[0].callback({"n": 1})
        self.assertEqual(self.take(transport), b'OK {"n": 1}\nOK {"text": "2"}\n')
        self.waiting[1].callback({"n": 3})
        self.assertEqual(self.take(transport), b'OK {"n": 3}\n')

    def test_connections_do_not_wait_for_each_other(self) -> None:
        one, two = self.connect(), self.connect()
        one.protocol.dataReceived(b"test wait\n")
        two.protocol.dataReceived(b"test echo\n")
        self.assertEqual((self.take(one), self.take(two)), (b"", b'OK {"text": ""}\n'))

    def test_nothing_is_answered_to_blank_lines_and_comments(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"\n\r\n  \n# test echo\n   # more\n")
        self.assertEqual(self.take(transport), b"")

    def test_refused(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test refuse\ntest echo\n")
        self.assertEqual(
            self.take(transport),
            b'ERR not-found {"message": "There is none.", "hint": "See: list"}\nOK {"text": ""}\n',
        )

    def test_bad_lines_do_not_end_the_connection(self) -> None:
        for line, words in (
            (b"\xff\xfe", b"UTF-8"),
            (b"x" * (MAX_LINE + 1), b"longer than 65536 bytes"),
            (b"test echo text='a", b"not closed"),
            (b"test echo nonsense", b"key=value"),
        ):
            transport = self.connect()
            transport.protocol.dataReceived(line + b"\ntest echo\n")
            bad, good = self.take(transport).splitlines()
            self.assertTrue(bad.startswith(b'ERR bad-request {"message": '), bad)
            self.assertIn(words, bad)
            self.assertEqual(good, b'OK {"text": ""}')
            transport.protocol.dataReceived(b"quit\n")

    def test_unknown_words(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"tset echo\ntest ecko\ntest echo txt=1\ntest echo text=1 text=2\n")
        answers = [line.split()[1] for line in self.take(transport).splitlines()]
        self.assertEqual(answers, [b"unknown-command", b"unknown-command", b"unknown-argument", b"bad-request"])

    def test_help(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"help\nhelp test\nhelp test echo\nhelp nothing\n")
        self.assertEqual([line.split()[0] for line in self.take(transport).splitlines()], [b"OK", b"OK", b"OK", b"ERR"])

    def test_our_own_fault(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test echo\ntest break\ntest echo\n")
        _, answer, good = self.take(transport).splitlines()
        self.assertTrue(answer.startswith(b"ERR internal {"), answer)
        self.assertNotIn(b"inner matter", answer)
        self.assertIn(b"under control request 1-2.", answer)
        self.assertEqual(good, b'OK {"text": ""}')
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_secret_in_an_answer_does_not_go_out(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test leak\n")
        answer = self.take(transport)
        self.assertTrue(answer.startswith(b"ERR internal {"), answer)
        self.assertNotIn(b"hunter2", answer)
        logged = self.flushLoggedErrors(TypeError)
        self.assertEqual(len(logged), 1)
        self.assertNotIn("hunter2", logged[0].getTraceback())

    def test_many_lines_leave_others_their_turn(self) -> None:
        one, two = self.connect(), self.connect()
        one.protocol.dataReceived(b"test echo text=1\n" * 100)
        two.protocol.dataReceived(b"test echo text=2\n" * 100)
        self.assertEqual(self.begun, ["1"] * 16 + ["2"] * 16)
        self.clock.advance(0)
        self.assertEqual(self.begun[32:64], ["1"] * 16 + ["2"] * 16)
        self.assertEqual(self.take(one), b'OK {"text": "1"}\n' * 100)
        self.assertEqual(self.take(two), b'OK {"text": "2"}\n' * 100)


class EndTests(ServerTestCase):
    def test_quit(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\nquit\ntest echo\n")
        self.assertFalse(transport.disconnecting)
        self.waiting[0].callback({})
        self.assertEqual(self.take(transport), b"OK {}\nOK {}\n")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.server.connections, 0)
        self.assertNotIn("echo", self.begun)

    def test_half_close_answers_what_was_asked(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\ntest echo\n")
        transport.protocol.readConnectionLost()
        self.assertFalse(transport.disconnecting)
        self.waiting[0].callback({})
        self.assertEqual(self.take(transport), b'OK {}\nOK {"text": ""}\n')
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(transport.producer)

    def test_half_close_of_an_idle_connection(self) -> None:
        transport = self.connect()
        transport.protocol.readConnectionLost()
        self.assertTrue(transport.disconnecting)

    def test_half_close_inside_a_line(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test echo text=12")
        transport.protocol.readConnectionLost()
        self.assertTrue(self.take(transport).startswith(b"ERR bad-request {"))
        self.assertEqual(self.begun, [])
        self.assertTrue(transport.disconnecting)

    def test_hang_up_cancels(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait text=1\ntest wait text=2\n")
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.cancelled, self.begun), (1, ["1"]))
        self.assertEqual(self.server.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hang_up_of_both_directions_at_once(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\n")
        self.gone.add(transport)
        transport.protocol.readConnectionLost()
        self.assertEqual(self.cancelled, 1)

    def test_hang_up_after_a_half_close(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\n")
        transport.protocol.readConnectionLost()
        self.clock.advance(0.5)
        self.assertEqual(self.cancelled, 0)
        self.gone.add(transport)
        self.clock.advance(0.5)
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hang_up_while_reading_is_stopped(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\n" + b"#" * (MAX_LINE + 2))
        self.assertEqual(transport.producerState, "paused")
        self.gone.add(transport)
        self.clock.advance(0.5)
        self.assertEqual(self.cancelled, 1)

    def test_no_looks_while_the_reactor_reads(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\n")
        self.gone.add(transport)
        self.clock.advance(0.5)
        self.assertEqual(self.cancelled, 0)

    def test_a_handler_that_cleans_up_is_cancelled_once(self) -> None:
        cleaned: Deferred[None] = Deferred()

        async def slow_to_end(call: Call) -> Mapping[str, Any]:
            try:
                await self.wait(call)
            finally:
                await cleaned
                self.begun.append("cleaned")
            return {}

        self.server.table = CommandTable([self.command("slow", slow_to_end)])
        transport = self.connect()
        transport.protocol.dataReceived(b"test slow\n")
        transport.protocol.stop()
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        cleaned.callback(None)
        self.assertEqual(self.begun, ["", "cleaned"])

    def test_a_client_that_does_not_take_its_last_answer(self) -> None:
        transport = self.connect(Stuck)
        transport.protocol.dataReceived(b"quit\n")
        self.clock.advance(59)
        self.assertEqual(self.server.connections, 1)
        self.clock.advance(1)
        self.assertEqual(self.server.connections, 0)


class PressureTests(ServerTestCase):
    def test_reading_stops_while_much_waits(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\n")
        line = b"test echo text=" + b"x" * 1000 + b"\n"
        fed = 0
        while transport.producerState == "producing":
            transport.protocol.dataReceived(line)
            fed += len(line)
            self.assertLess(fed, 2 * MAX_LINE)
        self.assertGreater(fed, MAX_LINE)
        self.waiting[0].callback({})
        self.assertEqual(transport.producerState, "producing")

    def test_a_slow_reader_gets_one_answer_at_a_time(self) -> None:
        transport = self.connect()
        transport.protocol.pauseProducing()
        transport.protocol.dataReceived(b"test echo text=1\ntest echo text=2\ntest echo text=3\n")
        self.assertEqual(self.begun, ["1"])
        transport.protocol.resumeProducing()
        self.assertEqual(self.begun, ["1", "2", "3"])
        self.assertEqual(self.take(transport).count(b"OK"), 3)

    def test_progress_is_left_out_for_a_slow_reader_but_never_the_answer(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"test wait\n")
        transport.protocol.pauseProducing()
        self.progress[0]({"n": 1})
        self.assertEqual(self.take(transport), b"")
        self.waiting[0].callback({"n": 2})
        self.assertEqual(self.take(transport), b'OK {"n": 2}\n')

    def test_a_client_that_takes_nothing_is_given_up(self) -> None:
        transport = self.connect()
        transport.protocol.pauseProducing()
        transport.protocol.dataReceived(b"test echo\n")
        self.clock.advance(59.9)
        self.assertEqual(self.server.connections, 1)
        self.clock.advance(0.1)
        self.assertEqual(self.server.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_that_takes_it_late_is_kept(self) -> None:
        transport = self.connect()
        transport.protocol.pauseProducing()
        transport.protocol.dataReceived(b"test echo\n")
        self.clock.advance(59)
        transport.protocol.resumeProducing()
        self.clock.advance(100)
        self.assertEqual(self.server.connections, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_limit_of_connections(self) -> None:
        kept = [self.connect() for _ in range(3)]
        refused = StringTransport()
        protocol = cast(ControlConnection, self.server.buildProtocol(None))
        protocol.makeConnection(refused)
        (line,) = refused.value().splitlines()
        self.assertTrue(line.startswith(b'ERR limit {"message": '), line)
        self.assertTrue(refused.disconnecting)
        kept[0].protocol.dataReceived(b"quit\n")
        self.connect()


class CloseTests(ServerTestCase):
    def test_what_runs_and_what_waits_is_answered(self) -> None:
        transport, idle = self.connect(), self.connect()
        transport.protocol.dataReceived(b"test wait\ntest echo text=never\n# a comment\nquit\n")
        closed = Deferred.fromCoroutine(self.server.close())
        self.assertEqual(self.cancelled, 1)
        answers = self.take(transport).splitlines()
        self.assertEqual([line.split()[:2] for line in answers], [[b"ERR", b"cancelled"]] * 3)
        self.assertTrue(transport.disconnecting and idle.disconnecting)
        self.successResultOf(closed)
        self.assertEqual(self.begun, [""])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.server.buildProtocol(None))

    def test_a_request_that_stops_the_server_itself(self) -> None:
        async def stop(call: Call) -> Mapping[str, Any]:
            closed.append(Deferred.fromCoroutine(self.server.close()))
            return await self.wait(call)

        closed: list[Deferred[None]] = []
        self.server.table = CommandTable([self.command("stop", stop)])
        transport = self.connect()
        transport.protocol.dataReceived(b"test stop\n")
        self.assertEqual(self.cancelled, 1)
        self.assertTrue(self.take(transport).startswith(b"ERR cancelled {"))
        self.successResultOf(closed[0])

    def test_without_connections(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.server.close()))

    def test_a_client_that_does_not_take_its_answers(self) -> None:
        transport = self.connect(Stuck)
        transport.protocol.pauseProducing()
        transport.protocol.dataReceived(b"test echo\n")
        closed = Deferred.fromCoroutine(self.server.close())
        self.clock.advance(4.9)
        self.assertNoResult(closed)
        self.clock.advance(0.1)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
