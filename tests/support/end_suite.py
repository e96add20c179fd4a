"""One behaviour for every kind of end: mix it into a test case that makes the ends.

An end is joined to a plain socket's end by the smallest splice there can be. At both far sides are peers, which send
and check patterns in which every byte depends on its place.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ipmiproxyd.relay.ends import READ, End
from ipmiproxyd.relay.pipes import POOL
from ipmiproxyd.relay.socket_end import SocketEnd
from tests.support.end_owner import Aborter, Owner, Pauser, Splice
from tests.support.end_peer import DOWN, Bell, Mirror, Moody, Peer, descriptors, reactor, resident, unix_pair

if TYPE_CHECKING:
    Mixin = TestCase
else:
    Mixin = object  # so that the suite itself is not collected as a test

MB: Final = 1 << 20
GROWTH: Final = 2 * MB
"""How much memory a side that stands still may cost."""


class EndSuite(Mixin):
    """Subclasses implement :meth:`make`.

    :cvar bulk: bytes that the large transfers move in each direction.
    :cvar ends_with: what the far side sees of ``finish``.
    :cvar hears_on: whether what the far side still says after ``finish`` comes in.
    :cvar by_kernel: the ends splice into each other.
    :cvar most: what a side that stands still may have on its way, beyond the kernel's buffers.
    """

    timeout = 60
    bulk = 24 * MB
    ends_with = "eof"
    hears_on = True
    by_kernel = False
    most = READ

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        return deferLater(reactor, 0, self._begin)  # the reactor has all its descriptors then

    def _begin(self) -> None:
        self.bell = Bell()
        self.owner = Owner(self.bell)
        self.peers: list[Peer] = []
        self.ends: list[End] = []
        POOL.close_idle()
        before = descriptors()
        self.addCleanup(lambda: self.assertEqual(descriptors(), before, "descriptors are left"))
        self.addCleanup(POOL.close_idle)
        self.addCleanup(lambda: self.assertEqual(POOL.lent, 0, "pipes are not given back"))
        self.addCleanup(lambda: Deferred.fromCoroutine(self._hang_up()))

    async def _hang_up(self) -> None:
        for peer in self.peers:
            peer.close()
        for end in self.ends:
            end.abort()
        await deferLater(reactor, 0, lambda: None)
        await deferLater(reactor, 0, lambda: None)

    async def make(
        self, owner: Owner, *, small: bool = False, mood: Callable[[socket.socket], Any] | None = None,
        unread: int = 0, unsent: int = 0, seed: int = 1, largest: int = 70_000,
    ) -> tuple[Any, Peer]:  # fmt: skip
        """An end that is not started yet, and the peer at the far side of it.

        :param mood: wraps the end's socket.
        :param unread: bytes that came in before the end was made, in every place where they may still lie.
        :param unsent: bytes that were written before.
        """

        raise AssertionError("a subclass makes the ends")

    async def made(self, owner: Owner | None = None, **how: Any) -> tuple[Any, Peer]:
        end, peer = await self.make(owner or self.owner, **how)
        self.ends.append(end)
        self.peers.append(peer)
        return end, peer

    async def started(self, **how: Any) -> tuple[Any, Peer]:
        end, peer = await self.made(**how)
        with self.owner.calling():
            end.start()
        return end, peer

    async def talking(self) -> tuple[Any, Peer]:
        """The owner has got the first 1000 bytes."""

        end, peer = await self.started()
        peer.send_until(1000)
        await self.bell.until(lambda: self.owner.got == 1000)
        return end, peer

    async def spliced(self, *, small: bool = False, mood: Any = None, **how: Any) -> tuple[Splice, Peer, Peer]:
        """The peer at the end under test, and the one at the plain end. Both wait for DOWN and send UP."""

        splice = Splice(self.bell)
        end, peer = await self.made(splice, small=small, mood=mood, **how)
        near, far = unix_pair(small)
        plain = SocketEnd(splice, reactor, mood(near) if mood else near)
        self.ends.append(plain)
        self.peers.append(other := Mirror(self.bell, far, seed=how.get("seed", 1) + 1))
        if self.by_kernel:
            end.splice_into(plain)
            plain.splice_into(end)
        splice.join(end, plain)
        return splice, peer, other

    async def both_ways(self, peer: Peer, other: Peer, size: int) -> None:
        """So many more bytes in each direction at once."""

        up, down = peer.sent + size, other.sent + size
        peer.send_until(up)
        other.send_until(down)
        await self.bell.until(
            lambda: (peer.got, other.got) == (down, up),
            lambda: f"{peer.got} of {down}, {other.got} of {up}",
        )

    async def until_got(self, who: Owner | Peer, goal: int) -> None:
        await self.bell.until(lambda: who.got >= goal, lambda: f"{who.got} of {goal}")

    async def wait(self, seconds: float) -> None:
        """For what must not happen."""

        await deferLater(reactor, seconds, lambda: None)

    async def until_lost(self, end: End) -> None:
        await self.bell.until(lambda: end in self.owner.gone, "the end is lost")
        await self.wait(0.01)
        self.assertEqual(self.owner.gone, [end])

    async def until_ended(self, peer: Peer) -> None:
        await self.bell.until(lambda: peer.ended, "the far side sees the end")

    async def clog(self, end: End, at: int = 0) -> int:
        """Send, from there on, until the kernel takes no more and a tail stays. Returns how far."""

        steady = 0
        while steady < 3:
            while not end.is_clogged:
                with self.owner.calling():
                    end.send(DOWN.at(at, 250_000))
                at += 250_000
                self.assertLess(at, 50 * MB)
            drains = self.owner.drains
            await self.wait(0.005)
            steady = steady + 1 if self.owner.drains == drains else 0
        return at

    # --- bytes -------------------------------------------------------------------------------------------------------

    async def test_bulk(self) -> None:
        _, peer, other = await self.spliced()
        await self.both_ways(peer, other, self.bulk)

    async def test_any_sizes(self) -> None:
        for seed, largest in ((1, 20), (2, 700), (3, 9000)):
            _, peer, other = await self.spliced(seed=seed, largest=largest)
            await self.both_ways(peer, other, 600 * largest)

    async def test_tiny_buffers(self) -> None:
        _, peer, other = await self.spliced(small=True)
        await self.both_ways(peer, other, MB)

    async def test_no_time_and_little_room_everywhere(self) -> None:
        for seed, most, size in ((1, 1, 200), (2, 7, 3000), (3, 900, 100_000), (4, 40_000, 2 * MB)):
            numbers = random.Random(seed)

            def mood(sock: socket.socket, most: int = most, numbers: random.Random = numbers) -> Moody:
                return Moody(sock, numbers.randrange(1 << 32), most)

            _, peer, other = await self.spliced(mood=mood, small=seed == 3, seed=seed)
            await self.both_ways(peer, other, size)

    async def test_stalls(self) -> None:
        """Whoever stops reading stops the other, costs no memory, and gets everything in the end."""

        _, peer, other = await self.spliced()
        await self.both_ways(peer, other, 3 * MB)
        for still, sender in ((peer, other), (other, peer), (peer, other)):
            still.stall()
            before, sent = resident(), sender.sent
            sender.send_until(sent + 30 * MB)
            await self.until_steady(sender)
            self.assertLess(sender.sent - sent, 20 * MB)
            self.assertLess(resident() - before, GROWTH)
            goal = sender.sent + MB
            sender.send_until(goal)
            backwards = still.sent + MB // 2
            still.send_until(backwards)
            await self.until_got(sender, backwards)
            still.go_on()
            await self.until_got(still, goal)

    async def until_steady(self, sender: Peer) -> None:
        """It sends no more."""

        last, same = -1, 0
        while same < 3:
            same = same + 1 if sender.sent == last else 0
            last = sender.sent
            await self.wait(0.005)

    async def test_pending_at_the_switch(self) -> None:
        for unread, unsent in ((10, 0), (0, 10), (50_000, 30_000), (3 * READ + 7, 3 * MB), (READ, MB)):
            splice = Splice(self.bell)
            end, peer = await self.made(splice, unread=unread, unsent=unsent)
            near, far = unix_pair()
            self.ends.append(plain := SocketEnd(splice, reactor, near))
            self.peers.append(other := Mirror(self.bell, far))
            other.sent = unsent
            splice.join(end, plain)
            self.assertEqual(peer.sent, unread)
            await self.both_ways(peer, other, 0)
            await self.both_ways(peer, other, 200_000)

    # --- standing still ----------------------------------------------------------------------------------------------

    async def test_paused_end_does_not_read(self) -> None:
        end, peer = await self.started()
        peer.send_until(100_000)
        await self.until_got(self.owner, 100_000)
        with self.owner.calling():
            end.pause()
        peer.send_until(60 * MB)
        await self.until_steady(peer)
        self.assertLess(peer.sent, 40 * MB)
        self.assertLessEqual(self.owner.got, 100_000 + self.most)
        got = self.owner.got
        await self.wait(0.01)
        self.assertEqual(self.owner.got, got)
        goal = peer.sent + 10
        peer.send_until(goal)
        with self.owner.calling():
            end.resume()
        await self.until_got(self.owner, goal)

    async def test_pause_from_within(self) -> None:
        self.owner = Pauser(self.bell)
        end, peer = await self.made()
        resumed = []
        with self.owner.calling():
            end.start()
        peer.send_until(3 * MB)
        while self.owner.got < 3 * MB:
            got = self.owner.got
            await self.until_got(self.owner, got + 1)
            resumed.append(self.owner.got - got)
            with self.owner.calling():
                end.resume()
        self.assertLessEqual(max(resumed), 2 * READ)

    async def test_drained_once_per_tail(self) -> None:
        end, peer = await self.started(small=True)
        at = 0
        for _ in range(3):
            peer.stall()
            at = await self.clog(end, at)
            drains = self.owner.drains
            with self.owner.calling():
                self.assertFalse(end.send(DOWN.at(at, 1000)))
                self.assertFalse(end.send(DOWN.at(at + 1000, 10)))
            at += 1010
            await self.wait(0.01)
            self.assertEqual(self.owner.drains, drains)
            peer.go_on()
            await self.until_got(peer, at)
            await self.bell.until(lambda: not end.is_clogged)
            await self.wait(0.01)
            self.assertEqual(self.owner.drains, drains + 1)

    # --- ending ------------------------------------------------------------------------------------------------------

    async def test_finish(self) -> None:
        end, peer = await self.made()
        with self.owner.calling():
            end.start()
            self.assertTrue(end.send(DOWN.at(0, 1000)))
            end.finish()
        await self.until_ended(peer)
        self.assertEqual((peer.got, peer.ended), (1000, self.ends_with))
        await self.until_lost(end)

    async def test_finish_with_a_tail(self) -> None:
        for small in (False, True):
            self.owner = Owner(self.bell)
            end, peer = await self.started(small=small)
            peer.stall()
            at = await self.clog(end)
            drains = self.owner.drains
            with self.owner.calling():
                end.finish()
            await self.wait(0.01)
            self.assertEqual(self.owner.gone, [])
            peer.go_on()
            await self.until_ended(peer)
            self.assertEqual((peer.got, peer.ended), (at, self.ends_with))
            await self.until_lost(end)
            self.assertEqual(self.owner.drains, drains)

    async def test_far_side_speaks_on_after_finish(self) -> None:
        end, peer = await self.started()
        peer.stall()
        await self.clog(end)
        peer.send_until(10_000)
        await self.until_got(self.owner, 10_000)
        with self.owner.calling():
            end.finish()
        peer.send_until(500_000)
        if self.hears_on:
            await self.until_got(self.owner, 500_000)
        peer.go_on()
        await self.until_lost(end)

    async def test_calls_after_the_end(self) -> None:
        end, peer = await self.started()
        peer.close()
        await self.until_lost(end)
        with self.owner.calling():
            self.assertTrue(end.send(b"nobody hears it"))
            end.pause()
            end.resume()
            end.finish()
            end.abort()
        await self.wait(0.01)
        self.assertEqual(self.owner.gone, [end])

    async def test_far_side_closes(self) -> None:
        end, peer = await self.started()
        peer.send_until(70_000)
        await self.bell.until(lambda: peer.sent == 70_000)
        await self.until_got(self.owner, 70_000)
        peer.close()
        await self.until_lost(end)

    async def test_far_side_closes_behind_its_last_bytes(self) -> None:
        """They were not read yet when it closed; with the plain end as the far side of everything."""

        splice, peer, other = await self.spliced()
        peer.stall()
        other.send_until(MB)
        await self.until_steady(other)
        size = other.sent
        other.half_close(size)
        await self.wait(0.01)
        peer.go_on()
        await self.bell.until(lambda: len(splice.gone) == 2, "both are lost")
        await self.until_ended(peer)
        self.assertEqual((peer.got, peer.ended), (size, self.ends_with))

    async def test_far_side_resets(self) -> None:
        for clogged in (False, True):
            self.owner = Owner(self.bell)
            end, peer = await self.started()
            if clogged:
                peer.stall()
                await self.clog(end)
                with self.owner.calling():
                    end.pause()
            peer.reset()
            await self.until_lost(end)

    async def test_abort(self) -> None:
        for clogged in (False, True):
            for paused in (False, True):
                self.owner = Owner(self.bell)
                end, peer = await self.talking()
                if clogged:
                    peer.stall()
                    await self.clog(end)
                with self.owner.calling():
                    if paused:
                        end.pause()
                    end.abort()
                    end.abort()
                self.assertEqual(self.owner.gone, [])
                await self.until_lost(end)
                peer.go_on()
                await self.until_ended(peer)

    async def test_abort_from_within(self) -> None:
        self.owner = Aborter(self.bell)
        end, peer = await self.made()
        peer.send_until(5 * MB)
        await self.wait(0.01)
        with self.owner.calling():
            end.start()
        await self.until_lost(end)
        self.assertLessEqual(self.owner.got, READ)
