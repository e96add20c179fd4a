"""The simulated BMC: ``ipmi_sim`` of OpenIPMI, one process for one BMC.

    <folder>/lan.conf, bmc.emu   what ipmi_sim reads (the users' passwords are in lan.conf: mode 0600)
    <folder>/chassis.sh, chassis the box that it switches, with its log (see chassis.py)
    <folder>/state               what ipmi_sim itself remembers
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

from tests.simulator import chassis
from tests.simulator.chassis import Chassis
from tests.simulator.files import write_private
from tests.simulator.process import Child, Reactor, start, the_reactor

START_LIMIT: Final = 10.0
ASK_EVERY: Final = 0.02

# "Get Channel Authentication Capabilities": the one question that every BMC answers without a session.
HELLO: Final = bytes.fromhex("0600ff07 000000000000000000 09 2018c8 8100388e04b5")

_LAN: Final = """\
name "{name}"
set_working_mc 0x20
  startlan 1
    addr {address} {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid 5f1d0c6e9b7a4e3c8d2f1a0b9c8d7e6f
{key}  endlan
  chassis_control "{folder}/chassis.sh {folder}/chassis"
  user 1 false "" "" user 10 none md2 md5 straight
{users}
"""

_EMULATION: Final = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x2a7c 0x0901 persist_sdr
sel_enable 0x20 1000 0x0a
sensor_add 0x20 0 1 0x01 0x01 poll 1000 file "{folder}/temperature"
sensor_set_value 0x20 0 1 0x28 0
sensor_set_threshold 0x20 0 1 settable 111000 0xa0 0x90 0x70 00 00 00
sensor_set_event_support 0x20 0 1 enable scanning per-state 000111111000000 000111111000000 \\
    000111111000000 000111111000000
mc_enable 0x20
"""

_SENSORS: Final = """\
sdr type 1
	sensor_owner_id		0x20
	sensor_owner_lun	0
	channel_number		0
	sensor_number		1
	entity_id		system_board
	entity_instance		1
	sensor_type		Temperature
	init_scanning		true
	init_sensor_type	true
	default_sensor_scan_on	true
	event_reading_type_code	1
	analog_data_format	unsigned
	rate_unit		none
	modifier_unit		none
	percentage		false
	base_unit		degrees_C
	modifier_unit_code	unspecified
	linearization		linear
	m			1
	tolerance		0
	b			0
	accuracy		1
	accuracy_exp		0
	sensor_direction	input
	r_exp			0
	b_exp			0
	sensor_maximum		255
	sensor_minimum		0
	id_string		"Board temp"
endsdr
"""


@dataclass(frozen=True, slots=True)
class BmcUser:
    """``privilege``: callback, user, operator or admin. ipmi_sim takes no spaces or quotes in name and password."""

    name: str
    password: str
    privilege: str = "admin"


ADMIN: Final = BmcUser("ADMIN", "simulated-1")


class SimulatedBmc:
    """One BMC. Its port is chosen at :meth:`start`, unless it is given.

    :param kg: the BMC's K_G key, as text of up to 19 characters (ipmi_sim cuts it there); empty: none.
    :ivar chassis: the box that it switches.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: Sequence[BmcUser] = (ADMIN,),
        address: str = "127.0.0.1",
        port: int = 0,
        kg: str = "",
        name: str = "bmc",
        reactor: Reactor | None = None,
    ) -> None:
        self.folder = folder
        self.users = tuple(users)
        self.address = address
        self.port = port
        self.chassis = Chassis(folder / "chassis")
        self._chosen = port == 0
        self._kg = kg
        self._name = name
        self._reactor = reactor or the_reactor()
        self._child = Child()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running and self._child.transport is not None

    async def start(self) -> None:
        """Returns when the BMC answers. It keeps its power state and log over a restart.

        :raises RuntimeError: it ended, did not answer, or another program has its port."""

        await self._prepare()
        while True:
            if self._chosen:
                self.port = free_udp_port(self.address)
            self._write_lan()
            self._child = Child()
            start(self._reactor, self._child, ["ipmi_sim", *self._arguments()], self.folder)
            try:
                await self._answers()
            except BaseException:
                await self.stop()
                raise
            # On a port that another program has ipmi_sim starts silently, and either may get a packet.
            if owns_udp_port_alone(self.pid, self.address, self.port):
                return
            await self.stop()
            if not self._chosen:
                raise RuntimeError(f"another program has UDP port {self.port}")

    async def stop(self) -> None:
        """Idempotent."""

        if self._child.transport is not None:
            await self._child.stop(self._reactor)

    def _arguments(self) -> list[str]:
        return ["-c", str(self.folder / "lan.conf"), "-f", str(self.folder / "bmc.emu"), "-s", "state", "-n"]

    async def _prepare(self) -> None:
        sensors = self.folder / "state" / "ipmi_sim" / self._name
        sensors.mkdir(parents=True, exist_ok=True)
        if not self.chassis.folder.exists():
            self.chassis.make()
        script = self.folder / "chassis.sh"
        script.write_text(chassis.SCRIPT)
        script.chmod(0o755)
        (self.folder / "temperature").write_text("40\n")
        (self.folder / "bmc.emu").write_text(_EMULATION.format(folder=self.folder))
        (self.folder / "sensors.sdrs").write_text(_SENSORS)
        compiling = Child()
        target = str(sensors / "sdr.20.main")
        start(self._reactor, compiling, ["sdrcomp", "-o", target, str(self.folder / "sensors.sdrs")], self.folder)
        await compiling.when_ended()

    def _write_lan(self) -> None:
        users = "\n".join(
            f'  user {number} true "{user.name}" "{user.password}" {user.privilege} 10 none md2 md5 straight'
            for number, user in enumerate(self.users, start=2)
        )
        text = _LAN.format(
            name=self._name,
            address=self.address,
            port=self.port,
            folder=self.folder,
            users=users,
            key=f'    bmc_key "{self._kg}"\n' if self._kg else "",
        )
        write_private(self.folder / "lan.conf", text)

    async def _answers(self) -> None:
        hello = _Hello(self._reactor, self.address, self.port)
        listening = self._reactor.listenUDP(0, hello, self.address, 8192)
        gone = self._child.when_ended()
        gone.addCallback(lambda _: hello.give_up(RuntimeError(f"ipmi_sim ended: {self._child.output!r}")))
        try:
            await hello.answered.addTimeout(START_LIMIT, self._reactor)
        except TimeoutError:
            raise RuntimeError(f"ipmi_sim does not answer: {self._child.output!r}") from None
        finally:
            hello.give_up(None)
            await _stopped(listening.stopListening())


class _Hello(DatagramProtocol):
    """Asks until the BMC answers."""

    def __init__(self, reactor: Reactor, address: str, port: int) -> None:
        self.answered: Deferred[None] = Deferred()
        self._reactor = reactor
        self._target = (address, port)
        self._next: IDelayedCall | None = None
        self._over = False

    def startProtocol(self) -> None:
        self._ask()

    def _ask(self) -> None:
        assert self.transport is not None
        self.transport.write(HELLO, self._target)
        self._next = self._reactor.callLater(ASK_EVERY, self._ask)

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.give_up(None)

    def give_up(self, why: Exception | None) -> None:
        """Ask no more; None: it has answered, or nobody waits any more."""

        if self._next is not None and self._next.active():
            self._next.cancel()
        if not self._over:
            self._over = True
            if not self.answered.called:
                self.answered.callback(None) if why is None else self.answered.errback(why)


async def _stopped(stopping: object) -> None:
    if isinstance(stopping, Deferred):
        await stopping


def free_udp_port(address: str) -> int:
    """A UDP port that nobody has at this moment."""

    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def owns_udp_port_alone(pid: int, address: str, port: int) -> bool:
    """Is one of the process's sockets bound to this UDP port of this address, and nobody else's?"""

    bound = []
    mine = _as_in_proc(address)
    for table in ("udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            host, _, number = columns[1].partition(":")
            if int(number, 16) == port and (host == mine or not int(host, 16)):
                bound.append(f"socket:[{columns[9]}]")
    return len(bound) == 1 and any(_target(link) == bound[0] for link in Path(f"/proc/{pid}/fd").iterdir())


def _as_in_proc(address: str) -> str:
    """An address as the kernel's tables write it: 32 bits at a time, in the machine's order."""

    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""  # it was closed in between
