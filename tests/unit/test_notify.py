"""What systemd is told, and when."""

from __future__ import annotations

import os
import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.notify import Heartbeat, Notifier
from tests.support.scratch import scratch


class Ear:
    """systemd's end of the notification socket."""

    def __init__(self, test: SynchronousTestCase, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        test.addCleanup(self._socket.close)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        notes = []
        while True:
            try:
                notes.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return notes


class NotifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.address = str(scratch(self) / "notify")
        self.ear = Ear(self, self.address)

    def test_the_notes(self) -> None:
        notifier = Notifier(self.address)
        notifier.ready()
        notifier.ready("serving")
        notifier.status("3 consoles")
        notifier.alive()
        notifier.stopping("closing 3 consoles")
        self.assertEqual(
            self.ear.heard(),
            [
                "READY=1",
                "READY=1\nSTATUS=serving",
                "STATUS=3 consoles",
                "WATCHDOG=1",
                "STOPPING=1\nSTATUS=closing 3 consoles",
            ],
        )

    def test_a_status_is_one_line(self) -> None:
        Notifier(self.address).status("a\nMAINPID=1\n b")
        self.assertEqual(self.ear.heard(), ["STATUS=a MAINPID=1 b"])

    def test_an_empty_status_is_no_note(self) -> None:
        Notifier(self.address).status("")
        self.assertEqual(self.ear.heard(), [])

    def test_an_abstract_socket(self) -> None:
        address = f"@ipmiproxyd-test-{os.getpid()}-{self.id()}"
        ear = Ear(self, address)
        Notifier(address).ready()
        self.assertEqual(ear.heard(), ["READY=1"])

    def test_without_systemd_nothing_happens(self) -> None:
        notifier = Notifier.from_environment({}, 7)
        for note in (notifier.ready, notifier.stopping, notifier.alive):
            note()
        self.assertIsNone(notifier.watchdog)
        self.assertEqual(self.ear.heard(), [])

    def test_a_socket_that_is_gone_is_no_disaster(self) -> None:
        os.unlink(self.address)
        Notifier(self.address).ready()

    def test_a_full_socket_does_not_block(self) -> None:
        notifier = Notifier(self.address)
        for _ in range(2000):
            notifier.alive()
        self.assertLess(len(self.ear.heard()), 2000)

    def test_the_environment_is_taken_and_not_left_for_children(self) -> None:
        environ = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7", "PATH": "/bin"}
        notifier = Notifier.from_environment(environ, 7)
        notifier.ready()
        self.assertEqual(self.ear.heard(), ["READY=1"])
        self.assertEqual(notifier.watchdog, 30.0)
        self.assertEqual(environ, {"PATH": "/bin"})

    def test_another_process_is_watched(self) -> None:
        environ = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}
        self.assertIsNone(Notifier.from_environment(environ, 7).watchdog)

    def test_a_watchdog_without_a_process_id_is_ours(self) -> None:
        self.assertEqual(Notifier.from_environment({"WATCHDOG_USEC": "500000"}, 7).watchdog, 0.5)

    def test_a_period_that_is_none(self) -> None:
        for period in ("0", "", "x", "-1"):
            self.assertIsNone(Notifier.from_environment({"WATCHDOG_USEC": period}, 7).watchdog)


class HeartbeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        address = str(scratch(self) / "notify")
        self.ear, self.clock = Ear(self, address), Clock()
        self.heartbeat = Heartbeat(Notifier(address, 30.0), self.clock)
        self.silent = Heartbeat(Notifier(address, None), self.clock)

    def test_twice_in_a_period_and_at_once(self) -> None:
        self.heartbeat.start()
        self.assertEqual(self.ear.heard(), ["WATCHDOG=1"])
        self.clock.advance(14.9)
        self.assertEqual(self.ear.heard(), [])
        self.clock.advance(0.2)
        self.assertEqual(self.ear.heard(), ["WATCHDOG=1"])
        self.clock.pump([15.0] * 4)
        self.assertEqual(self.ear.heard(), ["WATCHDOG=1"] * 4)

    def test_it_stops(self) -> None:
        self.heartbeat.start()
        self.heartbeat.start()
        self.heartbeat.stop()
        self.heartbeat.stop()
        self.clock.advance(60)
        self.assertEqual(self.ear.heard(), ["WATCHDOG=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_a_watchdog_there_is_none(self) -> None:
        self.silent.start()
        self.silent.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.ear.heard(), [])
