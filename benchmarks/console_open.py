"""From ``console open`` to the first paint, as a viewer sees it, with the stages on the way: of the panel in a browser,
and of a vendor's Java program.

A console to a simulated server is opened on the local agent again and again, after one that fills the caches. The clock
starts when the request is sent. The paint is there when a viewer, who came by the URL and the WebSocket as a browser
does, is sent the colour of the panel's header, or of the Java program's screen.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tests.simulator import kvm
from tests.simulator.server import SimulatedServer
from tests.support.daemon import DaemonProcess
from tests.support.visit import enter, visit
from tests.support.wire_client import WireClient
from tests.support.ws_client import WsClient

RUNS: Final = 10


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of console.

    :ivar personality: of the simulated panel.
    :ivar spot: where the paint is looked for, and ``colour`` what it is: blue, green and red.
    :ivar goal: seconds.
    """

    type: str
    personality: str
    spot: tuple[int, int]
    colour: bytes
    goal: float


KINDS: Final = (
    Kind("panel", "generic", (640, 32), bytes((77, 50, 23)), 2.5),
    Kind("java", "supermicro", (640, 900), bytes((96, 60, 12)), 3.5),
)

PAINT: Final = "first paint"
ANSWER: Final = "answer (window is there)"

_PIXEL_FORMAT: Final = bytes((0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
_RAW_ONLY: Final = bytes((2, 0, 0, 1, 0, 0, 0, 0))


def _ask(viewer: WsClient, spot: tuple[int, int], *, incremental: bool) -> None:
    numbers = b"".join(number.to_bytes(2, "big") for number in (*spot, 1, 1))
    viewer.say(bytes((3, incremental)) + numbers)


async def painted(viewer: WsClient, kind: Kind) -> None:
    """Speak RFB (RFC 6143 §7) until the spot has its colour."""

    await enter(viewer)
    viewer.say(_PIXEL_FORMAT + _RAW_ONLY)
    _ask(viewer, kind.spot, incremental=False)
    while True:
        update = await viewer.hears(4, 20.0)
        for _ in range(int.from_bytes(update[2:], "big")):
            rectangle = await viewer.hears(12)
            size = 4 * int.from_bytes(rectangle[4:6], "big") * int.from_bytes(rectangle[6:8], "big")
            if (await viewer.hears(size))[:3] == kind.colour:
                return
        _ask(viewer, kind.spot, incremental=True)


async def one_run(client: WireClient, kind: Kind, clock: IReactorTime) -> dict[str, float]:
    """Seconds since the request at which each stage was done."""

    begun = clock.seconds()
    opened = await client.must(f"console open device=node1 type={kind.type} existing=new")
    moments = {ANSWER: clock.seconds() - begun}
    viewer = await visit(opened["url"])
    await painted(viewer, kind)
    moments[PAINT] = clock.seconds() - begun
    shown = await client.must(f"console show console={opened['console']}")
    stages = {stage["label"]: stage["done_ms"] / 1000 for stage in shown["stages"]}
    await viewer.hang_up()
    await client.must(f"console close console={opened['console']}")
    return {**stages, **moments}


async def measure(clock: Any, kind: Kind, say: Callable[[str], None]) -> None:
    if kind.type == "java":
        kvm.jars()  # the simulated vendor's program is made once
    folder = Path(tempfile.mkdtemp(prefix="ipx-bench-", dir="/tmp"))
    folder.chmod(0o711)
    server = SimulatedServer(folder / "node1", personality=kind.personality)
    daemon = DaemonProcess(folder / "d", {"relay": {"port_rest": "0s"}})
    try:
        await server.start()
        await daemon.start()
        client = await daemon.connect()
        device = server.device()
        who = f"username={device.username} password={device.password.reveal()}"
        await client.must(f"device add name=node1 address={device.address} web={device.web} {who}")
        await one_run(client, kind, clock)  # the first run finds nothing in the caches
        report(kind, [await one_run(client, kind, clock) for _ in range(RUNS)], say)
        await client.close()
    finally:
        await daemon.stop()
        await server.stop()
        shutil.rmtree(folder)


def report(kind: Kind, runs: list[Mapping[str, float]], say: Callable[[str], None]) -> None:
    say(f"console open type={kind.type}, {len(runs)} runs: seconds since the request at which each stage was done")
    say(f"{'':<44}{'min':>8}{'median':>8}{'max':>8}")
    for name in runs[0]:
        values = [run[name] for run in runs]
        say(f"{name:<44}{min(values):>8.2f}{statistics.median(values):>8.2f}{max(values):>8.2f}")
    median = statistics.median(run[PAINT] for run in runs)
    say(f"median to the first paint: {median:.2f} s; the goal is {kind.goal} s")


def main(options: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks console-open")
    parser.add_argument("--type", choices=[kind.type for kind in KINDS], help="only this one")
    only = parser.parse_args(options).type

    async def measure_all(clock: Any) -> None:
        for kind in KINDS:
            if only in (None, kind.type):
                await measure(clock, kind, print)

    task.react(lambda clock: Deferred.fromCoroutine(measure_all(clock)))
