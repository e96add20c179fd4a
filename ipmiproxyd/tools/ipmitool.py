"""Power by ipmitool: its command line, its secrets, and how often it is run.

One action asks for the power state first, since many BMCs confirm "off" for a server that is off already. That
question also finds the cipher suite and meets every refusal before anything is switched.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ipmiproxyd.errors import (
    BadValue,
    BmcError,
    BmcState,
    BmcUnreachable,
    BmcUnsupported,
    InternalError,
    TimedOut,
)
from ipmiproxyd.interfaces import Agent, Progress, Store
from ipmiproxyd.model import BMC_CIPHER, Command, Device, Outcome, bmc_key
from ipmiproxyd.tools.refusals import Refusals
from ipmiproxyd.tools.turns import Turns
from ipmiproxyd.wire import ipmitool as wire
from ipmiproxyd.wire.device import checked

log = Logger()

ENTERPRISE_NUMBERS_PATH: Final = ".local/usr/share/misc/enterprise-numbers.txt"
"""Where ipmitool looks for :data:`ENTERPRISE_NUMBERS` first, in the HOME that an agent gives its commands."""

ENTERPRISE_NUMBERS: Final = "".join(
    f"{number}\n  {name}\n"
    for number, name in (
        (0, "Reserved"),
        (2, "IBM"),
        (11, "Hewlett-Packard"),
        (42, "Sun Microsystems"),
        (111, "Oracle"),
        (343, "Intel Corporation"),
        (674, "Dell Inc."),
        (2011, "Huawei"),
        (2623, "ASUSTek"),
        (5771, "Cisco"),
        (7244, "Quanta"),
        (10368, "Fujitsu"),
        (10876, "Supermicro"),
        (15370, "Gigabyte"),
        (19046, "Lenovo"),
        (47196, "Hewlett Packard Enterprise"),
        (49622, "ASRock Rack"),
    )
)
"""A small file of manufacturers: with it ipmitool starts in a third of the time, as it need not read the 4.7 MB
that list them all. (An empty file makes it fail.)"""

PASSWORD_LIMITS: Final = {"lanplus": 20, "lan": 16}
"""Bytes of a password that the protocol can carry."""

USERNAME_LIMIT: Final = 16
"""Bytes of a user name."""

_LINE_MARKS = re.compile(r"[\x00-\x1f\x7f]")

# ipmitool takes a K_G key from its argv, from its environment, or as a prompt's answer. Without a terminal it reads
# the answer from stdin, which then cannot carry the password too: the shell moves that to descriptor 3, through a
# here-document, which is a pipe. ``read`` and the here-document are the shell's own: no argv, no environment.
_WITH_KG: Final = f"""\
if (: </dev/tty) 2>/dev/null; then exit {wire.NO_TERMINAL_STATUS}; fi
IFS= read -r password
exec "$@" 3<<END
$password
END
"""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long ipmitool waits for each answer (seconds), how often it asks, and for how long it may run at all."""

    answer: int
    tries: int
    limit: float


_QUICK: Final = Patience(answer=2, tries=1, limit=4.8)
"""A host that does not exist is told within 5 seconds: ipmitool asks it twice, 2 seconds each."""

_POLL_FIRST: Final = 0.25
_POLL_GROWTH: Final = 1.5
_POLL_LONGEST: Final = 3.0

_CYCLE_SETTLES: Final = 8.0
"""A server that is told to cycle reports "on" for some time before it goes off, and again afterwards. If it was never
seen off for so many seconds, the time without power was too short to be seen."""


@dataclass(frozen=True, slots=True)
class Action:
    """A power action: the state the server must be in, and the state that it leads to (None: the same)."""

    needs: wire.PowerState
    leads_to: wire.PowerState | None


ACTIONS: Final[Mapping[str, Action]] = {
    "on": Action(needs="off", leads_to="on"),
    "off": Action(needs="on", leads_to="off"),
    "cycle": Action(needs="on", leads_to="on"),
    "reset": Action(needs="on", leads_to=None),
    "soft": Action(needs="on", leads_to="off"),
    "diag": Action(needs="on", leads_to=None),
}


class IpmiPower:
    """Implements :class:`~ipmiproxyd.interfaces.Power`.

    :param agents: gives the agent of a name; raises NotFound.
    :param program: ipmitool on the agents.
    :param parallel: how many ipmitool may run at once over all BMCs.
    :param timeout: seconds that one run of ipmitool may take, and that a request waits for its turn.
    :param ciphers: the cipher suites that ``cipher=auto`` may use, the best first.
    """

    def __init__(
        self,
        agents: Callable[[str], Agent],
        store: Store,
        clock: IReactorTime,
        *,
        program: str = "ipmitool",
        parallel: int = 16,
        timeout: float = 20.0,
        ciphers: Sequence[int] = (17, 3),
    ) -> None:
        self._agents = agents
        self._store = store
        self._clock = clock
        self._program = program
        self._ciphers = tuple(ciphers)
        self._quick = dataclasses.replace(_QUICK, limit=min(_QUICK.limit, timeout))
        self._acting = dataclasses.replace(_QUICK, limit=timeout)
        self._patient = Patience(answer=2, tries=3, limit=timeout)
        self._turns = Turns(clock, places=parallel, patience=timeout)
        self._refusals = Refusals(store)

    async def status(self, device: Device, *, agent: str = "local", force: bool = False) -> str:
        """:raises BadValue: the device's data cannot be used for IPMI. For the rest see the interface."""

        device = usable(device)
        async with self._turns.turn(device.bmc):
            return (await self._ask(device, agent, force=force)).state

    async def act(
        self,
        device: Device,
        action: str,
        *,
        agent: str = "local",
        force: bool = False,
        wait: float | None = None,
        progress: Progress = lambda _: None,
    ) -> Mapping[str, Any]:
        if action not in ACTIONS:
            raise BadValue(f"There is no power action {action!r}.", hint=f"There are {', '.join(ACTIONS)}.")
        device = usable(device)
        plan = ACTIONS[action]
        tell = _Teller(progress, self._clock)
        async with self._turns.turn(device.bmc):
            tell("check", "Asking the BMC for the power state")
            answer = await self._ask(device, agent, force=force)
            if answer.state != plan.needs:
                raise _wrong_state(device, action, answer.state)
            tell("act", f"Sending power {action}", power=answer.state)
            await self._control(device, agent, action, answer.cipher)
        log.info("power {action} accepted by {bmc}", action=action, bmc=device.bmc, agent=agent)
        if wait is None or plan.leads_to is None:
            return {"action": action, "power": None}
        await self._await_state(device, agent, action, wait, tell)
        return {"action": action, "power": plan.leads_to}

    # --- waiting ---------------------------------------------------------------------------------------------------

    async def _await_state(self, device: Device, agent: str, action: str, wait: float, tell: _Teller) -> None:
        seen: list[wire.PowerState] = []
        polling = Deferred.fromCoroutine(self._poll(device, agent, action, min(_CYCLE_SETTLES, wait / 2), seen, tell))
        try:
            await polling.addTimeout(wait, self._clock)
        except TimeoutError:
            last = f"still reports that the server is {seen[-1]}" if seen else "has not told the power state"
            raise TimedOut(
                f"power {action} was sent, but after {wait:g} seconds the BMC {device.bmc} {last}.",
                hint="The server may need longer: ask for power status.",
            ) from None

    async def _poll(
        self, device: Device, agent: str, action: str, settles: float, seen: list[wire.PowerState], tell: _Teller
    ) -> None:
        """Returns once the BMC reports the state that the action leads to. ``seen`` collects what it reports."""

        wanted = ACTIONS[action].leads_to
        begun = self._clock.seconds()
        pause = _POLL_FIRST
        while True:
            await deferLater(self._clock, pause)
            pause = min(pause * _POLL_GROWTH, _POLL_LONGEST)
            try:
                async with self._turns.turn(device.bmc):
                    state = (await self._ask(device, agent, force=False)).state
            except (BmcUnreachable, BmcError, TimedOut) as error:
                # Some BMCs do not answer while the power changes: that is no reason to give up before the time.
                tell("wait", f"Waiting: {error.message}")
                continue
            seen.append(state)
            tell("wait", f"Waiting until the server is {wanted}: it is {state}", power=state)
            was_off = action != "cycle" or "off" in seen or self._clock.seconds() - begun >= settles
            if state == wanted and was_off:
                return

    # --- one question, one command ---------------------------------------------------------------------------------

    async def _ask(self, device: Device, agent: str, *, force: bool) -> _Answer:
        """The power state, and the cipher suite by which it was told. The caller has the BMC's turn."""

        if not force:
            await self._refusals.check(device, agent)
        remembered = await self._remembered(device, agent)
        reading: wire.PowerState | wire.Failure | None = None
        cipher = None
        for cipher in self._candidates(device, remembered):
            reading = await self._status(device, agent, cipher, self._quick)
            if not isinstance(reading, wire.Failure) or not reading.meaning.next_cipher:
                break
        if isinstance(reading, wire.Failure) and reading.meaning.repeat:
            reading = await self._status(device, agent, cipher, self._patient)
        if reading is None:
            raise InternalError("No cipher suite is configured.")
        if isinstance(reading, wire.Failure):
            raise await self._failed(device, agent, reading)
        if device.cipher == "auto" and cipher is not None and cipher != remembered:
            await self._store.put(BMC_CIPHER, bmc_key(device.bmc, agent), {"cipher": cipher})
        await self._refusals.forget(device, agent)
        return _Answer(reading, cipher)

    async def _status(
        self, device: Device, agent: str, cipher: int | None, patience: Patience
    ) -> wire.PowerState | wire.Failure:
        return wire.power_state(await self._run(device, agent, "status", cipher, patience), device)

    async def _control(self, device: Device, agent: str, action: str, cipher: int | None) -> None:
        failure = wire.power_control(await self._run(device, agent, action, cipher, self._acting), device)
        if failure is not None:
            raise await self._failed(device, agent, failure)

    async def _failed(self, device: Device, agent: str, failure: wire.Failure) -> Exception:
        """The error to raise; what the BMC has judged is remembered."""

        if failure.meaning.refused:
            await self._refusals.add(device, agent, failure.error)
        elif failure.meaning.signed_in:
            await self._refusals.forget(device, agent)
        if isinstance(failure.error, BmcUnsupported) and failure.meaning.next_cipher and device.cipher == "auto":
            tried = ", ".join(str(cipher) for cipher in self._ciphers)
            return BmcUnsupported(
                f"The BMC {device.bmc} accepts none of the cipher suites that may be used ({tried}).",
                hint="Give cipher= the number of one that it has, or allow it in the setting ipmi.ciphers.",
            )
        return failure.error

    async def _run(self, device: Device, agent: str, word: str, cipher: int | None, patience: Patience) -> Outcome:
        command = power_command(self._program, device, word, cipher=cipher, patience=patience)
        async with self._turns.place():
            outcome = await self._agents(agent).run(command)
        log.debug(
            "ipmitool {word} on {bmc}, cipher suite {cipher}: status {status}",
            word=word, bmc=device.bmc, cipher=cipher, status=outcome.status, signal=outcome.signal, agent=agent,
        )  # fmt: skip
        return outcome

    # --- cipher suites ---------------------------------------------------------------------------------------------

    async def _remembered(self, device: Device, agent: str) -> int | None:
        """The suite that worked last, if it may still be used."""

        document = await self._store.get(BMC_CIPHER, bmc_key(device.bmc, agent))
        cipher = None if document is None else document["cipher"]
        return cipher if cipher in self._ciphers else None

    def _candidates(self, device: Device, remembered: int | None) -> tuple[int | None, ...]:
        """The suites to try, in order. None: the interface has none. Never 0, which knows no password."""

        if device.interface == "lan":
            return (None,)
        if device.cipher != "auto":
            return (int(device.cipher),)
        if remembered is None:
            return self._ciphers
        return (remembered, *(cipher for cipher in self._ciphers if cipher != remembered))


@dataclass(frozen=True, slots=True)
class _Answer:
    state: wire.PowerState
    cipher: int | None


class _Teller:
    """Progress lines with the time since the request came."""

    def __init__(self, progress: Progress, clock: IReactorTime) -> None:
        self._progress = progress
        self._clock = clock
        self._begun = clock.seconds()

    def __call__(self, stage: str, text: str, **more: str) -> None:
        elapsed = round((self._clock.seconds() - self._begun) * 1000)
        self._progress({"stage": stage, "text": text, **more, "ms": elapsed})


def _wrong_state(device: Device, action: str, state: str) -> BmcState:
    if action in ("on", "off"):
        return BmcState(f"The server {device.label} is already {state}.")
    return BmcState(f"The server {device.label} is off: power {action} needs it on.", hint="Use power on.")


# --- ipmitool's command line ------------------------------------------------------------------------------------------


def usable(device: Device) -> Device:
    """The device, checked, if ipmitool can take its data whole.

    :raises BadValue: a field is not valid, or ipmitool would cut it.
    """

    device = checked(device)
    limit = PASSWORD_LIMITS[device.interface]
    if len(device.username.encode()) > USERNAME_LIMIT:
        raise BadValue(f"username: IPMI cannot carry more than {USERNAME_LIMIT} bytes.")
    password = device.password.reveal()
    if len(password.encode()) > limit:
        raise BadValue(
            f"password: the interface {device.interface} cannot carry more than {limit} bytes.",
            hint="Give the BMC's user a shorter password for IPMI; web_password may be another one.",
        )
    if _LINE_MARKS.search(password) or _LINE_MARKS.search(device.username):
        raise BadValue("password: ipmitool would cut it at a control character.")
    if set(_kg(device)) & {0x00, 0x0A}:
        raise BadValue(
            "kg: ipmitool takes a key with the byte 00 or 0a only on its command line, where others could read it.",
            hint="Choose another K_G key in the BMC.",
        )
    return device


def power_command(program: str, device: Device, word: str, *, cipher: int | None, patience: Patience) -> Command:
    """``chassis power <word>``. The password and the K_G key go by stdin alone."""

    kg = _kg(device)
    argv = (
        program, "-v",
        "-I", device.interface,
        "-H", device.address,
        "-p", str(device.port),
        "-U", device.username,
        "-f", "/proc/self/fd/3" if kg else "/dev/stdin",
        *(("-Y",) if kg else ()),
        "-L", device.privilege.upper(),
        *(() if cipher is None else ("-C", str(cipher))),
        "-N", str(patience.answer),
        "-R", str(patience.tries),
        "chassis", "power", word,
    )  # fmt: skip
    # A line even for an empty password: without one ipmitool would prompt.
    password = device.password.reveal().encode() + b"\n"
    if kg:
        return Command(
            argv=("sh", "-c", _WITH_KG, "sh", *argv), stdin=password + kg + b"\n", timeout=patience.limit
        )
    return Command(argv=argv, stdin=password, timeout=patience.limit)


def _kg(device: Device) -> bytes:
    # Zeros at the end are no part of the key: the protocol fills it up with them.
    return bytes.fromhex(device.kg.reveal()).rstrip(b"\0") if device.interface == "lanplus" else b""
