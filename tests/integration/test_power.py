"""Power by the real ipmitool against the real ipmi_sim."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import TestCase

from ipmiproxyd.agents.local import LocalAgent
from ipmiproxyd.errors import (
    BmcAuth,
    BmcPrivilege,
    BmcState,
    BmcUnreachable,
    BmcUnsupported,
    ProxyError,
    TimedOut,
    ToolMissing,
)
from ipmiproxyd.model import BMC_CIPHER, Command, Device, Secret
from ipmiproxyd.tools.ipmitool import ENTERPRISE_NUMBERS, ENTERPRISE_NUMBERS_PATH, IpmiPower
from tests.simulator.bmc import ADMIN, BmcUser, SimulatedBmc, free_udp_port
from tests.support.memory_store import MemoryStore
from tests.support.scratch import scratch

OPERATOR = BmcUser("oper", "simulated-2", "operator")
KG = "a-key-of-19-charac!"


class PowerCase(TestCase):
    kg = ""

    async def setUp(self) -> None:  # type: ignore[override]
        folder = scratch(self)
        self.store = MemoryStore()
        self.agent = local_agent(folder)
        self.power = self.make()
        self.bmc = SimulatedBmc(folder / "bmc", users=(ADMIN, OPERATOR), kg=self.kg)
        self.addCleanup(self.bmc.stop)
        await self.bmc.start()

    def make(self, **settings: Any) -> IpmiPower:
        return IpmiPower(lambda _name: self.agent, self.store, cast(IReactorTime, reactor), **settings)

    def device(self, **fields: Any) -> Device:
        given: dict[str, Any] = {
            "address": self.bmc.address,
            "port": self.bmc.port,
            "username": ADMIN.name,
            "password": Secret(ADMIN.password),
            "cipher": "3",
            **fields,
        }
        return Device(**given)

    async def refusal(self, error: type[ProxyError], device: Device, action: str = "status") -> ProxyError:
        """It is refused with that error, in plain words, within 5 seconds of ipmitool's."""

        begun = time.monotonic()
        with self.assertRaises(ProxyError) as caught:
            await (self.power.status(device) if action == "status" else self.power.act(device, action))
        self.assertLess(time.monotonic() - begun, 7)
        self.assertIs(type(caught.exception), error, caught.exception)
        for secret in (device.password.reveal(), "RAKP", "ipmitool failed"):
            self.assertNotIn(secret, f"{caught.exception.message} {caught.exception.hint}")
        error_met: ProxyError = caught.exception
        return error_met


class ActionTests(PowerCase):
    async def test_power_cycle_is_seen_by_the_bmc(self) -> None:
        await self.power.act(self.device(), "on", wait=10)
        lines: list[Any] = []
        result = await self.power.act(self.device(), "cycle", wait=20, progress=lines.append)
        self.assertEqual(result, {"action": "cycle", "power": "on"})
        self.assertEqual(self.bmc.chassis.done(), ["power 1", "power 0", "power 1"])
        self.assertEqual({event.by for event in self.bmc.chassis.events()}, {"bmc"})
        self.assertEqual(lines[-1]["power"], "on")

    async def test_every_action(self) -> None:
        self.assertEqual(await self.power.status(self.device()), "off")
        for action, seen, after in (
            ("on", "power 1", "on"),
            ("reset", "reset 1", "on"),
            ("soft", "shutdown 1", "off"),
            ("on", "power 1", "on"),
            ("off", "power 0", "off"),
        ):
            await self.power.act(self.device(), action)
            self.assertEqual(self.bmc.chassis.done()[-1], seen)
            self.assertEqual(await self.power.status(self.device()), after)

    async def test_waiting_for_an_operating_system_that_does_not_react(self) -> None:
        await self.power.act(self.device(), "on")
        self.bmc.chassis.ignore_soft()
        with self.assertRaises(TimedOut) as caught:
            await self.power.act(self.device(), "soft", wait=1.5)
        self.assertIn("still reports that the server is on", caught.exception.message)
        self.assertEqual(ipmitools(self.bmc.port), [])

    async def test_cipher_auto_finds_and_remembers(self) -> None:
        device = self.device(cipher="auto")
        self.assertEqual(await self.power.status(device), "off")
        (document,) = self.store.documents[BMC_CIPHER].values()
        self.assertEqual(document, {"cipher": 3})
        await self.power.act(device, "on")
        self.assertEqual(self.bmc.chassis.done(), ["power 1"])

    async def test_lan(self) -> None:
        self.assertEqual(await self.power.status(self.device(interface="lan")), "off")

    async def test_lower_privilege_is_enough(self) -> None:
        device = self.device(username=OPERATOR.name, password=Secret(OPERATOR.password), privilege="operator")
        await self.power.act(device, "on")
        self.assertEqual(self.bmc.chassis.done(), ["power 1"])

    async def test_small_file_of_manufacturers_is_read(self) -> None:
        """The large one, which takes ipmitool most of its time, has another name for this one."""

        argv = "ipmitool -I lanplus -H {} -p {} -U {} -f /dev/stdin -C 3 mc info"
        words = argv.format(self.bmc.address, self.bmc.port, ADMIN.name).split()
        outcome = await self.agent.run(Command(argv=tuple(words), stdin=f"{ADMIN.password}\n".encode()))
        self.assertIn(b": Supermicro\n", outcome.stdout)

    async def test_many_at_once(self) -> None:
        answers = await gatherResults(
            [Deferred.fromCoroutine(self.power.status(self.device())) for _ in range(8)]
        )
        self.assertEqual(answers, ["off"] * 8)


class FailureTests(PowerCase):
    async def test_wrong_password(self) -> None:
        error = await self.refusal(BmcAuth, self.device(password=Secret("wrong")))
        self.assertIn("password", error.message)

    async def test_unknown_user(self) -> None:
        error = await self.refusal(BmcAuth, self.device(username="nobody"))
        self.assertIn("does not know the user nobody", error.message)

    async def test_refused_over_lan(self) -> None:
        error = await self.refusal(BmcAuth, self.device(interface="lan", password=Secret("wrong")))
        self.assertIn("password", error.message)
        error = await self.refusal(BmcAuth, self.device(interface="lan", username="nobody"))
        self.assertIn("does not know the user nobody", error.message)

    async def test_refused_is_not_repeated(self) -> None:
        device = self.device(password=Secret("wrong"))
        await self.refusal(BmcAuth, device)
        await self.bmc.stop()
        await self.refusal(BmcAuth, device)

    async def test_privilege(self) -> None:
        await self.refusal(BmcPrivilege, self.device(privilege="user"), "on")
        self.assertEqual(self.bmc.chassis.done(), [])

    async def test_no_host(self) -> None:
        await self.bmc.stop()
        # At other addresses, so that neither waits for the other's turn.
        devices = (self.device(), self.device(address="127.0.0.2", interface="lan"))
        refusals = [Deferred.fromCoroutine(self.refusal(BmcUnreachable, device)) for device in devices]
        for error in await gatherResults(refusals):
            self.assertIn("does not answer", error.message)

    async def test_unsupported_action(self) -> None:
        await self.power.act(self.device(), "on")
        await self.refusal(BmcUnsupported, self.device(), "diag")

    async def test_cipher_suite(self) -> None:
        error = await self.refusal(BmcUnsupported, self.device(cipher="17"))
        self.assertIn("cipher suite", error.message)
        self.power = self.make(ciphers=(17,))
        error = await self.refusal(BmcUnsupported, self.device(cipher="auto"))
        self.assertIn("17", error.message)

    async def test_wrong_state(self) -> None:
        for action, words in (("off", "already off"), ("cycle", "is off"), ("soft", "is off")):
            error = await self.refusal(BmcState, self.device(), action)
            self.assertIn(words, error.message)
        await self.power.act(self.device(), "on")
        error = await self.refusal(BmcState, self.device(), "on")
        self.assertIn("already on", error.message)
        self.assertEqual(self.bmc.chassis.done(), ["power 1"])

    async def test_no_ipmitool(self) -> None:
        self.power = self.make(program="no-such-ipmitool")
        for fields in ({}, {"kg": Secret("6162")}):
            await self.refusal(ToolMissing, self.device(**fields))


class KgTests(PowerCase):
    kg = KG

    async def test_kg(self) -> None:
        device = self.device(kg=Secret(KG.encode().hex()))
        await self.power.act(device, "on")
        self.assertEqual(self.bmc.chassis.done(), ["power 1"])

    async def test_wrong_kg(self) -> None:
        for kg in ("", b"another_key".hex()):
            error = await self.refusal(BmcAuth, self.device(kg=Secret(kg)))
            self.assertIn("K_G", error.message)

    async def test_wrong_password_with_the_right_kg(self) -> None:
        error = await self.refusal(BmcAuth, self.device(kg=Secret(KG.encode().hex()), password=Secret("wrong")))
        self.assertIn("refused the password", error.message)


class SilentBmc(DatagramProtocol):
    """Takes packets and never answers: ipmitool stays under way. ``asked`` fires with the first packet."""

    def __init__(self) -> None:
        self.asked: Deferred[None] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        if not self.asked.called:
            self.asked.callback(None)


class SecretTests(TestCase):
    """While ipmitool runs, no process shows what it signs in with."""

    PASSWORD = "no-such-password-2"
    KG = "no-such-key-1234567"

    async def watch(self, kg: str, *needles: str) -> None:
        power = IpmiPower(lambda _name: local_agent(scratch(self)), MemoryStore(), cast(IReactorTime, reactor))
        silent = SilentBmc()
        listening = cast(Any, reactor).listenUDP(0, silent, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        port: int = listening.getHost().port
        device = Device(
            address="127.0.0.1", port=port, username="ADMIN", password=Secret(self.PASSWORD), kg=Secret(kg), cipher="3"
        )
        asking = Deferred.fromCoroutine(power.status(device))
        await silent.asked
        self.assertEqual(len(ipmitools(port)), 1)
        shown = shown_by_processes()
        for needle in needles:
            self.assertNotIn(needle.encode(), shown)
        asking.cancel()
        with self.assertRaises(CancelledError):
            await asking
        self.assertEqual(ipmitools(port), [])

    async def test_password(self) -> None:
        await self.watch("", self.PASSWORD)

    async def test_kg(self) -> None:
        kg = self.KG.encode().hex()
        await self.watch(kg, self.PASSWORD, self.KG, kg)


def shown_by_processes() -> bytes:
    """The command line of every process, and the environment of those that we may look at."""

    return b"".join(_read(folder / name) for folder in _processes() for name in ("cmdline", "environ"))


def ipmitools(port: int) -> list[str]:
    """The command lines of every ipmitool that talks to this port."""

    lines = (_read(folder / "cmdline").split(b"\0") for folder in _processes())
    wanted = str(port).encode()
    return [b" ".join(line).decode() for line in lines if b"ipmitool" in line and wanted in line]


def _processes() -> list[Path]:
    return [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""  # it has ended in between, or is somebody else's


def local_agent(folder: Path) -> LocalAgent:
    """One that was not started, since that concerns jobs; but its tools find their small file."""

    numbers = folder / "tools" / ENTERPRISE_NUMBERS_PATH
    numbers.parent.mkdir(parents=True)
    numbers.write_text(ENTERPRISE_NUMBERS)
    return LocalAgent(
        "local",
        jobs_dir=folder / "jobs",
        jobs_name="",
        tool_home=folder / "tools",
        home_files={},
        python="/usr/bin/python3",
        users="never",
        user_prefix="test_",
        group="",
        lease=60,
        reactor=reactor,
    )


class PortTests(TestCase):
    """The simulator's own choice of ports."""

    async def test_port_of_another_program(self) -> None:
        folder = scratch(self)
        port = free_udp_port("127.0.0.1")
        first = SimulatedBmc(folder / "first", port=port)
        second = SimulatedBmc(folder / "second", port=port)
        for bmc in (first, second):
            self.addCleanup(bmc.stop)
        await first.start()
        with self.assertRaises(RuntimeError):
            await second.start()
        self.assertFalse(second.running)
