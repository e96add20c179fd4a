"""A simulated server, the daemon, and an open console, until Ctrl-C: ``make demo``, ``make demo VENDOR=… TYPE=…``."""

from __future__ import annotations

import argparse
import ipaddress
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from twisted.internet import task
from twisted.internet.defer import Deferred, DeferredList, FirstError

from ipmiproxyd.control.view import summary
from ipmiproxyd.model import ConsoleType
from tests.simulator import kvm
from tests.simulator.panel import RECORD
from tests.simulator.server import SimulatedServer
from tests.simulator.vendors import PERSONALITIES
from tests.simulator.vendors.generic import SECTION
from tests.support.daemon import DaemonProcess
from tests.support.wire_client import WireClient

DEVICE = "node1"
CLOSE_LIMIT = 120.0
CHECK_LIMIT = 100.0
TYPES: Final = tuple(kind for kind in get_args(ConsoleType) if kind != "vnc")


@dataclass(frozen=True)
class Show:
    """What is shown: whose panel, by which type of console, and where browsers find it."""

    vendor: str
    type: str
    host: str


def settings(host: str) -> dict[str, Mapping[str, Any]]:
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
        **tomllib.loads(SECTION),
    }


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


def wanted(vendor: str, kind: str, host: str) -> Show:
    """What is to be shown. Raises DemoError for a vendor or a type that there is not, or another machine's address."""

    known = ", ".join(sorted(PERSONALITIES))
    if vendor and vendor not in PERSONALITIES:
        raise DemoError(f"No simulated panel is called {vendor!r}. VENDOR is one of: {known}.")
    if kind and kind not in TYPES:
        raise DemoError(f"No type of console is called {kind!r} here. TYPE is one of: {', '.join(TYPES)}.")
    if kind not in ("", "panel") and vendor in ("", "generic"):
        raise DemoError(f"TYPE={kind} needs a VENDOR other than generic: one of {known}.")
    if not is_here(host):
        raise DemoError(
            f"HOST={host}: this machine has no such address, and browsers would not find it there. "
            "'ip -brief address' lists those that it has."
        )
    return Show(vendor or "generic", kind or "panel", host)


def is_here(host: str) -> bool:
    """Whether an address is one of this machine's. Where a name leads to, only the browser's machine knows."""

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return not address.is_unspecified


def display_users() -> set[str]:
    """The Unix users of displays that there are."""

    return {entry.pw_name for entry in pwd.getpwall() if entry.pw_name.startswith("easydcim_vnc_")}


def remove_users(names: set[str]) -> None:
    for name in sorted(names):
        subprocess.run(["userdel", name], check=False, capture_output=True)


async def demonstrate(reactor: Any, folder: Path, show: Show) -> None:
    stopped: Deferred[None] = Deferred()
    await task.deferLater(reactor, 0)  # the reactor has set its own handlers by then
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: reactor.callFromThread(_once, stopped))
    server = SimulatedServer(folder / DEVICE, name=DEVICE, personality=show.vendor, hint="")
    daemon = DaemonProcess(folder / "daemon", settings(show.host), own_session=True)
    try:
        if show.type == "java":
            print("Making the simulated vendor's Java program, if it is not there yet …", flush=True)
            kvm.jars()
        print("Starting a simulated server and the daemon …", flush=True)
        begun = Deferred.fromCoroutine(_begin(server, daemon, show))
        await DeferredList([stopped, begun], fireOnOneCallback=True, fireOnOneErrback=True, consumeErrors=True)
        begun.cancel()  # of no effect once the console is there
        await stopped
        print("\nClosing …", flush=True)
    except FirstError as error:
        if not stopped.called:
            error.subFailure.raiseException()
    finally:
        await _end(daemon)
        await server.stop()


async def _end(daemon: DaemonProcess) -> None:
    """End the daemon, and tell what could not be ended."""

    try:
        try:
            for console in await _close(daemon):
                print(
                    f"The console {console['console']} could not be ended. Programs of it may be running still, on the "
                    f"display :{console['display']}.",
                    file=sys.stderr,
                )
        finally:
            await daemon.stop()
    except Exception as error:
        print(f"The daemon had to be killed: {error}. Programs of the console may be running still.", file=sys.stderr)


async def _close(daemon: DaemonProcess) -> Sequence[Mapping[str, Any]]:
    """Returns those consoles that could not be closed."""

    if not daemon.is_running:
        return []
    client = await daemon.connect()
    there = (await client.must("console list"))["consoles"]
    closed = [await client.must(f"console close console={one['console']}", CLOSE_LIMIT) for one in there]
    await client.close()
    return [one for answer in closed for one in answer["closed"] if one["state"] != "closed"]


async def _begin(server: SimulatedServer, daemon: DaemonProcess, show: Show) -> None:
    await server.start()
    await daemon.start()
    await _open(server, daemon, show)


def _once(stopped: Deferred[None]) -> None:
    if not stopped.called:
        stopped.callback(None)


async def _open(server: SimulatedServer, daemon: DaemonProcess, show: Show) -> None:
    client = await daemon.connect()
    await _examine(client)
    device = server.device()
    await client.must(
        f"device add name={DEVICE} address={device.address} port={device.port} web={device.web} cipher={device.cipher} "
        f"username={device.username} password={device.password.reveal()} notes='simulated by make demo'"
    )
    words = f"device={DEVICE}" + (f" type={show.type}" if show.type != "panel" else "")
    reply = await client.ask(f"console open {words}")
    if not reply.ok:
        raise DemoError(" ".join(filter(None, (reply.body["message"], reply.body.get("hint")))))
    opened = reply.body
    status = await client.must("daemon status")
    await client.close()
    here = _short(Path(sys.executable).parent)
    control = f"{here}/ipmiproxyctl --socket {daemon.control}"
    warnings = "".join(f"Warning: {warning}\n" for warning in opened["warnings"])
    print(
        f"\nConsole: {opened['url']}\n"
        f"Control: ipmiproxyctl --socket {daemon.control}\n{warnings}\n"
        f"The URL works once; 'console open {words}' tells another one.\n{_to_do(server, show)}\n"
        f"Displays run as {status['agents'][0]['displays_run_as']}. "
        f"ipmiproxyctl is in {here}; for example:\n\n"
        f"    {control} {'power status' if show.type == 'panel' else 'vendor probe'} device={DEVICE}\n\n"
        "Ctrl-C ends it all.",
        flush=True,
    )


async def _examine(client: WireClient) -> None:
    """Tell what the doctor finds on this machine, all but what is well."""

    print("Looking whether this machine has what consoles need …", flush=True)
    checked = await client.must("agent check name=local", CHECK_LIMIT)
    findings = checked["findings"]
    seconds = sum(one.get("ms", 0) for one in findings if one["what"].startswith("trial")) / 1000
    print(f"Found: {summary([one['level'] for one in findings])}; the trial consoles took {seconds:.1f} s.")
    for one in findings:
        if one["level"] != "ok":
            print(f"  {one['level']}: {one['words']} {one['advice']}")


def _to_do(server: SimulatedServer, show: Show) -> str:
    """What whoever has opened the console can try there."""

    device = server.device()
    record = f"What happens at the simulated panel is written to\n    {server.panel.folder / RECORD}"
    if show.type == "panel":
        return f"Sign in as {device.username} with {device.password.reveal()}."
    if show.type == "java":
        return (
            "The daemon has signed in at the panel and fetched its Java program, which runs in the display. Type: it\n"
            f"tells the simulated server every key, and shows it. {record}"
        )
    return f"The daemon has signed in at the panel. {record}"


def _short(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)


async def told(reactor: Any, folder: Path, show: Show) -> None:
    try:
        await demonstrate(reactor, folder, show)
    except DemoError as error:
        print(f"The demo cannot go on: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the name or address at which browsers find this machine")
    parser.add_argument("--vendor", default="", help="whose panel the simulated server has")
    parser.add_argument("--type", default="", help="the console's type")
    given = parser.parse_args()
    try:
        show = wanted(given.vendor, given.type, given.host or "127.0.0.1")
    except DemoError as error:
        parser.exit(2, f"{error}\n")
    folder = Path(tempfile.mkdtemp(prefix="ipmiproxyd-demo-", dir="/tmp"))
    users = display_users()
    try:
        task.react(lambda reactor: Deferred.fromCoroutine(told(reactor, folder, show)))
    finally:
        shutil.rmtree(folder)
        if os.geteuid() == 0:
            remove_users(display_users() - users)


if __name__ == "__main__":
    main()
