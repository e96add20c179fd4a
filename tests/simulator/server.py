"""A simulated server: its BMC and its panel, with one set of users, in one folder."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.task import deferLater

from ipmiproxyd.model import Device, Secret
from tests.simulator.bmc import ADMIN, BmcUser, SimulatedBmc
from tests.simulator.chassis import Chassis
from tests.simulator.files import write_private
from tests.simulator.panel import RECORD, SETTINGS, Settings
from tests.simulator.process import Child, Reactor, start, the_reactor

START_LIMIT: Final = 20.0
LOOK_EVERY: Final = 0.02
_ROOT: Final = Path(__file__).parents[2]


class SimulatedPanel:
    """The panel's process.

    :ivar url: its address, after :meth:`start`.
    """

    def __init__(self, folder: Path, settings: Settings, *, reactor: Reactor | None = None) -> None:
        self.folder = folder
        self.settings = settings
        self.url = ""
        self._reactor = reactor or the_reactor()
        self._child = Child()

    @property
    def pid(self) -> int:
        return self._child.pid

    async def start(self) -> None:
        """Returns when it listens.

        :raises RuntimeError: it ended or does not listen."""

        write_private(self.folder / SETTINGS, json.dumps(dataclasses.asdict(self.settings)))
        listens: Deferred[str] = Deferred()
        self._child = Child(lambda line: None if listens.called else listens.callback(line))
        # -P keeps a "tests" package in the working folder from being taken for ours.
        argv = [sys.executable, "-P", "-c", _RUN, str(_ROOT), "--folder", str(self.folder)]
        start(self._reactor, self._child, argv, self.folder)
        self._child.when_ended().addCallback(lambda _: None if listens.called else listens.cancel())
        try:
            self.url = json.loads(await listens.addTimeout(START_LIMIT, self._reactor))["url"]
        except BaseException as error:
            await self.stop()
            if isinstance(error, Exception):
                raise RuntimeError(f"the panel did not start: {self._child.output.decode()}") from error
            raise

    async def stop(self) -> None:
        """Idempotent."""

        if self._child.transport is not None:
            await self._child.stop(self._reactor)

    def record(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What has happened so far (of one kind); the kinds are told in panel.py."""

        path = self.folder / RECORD
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if kind is None or event["kind"] == kind]

    async def recorded(
        self, kind: str, matching: Callable[[Mapping[str, Any]], bool] = lambda _: True, *, limit: float = 10.0
    ) -> dict[str, Any]:
        """The first event that matches, as soon as it has happened.

        :raises AssertionError: it does not happen within ``limit`` seconds."""

        begun = self._reactor.seconds()
        while True:
            for event in self.record(kind):
                if matching(event):
                    return event
            if self._reactor.seconds() - begun > limit:
                raise AssertionError(f"no such {kind} within {limit:g} s; there was: {self.record()[-20:]}")
            await deferLater(self._reactor, LOOK_EVERY)


_RUN: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from tests.simulator.panel import main; main()"


class SimulatedServer:
    """One server to be looked after: ``bmc`` and ``panel`` are there after :meth:`start`.

    :param users: who may sign in, at the BMC and at the panel alike; :meth:`device` uses the first.
    :param kg: the BMC's K_G key, as text.
    :param personality: what kind of panel it shows (see personality.py), with ``attributes`` of it (``mood``, …).
    :param hint: a line on the panel's sign-in page.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "node1",
        users: Sequence[BmcUser] = (ADMIN,),
        address: str = "127.0.0.1",
        bmc_port: int = 0,
        web_port: int = 0,
        kg: str = "",
        personality: str = "generic",
        attributes: Mapping[str, Any] | None = None,
        hint: str = "",
        reactor: Reactor | None = None,
    ) -> None:
        self.name = name
        self.users = tuple(users)
        self.kg = kg
        folder.mkdir(parents=True, exist_ok=True)
        self.bmc = SimulatedBmc(
            folder, users=users, address=address, port=bmc_port, kg=kg, name="bmc", reactor=reactor
        )
        settings = Settings(
            name=name,
            address=address,
            port=web_port,
            personality=personality,
            users={user.name: user.password for user in users},
            chassis=str(self.bmc.chassis.folder),
            hint=hint,
            attributes=dict(attributes or {}),
        )
        self.panel = SimulatedPanel(folder, settings, reactor=reactor)

    @property
    def chassis(self) -> Chassis:
        return self.bmc.chassis

    async def start(self) -> None:
        """Returns when both answer; otherwise nothing of it runs.

        :raises RuntimeError: see its parts."""

        both = [Deferred.fromCoroutine(part.start()) for part in (self.bmc, self.panel)]
        try:
            await gatherResults(both, consumeErrors=True)
        except BaseException as error:
            for part in both:
                part.addErrback(lambda _failure: None)
                part.cancel()
            await self.stop()
            if isinstance(error, FirstError):
                error.subFailure.raiseException()
            raise

    async def stop(self) -> None:
        """Idempotent."""

        await self.bmc.stop()
        await self.panel.stop()

    def device(self, **changes: Any) -> Device:
        """It as a device of the daemon."""

        user = self.users[0]
        fields: dict[str, Any] = {
            "name": self.name,
            "address": self.bmc.address,
            "port": self.bmc.port,
            "username": user.name,
            "password": Secret(user.password),
            "cipher": "3",
            "kg": Secret(self.kg.encode().hex()),
            "web": self.panel.url,
        }
        return Device(**{**fields, **changes})
