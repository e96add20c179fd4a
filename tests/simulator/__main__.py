"""A simulated server until TERM or Ctrl-C: ``python -m tests.simulator --folder FOLDER``.

Prints one JSON line when it is up: name, address, port, username, web, password_file, chassis_log and record (files).
The password is in ``password`` in the folder (mode 0600), never in the output.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from tests.simulator.bmc import ADMIN
from tests.simulator.files import write_private
from tests.simulator.panel import RECORD
from tests.simulator.server import SimulatedServer
from tests.simulator.vendors import PERSONALITIES


async def run(reactor: Any, options: argparse.Namespace) -> None:
    server = SimulatedServer(
        options.folder.absolute(),
        name=options.name,
        address=options.address,
        bmc_port=options.bmc_port,
        web_port=options.web_port,
        personality=options.personality,
        hint=options.hint,
        reactor=reactor,
    )
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(server.stop()))
    await server.start()
    secret = server.bmc.folder / "password"
    write_private(secret, ADMIN.password + "\n")
    told = {
        "name": server.name,
        "address": server.bmc.address,
        "port": server.bmc.port,
        "username": ADMIN.name,
        "web": server.panel.url,
        "password_file": str(secret),
        "chassis_log": str(server.chassis.folder / "log"),
        "record": str(server.panel.folder / RECORD),
    }
    print(json.dumps(told), flush=True)
    await Deferred()


def main() -> None:
    parser = argparse.ArgumentParser(prog="simulator", description="A simulated server: BMC and panel.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", default="node1")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--bmc-port", type=int, default=0, help="0: a free one")
    parser.add_argument("--web-port", type=int, default=0, help="0: a free one")
    parser.add_argument("--personality", choices=sorted(PERSONALITIES), default="generic")
    parser.add_argument("--hint", default="", help="a line for the panel's sign-in page")
    options = parser.parse_args()
    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, options)))


if __name__ == "__main__":
    main()
