"""The load generator (``python -m benchmarks.relay.load``): one measurement.

Stdin is ``{"scenario": NAME, "target": {…}, …}`` with the scenario's arguments; stdout the numbers it found, as JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import resource
import select
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from benchmarks.relay import stream
from benchmarks.relay.process import cpu_of_the_dead, cpu_seconds, memory
from benchmarks.relay.session import Lost, Session, Target

GB: Final = 1e9
MIB: Final = 1 << 20
ANSWER: Final = 64
UPDATE_RATE: Final = 30
UPDATE_KIB: Final = 16
POINTER_RATE: Final = 60
HOGS: Final = 4

Numbers = dict[str, float]
now = time.perf_counter


class Stuck(Exception):
    """Nothing came in for a long time."""


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


class Crowd:
    """Sessions that are open at the same time."""

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self._poll = select.epoll()

    def add(self, session: Session) -> None:
        self.sessions[session.fileno()] = session
        self._poll.register(session, select.EPOLLIN)

    def ready(self, timeout: float = 20.0) -> Iterator[tuple[int, Session]]:
        events = self._poll.poll(timeout)
        if not events and timeout >= 20.0:
            raise Stuck(f"nothing came in for {timeout:g} seconds")
        for number, _ in events:
            yield number, self.sessions[number]

    def ready_until(self, due: float) -> Iterator[tuple[int, Session]]:
        """To the microsecond; epoll counts in milliseconds."""

        select.select([self._poll], (), (), max(0.0, due - now()))
        return self.ready(0)


@contextlib.contextmanager
def crowd() -> Iterator[Crowd]:
    """Closed at the end."""

    made = Crowd()
    try:
        yield made
    finally:
        for session in made.sessions.values():
            session.close()


# --- bulk -------------------------------------------------------------------------------------------------------------


def bulk(target: Target, connections: int, size: int) -> Numbers:
    """``size`` bytes in all."""

    with crowd() as all_of_them:
        checkers: dict[int, stream.Pattern] = {}
        for _ in range(connections):
            checker = stream.Pattern()
            session = Session(target, checker.take)
            all_of_them.add(session)
            checkers[session.fileno()] = checker
        each = size // connections
        _fetch(all_of_them, checkers, 0, min(each, 8 * MIB))
        cpu, beside, begun = cpu_seconds(*target.pids), cpu_seconds(*target.beside), now()
        _fetch(all_of_them, checkers, 1, each)
        took, used = now() - begun, cpu_seconds(*target.pids) - cpu
        used_beside = cpu_seconds(*target.beside) - beside
    size = each * connections
    numbers = {"MB/s": size / took / 1e6, "CPU s/GB": used / (size / GB)}
    return numbers | ({"sshd's CPU s/GB": used_beside / (size / GB)} if target.beside else {})


def _fetch(all_of_them: Crowd, checkers: dict[int, stream.Pattern], count: int, size: int) -> None:
    ends = {number: checker.position + size for number, checker in checkers.items()}
    for session in all_of_them.sessions.values():
        session.say(stream.give(count, size))
    while ends:
        for number, session in all_of_them.ready():
            session.read()
            if number in ends and checkers[number].position >= ends[number]:
                if checkers[number].position > ends[number]:
                    raise stream.Corrupt("the server said more than it was asked for")
                del ends[number]


# --- small round trips ------------------------------------------------------------------------------------------------


class Pinger:
    """Asks for a small answer again and again. ``times``: seconds of each round trip."""

    def __init__(self, target: Target) -> None:
        self.checker = stream.Pattern()
        self.session = Session(target, self.checker.take)
        self.times: list[float] = []
        self._requests = [self.session.encode(stream.give(count, ANSWER)) for count in range(stream.COUNT)]
        self._count = 0
        self._asked = 0.0

    def ask(self) -> None:
        self._asked = now()
        self.session.send(self._requests[self._count % stream.COUNT])
        self._count += 1

    def read(self) -> None:
        self.session.read()
        if self.checker.position == self._count * ANSWER:
            self.times.append(now() - self._asked)
            self.ask()
        elif self.checker.position > self._count * ANSWER:
            raise stream.Corrupt("an answer to no question")


def round_trips(target: Target, connections: int, seconds: float) -> Numbers:
    with crowd() as all_of_them:
        pingers: dict[int, Pinger] = {}
        for _ in range(connections):
            pinger = Pinger(target)
            all_of_them.add(pinger.session)
            pingers[pinger.session.fileno()] = pinger
        for pinger in pingers.values():
            pinger.ask()
        _ping(all_of_them, pingers, now() + 0.2)
        for pinger in pingers.values():
            pinger.times.clear()
        cpu, begun = cpu_seconds(*target.pids), now()
        _ping(all_of_them, pingers, begun + seconds)
        took, used = now() - begun, cpu_seconds(*target.pids) - cpu
        times = [one for pinger in pingers.values() for one in pinger.times]
    return {
        "CPU µs": used / len(times) * 1e6,
        "per s": len(times) / took,
        "p50 ms": percentile(times, 0.5) * 1e3,
        "p99 ms": percentile(times, 0.99) * 1e3,
    }


def _ping(all_of_them: Crowd, pingers: dict[int, Pinger], end: float) -> None:
    while now() < end:
        for number, _ in all_of_them.ready():
            pingers[number].read()


def fairness(target: Target, seconds: float, hogs: int = HOGS) -> Numbers:
    """Round trips of one session while others run bulk."""

    with crowd() as all_of_them:
        pinger = Pinger(target)
        all_of_them.add(pinger.session)
        number = pinger.session.fileno()
        checkers = [stream.Pattern() for _ in range(hogs)]
        for checker in checkers:
            hog = Session(target, checker.take)
            all_of_them.add(hog)
            hog.say(stream.give(0, 0xFFFFFFFF))
        pinger.ask()
        end = now() + 0.3
        for finish in (end, end + seconds):
            pinger.times.clear()
            begun, place = now(), sum(checker.position for checker in checkers)
            while now() < finish:
                for ready, session in all_of_them.ready():
                    if ready == number:
                        pinger.read()
                    else:
                        session.read()
        size = sum(checker.position for checker in checkers) - place
        took = now() - begun
        times = pinger.times or [took]
    return {
        "p50 ms": percentile(times, 0.5) * 1e3,
        "p99 ms": percentile(times, 0.99) * 1e3,
        "MB/s": size / took / 1e6,
    }


# --- mixed ------------------------------------------------------------------------------------------------------------


class User:
    """Moves the pointer, and is sent updates."""

    def __init__(self, target: Target) -> None:
        self.updates = 0
        self.held = 0
        self.times: list[float] = []
        self.records = stream.Records(self._told)
        self.session = Session(target, self.records.take)
        self._count = 0
        self._moved: dict[int, float] = {}

    def begin(self) -> None:
        self.session.say(stream.request(0, stream.UPDATES, UPDATE_RATE, UPDATE_KIB))

    def move(self) -> None:
        encoded = self.session.encode(stream.pointer(self._count))
        if self._count % stream.ECHO_EVERY == 0:
            self._moved[self._count % stream.COUNT] = now()
        try:
            self.session.send(encoded)
        except BlockingIOError:
            self.held += 1
        else:
            self._count += 1

    def _told(self, kind: int, number: int) -> None:
        if kind == stream.UPDATE:
            self.updates += 1
        else:
            self.times.append(now() - self._moved.pop(number))


def mixed(target: Target, sessions: int, seconds: float) -> Numbers:
    with crowd() as all_of_them:
        users = [User(target) for _ in range(sessions)]
        for user in users:
            all_of_them.add(user.session)
        _move(all_of_them, users, 1.0, begin=True)
        for user in users:
            user.times.clear()
            user.updates = 0
        cpu, begun = cpu_seconds(*target.pids), now()
        _move(all_of_them, users, seconds)
        took, used = now() - begun, cpu_seconds(*target.pids) - cpu
        times = [one for user in users for one in user.times]
        updates = sum(user.updates for user in users)
    return {
        "CPU %": used / took * 100,
        "p50 ms": percentile(times or [took], 0.5) * 1e3,
        "p99 ms": percentile(times or [took], 0.99) * 1e3,
        "updates %": updates / (sessions * UPDATE_RATE * took) * 100,
    }


def _move(all_of_them: Crowd, users: list[User], seconds: float, *, begin: bool = False) -> None:
    """Each user's pointer moves 60 times a second, one user's after the other's."""

    begun = now()
    pause = 1 / POINTER_RATE / len(users)
    turn = 0
    while (due := begun + turn * pause) < begun + seconds:
        for _, session in all_of_them.ready_until(due):
            session.read()
        if now() >= due:
            user = users[turn % len(users)]
            if begin and turn < len(users):
                user.begin()
            user.move()
            turn += 1


# --- setting up -------------------------------------------------------------------------------------------------------


def set_ups(target: Target, workers: int, seconds: float) -> Numbers:
    """From the TCP connection to the end of the RFB handshake, several at a time."""

    context = multiprocessing.get_context("fork")
    results: Any = context.SimpleQueue()
    begin = now() + 0.3
    span = (begin, begin + seconds)
    children = [context.Process(target=_come_and_go, args=(target, *span, results)) for _ in range(workers)]
    for child in children:
        child.start()
    time.sleep(max(0.0, begin - now()))
    cpu = cpu_seconds(*target.pids) + cpu_of_the_dead(target.pid)
    found = [results.get() for _ in children]
    used = cpu_seconds(*target.pids) + cpu_of_the_dead(target.pid) - cpu
    for child in children:
        child.join()
    if any(isinstance(one, str) for one in found):
        raise Stuck(next(one for one in found if isinstance(one, str)))
    times = [one for some in found for one in some]
    if not times:
        raise Stuck("not one session was set up in time")
    return {
        "per s": len(times) / seconds,
        "p50 ms": statistics.median(times) * 1e3,
        "CPU ms": used / len(times) * 1e3,
    }


def _come_and_go(target: Target, begin: float, end: float, results: Any) -> None:
    times: list[float] = []
    try:
        Session(target).close()
        time.sleep(max(0.0, begin - now()))
        while (begun := now()) < end:
            session = Session(target)
            times.append(now() - begun)
            session.close()
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")
    else:
        results.put(times)


# --- memory -----------------------------------------------------------------------------------------------------------


def memory_per_session(target: Target, counts: Sequence[int]) -> Numbers:
    """Sessions that have been used once. A relay may be full before; then "sessions at most" tells."""

    _open_many(target, 20, 0.5)
    base = memory(*target.pids)
    numbers: Numbers = {"base MB": base / 1e6}
    for count in counts:
        try:
            numbers[f"KB at {count}"] = (_open_many(target, count, 1.0) - base) / count / 1e3
        except Full as error:
            numbers["sessions at most"] = error.count
            break
    return numbers


class Full(Exception):
    """The relay takes no more sessions than ``count``."""

    def __init__(self, count: int) -> None:
        super().__init__(f"only {count} sessions can be open")
        self.count = count


def _open_many(target: Target, count: int, settle: float) -> int:
    """The relay's memory while so many are open."""

    with crowd() as all_of_them:
        for _ in range(count):
            checker = stream.Pattern()
            try:
                session = Session(target, checker.take)
            except Lost:
                raise Full(len(all_of_them.sessions)) from None
            all_of_them.add(session)
            session.say(stream.give(0, ANSWER))
            while checker.position < ANSWER:
                for _, ready in all_of_them.ready():
                    ready.read()
        time.sleep(settle)
        used = memory(*target.pids)
    time.sleep(settle)
    return used


def stalled_browser(target: Target, seconds: float, size: int = 1 << 30) -> Numbers:
    """A viewer asks for a lot and does not read it; later it does, and all has to be there."""

    with crowd() as all_of_them:
        checker = stream.Pattern()
        session = Session(target, checker.take)
        all_of_them.add(session)
        _fetch(all_of_them, {session.fileno(): checker}, 0, 16 * MIB)
        watch = Growth(target.pids)
        session.say(stream.give(1, size))
        end = now() + seconds
        while now() < end:
            time.sleep(0.05)
            watch.look()
        wanted = checker.position + 64 * MIB
        while checker.position < wanted:
            for _, ready in all_of_them.ready():
                ready.read()
    return {"MB": watch.most / 1e6}


def stalled_server(target: Target, seconds: float) -> Numbers:
    """The server does not read; the viewer says as much as it can."""

    session = Session(target)
    block = session.encode(bytes((2, 0)) + (1000).to_bytes(2, "big") + bytes(4000)) * 16
    session.say(stream.request(0, stream.STALL))
    session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 << 10)
    watch = Growth(target.pids)
    poll = select.poll()
    poll.register(session, select.POLLOUT)
    end, taken, place = now() + seconds, 0, 0
    while now() < end:
        try:
            place += session.sock.send(memoryview(block)[place:])
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            poll.poll(20)
            watch.look()
        if place == len(block):
            taken, place = taken + place, 0
    watch.look()
    session.close()
    return {"MB": watch.most / 1e6, "taken MB": (taken + place) / 1e6}


class Growth:
    """How much a process has grown at most."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._base = memory(*pids)
        self.most = 0

    def look(self) -> None:
        self.most = max(self.most, memory(*self._pids) - self._base)


SCENARIOS: Final[dict[str, Callable[..., Numbers]]] = {
    "bulk": bulk,
    "round_trips": round_trips,
    "fairness": fairness,
    "mixed": mixed,
    "set_ups": set_ups,
    "memory": memory_per_session,
    "stalled_browser": stalled_browser,
    "stalled_server": stalled_server,
}


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    job = json.load(sys.stdin)
    scenario = SCENARIOS[job.pop("scenario")]
    gc.freeze()
    json.dump(scenario(Target(**job.pop("target")), **job), sys.stdout)


if __name__ == "__main__":
    main()
