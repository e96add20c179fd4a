"""The relay's benchmark: that it would see what goes wrong. What it measures is no test's business."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.relay import load, stream
from benchmarks.relay.cases import CASES, GOALS, MORE_IS_BETTER, Goal, better, holds
from benchmarks.relay.frames import BINARY, CONTINUATION, PING, BadFrame, FrameReader, client_frame
from benchmarks.relay.main import SHEET
from benchmarks.relay.measure import Results
from benchmarks.relay.plot import draw
from benchmarks.relay.relays import OURS, WEBSOCKIFY
from benchmarks.relay.report import rows
from benchmarks.relay.session import Lost, Session, Target

ROOT = Path(__file__).resolve().parents[2]


def server_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def pattern(start: int, size: int) -> bytes:
    at = start % stream.PERIOD
    return bytes(stream.PATTERN[at : at + size])


class FrameTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.heard = bytearray()
        self.controls: list[tuple[int, bytes]] = []
        self.reader = FrameReader(self.take, lambda opcode, payload: self.controls.append((opcode, payload)))

    def take(self, data: bytearray, start: int, end: int) -> None:
        self.heard += data[start:end]

    @given(
        payloads=st.lists(st.sampled_from([0, 1, 125, 126, 65_535, 65_536]), max_size=4),
        cuts=st.lists(st.integers(1, 70_000), min_size=1, max_size=8),
    )
    def test_any_pieces_give_the_same(self, payloads: list[int], cuts: list[int]) -> None:
        self.setUp()
        place, wire = 0, bytearray()
        for size in payloads:
            wire += server_frame(pattern(place, size)) + server_frame(b"are you there?", PING)
            place += size
        start, turn = 0, 0
        while start < len(wire):
            step = min(cuts[turn % len(cuts)], len(wire) - start)
            self.reader.feed(wire, start, start + step)
            start, turn = start + step, turn + 1
        self.assertEqual(bytes(self.heard), b"".join(pattern(sum(payloads[:i]), n) for i, n in enumerate(payloads)))
        self.assertEqual(self.controls, [(PING, b"are you there?")] * len(payloads))

    def test_byte_by_byte(self) -> None:
        wire = bytearray(server_frame(b"x" * 300) + server_frame(b"", CONTINUATION) + server_frame(b"yz"))
        for at in range(len(wire)):
            self.reader.feed(wire, at, at + 1)
        self.assertEqual(bytes(self.heard), b"x" * 300 + b"yz")

    def test_what_a_server_may_not_send(self) -> None:
        for wire in (client_frame(b"masked"), b"\xc2\x00", b"\x83\x00", b"\x89\x7e\x00\x80"):
            self.setUp()
            self.assertRaises(BadFrame, self.reader.feed, bytearray(wire), 0, len(wire))

    def test_a_clients_frame_is_masked(self) -> None:
        for size in (0, 10, 126, 70_000):
            wire = client_frame(pattern(0, size))
            begin = len(wire) - size
            mask = wire[begin - 4 : begin]
            self.assertEqual(bytes(one ^ mask[at % 4] for at, one in enumerate(wire[begin:])), pattern(0, size))


class StreamTests(SynchronousTestCase):
    def test_the_pattern_in_any_pieces(self) -> None:
        checker = stream.Pattern()
        for size in (1, 12, 65_521, stream.LARGEST, 0, 7):
            piece = bytearray(b"before" + pattern(checker.position, size) + b"behind")
            checker.take(piece, 6, 6 + size)
        self.assertEqual(checker.position, 1 + 12 + 65_521 + stream.LARGEST + 7)

    def test_a_flipped_byte_is_seen(self) -> None:
        for wrong in (0, 1, 70_000, 99_999):
            piece = bytearray(pattern(0, 100_000))
            piece[wrong] ^= 1
            error = self.assertRaises(stream.Corrupt, stream.Pattern().take, piece, 0, len(piece))
            self.assertIn(f"byte {wrong} ", str(error))

    def test_lost_and_doubled_bytes_are_seen(self) -> None:
        for shift in (-1, 1, 4096, 65_536, 1 << 18):
            checker = stream.Pattern()
            checker.take(bytearray(pattern(0, 300_000)), 0, 300_000)
            self.assertRaises(stream.Corrupt, checker.take, bytearray(pattern(300_000 + shift, 1000)), 0, 1000)

    @given(st.lists(st.integers(1, 500), min_size=1, max_size=10))
    def test_records_in_any_pieces(self, cuts: list[int]) -> None:
        wire = bytearray()
        for number, size in enumerate((600, 0, 1, 300)):
            wire += stream.RECORD.pack(stream.UPDATE if size else stream.ECHO, number, size)
            wire += pattern(sum((600, 0, 1, 300)[:number]), size)
        told: list[tuple[int, int]] = []
        records = stream.Records(lambda kind, number: told.append((kind, number)))
        start, turn = 0, 0
        while start < len(wire):
            step = min(cuts[turn % len(cuts)], len(wire) - start)
            records.take(wire, start, start + step)
            start, turn = start + step, turn + 1
        self.assertEqual(told, [(stream.UPDATE, 0), (stream.ECHO, 1), (stream.UPDATE, 2), (stream.UPDATE, 3)])

    def test_a_flipped_byte_in_a_record_is_seen(self) -> None:
        wire = bytearray(stream.RECORD.pack(stream.UPDATE, 0, 100) + pattern(0, 100))
        wire[-1] ^= 1
        self.assertRaises(stream.Corrupt, stream.Records(lambda _kind, _number: None).take, wire, 0, len(wire))


class ServerTests(SynchronousTestCase):
    """The load generator against the synthetic server, with no relay between."""

    def setUp(self) -> None:
        command = [sys.executable, "-m", "benchmarks.relay.server"]
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.server = server
        self.addCleanup(self.end)
        assert server.stdout is not None
        self.target = Target(port=int(server.stdout.readline()), pid=os.getpid())

    def end(self) -> None:
        self.server.communicate(timeout=10)

    def test_bulk(self) -> None:
        self.assertGreater(load.bulk(self.target, 3, 6_000_000)["MB/s"], 0)

    def test_round_trips(self) -> None:
        self.assertGreater(load.round_trips(self.target, 2, 0.5)["per s"], 0)

    def test_mixed(self) -> None:
        self.assertGreater(load.mixed(self.target, 2, 0.5)["p50 ms"], 0)

    def test_a_server_that_stalls(self) -> None:
        self.assertGreater(load.stalled_server(self.target, 0.1)["taken MB"], 0)

    def test_the_server_sees_a_wrong_byte(self) -> None:
        session = Session(self.target)
        self.addCleanup(session.close)
        session.say(stream.give(0, 10))
        session.say(stream.give(2, 10))
        session.sock.setblocking(True)
        self.assertRaises((Lost, ConnectionError), self.read_on, session)
        assert self.server.stderr is not None
        self.assertIn("request 2 instead of 1", self.server.stderr.readline())

    def read_on(self, session: Session) -> None:
        while True:
            session.read()

    def test_a_port_where_nobody_is(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        self.assertRaises(ConnectionRefusedError, Session, Target(port=port, pid=0))


class ReportTests(SynchronousTestCase):
    def test_better(self) -> None:
        self.assertEqual(better("CPU s/GB", 0.5, 1.5), 3.0)
        self.assertEqual(better("per s", 600.0, 100.0), 6.0)
        self.assertIsNone(better("base MB", 1.0, 2.0))

    def test_goals(self) -> None:
        ratio = Goal("bulk1", "CPU s/GB", 2.0, ratio=True)
        self.assertIs(holds(ratio, ratio.must, 0.5, 1.5), True)
        self.assertIs(holds(ratio, ratio.must, 1.0, 1.5), False)
        self.assertIsNone(holds(ratio, ratio.must, 1.0, None))
        self.assertIs(holds(Goal("mixed", "p50 ms", 2.0), 2.0, 1.9, None), True)

    def test_every_goal_is_measured(self) -> None:
        for scheme, goals in GOALS.items():
            for goal in goals:
                (case,) = (case for case in CASES if case.key == goal.case)
                self.assertIn(scheme, case.schemes)
        self.assertTrue(MORE_IS_BETTER)

    def test_table_and_plot(self) -> None:
        results = Results()
        for value in (0.4, 0.5, 9.0):
            results.add("plain", "bulk1", OURS, {"CPU s/GB": value})
        results.add("plain", "bulk1", WEBSOCKIFY, {"CPU s/GB": 1.5})
        (row,) = rows(SHEET, results, "plain")
        self.assertEqual(row.cells[:3], ("0.5", "1.5", "–"))
        self.assertEqual((row.ratios, row.holds), (("× 3",), "yes"))
        self.assertIn("</svg>", draw(results, ["plain"]))
