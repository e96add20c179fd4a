"""Agents over SSH, with a real sshd: the same suite as the local agent's, and what only a connection can do."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any, ClassVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Client
from twisted.python.failure import Failure

from ipmiproxyd.agents import ssh, ssh_link
from ipmiproxyd.agents.ssh import SshAgent
from ipmiproxyd.errors import (
    AgentOutdated,
    AgentUnreachable,
    HostKeyChanged,
    HostKeyUnknown,
    KeyRefused,
    ProxyError,
    ToolMissing,
)
from ipmiproxyd.model import Command, Secret, StreamAddress, TcpStream, UnixStream
from tests.support import leftovers
from tests.support.agent_suite import MESSAGE, JobSuite, RunSuite
from tests.support.end_peer import resident
from tests.support.ssh_case import AM_ROOT, SshCase
from tests.support.sshd import Sshd, make_key

CLOCK = cast(Any, reactor)


class SshRunTests(RunSuite, SshCase):
    async def test_home_of_the_tools(self) -> None:
        outcome = await self.agent.run(Command(argv=("sh", "-c", "cat ~/.config/small/file")))
        self.assertEqual(outcome.stdout, b"text")


class SshOrdinaryUserTests(JobSuite, SshCase):
    """Without sudo everything runs as the account."""


class Talker(Protocol):
    """Keeps what it hears, and how it ended."""

    transport: Any

    def __init__(self) -> None:
        self.heard = bytearray()
        self.clogged = False
        self.made: Deferred[None] = Deferred()
        self.ended: Deferred[Any] = Deferred()
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        for entry in [entry for entry in self._waiting if entry[0] <= len(self.heard)]:
            self._waiting.remove(entry)
            entry[1].callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(reason.value)

    def until(self, size: int) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        if len(self.heard) >= size:
            waiting.callback(None)
        else:
            self._waiting.append((size, waiting))
        return waiting

    # of a producer
    def pauseProducing(self) -> None:
        self.clogged = True

    def resumeProducing(self) -> None:
        self.clogged = False

    def stopProducing(self) -> None: ...


class SshConnectionTests(SshCase):
    """How it comes to be, is lost, and comes again."""

    async def not_reached(self, kind: type[ProxyError], **place: Any) -> str:
        agent = await self.make_agent(place=self.sshd.place(**place))
        error = await self.assertFailure(Deferred.fromCoroutine(agent.run(Command(argv=("true",)))), kind)
        self.assertFalse(agent.describe()["connected"])
        self.assertEqual(agent.describe()["code"], kind.code)
        return str(error)

    async def works(self, **place: Any) -> None:
        agent = await self.make_agent(place=self.sshd.place(**place))
        self.assertTrue((await agent.run(Command(argv=("true",)))).ok)

    async def test_kinds_of_keys(self) -> None:
        for options in (("-t", "ecdsa"), ("-t", "rsa", "-b", "2048"), ("-t", "ed25519"), ("-t", "ecdsa", "-b", "521")):
            make_key(self.folder / "ssh" / "other", *options)
            self.sshd.let_in(self.folder / "ssh" / "other.pub")
            await self.works(key=self.folder / "ssh" / "other")

    async def test_no_packet_waits_for_more(self) -> None:
        """Keys and pointers are small, and none is held back until there are more."""

        self.assertTrue((await self.agent.run(Command(argv=("true",)))).ok)
        connections = [one for one in CLOCK.getReaders() if isinstance(one, Client)]
        ours = [one for one in connections if one.getPeer().port == self.sshd.port]
        self.assertEqual([one.getTcpNoDelay() for one in ours], [True])

    async def test_encrypted_key(self) -> None:
        for options in (("-t", "ed25519"), ("-t", "rsa", "-b", "2048", "-m", "PEM")):
            path = self.folder / "ssh" / "locked"
            make_key(path, *options, passphrase="open sesame")
            self.sshd.let_in(path.with_suffix(".pub"))
            await self.works(key=path, passphrase=Secret("open sesame"))
            words = await self.not_reached(KeyRefused, key=path)
            self.assertIn("passphrase is not set", words)
            words = await self.not_reached(KeyRefused, key=path, passphrase=Secret("x"))
            self.assertIn("passphrase is wrong", words)

    async def test_key_that_is_not_let_in(self) -> None:
        make_key(self.folder / "ssh" / "other")
        words = await self.not_reached(KeyRefused, key=self.folder / "ssh" / "other")
        self.assertIn("does not let", words)
        self.assertIn("cannot be read", await self.not_reached(KeyRefused, key=self.folder / "nothing"))
        self.assertIn("no SSH key", await self.not_reached(KeyRefused, key=self.folder / "ssh" / "sshd.conf"))
        (self.folder / "ssh" / "other").chmod(0o604)
        self.assertIn("is not secret", await self.not_reached(KeyRefused, key=self.folder / "ssh" / "other"))

    async def test_host_key_that_is_another(self) -> None:
        words = await self.not_reached(HostKeyChanged, host_keys=("SHA256:else",))
        self.assertIn(self.sshd.host_key, words)
        self.assertIn(self.sshd.host_key, await self.not_reached(HostKeyUnknown, host_keys=()))
        self.assertNotIn(b"Accepted publickey", self.sshd.log.split(b"Accepted publickey", 1)[1])

    async def test_refused_key_is_not_tried_for_each_command(self) -> None:
        """Hosts shut out whoever does that. A look at the agent tries it at once."""

        self.patch(ssh_link, "BACK_OFF", (30.0, 30.0))
        self.patch(ssh_link, "FRESH", 0.0)
        make_key(self.folder / "ssh" / "other")
        wrong_places: tuple[tuple[type[ProxyError], dict[str, Any]], ...] = (
            (KeyRefused, {"key": self.folder / "ssh" / "other"}),
            (HostKeyChanged, {"host_keys": ("SHA256:else",)}),
        )
        for kind, wrong in wrong_places:
            agent = await self.make_agent(place=self.sshd.place(**wrong))
            tried = self.sshd.log.count(b"Connection from")
            for _ in range(3):
                await self.assertFailure(Deferred.fromCoroutine(agent.run(Command(argv=("true",)))), kind)
            self.assertEqual(self.sshd.log.count(b"Connection from"), tried)
            await self.assertFailure(Deferred.fromCoroutine(agent.check()), kind)
            self.assertGreater(self.sshd.log.count(b"Connection from"), tried)

    async def test_moved_while_it_is_dialled(self) -> None:
        """The new place is tried at once, and nothing is told of the old one."""

        silent = CLOCK.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(silent.stopListening)
        self.patch(ssh, "START_WAIT", 1.0)
        self.patch(ssh_link, "SIGN_IN_LIMIT", 1.5)
        agent = await self.make_agent(place=self.sshd.place(port=silent.getHost().port))
        while "problem" not in agent.describe():
            await leftovers.pause(0.02)
        looking = Deferred.fromCoroutine(agent.check())
        self.patch(ssh_link, "SIGN_IN_LIMIT", 30.0)
        self.patch(ssh, "START_WAIT", 10.0)
        await agent.change(self.told())
        told = agent.describe()
        self.assertEqual((told["state"], told.get("problem")), ("connected", None))
        self.assertEqual((await looking)[0].what, "ssh")

    async def test_nobody_listens(self) -> None:
        await self.sshd.stop()
        agent = await self.make_agent()
        error = await self.assertFailure(Deferred.fromCoroutine(agent.check()), AgentUnreachable)
        self.assertIn(f"(127.0.0.1, port {self.sshd.port}) cannot be reached: Connection refused", str(error))

    async def away(self, kind: type[ProxyError], more: str = "", **settings: Any) -> str:
        """What is said of an agent whose sshd has another line of configuration, or that is wanted otherwise."""

        folder = self.folder / f"other-{random.randrange(10**9)}"
        folder.mkdir(mode=0o711)
        sshd = Sshd(folder, more=(more,))
        await sshd.start(self)
        agent = await self.make_agent(place=sshd.place(), **settings)
        return str(await self.assertFailure(Deferred.fromCoroutine(agent.check()), kind))

    async def test_what_stands_in_the_way(self) -> None:
        for more, words in (
            ("Ciphers aes256-cbc", "no cipher in common: it offers aes256-cbc"),
            ("Ciphers aes256-ctr\nMACs umac-128-etm@openssh.com", "no MAC in common"),
            ("KexAlgorithms diffie-hellman-group14-sha1", "no key exchange in common"),
            ("ForceCommand echo not for you", "not for you"),
        ):
            self.assertIn(words, await self.away(AgentUnreachable, more))
        self.assertIn("does not let", await self.away(KeyRefused, "DenyUsers *"))
        self.assertIn("no-python", await self.away(ToolMissing, python="no-python"))
        self.assertIn("Python does not work", await self.away(AgentUnreachable, python="/bin/false"))
        self.assertIn("no such group", await self.away(AgentUnreachable, group="no-such-group-here"))
        self.assertIn("/proc/x", await self.away(AgentUnreachable, folder="/proc/x"))

    async def test_lost_connection_comes_again(self) -> None:
        """What ran is told of as lost, and does not go on for long; the watch hears of what ended meanwhile."""

        spec, job = await self.launch(MESSAGE)
        mark = f"{random.randrange(10**9)}"
        running = Deferred.fromCoroutine(self.agent.run(Command(argv=("sleep", f"300.{mark}"), timeout=60)))
        while not leftovers.seen_in_processes(mark.encode()):
            await leftovers.pause(0.02)
        self.sshd.cut()
        os.kill(self.pid_of(spec, "xmessage"), signal.SIGTERM)
        error = await self.assertFailure(running, AgentUnreachable)
        self.assertIn("lost", str(error))
        self.assertIn("xmessage", (await self.endings.of(spec.id)).reason)
        await leftovers.until_none(lambda: leftovers.seen_in_processes(mark.encode()))
        self.assertEqual([one.id for one in await self.agent.jobs()], [job.id])

    async def test_agent_that_was_started_anew(self) -> None:
        spec, _ = await self.launch(MESSAGE)
        state = self.state(spec)
        self.sshd.cut()
        os.kill(int(state["keeper"].split(":")[1]), signal.SIGKILL)
        shutil.rmtree(self.jobs_dir)
        self.assertIn("started anew", (await self.endings.of(spec.id)).reason)

    async def test_silence(self) -> None:
        """A connection on which nothing comes any more is given up, and what waits hears of it."""

        self.patch(ssh_link, "BEAT", 0.2)
        agent = await self.make_agent()
        await leftovers.pause(1.2)
        self.assertTrue(agent.describe()["connected"])
        for pid in self.sshd.serving():
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(leftovers.kill, pid)
        error = await self.assertFailure(
            Deferred.fromCoroutine(agent.run(Command(argv=("true",)))), AgentUnreachable
        )
        self.assertIn("lost", str(error))

    async def test_more_at_once_than_sshd_has_sessions(self) -> None:
        commands = [Deferred.fromCoroutine(self.agent.run(Command(argv=("sleep", "0.2")))) for _ in range(25)]
        outcomes: list[Any] = await gatherResults(commands)
        self.assertTrue(all(outcome.ok for outcome in outcomes))

    async def test_long_input_and_output(self) -> None:
        data = os.urandom(3 << 20)
        outcome = await self.agent.run(Command(argv=("cat",), stdin=data, output_limit=4 << 20))
        self.assertEqual(outcome.stdout, data)

    async def test_new_keys_in_the_middle(self) -> None:
        agent = await self.rekeying()
        data = os.urandom(3 << 20)
        outcome = await agent.run(Command(argv=("cat",), stdin=data, output_limit=4 << 20))
        self.assertEqual(outcome.stdout, data)
        self.assertTrue((await agent.run(Command(argv=("true",)))).ok)

    async def rekeying(self) -> SshAgent:
        """An agent whose sshd wants new keys after each MiB."""

        (self.folder / "second").mkdir(mode=0o711)
        sshd = Sshd(self.folder / "second", more=("RekeyLimit 1M",))
        await sshd.start(self)
        return await self.make_agent(place=sshd.place())


class SshLeaseTests(SshCase):
    lease: ClassVar[float] = 2.0

    async def test_silent_connection_is_no_sign_of_life(self) -> None:
        """Nobody hears of its end as long as the kernel tries on; the job ends with its lease all the same."""

        spec, job = await self.launch(MESSAGE, lease=2.0)
        await leftovers.pause(3.0)
        self.assertEqual(await self.agent.jobs(), [job])
        for pid in self.sshd.serving():
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(leftovers.kill, pid)
        await leftovers.until_none(lambda: self.inside(spec))
        self.sshd.cut()
        await leftovers.until_none(lambda: self.agent.describe()["connected"])


class SshStreamTests(SshCase):
    """Streams to what the agent reaches."""

    async def stream(self, *, tcp: bool = False) -> tuple[Talker, Talker]:
        """Our side and the far side of a stream."""

        far = Talker()
        address: StreamAddress
        if tcp:
            port = CLOCK.listenTCP(0, Factory.forProtocol(lambda: far), interface="127.0.0.1")
            address = TcpStream("127.0.0.1", port.getHost().port)
        else:
            path = str(self.folder / "socket")
            port = CLOCK.listenUNIX(path, Factory.forProtocol(lambda: far), mode=0o666)
            address = UnixStream(path)
        self.addCleanup(port.stopListening)
        near = cast(Talker, await self.agent.dial(address).connect(Factory.forProtocol(Talker)))
        await far.made
        self.addCleanup(lambda: far.transport.abortConnection())
        return near, far

    async def test_both_ways_over_both_kinds(self) -> None:
        for tcp in (False, True):
            near, far = await self.stream(tcp=tcp)
            data = os.urandom(5 << 20)
            near.transport.write(data)
            far.transport.write(data)
            await near.until(len(data))
            await far.until(len(data))
            self.assertTrue(near.heard == far.heard == data)
            far.transport.loseConnection()
            self.assertIsInstance(await near.ended, ConnectionDone)
            await far.ended

    async def test_close_after_all_is_out(self) -> None:
        near, far = await self.stream()
        near.transport.write(bytes(5 << 20))
        near.transport.loseConnection()
        await far.ended
        self.assertEqual(len(far.heard), 5 << 20)
        self.assertIsInstance(await near.ended, ConnectionDone)

    async def test_reader_that_stands_still(self) -> None:
        """What is not read stays in the window, and the rest at the far side."""

        near, far = await self.stream()
        near.transport.pauseProducing()
        far.transport.registerProducer(far, True)
        before = resident()
        for _ in range(400):
            if far.clogged:
                break
            far.transport.write(bytes(1 << 16))
            await leftovers.pause(0.005)
        await leftovers.until_none(lambda: not far.clogged)
        self.assertEqual(near.heard, b"")
        self.assertLess(resident() - before, 4 << 20)
        near.transport.resumeProducing()
        await leftovers.until_none(lambda: far.clogged)
        far.transport.unregisterProducer()

    async def test_writer_that_is_too_fast(self) -> None:
        near, far = await self.stream()
        far.transport.pauseProducing()
        near.transport.registerProducer(near, True)
        sent = 0
        while not near.clogged:
            near.transport.write(bytes(1 << 16))
            sent += 1 << 16
            await leftovers.pause(0.001)
            self.assertLess(sent, 16 << 20)
        self.assertEqual((await self.agent.run(Command(argv=("echo", "others")))).stdout, b"others\n")
        far.transport.resumeProducing()
        await far.until(sent)
        self.assertFalse(near.clogged)
        near.transport.abortConnection()
        self.assertIsInstance(await near.ended, ConnectionAborted)

    async def test_nobody_there(self) -> None:
        endpoint = self.agent.dial(UnixStream(str(self.folder / "nothing")))
        error = await self.assertFailure(endpoint.connect(Factory.forProtocol(Talker)), ConnectError)
        self.assertIn("cannot open", str(error))

    async def test_lost_with_the_connection(self) -> None:
        near, far = await self.stream()
        self.sshd.cut()
        self.assertIsInstance(await near.ended, ConnectionLost)
        await far.ended


class SshForwardingOffTests(SshCase):
    sshd_options = ("AllowStreamLocalForwarding no", "AllowTcpForwarding no")

    async def test_words(self) -> None:
        for address in (UnixStream("/run/x"), TcpStream("127.0.0.1", 1)):
            error = await self.assertFailure(
                self.agent.dial(address).connect(Factory.forProtocol(Talker)), ConnectError
            )
            self.assertRegex(str(error), r"Allow\w+Forwarding")


if AM_ROOT:

    class SshOwnUsersTests(JobSuite, SshCase):
        """The account may run the runner as root: each display has a Unix user of its own."""

        by_sudo = True

        async def test_displays_have_users_of_their_own(self) -> None:
            self.assertEqual(self.agent.describe()["displays_run_as"], "easydcim_vnc_<display>")

        async def test_users_of_their_own_do_not_get_lost(self) -> None:
            """Neither the runner's nor sudo's absence lets displays run as the account that had users of their own."""

            agent = await self.make_agent()
            text = self.installed.read_text()
            rules = Path("/etc/sudoers.d") / self.installed.parent.name
            rule = rules.read_text()
            for spoil, words in (
                (lambda: self.installed.unlink(), f"no runner at {self.installed}"),
                (lambda: rules.write_text(""), "sudo says"),
            ):
                self.assertEqual((agent.isolated, agent.describe()["isolation"]), (True, "users"))
                spoil()
                self.sshd.cut()
                await leftovers.until_none(lambda: agent.describe()["connected"])
                error: Any = await self.assertFailure(Deferred.fromCoroutine(agent.check()), AgentOutdated)
                self.assertIn(words, str(error))
                self.assertIn("users=never", error.hint)
                self.assertIn("agent update", error.hint)
                self.assertEqual(agent.describe()["runner"], "outdated")
                self.installed.write_text(text)
                rules.write_text(rule)
                await agent.check()

        async def test_runner_that_is_another_one(self) -> None:
            with self.installed.open("a") as file:
                file.write("# changed\n")
            agent = await self.make_agent()
            await self.assertFailure(Deferred.fromCoroutine(agent.check()), AgentOutdated)
