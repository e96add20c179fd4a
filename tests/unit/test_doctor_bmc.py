"""What the doctor says of the way to a BMC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents.findings import Finding
from ipmiproxyd.doctor.bmc import MANY, BmcCheck, BmcRooms, _Target, _told
from ipmiproxyd.errors import BadCertificate, BmcUnreachable, ProxyError
from ipmiproxyd.model import Command, Device, Outcome
from ipmiproxyd.tools.names import Names
from ipmiproxyd.vendors.ports import ALL, Port
from tests.support.fake_rooms import FakeAgent


class Nameless(FakeAgent):
    """It knows no name."""

    async def run(self, command: Command) -> Outcome:
        return Outcome(status=2 if command.argv[0] == "getent" else 0)


@dataclass
class Family:
    ports: Mapping[str, Sequence[Port]]
    label: str = "Acme"

    def needed_ports(self) -> Mapping[str, Sequence[Port]]:
        return self.ports


@dataclass
class Rooms:
    """A panel of such a family; ``error`` is raised by a conversation with it."""

    family: Family = field(default_factory=lambda: Family({}))
    error: ProxyError | None = None

    async def known(self, *_: Any) -> Family:
        return self.family

    async def trusted(self, *_: Any) -> tuple[str, str]:
        return "modern", "pin"

    async def shared_with(self, *_: Any) -> list[str]:
        return []

    async def talk(self, *_: Any) -> None:
        if self.error is not None:
            raise self.error


class BmcTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rooms = Rooms()
        self.tried: list[_Target] = []

    def check(self, **fields: Any) -> BmcCheck:
        desk = cast(Any, self.rooms)
        rooms = BmcRooms(names=Names(), panels=desk, vendors=desk, power=desk, store=desk)
        check = BmcCheck(rooms, cast(Any, Nameless()), Device(name="node17", address="192.0.2.1", **fields))

        async def reached(targets: Sequence[_Target]) -> Sequence[Mapping[str, Any]]:
            self.tried += targets
            return [{"ms": 1} for _ in targets]

        self.patch(BmcCheck, "_reached", lambda _, targets: reached(targets))
        return check

    def told(self, findings: Sequence[Finding], *expected: tuple[str, str]) -> None:
        self.assertEqual([one.level for one in findings], [level for level, _ in expected], findings)
        for one, (_, words) in zip(findings, expected, strict=True):
            self.assertIn(words, one.words)

    def console_ports(self, *ports: Port) -> Sequence[Finding]:
        self.rooms.family = Family({"panel": ports} if ports else {})
        return cast(Sequence[Finding], self.successResultOf(_begun(self.check().console_ports())))

    def test_ports_of_consoles(self) -> None:
        """Those that are too many to be tried are told."""

        self.told(self.console_ports(), ("ok", "need no port beside the panel's"))
        self.told(self.console_ports(*ALL), ("ok", "too many to be tried: any."))
        self.assertEqual(self.tried, [])
        found = self.console_ports(5900, (6000, 7000))
        self.told(found, ("ok", "too many to be tried: 6000-7000."), ("ok", "192.0.2.1:5900 after"))
        found = self.console_ports((5900, 5899 + MANY), 8000)
        self.told(found, ("ok", "too many to be tried: 8000."), ("ok", f"192.0.2.1:{5899 + MANY} after"))

    def test_a_vnc_server_elsewhere(self) -> None:
        check = self.check(vnc="192.0.2.9:5901")
        self.told(self.successResultOf(_begun(check.ports())), ("ok", "192.0.2.9:5901 (vnc=) after 1 ms"))
        found = self.successResultOf(_begun(self.check(vnc="elsewhere.example:5901").ports()))
        self.told(found, ("fault", "elsewhere.example is not known"), ("ok", "192.0.2.1:443 (the panel)"))

    def panel(self, trust: str) -> Sequence[Finding]:
        check = self.check(web_trust=trust)
        self.successResultOf(_begun(check.ports()))
        return cast(Sequence[Finding], self.successResultOf(_begun(check.panel())))

    def test_who_vouches(self) -> None:
        """Nothing is said that was not looked at."""

        self.told(self.panel("pin"), ("ok", "its key is the one that is known"))
        careless = self.panel("insecure")
        self.told(careless, ("ok", "TLS 1.2 or later."), ("warning", "is not looked at"))
        self.told(self.panel("ca"), ("ok", "TLS 1.2 or later."), ("ok", "vouches for its certificate."))
        self.rooms.error = BadCertificate("Nobody vouches for it.")
        self.told(self.panel("ca"), ("ok", "TLS 1.2 or later."), ("fault", "Nobody vouches for it."))
        self.rooms.error = BmcUnreachable("It is away.")
        self.told(self.panel("ca"), ("ok", "TLS 1.2 or later."), ("warning", "is not known: It is away."))

    def test_ports(self) -> None:
        """One finding for all that ended alike."""

        targets = [_Target("192.0.2.1", port, "", always=False) for port in (1, 2, 3, 4, 5)]
        answers: list[dict[str, Any]] = [
            {"ms": 3}, {"refused": True}, {"silent": True}, {"refused": True}, {"failed": "No route to host"},
        ]  # fmt: skip
        found = _told("bmc-console-ports", targets, answers)
        self.assertEqual([one.level for one in found], ["warning", "fault", "fault", "ok"])
        self.assertIn("Closed just now: 192.0.2.1:2, 192.0.2.1:4.", found[0].words)
        self.assertIn("192.0.2.1:5 cannot be reached: No route to host.", found[2].words)


def _begun(work: Any) -> Any:
    return Deferred.fromCoroutine(work)
