"""A simulated server, the daemon, and an open console, until Ctrl-C: ``make demo``."""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from tests.simulator.server import SimulatedServer
from tests.support.daemon import DaemonProcess

DEVICE = "node1"


def settings(host: str) -> dict[str, dict[str, Any]]:
    """Of the demo's daemon: patient with a reader who looks around first. ``host``: where browsers find it."""

    here = host in ("127.0.0.1", "localhost")
    return {
        "daemon": {"on-stop": "close"},
        "relay": {
            "listen": ["127.0.0.1"] if here else ["0.0.0.0", "::"],
            "public_host": host,
            "ports": "6081-6200",
            "token_lifetime": "12h",
        },
        "displays": {"range": "1-100"},
        "consoles": {"unvisited": "12h", "abandoned": "12h", "idle": "never"},
    }


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


def display_users() -> set[str]:
    """The Unix users of displays that there are."""

    return {entry.pw_name for entry in pwd.getpwall() if entry.pw_name.startswith("easydcim_vnc_")}


def remove_users(names: set[str]) -> None:
    for name in sorted(names):
        subprocess.run(["userdel", name], check=False, capture_output=True)


async def demonstrate(reactor: Any, folder: Path, host: str) -> None:
    stopped: Deferred[None] = Deferred()
    await task.deferLater(reactor, 0)  # the reactor has set its own handlers by then
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: reactor.callFromThread(_once, stopped))
    server = SimulatedServer(folder / DEVICE, name=DEVICE, hint="")
    daemon = DaemonProcess(folder / "daemon", settings(host), own_session=True)
    try:
        print("Starting a simulated server and the daemon …", flush=True)
        await server.start()
        await daemon.start()
        await _open(server, daemon)
        await stopped
        print("\nClosing …", flush=True)
    finally:
        await daemon.stop()
        await server.stop()


def _once(stopped: Deferred[None]) -> None:
    if not stopped.called:
        stopped.callback(None)


async def _open(server: SimulatedServer, daemon: DaemonProcess) -> None:
    client = await daemon.connect()
    device = server.device()
    await client.must(
        f"device add name={DEVICE} address={device.address} port={device.port} web={device.web} cipher={device.cipher} "
        f"username={device.username} password={device.password.reveal()} notes='simulated by make demo'"
    )
    reply = await client.ask(f"console open device={DEVICE}")
    if not reply.ok:
        raise DemoError(" ".join(filter(None, (reply.body["message"], reply.body.get("hint")))))
    opened = reply.body
    status = await client.must("daemon status")
    await client.close()
    here = Path(sys.executable).parent
    print(
        f"\nConsole: {opened['url']}\n"
        f"Control: ipmiproxyctl --socket {daemon.control}\n\n"
        f"The URL works once; 'console open device={DEVICE}' tells another one. "
        f"Sign in as {device.username} with {device.password.reveal()}.\n"
        f"Displays run as {status['agents'][0]['displays_run_as']}. "
        f"ipmiproxyctl is in {_short(here)}; for example:\n\n"
        f"    {_short(here)}/ipmiproxyctl --socket {daemon.control} power status device={DEVICE}\n\n"
        "Ctrl-C ends it all.",
        flush=True,
    )


def _short(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)


async def told(reactor: Any, folder: Path, host: str) -> None:
    try:
        await demonstrate(reactor, folder, host)
    except DemoError as error:
        print(f"The demo cannot go on: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the name or address at which browsers find this machine")
    host = parser.parse_args().host or "127.0.0.1"
    folder = Path(tempfile.mkdtemp(prefix="ipmiproxyd-demo-", dir="/tmp"))
    users = display_users()
    try:
        task.react(lambda reactor: Deferred.fromCoroutine(told(reactor, folder, host)))
    finally:
        shutil.rmtree(folder)
        if os.geteuid() == 0:
            remove_users(display_users() - users)


if __name__ == "__main__":
    main()
