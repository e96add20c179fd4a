"""The pool of relay ports, on a fake machine."""

from __future__ import annotations

import errno

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadValue, InternalError, NoFreePort
from ipmiproxyd.relay.ports import PortPool
from tests.support.fake_machine import FakeMachine

ALL = ("0.0.0.0", "::")


class PortPoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.machine = FakeMachine()

    def pool(self, ports: range = range(7001, 7004), addresses: tuple[str, ...] = ALL) -> PortPool:
        return PortPool(self.clock, self.machine, addresses, ports, 60.0)

    def bind(self, pool: PortPool) -> int:
        number, listeners = pool.bind(Factory())
        self.assertEqual(len(listeners), len(pool.addresses))
        for address in pool.addresses:
            self.assertIn((number, address), self.machine.taken)
        return number

    def give_back(self, pool: PortPool, number: int) -> None:
        for address in pool.addresses:
            self.machine.taken.remove((number, address))
        pool.give_back(number)

    def test_every_address_of_a_port(self) -> None:
        pool = self.pool()
        self.assertEqual([self.bind(pool) for _ in range(3)], [7001, 7002, 7003])

    def test_passed_over_when_held_on_any_address(self) -> None:
        pool = self.pool()
        self.machine.taken |= {(7001, "0.0.0.0"), (7002, "::")}
        self.assertEqual(self.bind(pool), 7003)
        self.assertNotIn((7002, "0.0.0.0"), self.machine.taken)
        self.machine.taken.discard((7002, "::"))
        self.assertEqual(self.bind(pool), 7002)

    def test_one_that_may_not_be_bound_is_passed_over(self) -> None:
        self.machine.faults[7001] = errno.EACCES
        self.assertEqual(self.bind(self.pool()), 7002)

    def test_rests(self) -> None:
        pool = self.pool(range(7001, 7002))
        self.give_back(pool, self.bind(pool))
        self.clock.advance(59.9)
        self.assertRaises(NoFreePort, self.bind, pool)
        self.clock.advance(0.1)
        self.assertEqual(self.bind(pool), 7001)

    def test_the_longest_unused_comes_first(self) -> None:
        pool = self.pool()
        first, second = self.bind(pool), self.bind(pool)
        self.give_back(pool, second)
        self.give_back(pool, first)
        self.clock.advance(60)
        self.assertEqual([self.bind(pool) for _ in range(3)], [7003, second, first])

    def test_given_back_once(self) -> None:
        pool = self.pool(range(7001, 7003))
        number = self.bind(pool)
        self.give_back(pool, number)
        pool.give_back(number)
        pool.give_back(9999)
        self.clock.advance(60)
        self.bind(pool)
        self.bind(pool)
        self.assertRaises(NoFreePort, self.bind, pool)

    def test_exhausted_in_plain_words(self) -> None:
        pool = self.pool(range(7001, 7005))
        self.machine.taken.add((7001, "::"))
        used, resting = self.bind(pool), self.bind(pool)
        self.bind(pool)
        self.give_back(pool, resting)
        error = self.assertRaises(NoFreePort, pool.bind, Factory())
        self.assertEqual(error.message, "No relay port is free: 2 in use, 1 resting, 1 held by other programs.")
        self.assertIn("relay.ports", error.hint or "")
        self.assertEqual(used, 7002)

    def test_a_fault_is_no_taken_port(self) -> None:
        pool = self.pool()
        self.machine.faults[7001] = errno.EMFILE
        error = self.assertRaises(InternalError, pool.bind, Factory())
        self.assertIn("Too many open files", error.message)
        self.assertEqual(self.machine.taken, set())

    def test_a_family_that_the_machine_lacks(self) -> None:
        self.machine.lacks["::"] = errno.EAFNOSUPPORT
        with capturedLogs() as logs:
            pool = self.pool()
        self.assertEqual(pool.addresses, ("0.0.0.0",))
        self.assertEqual([(log["log_level"], log["address"]) for log in logs], [(LogLevel.warn, "::")])
        self.assertEqual(self.bind(pool), 7001)

    def test_no_address_at_all(self) -> None:
        self.machine.lacks = {"0.0.0.0": errno.EADDRNOTAVAIL, "::": errno.EAFNOSUPPORT}
        error = self.assertRaises(BadValue, self.pool)
        self.assertIn("0.0.0.0, ::", error.message)
        self.assertIn("relay.listen", error.hint or "")
        self.assertRaises(BadValue, self.pool, addresses=())

    def test_another_fault_at_the_start_is_told(self) -> None:
        self.machine.lacks["::"] = errno.EMFILE
        self.assertRaises(OSError, self.pool)
