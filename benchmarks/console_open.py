"""From ``console open`` to the panel's first paint, as a viewer sees it, with the stages on the way.

A console to the simulated server's panel is opened on the local agent again and again. The clock starts when the
request is sent. The paint is there when a viewer, who came by the URL and the WebSocket as a browser does, is sent the
colour of the panel's header.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tests.simulator.server import SimulatedServer
from tests.support.daemon import DaemonProcess
from tests.support.visit import enter, visit
from tests.support.wire_client import WireClient
from tests.support.ws_client import WsClient

RUNS: Final = 10
GOAL: Final = 2.5
SPOT: Final = (640, 32)
HEADER: Final = bytes((77, 50, 23))
"""The header's colour, as blue, green and red."""

PAINT: Final = "first paint"
ANSWER: Final = "answer (window is there)"

_PIXEL_FORMAT: Final = bytes((0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
_RAW_ONLY: Final = bytes((2, 0, 0, 1, 0, 0, 0, 0))


def _ask(viewer: WsClient, *, incremental: bool) -> None:
    x, y = SPOT
    numbers = b"".join(number.to_bytes(2, "big") for number in (x, y, 1, 1))
    viewer.say(bytes((3, incremental)) + numbers)


async def painted(viewer: WsClient) -> None:
    """Speak RFB (RFC 6143 §7) until the pixel at :data:`SPOT` has the header's colour."""

    await enter(viewer)
    viewer.say(_PIXEL_FORMAT + _RAW_ONLY)
    _ask(viewer, incremental=False)
    while True:
        update = await viewer.hears(4, 20.0)
        for _ in range(int.from_bytes(update[2:], "big")):
            rectangle = await viewer.hears(12)
            size = 4 * int.from_bytes(rectangle[4:6], "big") * int.from_bytes(rectangle[6:8], "big")
            if (await viewer.hears(size))[:3] == HEADER:
                return
        _ask(viewer, incremental=True)


async def one_run(client: WireClient, clock: IReactorTime) -> dict[str, float]:
    """Seconds since the request at which each stage was done."""

    begun = clock.seconds()
    opened = await client.must("console open device=node1 existing=new")
    moments = {ANSWER: clock.seconds() - begun}
    viewer = await visit(opened["url"])
    await painted(viewer)
    moments[PAINT] = clock.seconds() - begun
    shown = await client.must(f"console show console={opened['console']}")
    stages = {stage["label"]: stage["done_ms"] / 1000 for stage in shown["stages"]}
    await viewer.hang_up()
    await client.must(f"console close console={opened['console']}")
    return {**stages, **moments}


async def measure(clock: Any, say: Callable[[str], None]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="ipx-bench-", dir="/tmp"))
    folder.chmod(0o711)
    server = SimulatedServer(folder / "node1")
    daemon = DaemonProcess(folder / "d", {"relay": {"port_rest": "0s"}})
    try:
        await server.start()
        await daemon.start()
        client = await daemon.connect()
        device = server.device()
        await client.must(f"device add name=node1 address={device.address} web={device.web}")
        await one_run(client, clock)  # the first run finds nothing in the kernel's caches
        report([await one_run(client, clock) for _ in range(RUNS)], say)
        await client.close()
    finally:
        await daemon.stop()
        await server.stop()
        shutil.rmtree(folder)


def report(runs: list[Mapping[str, float]], say: Callable[[str], None]) -> None:
    say(f"console open, {len(runs)} runs: seconds since the request at which each stage was done")
    say(f"{'':<44}{'min':>8}{'median':>8}{'max':>8}")
    for name in runs[0]:
        values = [run[name] for run in runs]
        say(f"{name:<44}{min(values):>8.2f}{statistics.median(values):>8.2f}{max(values):>8.2f}")
    median = statistics.median(run[PAINT] for run in runs)
    say(f"median to the first paint: {median:.2f} s; the goal is {GOAL} s")


def main(_: Sequence[str] = ()) -> None:
    task.react(lambda clock: Deferred.fromCoroutine(measure(clock, print)))
