"""The forwarder of a job's fence, with real sockets and without a namespace."""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import fence
from tests.support.scratch import scratch

LIMIT = 10.0


class ForwarderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loop = fence.Loop()
        self.forwarder = fence.Forwarder(self.loop)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(LIMIT)
        self.listener = fence.listen("127.0.0.1", 0)
        self.addCleanup(self.server.close)

    def serve(self, dial: Any = None) -> None:
        """Begin to forward, in a thread."""

        self.forwarder.serve(self.listener, dial or fence.dial_to(self.server.getsockname()))
        mine, other = socket.socketpair()

        def end(_: int) -> None:
            self.loop.over = True

        self.loop.watch(other.fileno(), select.EPOLLIN, end)
        running = threading.Thread(target=self.loop.run)
        running.start()

        def stop() -> None:
            mine.send(b".")
            running.join(LIMIT)
            for one in (mine, other, self.listener):
                one.close()
            self.assertFalse(running.is_alive())

        self.addCleanup(stop)

    def client(self) -> socket.socket:
        client = socket.create_connection(self.listener.getsockname(), LIMIT)
        self.addCleanup(client.close)
        return client

    def refused(self) -> None:
        """A break, which may come as early as in connecting."""

        with self.assertRaises(ConnectionResetError), socket.create_connection(
            self.listener.getsockname(), LIMIT
        ) as client:
            client.recv(1)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        client = self.client()
        server, _ = self.server.accept()
        server.settimeout(LIMIT)
        self.addCleanup(server.close)
        return client, server

    def all_of(self, sock: socket.socket) -> bytes:
        data = b""
        while more := sock.recv(1 << 16):
            data += more
        return data

    def meanwhile(self, call: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=call)
        thread.start()
        self.addCleanup(thread.join, LIMIT)
        return thread

    def test_both_ways_and_halves(self) -> None:
        """What one side ends, the other goes on answering."""

        self.serve()
        client, server = self.pair()
        there, back = os.urandom(3 << 20), os.urandom(3 << 20)

        def answer() -> None:
            self.assertEqual(self.all_of(server), there)
            server.sendall(back)
            server.close()

        answering = self.meanwhile(answer)
        client.sendall(there)
        client.shutdown(socket.SHUT_WR)
        self.assertTrue(self.all_of(client) == back)
        answering.join(LIMIT)
        client.close()
        self.until(lambda: self.forwarder.count == 0)

    def until(self, good: Callable[[], bool]) -> None:
        for _ in range(1000):
            if good():
                return
            threading.Event().wait(0.01)
        self.fail("it did not come to be")

    def test_half_that_nobody_ends(self) -> None:
        """A server that takes no notice of its client's end keeps no place for ever."""

        self.patch(fence, "HALF_LIMIT", 0.2)
        self.serve()
        client, server = self.pair()
        left, _ = self.pair()
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(self.all_of(server), b"")
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.until(lambda: self.forwarder.count == 1)
        left.close()

    def test_reader_that_stands_still(self) -> None:
        """What is on its way is bounded."""

        self.serve()
        client, server = self.pair()
        client.setblocking(False)
        sent = 0
        for _ in range(300):
            try:
                sent += client.send(bytes(1 << 16))
            except BlockingIOError:
                threading.Event().wait(0.002)
        self.assertLess(sent, 16 << 20)
        client.setblocking(True)
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(len(self.all_of(server)), sent)

    def test_break_is_passed_on(self) -> None:
        self.serve()
        for breaks, hears in ((0, 1), (1, 0)):
            sides = self.pair()
            sides[breaks].sendall(b"the last words")
            self.assertEqual(sides[hears].recv(100), b"the last words")
            sides[breaks].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sides[breaks].close()
            self.assertRaises(ConnectionResetError, sides[hears].recv, 1)

    def test_nobody_there(self) -> None:
        self.serve()
        self.server.close()
        self.refused()
        self.until(lambda: self.forwarder.count == 0)

    def test_server_that_does_not_answer(self) -> None:
        self.patch(fence, "DIAL_LIMIT", 0.1)
        full = socket.socket()
        self.addCleanup(full.close)
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            waiting = socket.socket()
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        self.serve(fence.dial_to(full.getsockname()))
        self.refused()

    def test_as_many_as_there_may_be(self) -> None:
        self.patch(fence, "CONNECTIONS", 3)
        self.serve()
        pairs = [self.pair() for _ in range(3)]
        self.refused()
        for sock in pairs[0]:
            sock.close()
        self.until(lambda: self.forwarder.count == 2)
        client, server = self.pair()
        server.sendall(b"fine")
        self.assertEqual(client.recv(9), b"fine")

    def test_socket_that_is_none(self) -> None:
        """Where the folder of a display's socket is its programs' own, a link in it leads nowhere."""

        folder = scratch(self)
        real, link = str(folder / "real"), str(folder / "socket")
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.bind(real)
        other.listen()
        self.serve(fence.dial_socket(link))
        gc.collect()  # of other tests
        before = len(os.listdir("/proc/self/fd"))
        for make in (lambda: os.symlink(real, link), lambda: os.mkfifo(link), lambda: os.mkdir(link), lambda: None):
            make()
            self.refused()
            if os.path.isdir(link):
                os.rmdir(link)
            elif os.path.lexists(link):
                os.unlink(link)
        os.rename(real, link)
        client = self.client()
        server, _ = other.accept()
        server.sendall(b"fine")
        self.assertEqual(client.recv(9), b"fine")
        server.close()
        client.close()
        self.until(lambda: len(os.listdir("/proc/self/fd")) <= before)
