"""An agent whose ipmitool is a function: for tests of what is run, how often, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from ipmiproxyd.model import Command, Job, JobSpec, JobStage, Outcome, StreamAddress

NO_SESSION = "Error: Unable to establish IPMI v2 / RMCP+ session\n"
CIPHER_REFUSED = "Error in open session response message : invalid authentication algorithm\n" + NO_SESSION
PASSWORD_REFUSED = "> RAKP 2 HMAC is invalid\n" + NO_SESSION
FELL_SILENT = "Set Session Privilege Level to ADMINISTRATOR failed\n" + NO_SESSION
NO_HOST = "Get Auth Capabilities error\n" + NO_SESSION
NO_POWER_STATE = "Unable to get Chassis Power Status\n"


class FakeBmc:
    """A BMC as ipmitool shows it.

    :ivar power: "on" or "off".
    :ivar leads_to: what the power is after an action.
    :ivar ciphers: the suites that it accepts.
    :ivar silent_ciphers: the suites that it does not answer to.
    :ivar failures: what the next runs print to stderr instead of reaching the BMC.
    :ivar actions: the power actions that it has carried out.
    :ivar sign_ins: how many passwords it has judged.
    """

    def __init__(self, *, power: str = "off", password: str = "secret1", ciphers: tuple[int, ...] = (3,)) -> None:
        self.power = power
        self.leads_to = {"on": "on", "off": "off", "soft": "off"}
        self.password = password
        self.ciphers = ciphers
        self.silent_ciphers: tuple[int, ...] = ()
        self.failures: list[str] = []
        self.actions: list[str] = []
        self.sign_ins = 0

    def __call__(self, command: Command) -> Outcome:
        if self.failures:
            return self._failed(self.failures.pop(0))
        cipher = option(command, "-C")
        if cipher is not None and int(cipher) in self.silent_ciphers:
            return self._failed(FELL_SILENT)
        if cipher is not None and int(cipher) not in self.ciphers:
            return self._failed(CIPHER_REFUSED)
        self.sign_ins += 1
        if command.stdin.split(b"\n")[0] != self.password.encode():
            return self._failed(PASSWORD_REFUSED)
        word = command.argv[-1]
        if word == "status":
            return Outcome(status=0, stdout=f"Chassis Power is {self.power}\n".encode())
        self.actions.append(word)
        self.power = self.leads_to.get(word, self.power)
        return Outcome(status=0, stdout=f"Chassis Power Control: {word}\n".encode())

    @staticmethod
    def _failed(stderr: str) -> Outcome:
        return Outcome(status=1, stderr=stderr.encode())


class FakeAgent:
    """Runs ``tool``. While ``holding``, runs wait in ``held`` until :meth:`release`."""

    def __init__(self, tool: Callable[[Command], Outcome], name: str = "local") -> None:
        self.name = name
        self.cache = "/nowhere"
        self.is_direct = False
        self.python = "python3"
        self.browser = "chromium"
        self.tool = tool
        self.commands: list[Command] = []
        self.holding = False
        self.held: list[tuple[Command, Deferred[None]]] = []
        self.cancelled = 0

    @property
    def words(self) -> list[str]:
        """What ipmitool was asked for, in order."""

        return [command.argv[-1] for command in self.commands]

    def release(self) -> None:
        """Let the run go on that has waited longest."""

        self.held.pop(0)[1].callback(None)

    async def run(self, command: Command) -> Outcome:
        self.commands.append(command)
        if self.holding:
            await self._hold(command)
        return self.tool(command)

    def _hold(self, command: Command) -> Deferred[None]:
        def cancel(gate: Deferred[None]) -> None:
            self.cancelled += 1
            self.held.remove((command, gate))

        gate: Deferred[None] = Deferred(cancel)
        self.held.append((command, gate))
        return gate

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        raise AssertionError("ipmitool is no job")

    async def jobs(self) -> list[Job]:
        return []

    async def stop(self, job_id: str) -> None:
        """There are no jobs."""

    async def sweep(self) -> list[str]:
        return []

    def dial(self, address: StreamAddress) -> IStreamClientEndpoint:
        raise AssertionError("ipmitool needs no connection")

    def watch(self, ended: Callable[[Job], None]) -> None:
        """There are no jobs."""


def option(command: Command, flag: str) -> str | None:
    """The value after an option of ipmitool's command line."""

    argv = command.argv
    return argv[argv.index(flag) + 1] if flag in argv else None
